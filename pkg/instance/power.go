package instance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Names of the steps that change the power state.
const (
	stepStart       = "Start"
	stepStartPaused = "StartPaused"
	stepResume      = "Resume"
	stepUnpause     = "Unpause"
	stepPause       = "Pause"
	stepSuspend     = "Suspend"
	stepShutDown    = "ShutDown"
	stepPowerOff    = "PowerOff"
)

// The steps that change the power state. Each leads from one state to the next; which of them lie between what is and
// what is asked for says towards.
var (
	startStep = Step{Name: stepStart, Holds: powerIs(v1alpha1.PowerStateRunning), Act: start, Long: true, Failed: startFailed}
	// A paused start leaves the guest before its first instruction.
	startPausedStep = Step{Name: stepStartPaused, Holds: powerIs(v1alpha1.PowerStatePaused), Act: startPaused, Long: true, Failed: startFailed}
	resumeStep      = Step{Name: stepResume, Holds: powerIs(v1alpha1.PowerStateRunning), Act: resume, Long: true}
	unpauseStep     = Step{Name: stepUnpause, Holds: powerIs(v1alpha1.PowerStateRunning), Act: unpause, Long: true}
	pauseStep       = Step{Name: stepPause, Holds: powerIs(v1alpha1.PowerStatePaused), Act: pause, Long: true}
	suspendStep     = Step{Name: stepSuspend, Holds: powerIs(v1alpha1.PowerStateSuspended), Act: suspend, Long: true}
	shutDownStep    = Step{Name: stepShutDown, Holds: powerIs(v1alpha1.PowerStateHalted), Act: shutDown, Long: true}
	// A hard shutdown cancels a clean one that is under way.
	powerOffStep = Step{Name: stepPowerOff, Holds: powerIs(v1alpha1.PowerStateHalted), Act: powerOff, Long: true, Overtakes: stepShutDown}
)

// leads is the power state into which each of them brings the VM.
var leads = map[string]v1alpha1.PowerState{
	stepStart: v1alpha1.PowerStateRunning, stepResume: v1alpha1.PowerStateRunning, stepUnpause: v1alpha1.PowerStateRunning,
	stepStartPaused: v1alpha1.PowerStatePaused, stepPause: v1alpha1.PowerStatePaused, stepSuspend: v1alpha1.PowerStateSuspended,
	stepShutDown: v1alpha1.PowerStateHalted, stepPowerOff: v1alpha1.PowerStateHalted,
}

func powerIs(state v1alpha1.PowerState) func(*Facts) bool {
	return func(f *Facts) bool { return f.VM.Power == state }
}

// whenPowerDiffers brings the VM into the power state that is asked for.
func whenPowerDiffers(f *Facts, now time.Time) (Plan, bool) {
	if f.Want.Power == "" || f.VM.Power == f.Want.Power {
		return undecided()
	}
	if f.Me.Held != "" {
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	}
	if f.beingCaptured() {
		return stop(reconcile.Wait(v1alpha1.ReasonInstanceBusy,
			"the VM is suspended while a snapshot with memory is taken of it, and resumed after that"))
	}
	if drifted(f) {
		if outcome, wait := driftOutcome(f, now); wait {
			return stop(outcome)
		}
	}
	return towards(f, f.Want.Power, now), true
}

// towards plans the way from the present power state to another one.
func towards(f *Facts, want v1alpha1.PowerState, now time.Time) Plan {
	type way struct{ from, to v1alpha1.PowerState }
	const (
		running, halted, suspended, paused = v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted,
			v1alpha1.PowerStateSuspended, v1alpha1.PowerStatePaused
	)
	switch (way{f.VM.Power, want}) {
	case way{halted, running}:
		return gated(f, startOperation(f), startStep)
	case way{halted, paused}:
		return gated(f, startOperation(f), startPausedStep)
	case way{suspended, running}, way{suspended, paused}:
		return gated(f, operationStart, resumeStep) // paused: afterwards
	case way{paused, running}, way{paused, suspended}:
		return steps(f, operationStart, unpauseStep) // suspended: afterwards
	case way{running, paused}:
		return steps(f, operationPause, pauseStep)
	case way{running, suspended}:
		return suspendPlan(f)
	case way{running, halted}, way{paused, halted}, way{suspended, halted}:
		return shutdownPlan(f, operationShutdown, f.Want.Off, now)
	default: // halted to suspended
		return Plan{Outcome: reconcile.Terminal(v1alpha1.ReasonIllegalTransition, fmt.Sprintf(
			"a VM that is %s cannot become %s; set powerState to Running first", f.VM.Power, want))}
	}
}

