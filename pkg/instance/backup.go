package instance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Backup is a VM as an upload describes it.
type Backup struct {
	Size Size
	// BootParams and Platform are those of the VM that was captured, as far as a tenant may choose them.
	BootParams, Platform map[string]string
	// NVRAM is that of a UEFI guest.
	NVRAM map[string]string
	Disks []BackupDisk
	NICs  []BackupNIC
}

// BackupDisk is a disk of the VM that was captured.
type BackupDisk struct {
	Name     string
	Device   string
	Size     int64 // bytes
	Bootable bool
}

// BackupNIC is an interface of the VM that was captured.
type BackupNIC struct {
	Device, MAC string
	Network     string // its name-label
}

// Restorer fills disks from the files of a backup, in the manager's own process. A disk is begun anew after a crash.
type Restorer interface {
	// Start begins to make a disk, unless that is under way. The instance is woken as it goes on, and when it is over.
	Start(RestoreRequest) error
	// Stop ends and forgets all of them. It reports whether nothing runs any more; otherwise the instance is woken then.
	Stop() (stopped bool)
}

// RestoreRequest is a disk that is to be made of the backup.
type RestoreRequest struct {
	// Disk is its name in the backup.
	Disk string
	SR   xenapi.SRRef
	// Name is the new disk's, Marks are its other_config until it is complete, Done those that change then.
	Name        string
	Marks, Done map[string]string
}

// RestoreState is how far a disk is that this process has begun.
type RestoreState struct {
	Percent int32
	// Over says that it has ended; Failed says why there is no disk then, RetryAt when another attempt is due.
	Over    bool
	Failed  *Problem
	RetryAt time.Time
	// Settled says that it has been complete for so long that the disk must have been seen, if it is there.
	Settled bool
}

const stepRestoreDisks = "RestoreDisks"

// restored are the wanted disks that come from the backup.
func (f *Facts) restored() []WantDisk {
	return f.disksWhere(func(want WantDisk) bool { return want.Backup != "" })
}

// notRestored are those of which there is no complete disk yet.
func (f *Facts) notRestored() []WantDisk {
	return f.disksWhere(func(want WantDisk) bool { return want.Backup != "" && f.diskFor(want) == nil })
}

func disksRestored(f *Facts) bool { return len(f.notRestored()) == 0 }

// restoring says how far the restore is while there is nothing to do but wait, nil if there is something to do.
func (f *Facts) restoring(now time.Time) *reconcile.Outcome {
	if f.VM == nil {
		return nil
	}
	var outcome reconcile.Outcome
	waits := false
	for _, want := range f.notRestored() {
		state, begun := f.Restores[want.Backup]
		switch {
		case !begun || state.Settled: // or somebody has removed the disk since
			return nil
		case state.Failed != nil && !state.Failed.Passing:
			outcome = reconcile.Terminal(state.Failed.Reason, fmt.Sprintf("restore disk %s: %s", want.Name, state.Failed.Message))
			return &outcome
		case state.Failed != nil && !now.Before(state.RetryAt):
			return nil
		case state.Failed != nil:
			outcome = reconcile.Wait(state.Failed.Reason, fmt.Sprintf("restore disk %s: %s; tried again at %s",
				want.Name, state.Failed.Message, state.RetryAt.UTC().Format(time.RFC3339))).After(state.RetryAt.Sub(now))
			return &outcome
		case !waits:
			outcome, waits = reconcile.Wait(v1alpha1.ReasonRestoring, fmt.Sprintf("disk %s is being restored, %d%% done", want.Name, state.Percent)).After(recheckAfter), true
		}
	}
	if !waits {
		return nil
	}
	return &outcome
}

// RestorePercent is how far the restore is on the whole, nil if there is none.
func (f *Facts) RestorePercent() *int32 {
	all := f.restored()
	if !f.building() || len(all) == 0 || disksRestored(f) {
		return nil
	}
	total := int32(0)
	for _, want := range all {
		switch state, begun := f.Restores[want.Backup]; {
		case f.diskFor(want) != nil:
			total += 100
		case begun:
			total += state.Percent
		}
	}
	total /= int32(len(all))
	return &total
}

// beginRestores begins what is not complete. What an attempt of another life has left goes first: nobody knows what is in it.
func beginRestores(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range r.notRestored() {
		if state, begun := r.Restores[want.Backup]; begun && (!state.Over || state.Failed == nil && !state.Settled || r.Now.Before(state.RetryAt)) {
			continue
		}
		for _, vdi := range r.unfinishedRestores(want.Name) {
			if err := r.Client.VDI.Destroy(ctx, vdi.Ref); err != nil && !isGone(err) {
				return "", r.doing(err, "destroy what is left of an attempt to restore disk %s", want.Name)
			}
		}
		marks := r.diskMarks(want, "")
		marks[xencache.MarkRole] = string(xencache.RoleImport)
		err := r.Restorer.Start(RestoreRequest{
			Disk: want.Backup, SR: want.SR, Name: r.diskName(want), Marks: marks,
			Done: map[string]string{xencache.MarkRole: string(want.Role)},
		})
		if err != nil {
			return "", r.doing(err, "restore disk %s", want.Name)
		}
	}
	return "", nil
}

