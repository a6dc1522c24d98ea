package instance

import (
	"fmt"
	"slices"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Keys of platform: the one that gives a guest nested virtualisation, and the one that keeps it on its host while it runs.
const (
	platformNested    = "nested-virt"
	platformNoMigrate = "nomigrate"
)

// platformFlag reports whether a key of platform is set, in either of the words that the pool takes for it.
func (vm *VM) platformFlag(key string) bool {
	return vm.Platform[key] == "true" || vm.Platform[key] == "1"
}

// nested reports whether the guest has nested virtualisation, with which its memory must stay as it is while it runs.
func (f *Facts) nested() bool { return f.VM.platformFlag(platformNested) }

// resizeProblems is why a resize is not begun. Nothing has been touched then; what it says of hosts and storage is as their
// figures were a moment ago.
func resizeProblems(f *Facts) []Problem {
	if f.VM == nil || !f.resizeDiffers() || f.resizeReverting() {
		return nil
	}
	return slices.Concat(f.Want.Resize.Problems, f.resizeObstacles(), f.sizeProblems(), diskProblems(f), shrinkProblems(f))
}

// resizeObstacles are what keeps the VM from being changed at all: another operation, or an administrator.
func (f *Facts) resizeObstacles() []Problem {
	var problems []Problem
	add := func(reason string, passing bool, format string, args ...any) {
		problems = append(problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...), Passing: passing})
	}
	if f.otherJournal() && f.moveJournal() == nil { // a move may be on the way for the sake of the size
		add(v1alpha1.ReasonInstanceBusy, true, "another operation on the VM is not over, a rescue for instance; the size is changed after it")
	}
	if text, blocked := f.VM.Blocked[string(xenapi.VMOperationHardShutdown)]; blocked && f.running() && f.Want.Resize.Strategy == v1alpha1.ResizeRestart {
		add(v1alpha1.ReasonOperationBlocked, false, "hard_shutdown is blocked on the VM (blocked_operations), so it is not turned off for another size: %s", text)
	}
	for _, operation := range trashBlocks {
		if text, blocked := f.VM.Blocked[string(operation)]; blocked && text != shrinkBlockReason && f.isToRun() {
			add(v1alpha1.ReasonOperationBlocked, false, "%s is blocked on the VM (blocked_operations), so it is not stopped for another size: %s", operation, text)
		}
	}
	if f.resizeJournal() != nil && !f.fitsInSight() {
		add(v1alpha1.ReasonInstanceBusy, true, "flavor %s fits only a host that does not see the disks, and they stay while a resize is not over; confirm or revert it first", f.Want.Flavor)
	}
	return problems
}

// sizeProblems is why the VM cannot have the CPUs and the memory that are asked for.
func (f *Facts) sizeProblems() []Problem {
	size := f.Want.Size
	if size == nil || sized(f) {
		return nil
	}
	var problems []Problem
	add := func(reason string, passing bool, format string, args ...any) {
		problems = append(problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...), Passing: passing})
	}
	if minimum := f.Want.Resize.MinMemory; size.Memory < minimum {
		add(v1alpha1.ReasonFlavorTooSmall, false, "the image needs %s of memory and flavor %s has %s; choose a larger flavor",
			bytesText(minimum), f.Want.Flavor, bytesText(size.Memory))
	}
	if f.nested() && size.MaxMemory > size.Memory {
		add(v1alpha1.ReasonSizeUnsupported, false,
			"the VM has nested virtualisation (platform %s), with which memory cannot change while it runs, and flavor %s has maxMemory %s above memory %s; choose a flavor without maxMemory",
			platformNested, f.Want.Flavor, bytesText(size.MaxMemory), bytesText(size.Memory))
	}
	problems = append(problems, unfit(f)...)
	if problem := f.roomFor(*size); problem != nil && len(unfit(f)) == 0 {
		problems = append(problems, *problem)
	}
	return problems
}

// ResizeGrowth is what a resize that is asked for, and not begun, would take more than the VM has: VCPUs, memory and root
// disk in bytes.
func (f *Facts) ResizeGrowth() (vcpus, memory, disk int64) {
	if f.VM == nil || f.Me.Deleting || f.Want.Observe || f.building() || onTarget(f) || len(f.Want.Problems) > 0 {
		return 0, 0, 0
	}
	if f.Want.Size != nil {
		vcpus, memory = max(f.Want.Size.MaxVCPUs-f.VM.Size.MaxVCPUs, 0), max(f.Want.Size.MaxMemory-f.VM.Size.MaxMemory, 0)
	}
	if f.rootSmall() {
		disk = f.wantRoot().Size - f.rootSize()
	}
	return vcpus, memory, disk
}

// roomFor is why no host could run the VM with the size now, nil if one could, or if it is not to run.
func (f *Facts) roomFor(size Size) *Problem {
	fits := f.placements(size)
	if !f.isToRun() || len(fits) == 0 || bestFit(fits) != nil {
		return nil
	}
	return &Problem{Reason: noFit(fits), Passing: true, Message: fmt.Sprintf(
		"flavor %s fits no host now: %s; free some memory, or choose a smaller flavor", f.Want.Flavor, explain(fits))}
}

// isToRun reports whether the VM is to be started with its new size.
func (f *Facts) isToRun() bool {
	return f.running() || f.Want.Power == v1alpha1.PowerStateRunning || f.Want.Power == v1alpha1.PowerStatePaused
}

// fitsInSight reports whether a host that sees the disks can run the VM with the size that is asked for; if only another
// can, the VM moves there first.
func (f *Facts) fitsInSight() bool {
	if f.Want.Size == nil || sized(f) || !f.isToRun() {
		return true
	}
	best := bestFit(f.placements(*f.Want.Size))
	return best == nil || best.SeesDisks()
}

// thickStorage are the types of storage repositories that give each disk all of its space at once.
var thickStorage = []string{"lvm", "lvmoiscsi", "lvmohba", "lvmofcoe"}

// diskProblems is why the root disk cannot be changed.
func diskProblems(f *Facts) []Problem {
	root, want := f.VM.rootDisk(), f.wantRoot()
	if root == nil || want == nil {
		return nil
	}
	var problems []Problem
	add := func(reason string, passing bool, format string, args ...any) {
		problems = append(problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...), Passing: passing})
	}
	if f.rootSmall() {
		needed := want.Size - root.VDI.Size
		if f.Want.Resize.Manual {
			needed = want.Size // the restore point keeps what the disk has
			if root.VDI.Chain >= maxChain {
				add(v1alpha1.ReasonChainTooLong, true,
					"the root disk has %d snapshots or clones behind it, and the storage refuses more than 30: there is no room for a restore point; delete old snapshots of it, or set resize.confirmation to Automatic", root.VDI.Chain)
			}
		}
		if slices.Contains(thickStorage, root.VDI.SRType) && root.VDI.SRFree >= 0 && root.VDI.SRFree < needed {
			add(v1alpha1.ReasonInsufficientStorage, true, "the root disk needs %s more of %s, which has %s free; free some, or ask for less",
				bytesText(needed), root.VDI.SRName, bytesText(root.VDI.SRFree))
		}
	}
	if minimum := f.Want.Resize.MinDisk; f.shrinkWanted() && want.ShrinkTo < minimum {
		add(v1alpha1.ReasonFlavorTooSmall, false, "the image needs a root disk of %s and rootDisk.shrinkTo is %s; ask for more",
			bytesText(minimum), bytesText(want.ShrinkTo))
	}
	return problems
}