// startOperation is what a start belongs to. The first one belongs to the making of the VM, so that making one does not
// write a status for each half.
func startOperation(f *Facts) string {
	if f.Prior.UUID == "" && f.Want.Source.ExistingUUID == "" && f.VM.neverRan() {
		return operationCreate
	}
	return operationStart
}

// steps plans steps of an operation, unless the administrator has blocked the first of them on the VM.
func steps(f *Facts, operation string, list ...Step) Plan {
	if text, blocked := f.VM.Blocked[blockedName[list[0].Name]]; blocked {
		return Plan{Outcome: reconcile.Terminal(v1alpha1.ReasonOperationBlocked, fmt.Sprintf(
			"%s is blocked on the VM (blocked_operations): %s", blockedName[list[0].Name], text))}
	}
	return Plan{Operation: operation, Steps: list}
}

// blockedName is the key of blocked_operations that stops a step.
var blockedName = map[string]string{
	stepStart: "start", stepStartPaused: "start", stepResume: "resume", stepUnpause: "unpause", stepPause: "pause",
	stepSuspend: "suspend", stepShutDown: "clean_shutdown", stepPowerOff: "hard_shutdown", stepReboot: "clean_reboot",
	stepReset: "hard_reboot", stepDestroyVM: "destroy",
}

// gated plans a power-on, unless a gate holds it.
func gated(f *Facts, operation string, step Step) Plan {
	if len(f.Me.PowerOnGates) > 0 {
		return Plan{Outcome: reconcile.Done().Because(v1alpha1.ReasonGated,
			"power-on is held by "+gateNames(v1alpha1.GatePowerOnPrefix, f.Me.PowerOnGates))}
	}
	return steps(f, operation, step)
}

func gateNames(prefix string, names []string) string {
	full := make([]string, len(names))
	for i, name := range slices.Sorted(slices.Values(names)) {
		full[i] = prefix + name
	}
	return strings.Join(full, ", ")
}

// suspendPlan suspends a guest that can be; without drivers the pool would refuse (VM_LACKS_FEATURE).
func suspendPlan(f *Facts) Plan {
	if !f.VM.Guest.CanShutDown {
		return Plan{Operation: operationSuspend, Outcome: reconcile.Wait(v1alpha1.ReasonSuspending,
			"the guest cannot be suspended until its drivers report; waiting for them").After(recheckAfter)}
	}
	return steps(f, operationSuspend, suspendStep)
}

// shutdownPlan turns the VM off the way the spec asks: softly while there is time, then hard where that is allowed. The
// deadline is ours: the pool's own is twenty minutes.
func shutdownPlan(f *Facts, operation string, mode v1alpha1.PowerOffMode, now time.Time) Plan {
	switch {
	case mode == v1alpha1.PowerOffHard:
		return steps(f, operation, powerOffStep)
	case f.VM.Power == v1alpha1.PowerStateSuspended:
		return gated(f, operation, resumeStep) // only a running guest can be asked
	case f.VM.Power == v1alpha1.PowerStatePaused:
		return steps(f, operation, unpauseStep)
	}
	left := f.operationBegan(operation, now).Add(f.Want.OffTimeout).Sub(now)
	switch {
	case left <= 0 && mode == v1alpha1.PowerOffTrySoft:
		return steps(f, operation, powerOffStep)
	case left <= 0:
		return Plan{Operation: operation, Outcome: reconcile.Terminal(v1alpha1.ReasonGuestNotResponding, fmt.Sprintf(
			"the guest did not shut down within %s; powerOff.mode TrySoft or Hard would turn it off", f.Want.OffTimeout))}
	case !f.VM.Guest.CanShutDown:
		return Plan{Operation: operation, Outcome: reconcile.Wait(v1alpha1.ReasonShuttingDown,
			"the guest cannot be asked to shut down: its agent does not report; waiting for it until the time-out").After(left)}
	}
	plan := steps(f, operation, shutDownStep)
	plan.Outcome = plan.Outcome.After(left)
	return plan
}

// operationBegan is when the operation was begun, as status remembers it.
func (f *Facts) operationBegan(operation string, now time.Time) time.Time {
	prior := f.Prior.Operation
	if prior == nil || prior.Type != operation || prior.StartedAt == nil {
		return now
	}
	return prior.StartedAt.Time
}

