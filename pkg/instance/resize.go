package instance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const (
	stepRememberSizes = "RememberSizes"
	stepRetarget      = "Retarget"
)

// rememberSizesStep is where a resize begins: before it nothing was touched, after it the old sizes are on the pool.
var (
	rememberSizesStep = Step{Name: stepRememberSizes, Holds: func(f *Facts) bool { return f.resizeJournal() != nil }, Act: rememberSizes}
	retargetStep      = Step{Name: stepRetarget, Holds: onTarget, Act: retarget}
)

// resizeVM gives a VM that is off its sizes. What it is given follows from what is asked for: going back is the same
// sequence with the old sizes.
var resizeVM = slices.Concat(
	Sequence{reinstateStep},
	takePoint, // while the root disk is as it was
	Sequence{
		{Name: "SizeVM", Holds: sized, Act: applySize, Failed: sizingFailed},
		{Name: "GrowRoot", Holds: ifNeeded(rootThere, func(f *Facts) bool { return !f.rootSmall() }), Act: growRoot, Failed: sizingFailed},
	},
	shrinkRoot,
	goBack, // with resize.discardTo
	swapRoot,
	Sequence{releaseStartStep},
)

// endResize is how a resize ends, confirmed or reverted: the restore points first, the journal last.
var endResize = Sequence{
	reinstateStep,
	dropHalfCopiesStep, releaseStartStep, // what a deletion in the middle of a shrink finds
	dropNamelessStep, withdrawRootStep, dropPoints,
	{Name: "EndResize", Holds: func(f *Facts) bool { return f.resizeJournal() == nil }, Act: forgetResize},
}

// goBack brings the root disk back as it was before the resize. What was written to it since stays on a restore point until
// the end of the resize.
var goBack = Sequence{
	{Name: "AnnounceCopy", Holds: ifNeeded(pointWanted, copyAnnounced), Act: announceCopyOfPoint},
	{Name: "CopyRestorePoint", Holds: ifNeeded(pointWanted, pointCopied), Act: copyPoint}, // a snapshot is not written to
	{Name: "PresentRestorePoint", Holds: ifNeeded(pointWanted, func(f *Facts) bool { return f.diskGoesBack() }), Act: presentPoint},
}

// whenResizing changes the size of the VM: what a running guest can be given at once, the rest when it is off.
func whenResizing(f *Facts, now time.Time) (Plan, bool) {
	switch {
	case f.halted() && swapPending(f): // whatever is asked for: without its root disk the VM is nothing
		return f.resizePlan(Plan{Steps: swapRoot.Next(f)})
	case len(f.Want.Problems) > 0 || f.otherJournal():
		return undecided()
	case f.resizeJournal() != nil:
		return f.resize(now)
	case !f.halted() && !f.running():
		return undecided()
	case f.VM.OtherConfig[markResizeRefused] != "" && f.Want.Refused == nil:
		return Plan{Operation: operationResize, Steps: []Step{forgetRefusalStep}}, true
	case !f.resizeDue() || len(resizeProblems(f)) > 0:
		return undecided()
	}
	return Plan{Operation: operationResize, Steps: []Step{rememberSizesStep}}, true
}

// resizeDue reports whether a resize is to begin now: something can be changed.
func (f *Facts) resizeDue() bool {
	switch {
	case !f.resizeDiffers() || !f.fitsInSight():
		return false
	case f.halted():
		return true
	case !f.running():
		return false
	case f.allLive():
		return f.Want.Resize.Manual // what nobody is asked about needs no journal: it is done as every other change
	}
	// A guest that may not be started again is not stopped.
	return f.Want.Resize.Strategy == v1alpha1.ResizeRestart && f.Me.Held == "" && len(f.Me.PowerOnGates) == 0
}

// resizeDiffers reports whether the VM has another size than is asked for, root disk included.
func (f *Facts) resizeDiffers() bool { return !sized(f) || f.rootSmall() || f.shrinkWanted() }

