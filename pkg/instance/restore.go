package instance

import (
	"context"
	"slices"
	"strconv"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Names of devices that a VM has from what it was made from, and not from an entry of its spec, whose names have no dot.
const (
	templatePrefix = "template."
	capturedPrefix = "captured."
)

// BroughtDisk is a disk besides the root disk that a clone of a template brings along.
type BroughtDisk struct {
	// Name is the entry that it was when it was captured, "" if it was none.
	Name     string
	Device   string
	Bootable bool
}

// BroughtNIC is an interface that a VM had when it was captured.
type BroughtNIC struct {
	Device  string
	Network string // its uuid
}

// observeBrought says which devices a clone brings along besides the root disk. A config drive, which a snapshot with
// memory has, is none of them: it was made for another instance.
func (t *Template) observeBrought(v xencache.View, record *xenapi.VM) {
	t.Captured = record.IsASnapshot
	for _, ref := range v.VBDsOf(t.Ref) {
		vbd := v.VBD(ref)
		vdi := v.VDI(vbd.VDI)
		if vdi == nil || vbd.Type != xenapi.VBDTypeDisk || vbd.UserDevice == strconv.Itoa(rootDevice) {
			continue
		}
		marks := xencache.ReadMarks(vdi.OtherConfig)
		if marks.Role != xencache.RoleConfigDrive {
			t.Brought = append(t.Brought, BroughtDisk{Name: marks.Disk, Device: vbd.UserDevice, Bootable: vbd.Bootable})
		}
	}
	slices.SortFunc(t.Brought, func(a, b BroughtDisk) int { return compareDevices(a.Device, b.Device) })
	for _, ref := range v.VIFsOf(t.Ref) {
		vif := v.VIF(ref)
		if network := v.Network(vif.Network); network != nil {
			t.NICs = append(t.NICs, BroughtNIC{Device: vif.Device, Network: network.UUID})
		}
	}
	slices.SortFunc(t.NICs, func(a, b BroughtNIC) int { return compareDevices(a.Device, b.Device) })
}

// captured finds the disk that was an entry of the spec when it was captured, nil if there is none.
func (t *Template) captured(entry string) *BroughtDisk {
	if t == nil || !t.Captured {
		return nil
	}
	i := slices.IndexFunc(t.Brought, func(d BroughtDisk) bool { return d.Name == entry })
	if i < 0 {
		return nil
	}
	return &t.Brought[i]
}

// brought works out the disks that come with the clone and that no entry of the spec names: they live and die with the VM.
func (w *wanter) brought(spec *v1alpha1.XenInstanceSpec) {
	template := w.want.Source.Template
	if template == nil {
		return
	}
	for _, disk := range template.Brought {
		listed := slices.ContainsFunc(spec.Disks, func(entry v1alpha1.Disk) bool { return entry.Name == disk.Name && entry.VDIUUID == "" })
		if template.Captured && listed {
			continue
		}
		w.want.Disks = append(w.want.Disks, WantDisk{
			Name: template.impliedName(disk.Device), Role: xencache.RoleDataDisk, Device: disk.Device, Bootable: disk.Bootable,
			Cloned: true, DeleteOnEnd: true,
		})
	}
}

// impliedName is the name of a device that comes with the clone.
func (t *Template) impliedName(device string) string {
	if t.Captured {
		return capturedPrefix + device
	}
	return templatePrefix + device
}

// asCaptured reports whether the VM has the interfaces that were captured: the spec lists none of its own.
func asCaptured(spec *v1alpha1.XenInstanceSpec) bool {
	return (spec.Source.SnapshotRef != nil || spec.Source.Backup != nil) && len(spec.Networks) == 0
}

// capturedNICs works out the interfaces of a VM that is made of a snapshot. Their addresses are new ones: the VM that was
// captured may still be there.
func (w *wanter) capturedNICs() {
	template := w.want.Source.Template
	if template == nil || !asCaptured(&w.in.Object.Spec) {
		return
	}
	for _, nic := range template.NICs {
		network, err := w.in.Resolver.Network(nic.Network)
		if w.note(err) {
			continue
		}
		name := capturedPrefix + nic.Device
		w.want.NICs = append(w.want.NICs, WantNIC{
			Name: name, Device: nic.Device, Network: network, MAC: MAC(w.in.Installation, keyOf(w.in.Object), name),
		})
	}
}

// clonedDisk finds a disk that came with the clone at its place: it carries the marks of the disk that it is a copy of, or
// none, until it has its own.
func (f *Facts) clonedDisk(want WantDisk) *Disk {
	disk := f.VM.diskAt(want.Device)
	if disk == nil || disk.CD || disk.VDI.Ref.IsNull() || disk.Entry != want.Name && f.Me.Owns(disk.VDI.Marks) && disk.VDI.mine() {
		return nil
	}
	return disk
}

// remarkDevice takes the marks off a block device that were copied from the one that it is a copy of: they name another
// entry, or another instance.
func (r *Run) remarkDevice(ctx context.Context, want WantDisk) error {
	disk := r.attachedDisk(want)
	if !want.Cloned || want.Role == xencache.RoleRootDisk || disk == nil || !hasMarks(disk.OtherConfig) {
		return nil
	}
	return r.doing(r.Client.VBD.SetOtherConfig(ctx, disk.Ref, withoutMarks(disk.OtherConfig)), "mark the block device at %s", disk.Device)
}

// copiedDrive is a config drive that came with the clone of a snapshot, nil without one. It was made for another instance.
func (f *Facts) copiedDrive() *Disk {
	for i := range f.VM.Disks {
		disk := &f.VM.Disks[i]
		marks := disk.VDI.Marks
		if marks.Role == xencache.RoleConfigDrive && (marks.IsCopyOf(disk.VDI.UUID) || !f.Me.Owns(marks)) && disk.VDI.Users == 1 {
			return disk
		}
	}
	return nil
}

func noCopiedDrive(f *Facts) bool { return f.copiedDrive() == nil }

// dropCopiedDrive destroys the copy of another instance's config drive; its block device goes with it.
func dropCopiedDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VDI.Destroy(ctx, r.copiedDrive().VDI.Ref), "destroy the copy of a config drive")
}

// isCloned reports whether a disk came with the clone that the VM is: what is in it is in what it was cloned from, too.
func (f *Facts) isCloned(disk *Disk) bool {
	return slices.ContainsFunc(f.Want.Disks, func(want WantDisk) bool { return want.Cloned && want.Device == disk.Device })
}