// drifted reports whether the VM was in the power state that is asked for and has left it without us.
func drifted(f *Facts) bool {
	if restarting(f) {
		return false
	}
	synced := meta.FindStatusCondition(f.Prior.Conditions, v1alpha1.ConditionPowerStateSynced)
	switch {
	case synced == nil || synced.Status == metav1.ConditionUnknown:
		// The status was lost. A guest that may stay off is not started for that.
		return f.Want.Drift == v1alpha1.PowerDriftIgnore && !f.VM.StartedAt.IsZero()
	case synced.Status == metav1.ConditionTrue:
		return f.Prior.PowerState == f.Want.Power
	default:
		return synced.Reason == v1alpha1.ReasonDrifted
	}
}

// beingCaptured reports whether the VM is suspended because a snapshot with memory is being taken of it: the pool resumes it
// by itself. Who had suspended it before has changed its power state for good.
func (f *Facts) beingCaptured() bool {
	synced := meta.FindStatusCondition(f.Prior.Conditions, v1alpha1.ConditionPowerStateSynced)
	if f.VM.Power != v1alpha1.PowerStateSuspended || synced != nil && synced.Reason == v1alpha1.ReasonDrifted {
		return false
	}
	for _, operation := range f.VM.Running {
		if operation == string(xenapi.VMOperationCheckpoint) {
			return true
		}
	}
	return false
}

// driftOutcome says what to do about a drifted power state; wait is false when it is to be put right now.
func driftOutcome(f *Facts, now time.Time) (outcome reconcile.Outcome, wait bool) {
	message := fmt.Sprintf("the VM is %s and not %s, and not by our doing", f.VM.Power, f.Want.Power)
	if f.Want.Drift == v1alpha1.PowerDriftIgnore {
		return reconcile.Done().Because(v1alpha1.ReasonDrifted, message+"; powerDriftPolicy Ignore leaves it"), true
	}
	left := driftSince(f, now).Add(f.Want.DriftGrace).Sub(now)
	if left <= 0 {
		return reconcile.Done(), false
	}
	return reconcile.Wait(v1alpha1.ReasonDrifted, message+fmt.Sprintf("; it is put back after %s", f.Want.DriftGrace)).After(left), true
}

// driftSince is when the drift was first seen.
func driftSince(f *Facts, now time.Time) time.Time {
	synced := meta.FindStatusCondition(f.Prior.Conditions, v1alpha1.ConditionPowerStateSynced)
	if synced == nil || synced.Reason != v1alpha1.ReasonDrifted {
		return now
	}
	return synced.LastTransitionTime.Time
}

func start(ctx context.Context, r *Run) (xenapi.TaskRef, error)       { return r.startVM(ctx, false) }
func startPaused(ctx context.Context, r *Run) (xenapi.TaskRef, error) { return r.startVM(ctx, true) }

// startVM starts the VM: on the host that the spec names if it is a must or can take it, else where the pool puts it.
func (r *Run) startVM(ctx context.Context, paused bool) (xenapi.TaskRef, error) {
	if r.Want.Host.IsNull() || (!r.Want.Pinned && !r.suits(r.Want.Host)) {
		task, err := r.Client.VM.StartAsync(ctx, r.VM.Ref, paused, false)
		return task, r.doing(err, "start the VM")
	}
	task, err := r.Client.VM.StartOnAsync(ctx, r.VM.Ref, r.Want.Host, paused, false)
	return task, r.doing(err, "start the VM on its host")
}

// suits reports whether a host can run the VM as it is, disks included, as far as its figures tell.
func (f *Facts) suits(ref xenapi.HostRef) bool {
	host := f.hostOf(ref)
	if host == nil {
		return false
	}
	fit := f.placement(host, f.VM.Size)
	return fit.Fits() && fit.SeesDisks()
}

func resume(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.ResumeAsync(ctx, r.VM.Ref, false, false)
	return task, r.doing(err, "resume the VM")
}

func unpause(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.UnpauseAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "unpause the VM")
}

func pause(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.PauseAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "pause the VM")
}

func suspend(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.SuspendAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "suspend the VM")
}

func shutDown(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.CleanShutdownAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "shut down the guest")
}

func powerOff(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.HardShutdownAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "turn the VM off")
}
