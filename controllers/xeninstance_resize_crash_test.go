package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// ownDisks are the disks of the instances of a world when its story begins: the world, then their references.
var ownDisks sync.Map

// watchDisks remembers the disks of the instance, and what its guest has written.
func watchDisks(w *testkit.World) {
	own := map[string]bool{}
	for ref, disk := range w.Simulator.Records("VDI") {
		config, _ := disk["other_config"].(map[string]string)
		if role := config["kubexen.io/role"]; role == "root-disk" || role == "data-disk" {
			own[ref] = true
		}
	}
	w.Simulator.ResetCalls()
	ownDisks.Store(w, own)
}

// keptDisks complains if one of those disks was asked to be destroyed, whatever became of it.
func keptDisks(w *testkit.World) error {
	own, known := ownDisks.Load(w)
	if !known {
		return errors.New("nobody watches the disks")
	}
	for _, call := range w.Simulator.Calls() {
		if strings.TrimPrefix(call.Method, "Async.") == "VDI.destroy" && own.(map[string]bool)[call.Ref] {
			return fmt.Errorf("%s of %q, which the instance has", call.Method, call.Object)
		}
	}
	return nil
}

// contains complains if the root disk of a running instance does not hold a text.
func contains(w *testkit.World, i *v1alpha1.XenInstance, text string) error {
	for ref, vm := range w.Simulator.Records("VM") {
		if vm["uuid"] != i.Status.UUID {
			continue
		}
		disk, err := w.Simulator.Guest().Disk(ref, "0")
		if err != nil {
			return err
		}
		block := make([]byte, 4096)
		if _, err := disk.ReadAt(block, 5<<20); err != nil {
			return err
		}
		if got := string(bytes.TrimRight(block, "\x00")); got != text {
			return fmt.Errorf("the root disk has %q, want %q", got, text)
		}
		return nil
	}
	return errors.New("there is no VM")
}

// resizeWorkflows are the ways of a resize: there, to its end, and back.
func resizeWorkflows() []testkit.Workflow {
	begin := func(how func(*v1alpha1.XenInstance)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) {
			addFlavors(t, w)
			small(t, w, how)
			watchDisks(w)
		}
	}
	grow := together(flavored("large"), rooted("20Gi"))
	waiting := func(t testing.TB, w *testkit.World) {
		begin(manually)(t, w)
		changed(t, w, grow)
		instance := web(w).Object()
		w.WaitFor(t, instance, "it waits to be confirmed", func() error { return awaiting(instance) })
		scribble(t, w, instance, "after")
		watchDisks(w)
	}
	drive := func(change func(*v1alpha1.XenInstance)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) { changed(t, w, change) }
	}
	ends := func(text string, kept bool, also ...func(*v1alpha1.XenInstance) error) func(context.Context, *testkit.World) error {
		return func(ctx context.Context, w *testkit.World) error {
			return ofInstance(func(i *v1alpha1.XenInstance) error {
				problems := []error{isRunning(i), contains(w, i, text)}
				if kept {
					problems = append(problems, keptDisks(w))
				}
				for _, holds := range also {
					problems = append(problems, holds(i))
				}
				return errors.Join(problems...)
			})(ctx, w)
		}
	}
	return []testkit.Workflow{
		{Name: "up", VMs: 1, Setup: begin(restarting), Drive: drive(grow), Converged: ends("before", true, resizedTo("large"), instanceReady)},
		{Name: "up to be confirmed", VMs: 1, Setup: begin(manually), Drive: drive(grow), Converged: ends("before", true, awaiting)},
		{
			Name: "confirm", VMs: 1, Setup: waiting, Drive: drive(func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = i.Status.Resize.ID }),
			Converged: ends("after", true, resizedTo("large"), instanceReady),
		},
		{Name: "revert", VMs: 1, Setup: waiting, Drive: drive(flavored("small")), Converged: ends("after", true, resizedTo("small"), instanceReady)},
		{
			Name: "revert with the disk", VMs: 1, Setup: waiting,
			Drive: drive(together(flavored("small"), rooted("12Gi"), func(i *v1alpha1.XenInstance) {
				i.Spec.Resize.DiscardTo = i.Status.Resize.RestorePoint.ID
			})),
			Converged: ends("before", false, resizedTo("small"), instanceReady),
		},
		{
			Name: "time out", VMs: 1, Setup: waiting,
			Drive: drive(func(i *v1alpha1.XenInstance) {
				i.Spec.Resize.ConfirmTimeoutSeconds, i.Spec.Resize.OnTimeout = ptr.To[int32](1), v1alpha1.ResizeTimeoutRevert
			}),
			Converged: ends("after", true, refused(v1alpha1.ReasonRolledBack, "small")),
		},
		{Name: "destroyed while it waits", VMs: 0, Setup: waiting, Converged: isGone, Drive: deleteWeb},
	}
}