// resized reports whether everything is as asked, and no disk on its way.
func (f *Facts) resized() bool {
	return !f.resizeDiffers() && !swapPending(f) && !pointWanted(f) && !f.copyLeft() && startReleased(f)
}

// resize goes on with a resize that was begun.
func (f *Facts) resize(now time.Time) (Plan, bool) {
	switch {
	case !onTarget(f) && len(resizeProblems(f)) > 0:
		return undecided() // it stays as it is, see whenResizeRefused
	case !onTarget(f):
		return f.resizePlan(Plan{Steps: []Step{retargetStep}})
	case !pointNeeded(f) && !noNamelessPoint(f):
		return f.resizePlan(Plan{Steps: []Step{dropNamelessStep}})
	case !announcementWithdrawn(f):
		return f.resizePlan(Plan{Steps: []Step{withdrawStep}})
	case pointWanted(f) && !f.point().Snapshot && f.point().Users > 0: // it is the disk itself that is to go back
		return awaitPoint(f.point())
	case f.halted():
		return f.resizeHalted(now)
	case f.resized():
		return f.settleResize(now)
	case f.running():
		return f.resizeRunning(now)
	}
	return undecided() // paused or suspended
}

// resizeHalted gives a VM that is off its size, and starts it if it is to run before the resize is over.
func (f *Facts) resizeHalted(now time.Time) (Plan, bool) {
	switch {
	case f.copying():
		return f.resizePlan(Plan{Outcome: f.copyOutcome()})
	case !f.resized():
		if unmet := resizeVM.Next(f); len(unmet) > 0 {
			return f.resizePlan(Plan{Steps: unmet})
		}
		return undecided()
	case !f.resizeStarts():
		return f.settleResize(now)
	case f.Me.Held != "":
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	case len(f.changesWhileOff()) > 0:
		return f.resizePlan(Plan{Steps: f.changesWhileOff()})
	case f.resizeJournal().Power == v1alpha1.PowerStateRunning:
		return f.resizePlan(gated(f, operationResize, startStep))
	}
	return undecided() // it was off, and is started as the power state that is asked for
}

// changesWhileOff is what else waits for the VM to be off, a larger data disk for instance. It does not keep the VM off: if it
// cannot be had, the old size comes back, and the VM is started.
func (f *Facts) changesWhileOff() []Step {
	if f.resizeReverting() {
		return nil
	}
	unmet := change.Next(f)
	for i := range unmet {
		unmet[i].Failed = sizingFailed
	}
	return unmet
}

// resizeRunning is what can be done to a running guest: what it can be given, or turning it off.
func (f *Facts) resizeRunning(now time.Time) (Plan, bool) {
	switch {
	case pointWanted(f) && !pointCopied(f): // what can fail comes while the guest still runs
		return f.resizePlan(Plan{Steps: goBack[:2].Next(f)})
	case f.allLive() && !pointWanted(f):
		if unmet := sizeLive.Next(f); len(unmet) > 0 {
			return f.resizePlan(Plan{Steps: unmet})
		}
		return undecided()
	case f.Want.Resize.Strategy != v1alpha1.ResizeRestart || len(f.Me.PowerOnGates) > 0:
		return undecided() // when the VM is off next
	case f.Me.Held != "":
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	case f.wasStarted() && !f.powerEnforced():
		return f.resizePlan(Plan{Steps: []Step{rememberGoingBackStep}}) // nobody else would start it again
	}
	return f.resizePlan(shutdownPlan(f, operationResize, f.Want.Off, now))
}

// powerEnforced reports whether a VM that is off is started again whoever has stopped it.
func (f *Facts) powerEnforced() bool {
	return f.Want.Power == v1alpha1.PowerStateRunning && f.Want.Drift == v1alpha1.PowerDriftEnforce
}

