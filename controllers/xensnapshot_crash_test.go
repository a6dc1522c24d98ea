package controllers_test

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestSnapshotCrash kills the manager at every point of a capture, an upload, an import and of their removal.
func TestSnapshotCrash(t *testing.T) {
	store := newWebStore(t)
	body := make([]byte, 4<<20)
	store.put("/golden.raw", body)
	instance := func(t testing.TB, w *testkit.World) {
		addFlavors(t, w)
		object := web(w).Object()
		create(t, w, object)
		w.WaitReady(t, object)
	}
	ready := func(object func(*testkit.World) testkit.Object) func(context.Context, *testkit.World) error {
		return func(ctx context.Context, w *testkit.World) error {
			now := object(w)
			if err := w.Client.Get(ctx, client.ObjectKeyFromObject(now.(client.Object)), now.(client.Object)); err != nil {
				return err
			}
			return testkit.Ready(now)
		}
	}
	local := func(w *testkit.World) testkit.Object { return xenSnapshot(w, "point", nil) }
	remote := func(w *testkit.World) testkit.Object { return xenSnapshot(w, "point", toStore(store, nil)) }
	image := func(*testkit.World) testkit.Object {
		return httpImage("golden", store.URL+"/golden.raw", body, testkit.PoolName)
	}
	making := func(object func(*testkit.World) testkit.Object) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) { create(t, w, object(w).(client.Object)) }
	}
	for _, workflow := range []testkit.Workflow{
		{Name: "capture", VMs: 1, Setup: instance, Drive: making(local), Converged: ready(local)},
		{Name: "upload", VMs: 1, Setup: instance, Drive: making(remote), Converged: ready(remote)},
		{Name: "import", Drive: making(image), Converged: ready(image)},
		{
			Name: "delete", VMs: 1,
			Setup: func(t testing.TB, w *testkit.World) {
				instance(t, w)
				s := xenSnapshot(w, "point", nil)
				create(t, w, s)
				w.WaitReady(t, s)
			},
			Drive: func(t testing.TB, w *testkit.World) {
				if err := w.Client.Delete(t.Context(), xenSnapshot(w, "point", nil)); err != nil {
					t.Fatal(err)
				}
			},
			Converged: func(ctx context.Context, w *testkit.World) error {
				var all v1alpha1.XenSnapshotList
				if err := w.Client.List(ctx, &all, client.InNamespace(w.Namespace)); err != nil || len(all.Items) == 0 {
					return err
				}
				return context.DeadlineExceeded
			},
		},
	} {
		workflow.Simulator = func(testing.TB) xensim.Options { return withAgents }
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}