// deleteWeb deletes the instance, and waits for nothing.
func deleteWeb(t testing.TB, w *testkit.World) {
	t.Helper()
	if err := w.Client.Delete(t.Context(), web(w).Object()); err != nil {
		t.Fatal(err)
	}
}

// ofInstance asks for the instance as it is stored and its last change seen.
func ofInstance(holds func(*v1alpha1.XenInstance) error) func(context.Context, *testkit.World) error {
	return func(ctx context.Context, w *testkit.World) error {
		instance := web(w).Object()
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(instance), instance); err != nil {
			return err
		}
		if instance.Status.ObservedGeneration != instance.Generation {
			return errors.New("the change is not seen yet")
		}
		return holds(instance)
	}
}

// TestCrashInResize kills the manager at points all along the way of a resize, there and back: the VM has one size in the
// end, its disk holds what it should, and nothing is left over. In quick mode it is the longest ways alone, which have the
// steps of the others.
func TestCrashInResize(t *testing.T) {
	t.Parallel()
	quick := []string{"up to be confirmed", "revert with the disk"}
	for _, workflow := range resizeWorkflows() {
		if os.Getenv(testkit.EveryActionVariable) == "" && !slices.Contains(quick, workflow.Name) {
			continue
		}
		workflow.Simulator = func(testing.TB) xensim.Options { return withAgents }
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}

// TestDeletedAnywhereInResize deletes the instance after points all along the way of a resize with a restore point, back with the
// disk, and to a smaller disk: nothing of it is left on the pool. The manager dies each time too, so all that is known of the way
// is what is on the pool; one that lives on is tested while the disk is copied (TestDeletedInShrink).
func TestDeletedAnywhereInResize(t *testing.T) {
	t.Parallel()
	story := &shrinkStory{runs: map[string]shrinkRun{}}
	story.image, story.tree = guestImage(t, mbrTable)
	shrinks := testkit.Workflow{
		Name: "smaller", Setup: story.begin(manually), Reached: ofInstance(awaiting), Step: shrinkStep,
		Drive: func(t testing.TB, w *testkit.World) { changed(t, w, shrunkTo(afterShrink)) },
	}
	for _, workflow := range append(resizeWorkflows(), shrinks) {
		switch workflow.Name {
		case "up to be confirmed", "revert with the disk":
			workflow.Reached, workflow.Step = workflow.Converged, deletedStep
		case "smaller":
		default:
			continue
		}
		workflow.VMs, workflow.Converged, workflow.Then = 0, isGone, deleteWeb
		workflow.Simulator = func(testing.TB) xensim.Options { return withAgents }
		t.Run(workflow.Name, func(t *testing.T) {
			t.Parallel()
			testkit.Crash(t, testkit.Start(t), runManager, workflow)
		})
	}
}

// deletedStep is how many actions lie between two deletions in the quick mode.
const deletedStep = 12
