package controllers_test

import (
	"context"
	"errors"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// snapshotSetup makes the instance of which snapshots are taken.
func snapshotSetup(t testing.TB, w *testkit.World) {
	addFlavors(t, w)
	object := web(w).Object()
	create(t, w, object)
	w.WaitReady(t, object)
	watchDisks(w)
}

// making is a workflow's drive that makes an object.
func making(object func(*testkit.World) testkit.Object) func(testing.TB, *testkit.World) {
	return func(t testing.TB, w *testkit.World) { create(t, w, object(w).(client.Object)) }
}

// beside complains of a disk of the instance that was asked to be destroyed, too.
func beside(converged func(context.Context, *testkit.World) error) func(context.Context, *testkit.World) error {
	return func(ctx context.Context, w *testkit.World) error { return errors.Join(converged(ctx, w), keptDisks(w)) }
}

// madeReady complains until the object is Ready.
func madeReady(object func(*testkit.World) testkit.Object) func(context.Context, *testkit.World) error {
	return func(ctx context.Context, w *testkit.World) error {
		now := object(w)
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(now.(client.Object)), now.(client.Object)); err != nil {
			return err
		}
		return testkit.Ready(now)
	}
}

// crashAll runs workflows through the crash harness.
func crashAll(t *testing.T, workflows []testkit.Workflow) {
	t.Helper()
	for _, workflow := range workflows {
		workflow.Simulator = func(testing.TB) xensim.Options { return withAgents }
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}

// TestSnapshotCrash kills the manager at every point of a capture and of its removal. Uploads and imports are in
// transfer_crash_test.go.
func TestSnapshotCrash(t *testing.T) {
	t.Parallel()
	local := func(w *testkit.World) testkit.Object { return xenSnapshot(w, "point", nil) }
	crashAll(t, []testkit.Workflow{
		{Name: "capture", VMs: 1, Setup: snapshotSetup, Drive: making(local), Converged: beside(madeReady(local))},
		{
			Name: "delete", VMs: 1,
			Setup: func(t testing.TB, w *testkit.World) {
				snapshotSetup(t, w)
				s := xenSnapshot(w, "point", nil)
				create(t, w, s)
				w.WaitReady(t, s)
			},
			Drive: func(t testing.TB, w *testkit.World) {
				if err := w.Client.Delete(t.Context(), xenSnapshot(w, "point", nil)); err != nil {
					t.Fatal(err)
				}
			},
			Converged: beside(func(ctx context.Context, w *testkit.World) error {
				var all v1alpha1.XenSnapshotList
				if err := w.Client.List(ctx, &all, client.InNamespace(w.Namespace)); err != nil || len(all.Items) == 0 {
					return err
				}
				return context.DeadlineExceeded
			}),
		},
	})
}
