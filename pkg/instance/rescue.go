package instance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// prepareRescue makes the rescue VM while the instance's own VM is as it was: whatever can fail comes here. The rescue VM
// has its mark-name until it is complete; after that it is left as it is.
var prepareRescue = Sequence{
	{Name: "RememberOriginal", Holds: originalRemembered, Act: rememberOriginal}, // on the pool: power state, image, beginning
	{Name: "DiscardRescueTwin", Holds: noRescueTwins, Act: discardRescueTwin},
	{Name: "ClearRescueDisks", Holds: noDisksOfLostRescue, Act: destroyRescueDisks}, // somebody has destroyed the rescue VM
	{Name: "MakeRescueVM", Holds: rescueVMThere, Act: makeRescueVM, Long: true},     // a clone of the image under its mark-name
	{Name: "MarkRescueVM", Holds: once(rescueVMMarked), Act: markRescueVM},
	{Name: "SizeRescueVM", Holds: once(onRescue(sized)), Act: actOnRescue(applySize)},
	{Name: "LeaveRescueTemplates", Holds: once(onRescue(notATemplate)), Act: actOnRescue(leaveTemplates)},
	{Name: "MarkRescueDisks", Holds: once(rescueDisksMarked), Act: markRescueDisks},
	{Name: "RemoveRescueNICs", Holds: once(noStrangeRescueNICs), Act: removeRescueNICs},
	{Name: "MakeRescueNICs", Holds: once(rescueNICsMade), Act: makeRescueNICs}, // the same addresses on the same networks
	{Name: "MakeRescueDrive", Holds: once(rescueDriveMade), Act: makeRescueDrive},
	{Name: "FillRescueDrive", Holds: once(rescueDriveFilled), Act: fillRescueDrive},
	{Name: "AttachRescueDrive", Holds: once(rescueDriveAttached), Act: attachRescueDrive},
	{Name: "NameRescueVM", Holds: rescueVMComplete, Act: nameRescueVM},
}

// takeOver puts the rescue VM in the place of the instance's own. Between its two parts that is stopped (stopOriginal).
var (
	blockOriginalStep = Step{Name: "BlockOriginal", Holds: originalBlocked, Act: blockOriginal} // start and start_on, key by key
	takeOver          = Sequence{
		{Name: "AttachOriginalDisks", Holds: loansAttached, Needs: rescueHalted, Act: attachLoans},
	}
)

// The return, in an order that can always finish: the VM that borrows the disks is stopped before they are taken from it,
// and each step stands alone.
var (
	beforeStoppingRescue = Sequence{
		{Name: "RememberTimeout", Holds: timeoutRemembered, Act: rememberTimeout},
		{Name: "DiscardRescueTwin", Holds: noRescueTwins, Act: discardRescueTwin},
		{Name: "MarkRescueDisks", Holds: once(rescueDisksMarked), Act: markRescueDisks}, // or nobody would find them afterwards
	}
	removeRescue = Sequence{
		{Name: "DetachOriginalDisks", Holds: nothingOnLoan, Act: detachLoans},
		{Name: stepDestroyRescueVM, Holds: func(f *Facts) bool { return f.Rescue == nil }, Act: destroyRescueVM}, // the record first
		{Name: "DestroyRescueDisks", Holds: noRescueLeftovers, Act: destroyRescueDisks},
		{Name: "ReleaseOriginal", Holds: originalReleased, Act: releaseOriginal}, // our two keys
	}
	forgetRescueStep = Step{Name: "ForgetRescue", Holds: func(f *Facts) bool { return f.journal() == nil }, Act: forgetRescue}
)

const stepDestroyRescueVM = "DestroyRescueVM"

// Phases of a rescue, as status.operation.id names them, and what the user reads of each.
const (
	phasePrepare = "Prepare"
	phaseStop    = "Stop"
	phaseStart   = "Start"
	phaseRemove  = "Remove"
	phaseReturn  = "Return"
)

var phaseTexts = map[string]map[string]string{
	operationEnterRescue: {
		phasePrepare: "making the rescue VM; the VM itself is as it was",
		phaseStop:    "stopping the VM",
		phaseStart:   "starting the rescue VM with the VM's disks",
	},
	operationLeaveRescue: {
		phaseStop:   "stopping the rescue VM",
		phaseRemove: "giving the disks back and removing the rescue VM",
		phaseReturn: "bringing the VM back as it was",
	},
}

