package controllers_test

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// rescueStep is how many actions lie between two kills in the quick mode: there are many workflows.
const rescueStep = 7

// rescueWorkflows are the ways into a rescue and out of it. Each ends with the instance's own disks as they were: a disk of
// its that is destroyed is missing in the end.
func rescueWorkflows() []testkit.Workflow {
	begin := func(change func(*testkit.InstanceBuilder)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) {
			addFlavors(t, w)
			addRescueImage(t, w)
			builder := web(w).Disk("data", "2Gi")
			change(builder)
			instance := builder.Object()
			create(t, w, instance)
			w.WaitReady(t, instance)
		}
	}
	plain := begin(func(*testkit.InstanceBuilder) {})
	within := func(change func(*testkit.InstanceBuilder)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) {
			begin(change)(t, w)
			instance := web(w).Object()
			changed(t, w, inRescue)
			w.WaitFor(t, instance, "it is in rescue", func() error {
				return errors.Join(rescued(v1alpha1.ReasonRescueActive)(instance), testkit.Ready(instance))
			})
		}
	}
	drive := func(change func(*v1alpha1.XenInstance)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) { changed(t, w, change) }
	}
	remove := func(t testing.TB, w *testkit.World) {
		if err := w.Client.Delete(t.Context(), web(w).Object()); err != nil {
			t.Fatal(err)
		}
	}
	back := func(reason string) func(context.Context, *testkit.World) error {
		return isReady(func(i *v1alpha1.XenInstance) error { return errors.Join(rescued(reason)(i), isRunning(i)) })
	}
	return []testkit.Workflow{
		{
			Name: "enter", VMs: 1, Setup: plain, Drive: drive(inRescue),
			Converged: isReady(func(i *v1alpha1.XenInstance) error {
				return errors.Join(rescued(v1alpha1.ReasonRescueActive)(i), isRunning(i))
			}),
		},
		{
			Name: "leave", VMs: 1, Setup: within(func(*testkit.InstanceBuilder) {}), Drive: drive(outOfRescue),
			Converged: back(v1alpha1.ReasonNotRequested),
		},
		{
			Name: "timeout", VMs: 1, Setup: within(func(*testkit.InstanceBuilder) {}),
			Drive:     drive(func(i *v1alpha1.XenInstance) { i.Spec.Rescue.TimeoutSeconds = ptr.To[int32](1) }),
			Converged: back(v1alpha1.ReasonRescueTimedOut),
		},
		{
			Name: "leave changed", VMs: 1, Setup: within(func(*testkit.InstanceBuilder) {}),
			Drive: drive(func(i *v1alpha1.XenInstance) {
				outOfRescue(i)
				i.Spec.FlavorRef.Name = "large"
			}),
			Converged: isReady(func(i *v1alpha1.XenInstance) error {
				return errors.Join(rescued(v1alpha1.ReasonNotRequested)(i), isRunning(i), resizedTo("large")(i))
			}),
		},
		{
			Name: "destroy", VMs: 0, Drive: remove, Converged: isGone,
			Setup: within(func(b *testkit.InstanceBuilder) { b.DeletedBy(v1alpha1.DeletionDelete) }),
		},
		{
			Name: "trash", VMs: 1, Setup: within(func(*testkit.InstanceBuilder) {}), Drive: remove, Converged: isGone,
		},
		{
			Name: "orphan", VMs: 0, Drive: remove, Converged: isGone,
			Setup: within(func(b *testkit.InstanceBuilder) { b.DeletedBy(v1alpha1.DeletionOrphan) }),
		},
	}
}

// changed changes the instance's spec as it is stored now.
func changed(t testing.TB, w *testkit.World, change func(*v1alpha1.XenInstance)) {
	t.Helper()
	instance := web(w).Object()
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err != nil {
		t.Fatal(err)
	}
	edit(t, w, instance, change)
}

// TestCrashInRescue kills the manager at every point of the way into a rescue and out of it.
func TestCrashInRescue(t *testing.T) {
	t.Parallel()
	for _, workflow := range rescueWorkflows() {
		workflow.Simulator, workflow.Step = func(testing.TB) xensim.Options { return withAgents }, rescueStep
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}

// TestLostStatusInRescue kills the manager likewise, and has the next one begin without a status, as after the restore of a
// backup: what the pool remembers is enough.
func TestLostStatusInRescue(t *testing.T) {
	t.Parallel()
	for _, workflow := range rescueWorkflows()[:3] {
		workflow.Simulator, workflow.Step = func(testing.TB) xensim.Options { return withAgents }, 2*rescueStep
		workflow.Reached, workflow.Then = workflow.Converged, loseStatuses
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}

// loseStatuses takes the status from every instance.
func loseStatuses(t testing.TB, w *testkit.World) {
	t.Helper()
	var list v1alpha1.XenInstanceList
	if err := w.Client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		err := w.Client.Status().Patch(t.Context(), &list.Items[i], client.RawPatch(types.JSONPatchType, []byte(`[{"op":"replace","path":"/status","value":{}}]`)))
		if err != nil {
			t.Fatal(err)
		}
	}
}
