package testkit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/pkg/xensim"
)

// EveryActionVariable makes the crash harness kill the manager after every action instead of after some.
const EveryActionVariable = "KUBEXEN_CRASH_EVERY_ACTION"

// sparse is how many actions lie between two kills in the quick mode.
const sparse = 4

// Workflow is a story that must end the same way wherever the manager dies in it.
type Workflow struct {
	Name string
	// Simulator says what pool to start from; nil is the demonstration pool.
	Simulator func(t testing.TB) xensim.Options
	// Setup brings the world to where the story begins and waits until it is there. A manager runs.
	Setup func(t testing.TB, w *World)
	// Drive does what the user does, and waits for nothing.
	Drive func(t testing.TB, w *World)
	// Then is what the user does next, nil for nothing: as soon as Reached no longer complains, or, where the manager is killed on
	// the way there, before another one starts. The manager is killed only on the way there.
	Then    func(t testing.TB, w *World)
	Reached func(ctx context.Context, w *World) error
	// Converged complains as long as the cluster does not say that it is done.
	Converged func(ctx context.Context, w *World) error
	// VMs is how many VMs with the mark of our installation, and the role vm, there are in the end.
	VMs int
	// Step is how many actions lie between two kills in the quick mode; 0 is four.
	Step int
}

// Crash runs a workflow once without a kill, and counts the XenAPI calls and API-server writes that it takes. Then it
// runs it again and again, each time killing the manager after one of them, before the next, and starting another. All
// must end with what the first left on the pool, and with nothing of anybody else touched and no secret shown.
//
// In quick mode (the default) it kills after every fourth action or what Step says, the first and the last; KUBEXEN_CRASH_EVERY_ACTION=1
// kills after each one.
func Crash(t *testing.T, environment *Environment, run RunManager, workflow Workflow) {
	t.Helper()
	var undisturbed Ending
	t.Run("undisturbed", func(t *testing.T) {
		var err error
		if undisturbed, err = workflow.Undisturbed(t, environment, run); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d actions:\n%s\nthe pool in the end:\n  %s", len(undisturbed.Actions), listed(undisturbed.Actions),
			strings.Join(undisturbed.Inventory, "\n  "))
	})
	if t.Failed() {
		return
	}
	for _, k := range KillPoints(len(undisturbed.Actions), cmp.Or(workflow.Step, sparse)) {
		t.Run(fmt.Sprintf("killed after %02d %s", k, path(undisturbed.Actions[k-1])), func(t *testing.T) {
			if err := workflow.KilledAfter(t, environment, run, k, undisturbed); err != nil {
				t.Error(err)
			}
		})
	}
}

// Ending is what an undisturbed run took, and what it left.
type Ending struct {
	Actions   []Action
	Inventory []string // of our objects on the pool, one line each
}

// goal is the end of the way on which the manager is killed.
func (workflow Workflow) goal() func(ctx context.Context, w *World) error {
	if workflow.Then != nil {
		return workflow.Reached
	}
	return workflow.Converged
}

// Undisturbed runs the workflow without a kill.
func (workflow Workflow) Undisturbed(t testing.TB, environment *Environment, run RunManager) (Ending, error) {
	t.Helper()
	w := workflow.begin(t, environment, run)
	defer w.Close()
	w.manager.fence.Arm(0)
	workflow.Drive(t, w)
	if err := workflow.finish(w, workflow.goal()); err != nil {
		return Ending{}, err
	}
	ending := Ending{Actions: w.manager.fence.Actions()}
	if workflow.Then != nil {
		workflow.Then(t, w)
		if err := workflow.finish(w, workflow.Converged); err != nil {
			return Ending{}, err
		}
	}
	ending.Inventory = w.inventory()
	return ending, workflow.check(t.Context(), w, ending.Inventory)
}

// KilledAfter runs the workflow, kills the manager after k actions, and lets another one finish. The error tells what
// is not as in the undisturbed run.
func (workflow Workflow) KilledAfter(t testing.TB, environment *Environment, run RunManager, k int, undisturbed Ending) error {
	t.Helper()
	w := workflow.begin(t, environment, run)
	defer w.Close()
	first := w.manager.fence
	first.Arm(k)
	workflow.Drive(t, w)
	goal := workflow.goal()
	err := w.until("the manager is killed", func(ctx context.Context) error {
		if err := goal(ctx, w); err != nil {
			return err
		}
		return w.atRest() // it took fewer actions this time
	})
	if err != nil && !errors.Is(err, errKilled) {
		return fmt.Errorf("%w\nthe first manager did:\n%s", err, listed(first.Actions()))
	}
	w.KillManager()
	if workflow.Then != nil {
		workflow.Then(t, w)
	}
	second := w.StartManager()
	if err = workflow.finish(w, workflow.Converged); err == nil {
		err = workflow.check(t.Context(), w, undisturbed.Inventory)
	}
	if err != nil {
		return fmt.Errorf("%w\nthe first manager did:\n%s\nthe second:\n%s", err, listed(first.Actions()), listed(second.Actions()))
	}
	return nil
}