// rescueReasons are what the user sees while a step of a rescue is in flight.
var rescueReasons = map[string]string{
	operationEnterRescue: v1alpha1.ReasonEnteringRescue, operationLeaveRescue: v1alpha1.ReasonLeavingRescue,
}

// rescueStopTimeout is how long a guest has to shut down for a rescue, and the rescue's for the return.
const rescueStopTimeout = 30 * time.Second

// whenRescuing puts the rescue VM in the place of the instance's own, or brings that back.
func whenRescuing(f *Facts, now time.Time) (Plan, bool) {
	switch {
	case f.Want.Observe || f.building() || f.trashed():
		return undecided()
	case f.laterJournal() != "":
		return stop(reconcile.Terminal(v1alpha1.ReasonInstanceBusy, f.laterJournal()))
	case f.rescueWanted(now) && f.VM != nil:
		if f.rescueRefused() {
			return undecided() // everything else goes on as without, see whenRescueRefused
		}
		return f.enterRescue(now), true
	case f.VM == nil && f.Rescue != nil && f.Want.Rescue.On:
		return stop(reconcile.Terminal(v1alpha1.ReasonExternallyDeleted, fmt.Sprintf(
			"the VM itself is no longer on the pool; the rescue VM %s goes on with its disks until rescue.state is Off", f.Rescue.UUID)))
	case f.rescueUnderWay():
		return f.leaveRescue(now), true
	case f.VM != nil && !f.Want.Rescue.On && f.VM.OtherConfig[markRescueTimedOut] != "":
		return Plan{Operation: operationLeaveRescue, ID: phaseReturn, Steps: []Step{forgetTimeoutStep}}, true
	}
	return undecided()
}

// rescueRefused reports whether no rescue is begun.
func (f *Facts) rescueRefused() bool {
	return !f.rescueUnderWay() && (len(f.rescueProblems()) > 0 || !f.mayBeRescued())
}

// mayBeRescued reports whether the VM is settled enough to be rescued: an adopted one only once it has agreed with its spec.
func (f *Facts) mayBeRescued() bool {
	return vmMarked(f) && (f.Want.Source.ExistingUUID == "" || adopted(f))
}

// whenRescueRefused says why a rescue is not begun. Nothing was touched, and everything else is as asked.
func whenRescueRefused(f *Facts, now time.Time) (Plan, bool) {
	if !f.rescueWanted(now) || f.rescueUnderWay() {
		return undecided()
	}
	if problems := f.rescueProblems(); len(problems) > 0 {
		return stop(blockedBy(problems))
	}
	return undecided()
}

// enterRescue plans the way into the rescue, and keeps it as it is then.
func (f *Facts) enterRescue(now time.Time) Plan {
	plan := f.towardsRescue(now)
	if at, ends := f.rescueExpiry(); ends {
		plan.Outcome = plan.Outcome.After(max(at.Sub(now), atOnce))
	}
	return plan
}

func (f *Facts) towardsRescue(now time.Time) Plan {
	if plan, held := f.rescueHeldUp(); held {
		return plan
	}
	if unmet := prepareRescue.Next(f); len(unmet) > 0 {
		return Plan{Operation: operationEnterRescue, ID: phasePrepare, Steps: unmet}
	}
	if f.startedInRescue() && f.Want.Drift == v1alpha1.PowerDriftIgnore {
		return Plan{Outcome: reconcile.Terminal(v1alpha1.ReasonRescueDegraded,
			"somebody has started the VM itself while it is in rescue, and powerDriftPolicy Ignore leaves it; set rescue.state to Off to return")}
	}
	if !originalBlocked(f) {
		return Plan{Operation: operationEnterRescue, ID: phaseStop, Steps: []Step{blockOriginalStep}}
	}
	if !f.halted() {
		return f.rescueStop(f, operationEnterRescue, now)
	}
	if unmet := takeOver.Next(f); len(unmet) > 0 {
		return Plan{Operation: operationEnterRescue, ID: phaseStart, Steps: unmet}
	}
	return f.keepRescue(now)
}

// startedInRescue reports whether somebody has started the VM itself: its disks are lent only when it is off.
func (f *Facts) startedInRescue() bool {
	return f.VM != nil && !f.halted() && !nothingOnLoan(f)
}

