package controllers_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// shrinkStep is how many actions lie between two kills in the quick mode.
const shrinkStep = 18

// shrinkStory is what the runs of a workflow remember, by the namespace of their world.
type shrinkStory struct {
	image, tree string

	mu   sync.Mutex
	runs map[string]shrinkRun
}

// shrinkRun is one run: its test, and the first root disk with the digest of its content.
type shrinkRun struct {
	t            testing.TB
	old, content string
}

// begin makes a guest with files on its disk.
func (s *shrinkStory) begin(change func(*v1alpha1.XenInstance)) func(testing.TB, *testkit.World) {
	return func(t testing.TB, w *testkit.World) {
		addFlavors(t, w)
		instance := guest(t, w, s.image, change)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.runs[w.Namespace] = shrinkRun{t, instance.Status.RootDisk.VDIUUID, content(t, w, instance)}
	}
}

func (s *shrinkStory) run(w *testkit.World) shrinkRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[w.Namespace]
}

// ends complains until the resize is over, and then checks the disk.
func (s *shrinkStory) ends(size int64, check func(shrinkRun, *testkit.World, *v1alpha1.XenInstance)) func(context.Context, *testkit.World) error {
	return func(ctx context.Context, w *testkit.World) error {
		instance := web(w).Object()
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(instance), instance); err != nil {
			return err
		}
		root := instance.Status.RootDisk
		if root == nil || root.Size == nil || root.Size.Value() != size {
			return errors.New("the root disk has another size")
		}
		err := errors.Join(testkit.Ready(instance), isRunning(instance), resizedTo("small")(instance))
		if err == nil {
			check(s.run(w), w, instance)
		}
		return err
	}
}

// TestCrashInShrink kills the manager on the way to a smaller root disk, and on the way back to the disk from before. In the end
// the pool has what it has without a kill: one root disk with its files, no half copy, no task.
func TestCrashInShrink(t *testing.T) {
	t.Parallel()
	story := &shrinkStory{runs: map[string]shrinkRun{}}
	story.image, story.tree = guestImage(t, mbrTable)
	smaller := story.ends(smallerDisk, func(r shrinkRun, w *testkit.World, i *v1alpha1.XenInstance) {
		checkGuest(r.t, w, i, mbrTable, story.image, story.tree)
	})
	asBefore := story.ends(10<<30, func(r shrinkRun, w *testkit.World, i *v1alpha1.XenInstance) {
		if i.Status.RootDisk.VDIUUID != r.old || content(r.t, w, i) != r.content {
			r.t.Errorf("the root disk is not the one from before: %+v", i.Status.RootDisk)
		}
	})
	workflows := []testkit.Workflow{
		{
			Name: "shrink", VMs: 1, Setup: story.begin(restarting), Converged: smaller,
			Drive: func(t testing.TB, w *testkit.World) { changed(t, w, shrunkTo(afterShrink)) },
		},
		{
			Name: "discard", VMs: 1, Converged: asBefore,
			Setup: func(t testing.TB, w *testkit.World) {
				story.begin(manually)(t, w)
				changed(t, w, shrunkTo(afterShrink))
				waitInstance(t, w, web(w).Object(), "it waits to be confirmed", awaiting, isRunning)
			},
			Drive: func(t testing.TB, w *testkit.World) {
				changed(t, w, together(rooted(beforeShrink), func(i *v1alpha1.XenInstance) {
					i.Spec.RootDisk.ShrinkTo, i.Spec.Resize.DiscardTo = nil, story.run(w).old
				}))
			},
		},
	}
	for _, workflow := range workflows {
		workflow.Simulator, workflow.Step = func(testing.TB) xensim.Options { return withAgents }, shrinkStep
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}
