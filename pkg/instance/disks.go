package instance

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Marks of disks that say what becomes of them; "Delete" or absent. They stand on the disk because its entry may be
// gone from the spec when they are needed.
const (
	MarkOnRemove = "kubexen.io/on-remove"
	MarkOnDelete = "kubexen.io/on-delete"
	markDelete   = "Delete"
)

const (
	maxDiskDevice = 254
	// maxVHD is the largest disk that VHD storage can hold; larger scratch space is split.
	maxVHD = 2040 << 30
)

// attachedDisk finds the block device of an entry: by its mark; the root disk also by its place.
func (f *Facts) attachedDisk(want WantDisk) *Disk {
	if want.Role == xencache.RoleRootDisk {
		return f.VM.rootDisk()
	}
	if want.Cloned {
		return f.clonedDisk(want)
	}
	for i := range f.VM.Disks {
		disk := &f.VM.Disks[i]
		if !disk.isRoot() && (disk.Entry == want.Name || (want.foreign() && disk.VDI.Ref == want.VDI)) {
			return disk
		}
	}
	return nil
}

// diskFor finds the disk of an entry, attached or loose.
func (f *Facts) diskFor(want WantDisk) *VDI {
	if disk := f.attachedDisk(want); disk != nil {
		return &disk.VDI
	}
	for i := range f.Loose {
		if vdi := &f.Loose[i]; vdi.Marks.Role == want.Role && vdi.Marks.Disk == want.Name {
			return vdi
		}
	}
	return nil
}

// missingDisks are the entries without a disk that we are to make.
func missingDisks(f *Facts) []WantDisk {
	return f.disksWhere(func(want WantDisk) bool {
		return !want.foreign() && !want.Cloned && want.Backup == "" && f.diskFor(want) == nil
	})
}

// unmarkedDisks are disks of ours that do not carry all their marks yet.
func unmarkedDisks(f *Facts) []WantDisk {
	return f.disksWhere(func(want WantDisk) bool {
		vdi := f.diskFor(want)
		return !want.foreign() && vdi != nil && !f.marked(want, vdi)
	})
}

// smallDisks are disks that are smaller than asked for.
func smallDisks(f *Facts) []WantDisk {
	return f.disksWhere(func(want WantDisk) bool {
		vdi := f.diskFor(want)
		return !want.foreign() && vdi != nil && vdi.Size < want.Size
	})
}

// detachedDisks are the entries whose disk does not hang on the VM.
func detachedDisks(f *Facts) []WantDisk {
	return f.disksWhere(func(want WantDisk) bool {
		return f.attachedDisk(want) == nil && (want.foreign() || f.diskFor(want) != nil)
	})
}

// unpluggedDisks are disks that the running guest does not have yet.
func unpluggedDisks(f *Facts) []WantDisk {
	if !f.running() {
		return nil
	}
	return f.disksWhere(func(want WantDisk) bool {
		disk := f.attachedDisk(want)
		return disk != nil && !disk.Attached
	})
}

// disksWhere are the entries that a condition holds for.
func (f *Facts) disksWhere(condition func(WantDisk) bool) []WantDisk {
	var found []WantDisk
	for _, want := range f.Want.Disks {
		if condition(want) {
			found = append(found, want)
		}
	}
	return found
}

// droppedDisks are our block devices whose entry was taken out of the spec.
func droppedDisks(f *Facts) []*Disk {
	if !f.Want.DisksListed {
		return nil
	}
	var dropped []*Disk
	for i := range f.VM.Disks {
		disk := &f.VM.Disks[i]
		if disk.Entry == "" || disk.isRoot() || isImplied(disk.Entry) {
			continue
		}
		if !slices.ContainsFunc(f.Want.Disks, func(w WantDisk) bool { return w.Name == disk.Entry }) {
			dropped = append(dropped, disk)
		}
	}
	return dropped
}

// isImplied reports whether a disk comes from the template or the flavor and not from an entry of the spec, whose names
// have no dot. It lives as long as the VM: its template is not looked at again, and its flavor may be gone.
func isImplied(entry string) bool { return strings.Contains(entry, ".") }

// discardedDisks are loose disks of ours whose entry was taken out with onRemove Delete.
func discardedDisks(f *Facts) []*VDI {
	var discarded []*VDI
	for i := range f.Loose {
		vdi := &f.Loose[i]
		if vdi.Marks.Role == xencache.RoleDataDisk && vdi.OtherConfig[MarkOnRemove] == markDelete && vdi.mine() && vdi.Users == 0 &&
			!slices.ContainsFunc(f.Want.Disks, func(w WantDisk) bool { return w.Name == vdi.Marks.Disk }) {
			discarded = append(discarded, vdi)
		}
	}
	return discarded
}