// begin makes a world and brings it to where the story begins.
func (workflow Workflow) begin(t testing.TB, environment *Environment, run RunManager) *World {
	t.Helper()
	var options xensim.Options
	if workflow.Simulator != nil {
		options = workflow.Simulator(t)
	}
	w := NewWorld(t, environment, run, options)
	w.StartManager()
	w.WaitReady(t, Pool(PoolName).Object())
	if workflow.Setup != nil {
		workflow.Setup(t, w)
	}
	if err := w.atRest(); err != nil {
		t.Fatal(err)
	}
	return w
}

// finish waits for the end of the story, or of a part of it.
func (workflow Workflow) finish(w *World, converged func(context.Context, *World) error) error {
	err := w.until(workflow.Name+" has converged", func(ctx context.Context) error { return converged(ctx, w) })
	if err == nil {
		err = w.atRest()
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, w.describe(context.WithoutCancel(w.t.Context())))
	}
	return nil
}

// check holds the end of a run against what must be true of every one, and against the undisturbed run's inventory.
func (workflow Workflow) check(ctx context.Context, w *World, want []string) error {
	var problems []error
	if got := w.markedVMs(); got != workflow.VMs {
		problems = append(problems, fmt.Errorf("%d VMs carry our mark, want %d", got, workflow.VMs))
	}
	if diff := difference(want, w.inventory()); diff != "" {
		problems = append(problems, fmt.Errorf("the pool is not as without the crash:\n%s", diff))
	}
	problems = append(problems, w.strangers.check(w.Simulator), w.checkSecrecy(ctx), w.checkStatus(ctx))
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%w\n%s", err, w.describe(ctx))
	}
	return nil
}

// markedVMs counts the VMs that are ours and nobody's snapshot.
func (w *World) markedVMs() int {
	count := 0
	for _, record := range w.Simulator.Records("VM") {
		config, _ := record["other_config"].(map[string]string)
		if config["kubexen.io/installation"] == Installation && config["kubexen.io/role"] == "vm" && record["is_a_snapshot"] != true {
			count++
		}
	}
	return count
}

// checkStatus holds every object's status against what generic tools expect of it.
func (w *World) checkStatus(ctx context.Context) error {
	objects, err := w.objects(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, object := range objects {
		ours, ok := object.(Object)
		if !ok {
			return fmt.Errorf("%T is no kind of ours", object)
		}
		if err := CheckKstatus(ours); err != nil {
			problems = append(problems, fmt.Errorf("%T %s: %w", object, object.GetName(), err))
		}
	}
	return errors.Join(problems...)
}

// describe shows what a reader of a failure wants to see: the objects, the pool, and the end of the log.
func (w *World) describe(ctx context.Context) string {
	var out strings.Builder
	objects, err := w.objects(ctx)
	if err != nil {
		fmt.Fprintf(&out, "the objects cannot be read: %v\n", err)
	}
	for _, object := range objects {
		fmt.Fprintf(&out, "--- %T\n%s", object, Manifest(object.DeepCopyObject().(client.Object)))
	}
	fmt.Fprintf(&out, "--- on the pool\n  %s\n", strings.Join(w.inventory(), "\n  "))
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	fmt.Fprintf(&out, "--- the end of the managers' log\n%s\n", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	return out.String()
}

// KillPoints are the actions after which to kill: the first, the last, and in between each so many, step. With
// KUBEXEN_CRASH_EVERY_ACTION=1 they are all.
func KillPoints(actions, step int) []int {
	if os.Getenv(EveryActionVariable) != "" {
		step = 1
	}
	var points []int
	for k := 1; k <= actions; k += step {
		points = append(points, k)
	}
	if actions > 0 && !slices.Contains(points, actions) {
		points = append(points, actions)
	}
	return points
}

func listed(actions []Action) string {
	var out strings.Builder
	for i, action := range actions {
		fmt.Fprintf(&out, "  %2d %s\n", i+1, action)
	}
	return out.String()
}

// path is an action as a part of a test's name.
func path(action Action) string {
	return strings.NewReplacer("/", ".", " ", "_").Replace(action.String())
}