// rescueHeldUp is what the way into the rescue waits for before its next step.
func (f *Facts) rescueHeldUp() (Plan, bool) {
	begun := f.journal() != nil
	switch {
	case f.Me.Held != "":
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	case !begun && len(f.Me.PowerOnGates) > 0:
		return gated(f, operationEnterRescue, startStep), true
	case begun && f.Rescue == nil && f.UnknownRescueClone:
		return f.awaitRescueClone(operationEnterRescue), true
	case begun && f.Rescue == nil && f.Want.Rescue.Template == nil:
		return Plan{Operation: operationEnterRescue, ID: phasePrepare, Outcome: reconcile.Terminal(v1alpha1.ReasonImageNotReady, fmt.Sprintf(
			"the template of image %s is gone; set rescue.state to Off, and On again with another image", f.journal().Image)).After(recheckAfter)}, true
	}
	return undecided()
}

// keepRescue keeps the rescue VM running, restarts it when that is asked for, and is the end of the way there.
func (f *Facts) keepRescue(now time.Time) Plan {
	rescue := f.asRescue()
	if f.Rescue.Power != v1alpha1.PowerStateRunning {
		plan := wrapRescue(towards(rescue, v1alpha1.PowerStateRunning, now))
		if len(plan.Steps) > 0 {
			plan.Operation, plan.ID = operationEnterRescue, phaseStart
		}
		return plan
	}
	if plan, decided := whenRestarting(rescue, now); decided {
		return wrapRescue(plan)
	}
	message := fmt.Sprintf("in rescue since %s, set rescue.state to Off to return", f.journal().Since.Format(time.RFC3339))
	if at, ends := f.rescueExpiry(); ends {
		message += fmt.Sprintf("; it ends by itself at %s", at.Format(time.RFC3339))
	}
	return Plan{Outcome: reconcile.Done().Because(v1alpha1.ReasonInRescue, message)}
}

// leaveRescue plans the way back to how everything was before the rescue.
func (f *Facts) leaveRescue(now time.Time) Plan {
	if plan, decided := f.dismantleRescue(now); decided {
		return plan
	}
	if f.restoresPower() && f.halted() && !f.changesAtReturn(now) {
		plan := gated(f, operationLeaveRescue, startStep)
		plan.ID = phaseReturn
		return plan
	}
	return Plan{Operation: operationLeaveRescue, ID: phaseReturn, Steps: []Step{forgetRescueStep}}
}

// changesAtReturn reports whether something waits to be changed that can be while the VM is off. Then the rescue is forgotten
// before the VM is started: so the VM boots once, with all that was asked for in the meantime.
func (f *Facts) changesAtReturn(now time.Time) bool {
	if f.journal() == nil || f.Me.Deleting || f.Want.Power != v1alpha1.PowerStateRunning || f.Want.Drift == v1alpha1.PowerDriftIgnore {
		return false // nobody would start it afterwards
	}
	after, vm := *f, *f.VM
	vm.OtherConfig = maps.Clone(vm.OtherConfig)
	delete(vm.OtherConfig, xencache.MarkJournal)
	after.VM = &vm
	return slices.ContainsFunc([]policy{whenResizing, whenChanged}, func(decide policy) bool {
		plan, _ := decide(&after, now)
		return len(plan.Steps) > 0 && plan.Steps[0].Name != stepStart
	})
}

// endRescueForDeletion plans the return as far as deletion needs it: what is destroyed or goes to the trash is not started,
// what is only let go is as it was before.
func (f *Facts) endRescueForDeletion(now time.Time) Plan {
	if f.Want.Deletion == v1alpha1.DeletionOrphan && f.VM != nil {
		return f.leaveRescue(now)
	}
	if plan, decided := f.dismantleRescue(now); decided || f.journal() == nil {
		return plan
	}
	return Plan{Operation: operationLeaveRescue, ID: phaseReturn, Steps: []Step{forgetRescueStep}}
}

// dismantleRescue plans the removal of the rescue VM and the release of the instance's own; it does not start that.
func (f *Facts) dismantleRescue(now time.Time) (Plan, bool) {
	switch {
	case f.Me.Held != "":
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	case f.Rescue == nil && f.UnknownRescueClone:
		return f.awaitRescueClone(operationLeaveRescue), true
	}
	if unmet := beforeStoppingRescue.Next(f); len(unmet) > 0 {
		return Plan{Operation: operationLeaveRescue, ID: phaseStop, Steps: unmet}, true
	}
	if f.Rescue != nil && f.Rescue.Power != v1alpha1.PowerStateHalted {
		return wrapRescue(f.rescueStop(f.asRescue(), operationLeaveRescue, now)), true
	}
	if unmet := removeRescue.Next(f); len(unmet) > 0 {
		if text, blocked := f.destroyBlocked(); blocked && unmet[0].Name == stepDestroyRescueVM {
			return stop(reconcile.Terminal(v1alpha1.ReasonOperationBlocked, fmt.Sprintf(
				"destroy is blocked on the rescue VM %s (blocked_operations): %s", f.Rescue.UUID, text)).After(recheckAfter))
		}
		return Plan{Operation: operationLeaveRescue, ID: phaseRemove, Steps: unmet}, true
	}
	return undecided()
}

