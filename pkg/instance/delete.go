package instance

import (
	"context"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const stepDestroyVM = "DestroyVM"

// What a VM in the trash is kept from, and why.
const trashBlockReason = "in the trash of KubeXen"

var trashBlocks = []xenapi.VMOperation{xenapi.VMOperationStart, xenapi.VMOperationStartOn}

// trash keeps the VM for the pool's retention: halted, unable to start, under another name.
var trash = Sequence{
	{Name: "BlockStart", Holds: startBlocked, Act: blockStart},
	{Name: "RenameTrashed", Holds: trashNamed, Act: renameTrashed},
	{Name: "MarkTrashed", Holds: (*Facts).trashed, Act: markTrashed}, // last: from now on only its uuid leads to it
}

// orphan takes our marks off and leaves the VM as it is; the VM's own go last, because they are how it is found.
var orphan = Sequence{
	{Name: "UnmarkDevices", Holds: devicesUnmarked, Act: unmarkDevices},
	{Name: "UnmarkVM", Holds: vmUnmarked, Act: unmarkVM},
}

// destroyVMStep destroys the VM's record. The disks come after it, and only those that are ours.
var destroyVMStep = Step{Name: stepDestroyVM, Holds: func(f *Facts) bool { return f.VM == nil }, Act: destroyVM, Long: true}

// whenDeleting sees to what becomes of the VM.
func whenDeleting(f *Facts, now time.Time) (Plan, bool) {
	switch {
	case !f.Me.Deleting:
		return undecided()
	case f.Want.Observe:
		return Plan{Released: true}, true
	case len(f.Me.DeleteGates) > 0:
		return stop(reconcile.Done().Because(v1alpha1.ReasonGated,
			"deletion is held by "+gateNames(v1alpha1.GateDeletePrefix, f.Me.DeleteGates)))
	case f.UnknownClone && f.VM == nil:
		return stop(reconcile.Wait(v1alpha1.ReasonDeleting,
			"a copy of the template is under way that may be ours; waiting until it is over").After(cloneRecheck))
	case f.Me.Held != "":
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	case f.rescueUnderWay():
		return f.endRescueForDeletion(now), true
	case f.resizeJournal() != nil && f.Me.Owns(f.VM.Marks):
		return f.endResizeForDeletion(now), true
	case f.moveJournal() != nil: // or nobody would know whose the disks are
		return f.settleMove(), true
	case len(f.Restores) > 0:
		return Plan{Operation: operationDelete, Steps: []Step{stopRestoreStep}}, true
	case f.VM == nil:
		return clearUp(f), true
	case f.Owner != "" || !f.Me.Owns(f.VM.Marks) && !f.building():
		return Plan{Released: true}, true // never ours, or ours no longer
	}
	plan := f.deletionPlan(now)
	plan.Operation = operationDelete
	return plan, true
}

// deletionPlan is what deletionPolicy asks for.
func (f *Facts) deletionPlan(now time.Time) Plan {
	switch {
	case len(f.Twins) > 0 && f.unfinished(&f.Twins[0]):
		return Plan{Steps: []Step{{Name: "DiscardTwin", Holds: noTwins, Act: discardTwin}}}
	case f.unfinished(f.VM) && len(f.looseRestored()) > 0:
		return Plan{Steps: []Step{discardRestoredStep}}
	case f.unfinished(f.VM):
		return Plan{Steps: []Step{{Name: "DiscardVM", Holds: func(f *Facts) bool { return f.VM == nil }, Act: discardVM}}}
	case f.Want.Deletion == v1alpha1.DeletionOrphan:
		return released(orphan.Next(f))
	case f.Want.Deletion == v1alpha1.DeletionTrash:
		if f.VM.Power == v1alpha1.PowerStateRunning || f.VM.Power == v1alpha1.PowerStatePaused {
			return shutdownPlan(f, operationDelete, f.Want.Off, now)
		}
		return released(trash.Next(f))
	}
	if text, blocked := f.VM.Blocked[blockedName[stepDestroyVM]]; blocked {
		return Plan{Outcome: reconcile.Terminal(v1alpha1.ReasonOperationBlocked,
			"destroy is blocked on the VM (blocked_operations), so nothing was touched: "+text)}
	}
	if f.VM.Power != v1alpha1.PowerStateHalted {
		return shutdownPlan(f, operationDelete, f.deletionMode(), now)
	}
	return steps(f, operationDelete, destroyVMStep)
}

// released plans the steps, or the end if there are none.
func released(unmet []Step) Plan { return Plan{Steps: unmet, Released: len(unmet) == 0} }

// deletionMode is how a VM is turned off that is about to be destroyed: its guest is asked only if a disk outlives it. A
// guest that is paused or suspended is not woken for that.
func (f *Facts) deletionMode() v1alpha1.PowerOffMode {
	if f.VM.Power == v1alpha1.PowerStateRunning {
		for i := range f.VM.Disks {
			if disk := &f.VM.Disks[i]; !disk.CD && !disk.VDI.Ref.IsNull() && !f.goesWithVM(&disk.VDI) {
				return f.Want.Off
			}
		}
	}
	return v1alpha1.PowerOffHard
}

// goesWithVM reports whether a disk is destroyed with the VM: only one that carries our marks, whole and its own.
func (f *Facts) goesWithVM(vdi *VDI) bool {
	return f.Me.Owns(vdi.Marks) && destroyedWithVM(vdi.Marks, vdi.OtherConfig, vdi.UUID)
}

// destroyedWithVM reports whether the marks of a disk say that it goes with its VM.
func destroyedWithVM(marks xencache.Marks, otherConfig map[string]string, uuid string) bool {
	if marks.IsCopyOf(uuid) {
		return false
	}
	scratch := marks.Role == xencache.RoleDataDisk && otherConfig[MarkOnDelete] == markDelete
	return scratch || marks.Role == xencache.RoleRootDisk || marks.Role == xencache.RoleConfigDrive
}

// clearUp destroys what a VM that is gone has left, and then lets go. With Trash only what nobody can want back goes: the
// VM was not destroyed by us.
func clearUp(f *Facts) Plan {
	going := leftovers(f)
	if len(going) == 0 {
		return Plan{Released: true}
	}
	return Plan{Operation: operationDelete, Steps: []Step{{
		Name: "DestroyDisk", For: going[0].UUID, Act: destroyDisk, Long: true,
		Holds: func(f *Facts) bool { return len(leftovers(f)) == 0 || leftovers(f)[0].UUID != going[0].UUID },
	}}}
}

// leftovers are the loose disks that are to go. One that somebody has given to a VM of his own is left to him.
func leftovers(f *Facts) []VDI {
	var going []VDI
	for _, vdi := range f.Loose {
		if vdi.Users > 0 {
			continue
		}
		temporary := vdi.Marks.Role == xencache.RoleConfigDrive || vdi.Marks.Role == xencache.RoleImport || (vdi.Marks.Role == xencache.RoleNewRoot && vdi.mine())
		if temporary || (f.Want.Deletion == v1alpha1.DeletionDelete && f.goesWithVM(&vdi)) {
			going = append(going, vdi)
		}
	}
	return going
}

func destroyVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.DestroyAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "destroy the VM")
}

func discardVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.discard(ctx, r.VM)
}

// destroyDisk destroys one disk; the pool may take its time over each.
func destroyDisk(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	vdi := leftovers(r.Facts)[0]
	task, err := r.Client.VDI.DestroyAsync(ctx, vdi.Ref)
	return task, r.doing(err, "destroy disk %s", firstNonEmpty(vdi.Marks.Disk, string(vdi.Marks.Role)))
}

// startBlocked reports whether the VM is kept from starting, by us or anyone.
func startBlocked(f *Facts) bool {
	for _, operation := range trashBlocks {
		if _, blocked := f.VM.Blocked[string(operation)]; !blocked {
			return false
		}
	}
	return true
}

func blockStart(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.blockStarts(ctx, trashBlockReason)
}

// blockStarts keeps the VM from being started, key by key; what somebody has blocked already stays as it is.
func (r *Run) blockStarts(ctx context.Context, reason string) error {
	for _, operation := range trashBlocks {
		if _, blocked := r.VM.Blocked[string(operation)]; blocked {
			continue
		}
		if err := r.Client.VM.AddToBlockedOperations(ctx, r.VM.Ref, operation, reason); err != nil {
			return r.doing(err, "block %s", operation)
		}
	}
	return nil
}

// releaseStarts takes away the keys that were blocked for a reason of ours.
func (r *Run) releaseStarts(ctx context.Context, reason string) error {
	for _, operation := range trashBlocks {
		if r.VM.Blocked[string(operation)] != reason {
			continue
		}
		if err := r.Client.VM.RemoveFromBlockedOperations(ctx, r.VM.Ref, operation); err != nil {
			return r.doing(err, "release %s", operation)
		}
	}
	return nil
}

func markTrashed(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, xencache.MarkTrashedAt, r.Now.UTC().Format(time.RFC3339))
}

// trashName is the name of a VM in the trash.
func trashName(f *Facts) string {
	return fmt.Sprintf("[trash] %s/%s", f.Me.Key.Namespace, f.Me.Key.Name)
}