// mine reports whether the marks are the disk's own and complete; a copy carries another's uuid, and one without a uuid
// may be a copy of an unfinished disk.
func (v *VDI) mine() bool { return v.Marks.Self == v.UUID }

// diskMarks are the entries of other_config that a disk of ours carries.
func (f *Facts) diskMarks(want WantDisk, self string) map[string]string {
	marks := f.Me.Marks(want.Role, self)
	marks.Disk = want.Name
	entries := marks.OtherConfig()
	if want.DeleteOnDrop {
		entries[MarkOnRemove] = markDelete
	}
	if want.DeleteOnEnd {
		entries[MarkOnDelete] = markDelete
	}
	return entries
}

// marked reports whether a disk carries its marks. The uid is left out: a restored object keeps its disks, and nothing
// is decided by it.
func (f *Facts) marked(want WantDisk, vdi *VDI) bool {
	asked := f.diskMarks(want, vdi.UUID)
	for _, key := range []string{
		xencache.MarkInstallation, xencache.MarkRef, xencache.MarkSelf, xencache.MarkRole, xencache.MarkDisk,
		MarkOnRemove, MarkOnDelete,
	} {
		if vdi.OtherConfig[key] != asked[key] {
			return false
		}
	}
	return true
}

func rootDiskThere(f *Facts) bool  { return f.VM.rootDisk() != nil }
func disksMade(f *Facts) bool      { return len(missingDisks(f)) == 0 }
func disksMarked(f *Facts) bool    { return len(unmarkedDisks(f)) == 0 }
func disksLarge(f *Facts) bool     { return len(smallDisks(f)) == 0 }
func disksAttached(f *Facts) bool  { return len(detachedDisks(f)) == 0 }
func disksPlugged(f *Facts) bool   { return len(unpluggedDisks(f)) == 0 }
func noDroppedDisks(f *Facts) bool { return len(droppedDisks(f)) == 0 }
func noDiscarded(f *Facts) bool    { return len(discardedDisks(f)) == 0 }

// canGrow reports whether a disk that is too small can be grown now: XenAPI grows only a disk that nobody has plugged.
func canGrow(f *Facts) bool {
	return slices.ContainsFunc(smallDataDisks(f), func(w WantDisk) bool { return !f.diskFor(w).Attached })
}

// droppedCanGo reports whether the block devices that must go can be taken from the guest now.
func droppedCanGo(f *Facts) bool {
	return f.VM.Guest.Hotplug || !slices.ContainsFunc(droppedDisks(f), func(d *Disk) bool { return d.Attached })
}

// makeDisks makes the disks that are missing; each carries its marks from the start, its own uuid apart.
func makeDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range missingDisks(r.Facts) {
		_, err := r.Client.VDI.Create(ctx, xenapi.VDI{
			NameLabel: r.diskName(want), SR: want.SR, VirtualSize: want.Size, Type: xenapi.VDITypeUser,
			OtherConfig: r.diskMarks(want, ""),
		})
		if err != nil {
			return "", r.doing(err, "make disk %s of %s", want.Name, bytesText(want.Size))
		}
	}
	return "", nil
}

// diskName is the name-label of a disk.
func (r *Run) diskName(want WantDisk) string {
	return firstNonEmpty(r.Want.Name, r.VM.Name) + " " + want.Name
}

// markDisks writes the marks that are missing, and gives the copy of an image's disk a name of its own.
func markDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range unmarkedDisks(r.Facts) {
		vdi := r.diskFor(want)
		copied := !r.Me.Owns(vdi.Marks) || vdi.Marks.IsCopyOf(vdi.UUID)
		if err := r.remarkDevice(ctx, want); err != nil {
			return "", err
		}
		if name := r.diskName(want); copied && r.building() && vdi.Name != name { // before the marks, which say that it is done
			if err := r.Client.VDI.SetNameLabel(ctx, vdi.Ref, name); err != nil {
				return "", r.doing(err, "name disk %s", want.Name)
			}
		}
		otherConfig := withoutMarks(vdi.OtherConfig)
		maps.Copy(otherConfig, r.diskMarks(want, vdi.UUID))
		if err := r.Client.VDI.SetOtherConfig(ctx, vdi.Ref, otherConfig); err != nil {
			return "", r.doing(err, "mark disk %s", want.Name)
		}
	}
	return "", nil
}