// resizeStarts reports whether the VM runs again before the resize is over: a size with which it does not start is taken
// back.
func (f *Facts) resizeStarts() bool {
	ran := f.resizeJournal().Power == v1alpha1.PowerStateRunning
	if f.wasStarted() { // what has become of it since is for the power state that is asked for
		return f.powerEnforced() && f.resizeReverting()
	}
	return f.powerEnforced() || (ran && (f.Want.Power == "" || f.Want.Power == v1alpha1.PowerStateRunning))
}

// settleResize ends a resize whose VM has its size, or waits for its user.
func (f *Facts) settleResize(now time.Time) (Plan, bool) {
	timeout := f.confirmTimeout(now)
	switch {
	case f.resizeEnds(now):
		if point := f.pointInUse(); point != nil {
			return awaitPoint(point)
		}
		return f.resizePlan(Plan{Steps: endResize.Next(f)})
	case timeout == timedOut: // and onTimeout is Revert
		return f.resizePlan(Plan{Steps: []Step{refuseTimedOutStep}})
	case timeout == timeoutNotCounted, f.running() && f.VM.OtherConfig[markApplied] == "":
		return f.resizePlan(Plan{Steps: []Step{rememberAppliedStep}})
	}
	return undecided()
}

// awaitPoint waits for a restore point that somebody has given to a VM.
func awaitPoint(point *VDI) (Plan, bool) {
	return stop(reconcile.Wait(v1alpha1.ReasonDeviceInUse, fmt.Sprintf(
		"the restore point %s is attached to a VM; detach it, so that the resize can end", point.UUID)).After(recheckAfter))
}

// resizeEnds reports whether nobody needs to be asked (any more).
func (f *Facts) resizeEnds(now time.Time) bool {
	want := &f.Want.Resize
	return !want.Manual || f.resizeReverting() || want.Confirm == f.resizeJournal().ID ||
		(f.confirmTimeout(now) == timedOut && want.OnTimeout == v1alpha1.ResizeTimeoutConfirm)
}

// awaitsConfirmation reports whether the user is to say whether the size stays.
func (f *Facts) awaitsConfirmation(now time.Time) bool {
	return f.resizeJournal() != nil && f.resized() && onTarget(f) && (!f.halted() || !f.resizeStarts()) && !f.resizeEnds(now)
}

// endResizeForDeletion ends a resize whose VM goes: a disk that was on its way to its place gets there, and the restore
// points go, as with a confirmation.
func (f *Facts) endResizeForDeletion(now time.Time) Plan {
	if swapPending(f) && !f.halted() {
		return shutdownPlan(f, operationDelete, f.Want.Off, now) // somebody has started it in the middle of the swap
	}
	if unmet := swapRoot.Next(f); len(unmet) > 0 {
		return Plan{Operation: operationDelete, Steps: unmet}
	}
	return Plan{Operation: operationDelete, Steps: endResize.Next(f)}
}

// resizePlan makes a plan part of the resize.
func (f *Facts) resizePlan(plan Plan) (Plan, bool) {
	plan.Operation = operationResize
	if j := f.resizeJournal(); j != nil {
		plan.ID = j.ID
	}
	return plan, true
}

// resizeReverting reports whether the sizes from before the resize are asked for, by the user or because the new ones
// cannot be had.
func (f *Facts) resizeReverting() bool {
	j := f.resizeJournal()
	switch {
	case j == nil:
		return false
	case f.Want.Refused != nil || f.diskGoesBack():
		return true // a disk that goes back takes the whole resize with it, whatever is asked for next
	case f.Want.Flavor != j.From.Flavor || f.resizeTarget() == j.To:
		return false
	}
	target := f.resizeTarget()
	switch {
	case f.shrinkWanted():
		return false // one that is to become smaller is another resize: the user is asked about that
	case target.Flavor == j.To.Flavor:
		return target.Disk <= j.From.Disk && !f.smallerThan(j.From.Disk)
	}
	return target.Disk <= max(j.From.Disk, f.rootSize()) // one that is to grow further is another resize
}

// smallerThan reports whether the root disk is asked to be made smaller than a size in bytes.
func (f *Facts) smallerThan(size int64) bool {
	want := f.wantRoot()
	return want != nil && want.ShrinkTo > 0 && want.ShrinkTo+sizeRounding < size
}