func trashNamed(f *Facts) bool { return f.VM.Name == trashName(f) }

func renameTrashed(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.SetNameLabel(ctx, r.VM.Ref, trashName(r.Facts)), "rename the VM")
}

func vmUnmarked(f *Facts) bool { return f.VM.Marks.IsZero() }

func unmarkVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.SetOtherConfig(ctx, r.VM.Ref, withoutMarks(r.VM.OtherConfig)), "take the marks off the VM")
}

// devicesUnmarked reports whether no disk, block device or interface of the VM carries our marks.
func devicesUnmarked(f *Facts) bool {
	for _, disk := range f.VM.Disks {
		if hasMarks(disk.OtherConfig) || f.Me.Owns(disk.VDI.Marks) {
			return false
		}
	}
	for _, nic := range f.VM.NICs {
		if hasMarks(nic.OtherConfig) {
			return false
		}
	}
	return true
}

func hasMarks(otherConfig map[string]string) bool {
	for key := range otherConfig {
		if isMark(key) {
			return true
		}
	}
	return false
}

func unmarkDevices(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, disk := range r.VM.Disks {
		if hasMarks(disk.OtherConfig) {
			if err := r.Client.VBD.SetOtherConfig(ctx, disk.Ref, withoutMarks(disk.OtherConfig)); err != nil {
				return "", r.doing(err, "take the marks off the block device at %s", disk.Device)
			}
		}
		if r.Me.Owns(disk.VDI.Marks) {
			if err := r.Client.VDI.SetOtherConfig(ctx, disk.VDI.Ref, withoutMarks(disk.VDI.OtherConfig)); err != nil {
				return "", r.doing(err, "take the marks off the disk at %s", disk.Device)
			}
		}
	}
	for _, nic := range r.VM.NICs {
		if !hasMarks(nic.OtherConfig) {
			continue
		}
		if err := r.Client.VIF.SetOtherConfig(ctx, nic.Ref, withoutMarks(nic.OtherConfig)); err != nil {
			return "", r.doing(err, "take the marks off the interface at %s", nic.Device)
		}
	}
	return "", nil
}

// DestroyTrashed does the next thing towards destroying a VM whose time in the trash is over, with the disks that go with
// it. It is called until it reports done.
func DestroyTrashed(ctx context.Context, client *xenapi.Client, cache *xencache.Cache, installation string, ref xenapi.VMRef) (done bool, err error) {
	var vm *VM
	cache.View(func(v xencache.View) { vm = observeVM(v, installation, xencache.Key{}, ref) })
	if vm == nil {
		return true, nil
	}
	if err := vm.mayLeaveTrash(installation); err != nil {
		return false, err
	}
	if vm.Power == v1alpha1.PowerStateSuspended { // destroying it would leave its memory image behind
		if err := client.VM.HardShutdown(ctx, ref); err != nil {
			return false, fmt.Errorf("discard the suspended memory of VM %s: %w", vm.UUID, err)
		}
	}
	// Disks before the record here: no object in Kubernetes remembers this VM, so its record is the only way back to
	// disks that a crash in between would leave.
	for _, disk := range vm.Disks {
		if disk.VDI.Users > 1 || !sameOwner(disk.VDI.Marks, vm.Marks) ||
			!destroyedWithVM(disk.VDI.Marks, disk.VDI.OtherConfig, disk.VDI.UUID) {
			continue
		}
		if err := client.VDI.Destroy(ctx, disk.VDI.Ref); err != nil && !isGone(err) {
			return false, fmt.Errorf("destroy disk %s of VM %s: %w", disk.VDI.UUID, vm.UUID, err)
		}
	}
	if err := client.VM.Destroy(ctx, ref); err != nil && !isGone(err) {
		return false, fmt.Errorf("destroy VM %s: %w", vm.UUID, err)
	}
	return true, nil
}

// mayLeaveTrash refuses the destruction of a VM that is not in our trash, or that an administrator holds.
func (vm *VM) mayLeaveTrash(installation string) error {
	if vm.Marks.Installation != installation || vm.OtherConfig[xencache.MarkTrashedAt] == "" || vm.Marks.IsCopyOf(vm.UUID) {
		return fmt.Errorf("VM %s is not in our trash", vm.UUID)
	}
	if text, blocked := vm.Blocked[blockedName[stepDestroyVM]]; blocked {
		return fmt.Errorf("destroy is blocked on VM %s: %s", vm.UUID, text)
	}
	return nil
}

// sameOwner reports whether two objects carry the marks of one owner.
func sameOwner(a, b xencache.Marks) bool { return a.Installation == b.Installation && a.Ref == b.Ref }
