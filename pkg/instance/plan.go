package instance

import (
	"context"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Step is one thing to bring about on the pool.
type Step struct {
	// Name says what it does, for people and metrics.
	Name string
	// For names the object that is meant, where a step is taken for one after the other.
	For string
	// Holds reports whether it is done. It is pure.
	Holds func(*Facts) bool
	// Needs reports whether it can be done now; nil means always. A step that cannot is passed over and stands in
	// pendingChanges.
	Needs func(*Facts) bool
	// Act brings it about: one verb, or the setters of one object. It may be run again after half of it was done. A
	// task that it returns is awaited.
	Act func(context.Context, *Run) (xenapi.TaskRef, error)
	// Long says that the act begins a task.
	Long bool
	// Here says that the act changes nothing on the pool, so no event is waited for.
	Here bool
	// RetryAfter is how long to leave it alone after it has failed, 0 for no longer than the queue does.
	RetryAfter time.Duration
	// Overtakes names a step whose task may still be under way when this one is taken.
	Overtakes string
	// Failed is told why the pool has refused the act, or ended its task, before anything is tried again; nil where that
	// leads to nothing.
	Failed func(context.Context, *Run, error) error
}

// key tells a step from the next one.
func (s Step) key() string {
	if s.For == "" {
		return s.Name
	}
	return s.Name + " " + s.For
}

// Sequence is a workflow: steps in the order in which they must hold.
type Sequence []Step

// Next returns the first step that does not hold and can be taken, none if there is none. Those before it hold, so a
// predicate may rely on what an earlier step has brought about.
func (s Sequence) Next(f *Facts) []Step {
	for _, step := range s {
		if !step.Holds(f) && (step.Needs == nil || step.Needs(f)) {
			return []Step{step}
		}
	}
	return nil
}

// Plan is what is to be done next.
type Plan struct {
	// Operation is the workflow that the steps belong to, as status names it; "" if nothing is being done.
	Operation string
	// ID tells this operation from the next of its type.
	ID string
	// Steps are what is to be done now: one step, or none.
	Steps []Step
	// Outcome is what the pass ends in when there is no step to take.
	Outcome reconcile.Outcome
	// Released says that deletion is finished: nothing of ours is left to be dealt with.
	Released bool
}

// The operations, as status.operation.type names them.
const (
	operationCreate   = "Create"
	operationAdopt    = "Adopt"
	operationChange   = "Change"
	operationMove     = "Move"
	operationStart    = "Start"
	operationShutdown = "Shutdown"
	operationSuspend  = "Suspend"
	operationPause    = "Pause"
	operationRestart  = "Restart"
	operationDelete   = "Delete"
	operationUndelete = "Undelete"
	operationResize   = "Resize"

	operationEnterRescue = "EnterRescue"
	operationLeaveRescue = "LeaveRescue"
)

// deadline is when the plan is to be looked at again whatever happens.
func (p Plan) deadline() reconcile.Outcome {
	if after := p.Outcome.Deadline(); after > 0 {
		return reconcile.Done().After(after)
	}
	return reconcile.Done()
}

// policy decides, or leaves the decision to the next one.
type policy func(*Facts, time.Time) (Plan, bool)

// policies are asked in this order; the first that has something to say decides.
var policies = []policy{
	whenDeleting,
	whenDenied,
	whenOwnedByAnother,
	whenThereAreTwins,
	whenRescuing,
	whenVanished,
	whenMissing,
	whenObserving,
	whenTrashed,
	whenBuilding,
	whenAdopting,
	whenMoving,
	whenResizing,
	whenChanged,
	whenRestarting,
	whenPowerDiffers,
	whenRescueRefused,
	whenResizeRefused,
	whenMoveRefused,
}

// Decide says what is to be done next. It is pure: the same facts at the same time give the same plan.
func Decide(f *Facts, now time.Time) Plan {
	for _, decide := range policies {
		if plan, decided := decide(f, now); decided {
			return f.withConfirmDeadline(plan, now)
		}
	}
	return f.withConfirmDeadline(asAsked(f), now)
}

// stop is a plan that takes no step.
func stop(outcome reconcile.Outcome) (Plan, bool) { return Plan{Outcome: outcome}, true }

// undecided leaves the decision to the next policy.
func undecided() (Plan, bool) { return Plan{}, false }

// blockedBy turns the first problem into what the pass ends in.
func blockedBy(problems []Problem) reconcile.Outcome {
	problem := problems[0]
	for _, p := range problems {
		if !p.Passing {
			problem = p // what nobody will mend by waiting is said first
			break
		}
	}
	if problem.Passing {
		return reconcile.Wait(problem.Reason, problem.Message).After(recheckAfter)
	}
	return reconcile.Terminal(problem.Reason, problem.Message).After(recheckAfter)
}

// recheckAfter is when something outside our sight (a template made, a network renamed) is looked for again; looking
// costs no call.
const recheckAfter = time.Minute

// asAsked is the end of every plan: the VM is as asked, or what is missing waits for its user.
func asAsked(f *Facts) Plan {
	if len(f.Want.Problems) > 0 {
		return Plan{Outcome: blockedBy(f.Want.Problems)}
	}
	if held := heldChange(f); held != nil {
		return Plan{Outcome: reconcile.Terminal(v1alpha1.ReasonDeviceInUse, held.Message)}
	}
	if f.awaitsConfirmation(time.Time{}) {
		return Plan{Outcome: f.awaitingOutcome()}
	}
	pending := requirement(Pending(f))
	if pending == v1alpha1.RequiresPowerOff {
		return Plan{Outcome: reconcile.Done().Because(v1alpha1.ReasonPowerOffRequired,
			"changes wait until the VM is off; status.pendingChanges lists them, a new restartToken carries them out")}
	}
	if pending == v1alpha1.RequiresRestart {
		return Plan{Outcome: reconcile.Done().Because(v1alpha1.ReasonRestartRequired,
			"changes wait for the next boot; status.pendingChanges lists them, a new restartToken makes one")}
	}
	return Plan{Outcome: reconcile.Done()}
}