// unfinishedRestores are disks of a name that no attempt has completed.
func (f *Facts) unfinishedRestores(name string) []VDI {
	var left []VDI
	for _, vdi := range f.Loose {
		if vdi.Marks.Role == xencache.RoleImport && vdi.Marks.Disk == name {
			left = append(left, vdi)
		}
	}
	return left
}

// stopRestoreStep ends what is under way before the VM and its disks go.
var stopRestoreStep = Step{
	Name: "StopRestore", Holds: func(f *Facts) bool { return len(f.Restores) == 0 },
	Act: func(_ context.Context, r *Run) (xenapi.TaskRef, error) {
		r.Restorer.Stop()
		return "", nil
	},
}

// markSource stands on a disk that was made of a file, and holds the file's digest.
const markSource = "kubexen.io/source-sha256"

// looseRestored are disks that were restored for a VM that is not complete: all that is in them is in the backup.
func (f *Facts) looseRestored() []VDI {
	var loose []VDI
	for _, vdi := range f.Loose {
		if vdi.Users == 0 && vdi.mine() && vdi.OtherConfig[markSource] != "" {
			loose = append(loose, vdi)
		}
	}
	return loose
}

// discardRestoredStep destroys them, as long as the unfinished VM tells that nobody has worked with them.
var discardRestoredStep = Step{
	Name: "DiscardRestored", Holds: func(f *Facts) bool { return len(f.looseRestored()) == 0 },
	Act: func(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
		for _, vdi := range r.looseRestored() {
			if err := r.Client.VDI.Destroy(ctx, vdi.Ref); err != nil && !isGone(err) {
				return "", r.doing(err, "destroy the restored disk %s", vdi.Marks.Disk)
			}
		}
		return "", nil
	},
}

// root is the disk of the backup that the VM boots from, nil without one.
func (b *Backup) root() *BackupDisk {
	if b == nil {
		return nil
	}
	return b.at(strconv.Itoa(rootDevice))
}

func (b *Backup) at(device string) *BackupDisk {
	i := slices.IndexFunc(b.Disks, func(d BackupDisk) bool { return d.Device == device })
	if i < 0 {
		return nil
	}
	return &b.Disks[i]
}

// named finds the disk that was an entry of the spec, nil if there is none.
func (b *Backup) named(entry string) *BackupDisk {
	if b == nil {
		return nil
	}
	i := slices.IndexFunc(b.Disks, func(d BackupDisk) bool { return d.Name == entry && d.Device != strconv.Itoa(rootDevice) })
	if i < 0 {
		return nil
	}
	return &b.Disks[i]
}

// backedUp works out the disks of the backup that no entry of the spec names: they live and die with the VM.
func (w *wanter) backedUp(spec *v1alpha1.XenInstanceSpec) {
	backup := w.want.Source.Backup
	if backup == nil {
		return
	}
	for _, disk := range backup.Disks {
		listed := slices.ContainsFunc(spec.Disks, func(entry v1alpha1.Disk) bool { return entry.Name == disk.Name && entry.VDIUUID == "" })
		if listed || disk.Device == strconv.Itoa(rootDevice) {
			continue
		}
		want := WantDisk{
			Name: capturedPrefix + disk.Device, Role: xencache.RoleDataDisk, Device: disk.Device, Size: disk.Size, Bootable: disk.Bootable,
			Backup: disk.Name, DeleteOnEnd: true,
		}
		if !w.repository(placementRepository(spec), &want.SR) {
			w.want.Disks = append(w.want.Disks, want)
		}
	}
}

// backupNICs works out the interfaces of a VM that is rebuilt: with the addresses that it had, because guest and network know
// them.
func (w *wanter) backupNICs() {
	backup := w.want.Source.Backup
	if backup == nil || !asCaptured(&w.in.Object.Spec) {
		return
	}
	for _, nic := range backup.NICs {
		network, err := w.in.Resolver.Network(nic.Network)
		if err != nil {
			err = fmt.Errorf("%w; or list networks in the spec, in place of those that were captured", err)
		}
		if w.note(err) {
			continue
		}
		w.want.NICs = append(w.want.NICs, WantNIC{Name: capturedPrefix + nic.Device, Device: nic.Device, Network: network, MAC: nic.MAC})
	}
}
