package instance

import (
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// disks works out the disks that are asked for: the root disk of a VM that we make, the entries of the spec, and the
// scratch disks of the flavor.
func (w *wanter) disks(spec *v1alpha1.XenInstanceSpec) {
	w.want.DisksListed = spec.Source.Existing == nil || len(spec.Disks) > 0
	if spec.Source.Existing == nil {
		w.root(spec)
	} else {
		w.adoptedRoot(spec)
	}
	for i := range spec.Disks {
		w.dataDisk(spec, &spec.Disks[i])
	}
	w.brought(spec)
	w.backedUp(spec)
	if w.in.Flavor != nil && spec.Source.Existing == nil {
		w.scratch("ephemeral", w.in.Flavor.Spec.EphemeralDisk)
		w.scratch("swap", w.in.Flavor.Spec.SwapDisk)
	}
	w.numberDisks()
}

// root works out the root disk: the larger of what spec or flavor say and what the template brings.
func (w *wanter) root(spec *v1alpha1.XenInstanceSpec) {
	root := WantDisk{
		Name: rootName, Role: xencache.RoleRootDisk, Device: strconv.Itoa(rootDevice), Bootable: true, DeleteOnEnd: true,
	}
	switch {
	case spec.RootDisk != nil && spec.RootDisk.Size != nil:
		root.Size = spec.RootDisk.Size.Value()
	case w.in.Flavor != nil && w.in.Flavor.Spec.RootDisk != nil:
		root.Size = w.in.Flavor.Spec.RootDisk.Value()
	}
	named := firstNonEmpty(rootRepository(spec), placementRepository(spec))
	template := w.want.Source.Template
	switch {
	case w.complete():
		root.Cloned = true // it is there, or it vanished; it is never made anew
	case template != nil && template.HasRoot():
		root.Cloned, root.SR = true, template.RootSR
		if named != "" {
			w.repository(named, &root.SR)
		}
	case w.lacksRoot():
		w.want.Problems = append(w.want.Problems, Problem{
			Reason: v1alpha1.ReasonDiskNotFound, Message: "what was captured has no root disk, so no VM is made of it; name another source",
		})
	default:
		w.newRoot(&root, named)
	}
	w.want.Disks = append(w.want.Disks, root)
}

// lacksRoot reports whether what was captured has no root disk: an empty one in its place would be worse than nothing.
func (w *wanter) lacksRoot() bool {
	template, backup := w.want.Source.Template, w.want.Source.Backup
	return template != nil && template.Captured && !template.HasRoot() || backup != nil && backup.root() == nil
}

// newRoot works out a root disk that no clone brings along: of a backup, or an empty one.
func (w *wanter) newRoot(root *WantDisk, named string) {
	if backup := w.want.Source.Backup.root(); backup != nil {
		root.Backup, root.Size = backup.Name, max(root.Size, backup.Size)
	}
	if template := w.want.Source.Template; template != nil {
		w.provisioned(template, root)
	}
	if named != "" || root.SR.IsNull() {
		w.repository(named, &root.SR)
	}
	if root.Size == 0 && len(w.want.Problems) == 0 {
		w.want.Problems = append(w.want.Problems, Problem{
			Reason:  v1alpha1.ReasonInvalidSpec,
			Message: "the root disk has no size: neither spec.rootDisk.size nor the flavor's rootDisk is set, and the source brings none",
		})
	}
}

// adoptedRoot works out the root disk of a VM that existed before: it is ours to change if a size of it is asked for, and ours
// to destroy if the VM is.
func (w *wanter) adoptedRoot(spec *v1alpha1.XenInstanceSpec) {
	root := WantDisk{
		Name: rootName, Role: xencache.RoleRootDisk, Device: strconv.Itoa(rootDevice), Cloned: true,
		DeleteOnEnd: spec.DesiredDeletionPolicy() != v1alpha1.DeletionOrphan,
	}
	if spec.RootDisk != nil && spec.RootDisk.Size != nil {
		root.Size = spec.RootDisk.Size.Value()
	}
	if asked := spec.RootDisk != nil && spec.RootDisk.ShrinkTo != nil; root.Size > 0 || root.DeleteOnEnd || asked {
		w.want.Disks = append(w.want.Disks, root)
	}
}

// provisioned takes over the disks that a template asks to be made: device 0 is the root disk, the others are disks
// named after their device, which live and die with the VM.
func (w *wanter) provisioned(template *Template, root *WantDisk) {
	for _, disk := range template.Disks {
		if disk.Device == root.Device {
			root.Size = max(root.Size, disk.Size)
			root.SR = disk.SR
			continue
		}
		extra := WantDisk{
			Name: "template." + disk.Device, Role: xencache.RoleDataDisk, Device: disk.Device, Size: disk.Size,
			SR: disk.SR, Bootable: disk.Bootable, DeleteOnEnd: true,
		}
		if extra.SR.IsNull() {
			w.repository(placementRepository(&w.in.Object.Spec), &extra.SR)
		}
		w.want.Disks = append(w.want.Disks, extra)
	}
}

// dataDisk works out one entry of the spec.
func (w *wanter) dataDisk(spec *v1alpha1.XenInstanceSpec, entry *v1alpha1.Disk) {
	disk := WantDisk{
		Name: entry.Name, Role: xencache.RoleDataDisk,
		DeleteOnDrop: entry.RemovePolicy() == v1alpha1.DiskRemoveDelete,
		DeleteOnEnd:  entry.DeletePolicy() == v1alpha1.DiskDelete,
	}
	if entry.Device != nil {
		disk.Device = strconv.Itoa(int(*entry.Device))
	}
	if entry.VDIUUID != "" {
		vdi, err := w.in.Resolver.Disk(entry.VDIUUID)
		if w.note(err) {
			return
		}
		disk.VDI = vdi
	} else if captured := w.want.Source.Template.captured(entry.Name); captured != nil {
		disk.Size, disk.Cloned, disk.Device = entry.Size.Value(), true, captured.Device
	} else {
		disk.Size = entry.Size.Value()
		if !w.has(entry.Name) && w.repository(firstNonEmpty(entry.StorageRepository, placementRepository(spec)), &disk.SR) {
			return
		}
		if backup := w.want.Source.Backup.named(entry.Name); backup != nil {
			disk.Backup, disk.Device = backup.Name, backup.Device
		}
	}
	w.want.Disks = append(w.want.Disks, disk)
}

// has reports whether the VM has the disk already: where it is does not need to be resolved again then.
func (w *wanter) has(entry string) bool {
	return w.vm != nil && slices.ContainsFunc(w.vm.Disks, func(d Disk) bool { return d.Entry == entry && !d.isRoot() })
}

// scratch works out disks that live and die with the VM, split where one would be too large.
func (w *wanter) scratch(name string, size *resource.Quantity) {
	if size == nil {
		return
	}
	for part, rest := 0, size.Value(); rest > 0; part, rest = part+1, rest-maxVHD {
		disk := WantDisk{
			Name: fmt.Sprintf("%s.%d", name, part), Role: xencache.RoleDataDisk, Size: min(rest, maxVHD),
			DeleteOnEnd: true,
		}
		if !w.has(disk.Name) && w.repository(placementRepository(&w.in.Object.Spec), &disk.SR) {
			return
		}
		w.want.Disks = append(w.want.Disks, disk)
	}
}

// repository resolves a storage repository; it reports whether that failed.
func (w *wanter) repository(name string, sr *xenapi.SRRef) bool {
	ref, err := w.in.Resolver.StorageRepository(name)
	if w.note(err) {
		return true
	}
	*sr = ref
	return false
}

func rootRepository(spec *v1alpha1.XenInstanceSpec) string {
	if spec.RootDisk == nil {
		return ""
	}
	return spec.RootDisk.StorageRepository
}

func placementRepository(spec *v1alpha1.XenInstanceSpec) string {
	if spec.Placement == nil {
		return ""
	}
	return spec.Placement.StorageRepository
}

func firstNonEmpty(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}

// numberDisks gives a device number to the disks that have none; numbers in use and numbers once given stay.
func (w *wanter) numberDisks() {
	taken, latched := map[string]bool{}, map[string]string{}
	for _, status := range w.in.Object.Status.Disks {
		if status.Device != nil {
			latched[status.Name] = strconv.Itoa(int(*status.Device))
		}
	}
	if w.vm != nil {
		for _, disk := range w.vm.Disks {
			gone := isImplied(disk.Entry) && !slices.ContainsFunc(w.want.Disks, func(d WantDisk) bool { return d.Name == disk.Entry })
			if disk.Entry != "" && !disk.isRoot() && !gone {
				latched[disk.Entry] = disk.Device
				continue
			}
			taken[disk.Device] = true
		}
	}
	numberDevices(len(w.want.Disks), firstDataDevice, maxDiskDevice, taken, latched, []int{configDriveDevice},
		func(i int) (string, *string) { return w.want.Disks[i].Name, &w.want.Disks[i].Device })
}
