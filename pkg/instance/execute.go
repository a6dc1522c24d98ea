package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Run is what an act works with.
type Run struct {
	*Facts
	Client *xenapi.Client
	// Seed gathers what belongs on the config drive: Secrets are read when they are needed and not kept.
	Seed func(context.Context) (Seed, error)
	// RescueSeed gathers what belongs on the config drive of the rescue VM; a generated password is in its Secret before.
	RescueSeed func(context.Context) (Seed, error)
	// DropRescueSecret deletes the Secret with the generated password of the rescue VM.
	DropRescueSecret func(context.Context) error
	// Restorer makes disks of a backup.
	Restorer Restorer
	// Copier makes smaller copies of the root disk.
	Copier Copier
	// Now is the time of this pass.
	Now time.Time
	// Tasks are the pool's tasks.
	Tasks Tasks
	// Sync returns when everything that has happened on the pool up to now has been seen; for unknown outcomes. With
	// anew everything is read again: events are missing.
	Sync func(ctx context.Context, anew bool) error
	// ClaimWriter makes sure, before the first write, that no other installation writes to the pool.
	ClaimWriter func(context.Context) error
	// StepTaken is called with every step taken, for metrics.
	StepTaken func(step string, err error, took time.Duration)
}

// Tasks are the pool's tasks, as far as one instance has to do with them.
type Tasks interface {
	// Reserve asks for leave to begin a task; if it is refused, the instance is woken when one is free.
	Reserve() bool
	// Release gives the leave back when no task was begun.
	Release()
	// Follow has the instance woken when the task is over.
	Follow(xenapi.TaskRef)
	// State says what has become of a task, from memory.
	State(xenapi.TaskRef) TaskState
}

// doing wraps an error with what was being done to which object; nil stays nil.
func (r *Run) doing(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s of %s/%s: %w", fmt.Sprintf(format, args...), r.Me.Key.Namespace, r.Me.Key.Name, err)
}

// fill writes an image into a disk and waits until the pool has it all.
func (r *Run) fill(ctx context.Context, vdi xenapi.VDIRef, image []byte) error {
	return r.Client.ImportVDI(ctx, xenapi.ImportVDI{
		Transfer: xenapi.Transfer{Label: r.Me.fillName()}, VDI: vdi, Body: bytes.NewReader(image), Size: int64(len(image)),
	})
}

// TaskState is what has become of a task.
type TaskState struct {
	// Seen is false if the pool does not know the task (any more).
	Seen    bool
	Over    bool
	Err     error
	Percent int32
}

// flight is what an act has set in motion and what has not come back as an event yet. It lives in the process only: after
// a restart the objects tell.
type flight struct {
	step  string
	task  xenapi.TaskRef
	since time.Time
	// unknown says that the call's outcome is unknown, so the pool must be looked at anew before anything is repeated.
	unknown bool
	// seen says that the task was among those of the pool, so that its absence now means its end.
	seen bool
	// asked is when the pool was last asked for the task's state.
	asked time.Time
	// overtaken is a task that this one has put an end to.
	overtaken xenapi.TaskRef
}

// failure is a step that has failed and is to be left alone for a while. Like a flight it may be lost.
type failure struct {
	step    string
	at      time.Time
	outcome reconcile.Outcome
}

const (
	// echoTimeout is how long the effect of a call may take to come back as an event before it is asked for.
	echoTimeout = 10 * time.Second
	// taskDoubt is how long a task may go on without a word before the pool is asked whether it still does.
	taskDoubt = 20 * time.Second
	// rememberTasks is how many tasks of ours are told apart from others' at least.
	rememberTasks = 4096
	// atOnce is a deadline that is due.
	atOnce = time.Millisecond
)

// Executor takes the steps of plans. One is shared by all instances.
type Executor struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	flights map[xencache.Key]*flight
	failed  map[xencache.Key]failure
	// tasks are those that this process began, the ended ones of late among them: an event that still shows one as
	// under way must not be taken for a stranger's.
	tasks, older map[xenapi.TaskRef]struct{}
}

// NewExecutor returns an executor that has nothing in flight.
func NewExecutor(passive clock.PassiveClock) *Executor {
	return &Executor{
		clock: passive, flights: map[xencache.Key]*flight{}, failed: map[xencache.Key]failure{},
		tasks: map[xenapi.TaskRef]struct{}{}, older: map[xenapi.TaskRef]struct{}{},
	}
}

// Knows reports whether this process began the task.
func (e *Executor) Knows(task xenapi.TaskRef) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, known := e.tasks[task]
	_, knownBefore := e.older[task]
	return known || knownBefore
}

// Percent is how far the instance's task is, nil if none is under way.
func (e *Executor) Percent(key xencache.Key, tasks Tasks) *int32 {
	current := e.flight(key)
	if current == nil || current.task == "" {
		return nil
	}
	percent := tasks.State(current.task).Percent
	return &percent
}

// Leads is the power state into which an act in flight is bringing the VM of key, "" if there is none.
func (e *Executor) Leads(key xencache.Key) v1alpha1.PowerState {
	if current := e.flight(key); current != nil {
		return leads[current.step]
	}
	return ""
}