// growDisks grows the disks that can be grown now.
func growDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.grow(ctx, smallDisks(r.Facts))
}

func (r *Run) grow(ctx context.Context, disks []WantDisk) error {
	for _, want := range disks {
		vdi := r.diskFor(want)
		if vdi.Attached {
			continue
		}
		if err := r.Client.VDI.Resize(ctx, vdi.Ref, want.Size); err != nil {
			return r.doing(err, "grow disk %s from %s to %s", want.Name, bytesText(vdi.Size), bytesText(want.Size))
		}
	}
	return nil
}

// attachDisks connects disks to the VM; the block device carries the entry's name, also for a disk that is not ours.
func attachDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range detachedDisks(r.Facts) {
		if r.placeTaken(want) {
			continue
		}
		vdi := want.VDI
		if !want.foreign() {
			vdi = r.diskFor(want).Ref
		}
		marks := r.Me.Marks(want.Role, "")
		marks.Disk = want.Name
		_, err := r.Client.VBD.Create(ctx, xenapi.VBD{
			VM: r.VM.Ref, VDI: vdi, UserDevice: want.Device, Bootable: want.Bootable,
			Mode: xenapi.VBDModeRW, Type: xenapi.VBDTypeDisk, Unpluggable: true, OtherConfig: marks.OtherConfig(),
		})
		if err != nil {
			return "", r.doing(err, "attach disk %s at %s", want.Name, want.Device)
		}
	}
	return "", nil
}

// plugDisks gives disks to the running guest.
func plugDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range unpluggedDisks(r.Facts) {
		err := r.Client.VBD.Plug(ctx, r.attachedDisk(want).Ref)
		if err != nil && !errors.Is(err, xenapi.ErrDeviceAlreadyAttached) {
			return "", r.doing(err, "plug disk %s", want.Name)
		}
	}
	return "", nil
}

// detachDisks takes the block devices away whose entry is gone; the disks stay.
func detachDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, disk := range droppedDisks(r.Facts) {
		if err := r.removeBlockDevice(ctx, disk); err != nil {
			return "", r.doing(err, "detach disk %s", disk.Entry)
		}
	}
	return "", nil
}

// removeBlockDevice unplugs a block device if need be and removes it.
func (r *Run) removeBlockDevice(ctx context.Context, disk *Disk) error {
	if disk.Attached {
		if err := r.Client.VBD.Unplug(ctx, disk.Ref); err != nil && !errors.Is(err, xenapi.ErrDeviceAlreadyDetached) {
			return err
		}
	}
	return r.Client.VBD.Destroy(ctx, disk.Ref)
}

// discardDisks destroys the disks whose entry was taken out with onRemove Delete.
func discardDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, vdi := range discardedDisks(r.Facts) {
		if err := r.Client.VDI.Destroy(ctx, vdi.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "destroy disk %s", vdi.Marks.Disk)
		}
	}
	return "", nil
}

// placeTaken reports whether something else hangs at the device number that an entry is to have.
func (f *Facts) placeTaken(want WantDisk) bool {
	there := f.VM.diskAt(want.Device)
	mine := f.attachedDisk(want)
	return want.Device == "" || (there != nil && (mine == nil || there.Ref != mine.Ref))
}

// placesFree reports whether any disk that is to be attached has its place free.
func placesFree(f *Facts) bool {
	return slices.ContainsFunc(detachedDisks(f), func(w WantDisk) bool { return !f.placeTaken(w) })
}

// misplacedDisks are disks that hang at another device number than the spec says now.
func misplacedDisks(f *Facts) []WantDisk {
	return f.disksWhere(func(want WantDisk) bool {
		disk := f.attachedDisk(want)
		return disk != nil && want.Device != "" && disk.Device != want.Device
	})
}

func disksInPlace(f *Facts) bool {
	return !slices.ContainsFunc(misplacedDisks(f), func(w WantDisk) bool { return !f.placeTaken(w) })
}

// moveDisks gives disks the device numbers that the spec says now; the VM is off.
func moveDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range misplacedDisks(r.Facts) {
		if r.placeTaken(want) {
			continue
		}
		if err := r.Client.VBD.SetUserDevice(ctx, r.attachedDisk(want).Ref, want.Device); err != nil {
			return "", r.doing(err, "move disk %s to device %s", want.Name, want.Device)
		}
	}
	return "", nil
}