// destroyBlocked is why the rescue VM may not be destroyed, as an administrator has said.
func (f *Facts) destroyBlocked() (text string, blocked bool) {
	if f.Rescue == nil {
		return "", false
	}
	text, blocked = f.Rescue.Blocked[string(xenapi.VMOperationDestroy)]
	return text, blocked
}

// awaitRescueClone waits until a clone of the image is over that may be the rescue VM.
func (f *Facts) awaitRescueClone(operation string) Plan {
	return Plan{Operation: operation, ID: phasePrepare, Outcome: reconcile.Wait(v1alpha1.ReasonProgressing,
		"a copy of the rescue image is under way that may be ours from before a restart; waiting until it is over").After(cloneRecheck)}
}

// rescueStop turns a VM off: it is asked for a while, if there is somebody to ask, then it is turned off. The facts are
// those of the VM that is meant.
func (f *Facts) rescueStop(meant *Facts, operation string, now time.Time) Plan {
	began := now
	if prior := f.Prior.Operation; prior != nil && prior.Type == operation && prior.ID == phaseStop && prior.StartedAt != nil {
		began = prior.StartedAt.Time
	}
	left := began.Add(rescueStopTimeout).Sub(now)
	booted := now.Sub(meant.VM.StartedAt) > rescueStopTimeout
	plan := Plan{Operation: operation, ID: phaseStop}
	switch {
	case left <= 0, meant.VM.Power != v1alpha1.PowerStateRunning, booted && !meant.VM.Guest.CanShutDown:
		plan = steps(meant, operation, powerOffStep)
	case !meant.VM.Guest.CanShutDown:
		plan.Outcome = reconcile.Wait(v1alpha1.ReasonShuttingDown, "the guest cannot be asked to shut down yet; it is turned off after the time-out").After(left)
	default:
		plan = steps(meant, operation, shutDownStep)
		plan.Outcome = plan.Outcome.After(left)
	}
	plan.ID = phaseStop
	return plan
}

// restoresPower reports whether the VM is to run again after the rescue: as the spec says, else as it was before.
func (f *Facts) restoresPower() bool {
	ran := f.journal() != nil && f.journal().Power == v1alpha1.PowerStateRunning
	switch {
	case f.VM == nil || f.journal() == nil:
		return false
	case f.Want.Power == "" || (f.Want.Power == v1alpha1.PowerStateRunning && f.Want.Drift == v1alpha1.PowerDriftIgnore):
		return ran
	}
	return f.Want.Power == v1alpha1.PowerStateRunning
}

// asRescue are the facts with the rescue VM in the place of the instance's own, for what is the same with both.
func (f *Facts) asRescue() *Facts {
	g := *f
	g.VM = f.Rescue
	g.Want.Power, g.Want.Problems = v1alpha1.PowerStateRunning, nil
	g.Want.Disks, g.Want.DisksListed, g.Want.NICs, g.Want.NICsListed, g.Want.Drive = nil, false, nil, false, nil
	g.Want.Size = nil
	if f.VM != nil {
		size := f.VM.Size
		g.Want.Size = &size
	}
	return &g
}

// onRescue is a predicate about the rescue VM.
func onRescue(holds func(*Facts) bool) func(*Facts) bool {
	return func(f *Facts) bool { return f.Rescue == nil || holds(f.asRescue()) }
}

// actOnRescue is an act on the rescue VM.
func actOnRescue(act func(context.Context, *Run) (xenapi.TaskRef, error)) func(context.Context, *Run) (xenapi.TaskRef, error) {
	return func(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
		run := *r
		run.Facts = r.asRescue()
		return act(ctx, &run)
	}
}

// wrapRescue makes a plan for the VM one for the rescue VM.
func wrapRescue(plan Plan) Plan {
	for i, step := range plan.Steps {
		step.Holds, step.Act = onRescue(step.Holds), actOnRescue(step.Act)
		plan.Steps[i] = step
	}
	return plan
}