// Do takes the first step of the plan, unless something is in flight already, and says what the pass ends in.
func (e *Executor) Do(ctx context.Context, r *Run, plan Plan) reconcile.Outcome {
	if outcome, busy := e.land(ctx, r, plan); busy {
		return outcome
	}
	if len(plan.Steps) == 0 {
		return plan.Outcome
	}
	return e.take(ctx, r, plan).Join(plan.deadline())
}

// Finish sees to what is still in flight when nothing is left to be done, so that no task of ours stays behind. It reports
// whether everything has landed.
func (e *Executor) Finish(ctx context.Context, r *Run, plan Plan) (reconcile.Outcome, bool) {
	current := e.flight(r.Me.Key)
	if current == nil || current.task == "" {
		return reconcile.Done(), true
	}
	outcome, busy := e.landTask(ctx, r, plan, current)
	return outcome, !busy
}

// take runs the act of the plan's step.
func (e *Executor) take(ctx context.Context, r *Run, plan Plan) reconcile.Outcome {
	step := plan.Steps[0]
	if operation := e.strangers(r, step); operation != "" {
		return reconcile.Wait(v1alpha1.ReasonInstanceBusy, "waiting until "+operation+" of the VM is over").After(recheckAfter)
	}
	if outcome, rests := e.rests(r.Me.Key, step); rests {
		return outcome
	}
	if err := r.ClaimWriter(ctx); err != nil {
		return failed(ctx, r, step.Name, err)
	}
	if step.Long && !r.Tasks.Reserve() {
		return reconcile.Wait(v1alpha1.ReasonProgressing, "waiting for a free task on the pool")
	}
	began := e.clock.Now()
	task, err := step.Act(ctx, r)
	r.StepTaken(step.Name, err, e.clock.Since(began))
	if task != "" && err == nil {
		next := &flight{step: step.key(), task: task, since: began}
		if current := e.flight(r.Me.Key); current != nil {
			next.overtaken = current.task
		}
		e.set(r.Me.Key, next)
		r.Tasks.Follow(task)
		return inFlight(plan, step.Name)
	}
	if step.Long {
		r.Tasks.Release()
	}
	if note := step.note(ctx, r, err); note != nil {
		return reconcile.Retry(v1alpha1.ReasonRetrying, note)
	}
	switch {
	case err == nil && step.Here:
		return inFlight(plan, step.Name).After(echoTimeout)
	case err == nil:
		e.set(r.Me.Key, &flight{step: step.key(), since: began})
		return inFlight(plan, step.Name).After(echoTimeout)
	case errors.Is(err, xenapi.ErrOutcomeUnknown):
		e.set(r.Me.Key, &flight{step: step.key(), since: began, unknown: true})
		return reconcile.Retry(v1alpha1.ReasonRetrying, err)
	default:
		return e.fail(r.Me.Key, step.key(), failed(ctx, r, step.Name, err))
	}
}

// rests reports whether a step that has failed is still to be left alone, and what the pass ends in then. Whatever wakes the
// instance meanwhile does not make it try again.
func (e *Executor) rests(key xencache.Key, step Step) (reconcile.Outcome, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	last := e.failed[key]
	left := last.at.Add(step.RetryAfter).Sub(e.clock.Now())
	if last.step != step.key() || left <= 0 {
		delete(e.failed, key)
		return reconcile.Done(), false
	}
	if last.outcome.Kind() == reconcile.KindRetry { // the attempt is counted already
		return reconcile.Wait(last.outcome.Reason(), last.outcome.Message()).After(left), true
	}
	return last.outcome.After(left), true
}

// fail remembers that a step has failed, and in what the pass ended.
func (e *Executor) fail(key xencache.Key, step string, outcome reconcile.Outcome) reconcile.Outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed[key] = failure{step: step, at: e.clock.Now(), outcome: outcome}
	return outcome
}

// note tells a step why its act has failed.
func (s Step) note(ctx context.Context, r *Run, cause error) error {
	if cause == nil || s.Failed == nil {
		return nil
	}
	return s.Failed(ctx, r, cause)
}

// strangers names an operation under way on the VM, or on its rescue VM, that this process did not begin: an
// administrator's, or ours from before a restart. A step that may overtake a shutdown need not wait for one.
func (e *Executor) strangers(r *Run, step Step) string {
	for _, vm := range []*VM{r.VM, r.Rescue} {
		if vm == nil {
			continue
		}
		for task, operation := range vm.Running {
			shutdown := operation == string(xenapi.VMOperationCleanShutdown) || operation == string(xenapi.VMOperationCleanReboot)
			if !e.Knows(task) && (step.Overtakes == "" || !shutdown) {
				return operation
			}
		}
	}
	return ""
}

