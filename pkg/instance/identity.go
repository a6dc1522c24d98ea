package instance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// whenOwnedByAnother leaves a VM alone that belongs to another object.
func whenOwnedByAnother(f *Facts, _ time.Time) (Plan, bool) {
	if f.Owner == "" || f.Want.Observe {
		return undecided()
	}
	return stop(reconcile.Terminal(v1alpha1.ReasonOwnedByAnother,
		fmt.Sprintf("VM %s belongs to %s; delete one of the two objects", f.VM.UUID, f.Owner)))
}

// whenDenied tells a namespace nothing of a VM that it names and may not have.
func whenDenied(f *Facts, _ time.Time) (Plan, bool) {
	if f.Denied == nil {
		return undecided()
	}
	return stop(blockedBy([]Problem{*f.Denied}))
}

// whenThereAreTwins sees to VMs that carry the same mark: what a crash left behind is destroyed, if it never ran and was
// never finished; anything else is for a person to decide.
func whenThereAreTwins(f *Facts, _ time.Time) (Plan, bool) {
	if len(f.Twins) == 0 {
		return undecided()
	}
	for i := range f.Twins {
		if twin := &f.Twins[i]; !f.unfinished(twin) {
			return stop(reconcile.Terminal(v1alpha1.ReasonDuplicateFound, fmt.Sprintf(
				"VMs %s and %s both carry this object's mark; remove the mark %s from one of them, or delete it",
				f.VM.UUID, twin.UUID, xencache.MarkRef)))
		}
	}
	return Plan{Operation: operationCreate, Steps: []Step{{Name: "DiscardTwin", Holds: noTwins, Act: discardTwin}}}, true
}

func noTwins(f *Facts) bool { return len(f.Twins) == 0 }

// unfinished reports whether a VM is a fresh clone of ours that never ran: nothing on it can be anyone's work.
func (f *Facts) unfinished(vm *VM) bool {
	return vm.Name == f.Me.MarkName() && vm.neverRan() && len(vm.Running) == 0
}

func discardTwin(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.discard(ctx, &r.Twins[0])
}

// discard destroys an unfinished VM: its disks first, because some may not be marked yet and would not be found again
// without it. Destroying a disk takes its block device along. A disk that hangs elsewhere too, or was there before us,
// is left.
func (r *Run) discard(ctx context.Context, vm *VM) error {
	for i := range vm.Disks {
		disk := &vm.Disks[i]
		if disk.CD || disk.VDI.Ref.IsNull() || disk.VDI.Users > 1 || r.isForeign(disk.VDI.Ref) || r.keeps(&disk.VDI) && !r.isCloned(disk) {
			continue
		}
		if err := r.Client.VDI.Destroy(ctx, disk.VDI.Ref); err != nil && !isGone(err) {
			return r.doing(err, "destroy the disk at %s of the unfinished VM", disk.Device)
		}
	}
	if err := r.Client.VM.Destroy(ctx, vm.Ref); err != nil && !isGone(err) {
		return r.doing(err, "destroy the unfinished VM")
	}
	return nil
}

// isForeign reports whether the spec names the disk as one that was there before us.
func (f *Facts) isForeign(vdi xenapi.VDIRef) bool {
	for _, want := range f.Want.Disks {
		if want.foreign() && want.VDI == vdi {
			return true
		}
	}
	return false
}

// keeps reports whether a disk holds data that outlives the VM: a data disk of ours that is retained.
func (f *Facts) keeps(vdi *VDI) bool {
	return f.Me.Owns(vdi.Marks) && vdi.Marks.Role == xencache.RoleDataDisk && vdi.OtherConfig[MarkOnDelete] != markDelete
}

// whenVanished stops when what was there is gone: a blank twin under the old name would be worse than nothing.
func whenVanished(f *Facts, _ time.Time) (Plan, bool) {
	known := firstNonEmpty(f.Prior.UUID, f.Me.BoundUUID)
	switch {
	case f.VM == nil && known != "" && !f.Want.RecreateIfMissing:
		return stop(reconcile.Terminal(v1alpha1.ReasonExternallyDeleted, fmt.Sprintf(
			"VM %s is no longer on the pool; %s", known, f.vanishedHint())))
	case f.VM == nil || f.building() || f.Want.Source.ExistingUUID != "" || rootDiskThere(f) || f.trashed() || f.incomingRoot() != nil:
		return undecided()
	case len(f.VM.Running) > 0:
		return stop(reconcile.Wait(v1alpha1.ReasonInstanceBusy, "the VM has no root disk while "+f.busyWith()+" is under way"))
	case f.Want.RecreateIfMissing && f.Me.Held == "":
		return replaceVM(f), true
	}
	return stop(reconcile.Terminal(v1alpha1.ReasonExternallyDeleted, fmt.Sprintf(
		"the root disk of VM %s is gone; attach one at device 0, or %s", f.VM.UUID, f.vanishedHint())))
}

func (f *Facts) vanishedHint() string {
	return "restore it and set the annotation " + v1alpha1.AnnotationVMUUID + ", set recreatePolicy IfMissing for a new one, or delete this object"
}

// replaceVM destroys a VM without a root disk, so that it is made anew.
func replaceVM(f *Facts) Plan {
	if f.VM.Power != v1alpha1.PowerStateHalted {
		return steps(f, operationCreate, powerOffStep)
	}
	return steps(f, operationCreate, destroyVMStep)
}

// busyWith names the operations under way on the VM.
func (f *Facts) busyWith() string {
	var names []string
	for _, name := range f.VM.Running {
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