// onTarget reports whether the resize is on its way to what is asked for, or back.
func onTarget(f *Facts) bool {
	j := f.resizeJournal()
	return j != nil && (f.resizeReverting() || f.resizeTarget() == j.To)
}

// rootThere reports whether the VM has a root disk; while one is swapped it has none.
func rootThere(f *Facts) bool { return f.VM.rootDisk() != nil }

// rootSmall reports whether the root disk is smaller than asked for.
func (f *Facts) rootSmall() bool {
	want, root := f.wantRoot(), f.VM.rootDisk()
	return want != nil && root != nil && root.VDI.Size < want.Size && !f.diskGoesBack() && !pointWanted(f)
}

// sizeRounding is how much larger than asked for storage may make a disk.
const sizeRounding = 4 << 20

// shrinkWanted reports whether the root disk is larger than it may be.
func (f *Facts) shrinkWanted() bool {
	return f.VM.rootDisk() != nil && f.smallerThan(f.rootSize()) && !swapPending(f) && !f.diskGoesBack()
}

func growRoot(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	root, want := r.VM.rootDisk(), r.wantRoot()
	err := r.Client.VDI.Resize(ctx, root.VDI.Ref, want.Size)
	return "", r.doing(err, "grow the root disk from %s to %s", bytesText(root.VDI.Size), bytesText(want.Size))
}

// pointWanted reports whether the root disk is to go back to the restore point. Only its user says so: nothing on the pool tells
// for certain that nobody has written to the disk since.
func pointWanted(f *Facts) bool {
	if f.resizeJournal() == nil || f.diskGoesBack() {
		return false
	}
	point := f.point()
	if point == nil || swapPending(f) || !f.resizeReverting() {
		return false
	}
	return f.Want.Refused == nil && f.Want.Resize.DiscardTo == point.UUID
}

// copiesOfPoint are clones of the restore point that have not got their marks yet.
func copiesOfPoint(f *Facts) []VDI {
	point := f.point()
	return slices.DeleteFunc(slices.Clone(f.Copies), func(c VDI) bool {
		return point == nil || c.Snapshot || c.Marks.Self != point.UUID || c.Marks.Role != xencache.RoleRestorePoint
	})
}

func copyAnnounced(f *Facts) bool {
	return pointCopied(f) || f.point().OtherConfig[markCopying] == f.resizeJournal().Point
}

func announceCopyOfPoint(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.announceCopy(ctx, r.point())
}

func pointCopied(f *Facts) bool { return !f.point().Snapshot || len(copiesOfPoint(f)) > 0 }

func copyPoint(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	_, err := r.Client.VDI.Clone(ctx, r.point().Ref, map[string]string{})
	return "", r.doing(err, "copy the restore point")
}

// presentPoint lets the disk from before take the place of the root disk: the restore point itself, or the copy of it.
func presentPoint(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if point := r.point(); !point.Snapshot {
		return "", r.presentRoot(ctx, point, incomingRestored)
	}
	return "", r.presentRoot(ctx, &copiesOfPoint(r.Facts)[0], incomingRestored)
}

func rememberSizes(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, xencache.MarkJournal, newResizeJournal(r.Facts, newResizeID(), r.Now).String())
}

// retarget lets a resize go on to another size than it was begun for. It has another id from then on: who has agreed to
// the one has not agreed to the other.
func retarget(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.rewriteJournal(ctx, newResizeJournal(r.Facts, newResizeID(), r.Now))
}

// rememberGoingBackStep writes down that the VM runs before it is stopped for another size than the first.
var rememberGoingBackStep = Step{
	Name: "RememberGoingBack", Holds: func(f *Facts) bool { return !f.wasStarted() },
	Act: func(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
		j := *r.resizeJournal()
		j.Power, j.LastStart = r.VM.Power, r.lastStart()
		return "", r.rewriteJournal(ctx, j)
	},
}