// land sees to what is in flight. It reports busy if the pass must end with that.
func (e *Executor) land(ctx context.Context, r *Run, plan Plan) (reconcile.Outcome, bool) {
	current := e.flight(r.Me.Key)
	switch {
	case current == nil:
		return reconcile.Done(), false
	case current.task != "":
		return e.landTask(ctx, r, plan, current)
	case current.unknown:
		return e.lookAgain(ctx, r, plan, current)
	}
	left := echoTimeout - e.clock.Since(current.since)
	switch {
	case len(plan.Steps) == 0:
		if left <= 0 {
			e.clear(r.Me.Key)
		}
		return reconcile.Done(), false // nothing to repeat
	case plan.Steps[0].key() != current.step:
		e.clear(r.Me.Key)
		return reconcile.Done(), false // seen
	case left > 0:
		return inFlight(plan, current.step).After(left).Join(plan.deadline()), true
	default:
		return e.lookAgain(ctx, r, plan, current) // no event came: ask for one
	}
}

// lookAgain waits until the memory of the pool is as new as this moment. The facts of this pass are older, so it ends.
func (e *Executor) lookAgain(ctx context.Context, r *Run, plan Plan, current *flight) (reconcile.Outcome, bool) {
	if err := r.Sync(ctx, !current.unknown); err != nil {
		return reconcile.Retry(v1alpha1.ReasonRetrying, r.doing(err, "look again")), true
	}
	e.clear(r.Me.Key)
	return inFlight(plan, current.step).After(atOnce), true
}

// landTask sees to a task in flight. A plan that has moved on to a step that may overtake the task (pulling the plug on a
// guest that does not shut down) is let through.
func (e *Executor) landTask(ctx context.Context, r *Run, plan Plan, current *flight) (reconcile.Outcome, bool) {
	state := r.Tasks.State(current.task)
	switch {
	case !state.Seen && !current.seen && e.clock.Since(current.since) < echoTimeout:
		return inFlight(plan, current.step).After(echoTimeout).Join(plan.deadline()), true
	case !state.Seen: // the pool has forgotten it, a restarted toolstack for instance: the objects must tell
		return e.lookAgain(ctx, r, plan, current)
	case !state.Over:
		current.seen = true
		return e.awaitTask(ctx, r, plan, current)
	}
	e.clear(r.Me.Key)
	for _, task := range []xenapi.TaskRef{current.overtaken, current.task} {
		if task.IsNull() {
			continue
		}
		if err := r.Client.Task.Destroy(ctx, task); err != nil && !isGone(err) {
			return reconcile.Retry(v1alpha1.ReasonRetrying, r.doing(err, "tidy up after %s", current.step)), true
		}
	}
	if state.Err != nil {
		if len(plan.Steps) > 0 && plan.Steps[0].key() == current.step {
			if note := plan.Steps[0].note(ctx, r, state.Err); note != nil {
				return reconcile.Retry(v1alpha1.ReasonRetrying, note), true
			}
		}
		outcome := failed(ctx, r, current.step, r.doing(state.Err, "%s", current.step))
		return e.fail(r.Me.Key, current.step, outcome).Join(plan.deadline()), true
	}
	if len(plan.Steps) > 0 && plan.Steps[0].key() == current.step {
		// The facts of this pass are from before the task's end.
		e.set(r.Me.Key, &flight{step: current.step, since: e.clock.Now()})
		return inFlight(plan, current.step).After(echoTimeout).Join(plan.deadline()), true
	}
	return reconcile.Done(), false
}

// awaitTask waits for a task that goes on, as far as events tell. Now and then the pool itself is asked: if it knows
// better, events are missing.
func (e *Executor) awaitTask(ctx context.Context, r *Run, plan Plan, current *flight) (reconcile.Outcome, bool) {
	if len(plan.Steps) > 0 && plan.Steps[0].Overtakes != "" && plan.Steps[0].Overtakes == current.step {
		return reconcile.Done(), false
	}
	if current.asked.IsZero() {
		current.asked = current.since
	}
	left := taskDoubt - e.clock.Since(current.asked)
	if left <= 0 {
		left, current.asked = taskDoubt, e.clock.Now()
		status, err := r.Client.Task.GetStatus(ctx, current.task)
		if isGone(err) || (err == nil && status != xenapi.TaskStatusPending && status != xenapi.TaskStatusCancelling) {
			if err := r.Sync(ctx, true); err != nil {
				return reconcile.Retry(v1alpha1.ReasonRetrying, r.doing(err, "look again")), true
			}
			left = atOnce
		}
	}
	if len(plan.Steps) == 0 && !plan.Outcome.IsDone() {
		return plan.Outcome.After(left), true // what is waited for in vain is said, the task goes on
	}
	return inFlight(plan, current.step).After(left).Join(plan.deadline()), true
}

func (e *Executor) flight(key xencache.Key) *flight {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.flights[key]
}

func (e *Executor) set(key xencache.Key, f *flight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flights[key] = f
	if f.task == "" {
		return
	}
	if len(e.tasks) >= rememberTasks {
		e.tasks, e.older = map[xenapi.TaskRef]struct{}{}, e.tasks
	}
	e.tasks[f.task] = struct{}{}
}

func (e *Executor) clear(key xencache.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flights, key)
}

// Forget drops what is remembered of an instance that is gone.
func (e *Executor) Forget(key xencache.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flights, key)
	delete(e.failed, key)
}
