package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// driveSize is the size of a config drive: a FAT16 file system needs 4 MiB, and user data has room to spare.
const driveSize = 8 << 20

// WantDrive is the config drive of a VM that we make.
type WantDrive struct {
	SR                xenapi.SRRef
	RemoveAfterReport bool
}

// drive works out the config drive. It is made with the VM and never again: changed user data changes nothing.
func (w *wanter) drive(spec *v1alpha1.XenInstanceSpec) {
	if spec.Bootstrap == nil || spec.Source.Existing != nil {
		return
	}
	drive := &WantDrive{RemoveAfterReport: spec.Bootstrap.DriveRemoval() == v1alpha1.RemoveDriveGuestReady}
	w.want.Drive = drive
	if w.complete() {
		return
	}
	for _, disk := range w.want.Disks {
		if disk.Device == strconv.Itoa(configDriveDevice) && (disk.Cloned || disk.Backup != "") {
			w.want.Problems = append(w.want.Problems, Problem{Reason: v1alpha1.ReasonDeviceInUse, Message: fmt.Sprintf(
				"a captured disk is at device %d, where the config drive goes; leave bootstrap out", configDriveDevice)})
		}
		if disk.Role == xencache.RoleRootDisk {
			drive.SR = disk.SR // where the root disk is there is room for it, and the same hosts see it
		}
	}
	if drive.SR.IsNull() {
		w.repository(placementRepository(spec), &drive.SR)
	}
}

// driveDisk finds the config drive, attached or loose.
func (f *Facts) driveDisk() *VDI {
	isDrive := func(v *VDI) bool { return f.Me.Owns(v.Marks) && v.Marks.Role == xencache.RoleConfigDrive }
	if disk := f.driveDevice(); disk != nil && isDrive(&disk.VDI) {
		return &disk.VDI
	}
	if i := slices.IndexFunc(f.Loose, func(v VDI) bool { return isDrive(&v) }); i >= 0 {
		return &f.Loose[i]
	}
	return nil
}

// driveDevice is what hangs at the config drive's place.
func (f *Facts) driveDevice() *Disk { return f.VM.diskAt(strconv.Itoa(configDriveDevice)) }

func driveMade(f *Facts) bool { return f.Want.Drive == nil || f.driveDisk() != nil }

// driveFilled reports whether the drive holds its files: its own uuid is written into its marks only afterwards.
func driveFilled(f *Facts) bool { return f.Want.Drive == nil || f.driveDisk().mine() }

func driveAttached(f *Facts) bool {
	return f.Want.Drive == nil || (f.driveDevice() != nil && !f.driveDevice().VDI.Ref.IsNull())
}

// driveKept reports whether the drive stays: it goes when the guest has reported itself, if that is asked for.
func driveKept(f *Facts) bool {
	return f.Want.Drive == nil || !f.Want.Drive.RemoveAfterReport || f.driveDisk() == nil || !f.VM.Guest.Reports
}

// driveCanGo reports whether the drive can be taken from the guest now.
func driveCanGo(f *Facts) bool {
	device := f.driveDevice()
	return device == nil || !device.Attached || f.VM.Guest.Hotplug
}

func makeDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	_, err := r.Client.VDI.Create(ctx, xenapi.VDI{
		NameLabel: firstNonEmpty(r.Want.Name, r.VM.Name) + " config drive", SR: r.Want.Drive.SR, VirtualSize: driveSize,
		Type: xenapi.VDITypeUser, OtherConfig: r.Me.Marks(xencache.RoleConfigDrive, "").OtherConfig(),
	})
	return "", r.doing(err, "make the config drive")
}

// fillDrive writes the drive's files. It writes the whole drive, so doing it twice is no harm.
func fillDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	seed, err := r.Seed(ctx)
	if err != nil {
		return "", r.doing(err, "gather the bootstrap data")
	}
	return "", r.fillDriveWith(ctx, r.driveDisk(), &seed)
}

// fillDriveWith writes the files into a drive and then its own uuid into its marks: only then it is filled.
func (r *Run) fillDriveWith(ctx context.Context, vdi *VDI, seed *Seed) error {
	image, err := seed.Image()
	if err != nil {
		return r.doing(err, "lay out the config drive")
	}
	for _, task := range r.OldFills { // nobody completes it any more, and only what is over can be destroyed
		err := errors.Join(r.Client.Task.SetStatus(ctx, task, xenapi.TaskStatusFailure), r.Client.Task.Destroy(ctx, task))
		if err != nil && !isGone(err) {
			return r.doing(err, "tidy up after an earlier attempt to fill the config drive")
		}
	}
	if err := r.fill(ctx, vdi.Ref, image); err != nil {
		return r.doing(err, "fill the config drive")
	}
	return r.doing(r.Client.VDI.AddToOtherConfig(ctx, vdi.Ref, xencache.MarkSelf, vdi.UUID), "mark the config drive")
}

func attachDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	marks := r.Me.Marks(xencache.RoleConfigDrive, "")
	_, err := r.Client.VBD.Create(ctx, xenapi.VBD{
		VM: r.VM.Ref, VDI: r.driveDisk().Ref, UserDevice: strconv.Itoa(configDriveDevice), Mode: xenapi.VBDModeRO,
		Type: xenapi.VBDTypeDisk, Unpluggable: true, OtherConfig: marks.OtherConfig(),
	})
	return "", r.doing(err, "attach the config drive")
}

// removeDrive takes the drive from the guest and destroys it.
func removeDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	vdi := r.driveDisk()
	if device := r.driveDevice(); device != nil && device.VDI.Ref == vdi.Ref {
		if err := r.removeBlockDevice(ctx, device); err != nil {
			return "", r.doing(err, "detach the config drive")
		}
	}
	return "", r.doing(r.Client.VDI.Destroy(ctx, vdi.Ref), "destroy the config drive")
}

// withoutMarks is other_config without marks of ours: what a clone has copied, or what orphaning leaves.
func withoutMarks(otherConfig map[string]string) map[string]string {
	rest := maps.Clone(otherConfig)
	if rest == nil {
		rest = map[string]string{}
	}
	maps.DeleteFunc(rest, func(key, _ string) bool { return isMark(key) })
	return rest
}
