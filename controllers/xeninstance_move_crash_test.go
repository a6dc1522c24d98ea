package controllers_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// moveWorkflows are the ways to another host. The second takes the disks along, which lose their marks on the way.
func moveWorkflows() []testkit.Workflow {
	placed := func(storage string) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) {
			addFlavors(t, w)
			instance := web(w).Disk("data", "1Gi").DeletedBy(v1alpha1.DeletionDelete).With(storedOn(storage)).With(toHost("xs1")).Object()
			create(t, w, instance)
			w.WaitReady(t, instance)
			w.WaitFor(t, instance, "the guest's agent reports", func() error { return guestReports(instance) })
			watchDisks(w)
		}
	}
	move := func(t testing.TB, w *testkit.World) { changed(t, w, toHost("xs2")) }
	there := func(ctx context.Context, w *testkit.World) error {
		return errors.Join(isReady(func(i *v1alpha1.XenInstance) error { return errors.Join(isRunning(i), isOn("xs2")(i)) })(ctx, w), keptDisks(w))
	}
	return []testkit.Workflow{
		{Name: "live", VMs: 1, Setup: placed(sharedStorage), Drive: move, Converged: there},
		{Name: "with its disks", VMs: 1, Setup: placed(localStorage), Drive: move, Converged: there},
		{
			Name: "deleted on its way", VMs: 0, Setup: placed(localStorage), Converged: isGone,
			Drive: func(t testing.TB, w *testkit.World) {
				move(t, w)
				if err := w.Client.Delete(t.Context(), web(w).Object()); err != nil {
					t.Fatal(err)
				}
			},
		},
	}
}

// guestReports complains until the guest's agent reports.
func guestReports(i *v1alpha1.XenInstance) error {
	return testkit.Condition(i, v1alpha1.ConditionGuestReady, "True", "")
}

// TestCrashInMove kills the manager at every point of the way to another host.
func TestCrashInMove(t *testing.T) {
	t.Parallel()
	for _, workflow := range moveWorkflows() {
		workflow.Simulator = func(testing.TB) xensim.Options { return twoHosts }
		t.Run(workflow.Name, func(t *testing.T) { testkit.Crash(t, testkit.Start(t), runManager, workflow) })
	}
}

// TestFaultsInMove: whatever call of the way to another host fails once, and however, the VM gets there, running, with all its
// disks and all their marks.
func TestFaultsInMove(t *testing.T) {
	t.Parallel()
	faultsInMove(t, localStorage)
}

// TestFaultsInLiveMove: neither does a fault keep a guest from going to another host that sees its disks.
func TestFaultsInLiveMove(t *testing.T) {
	t.Parallel()
	faultsInMove(t, sharedStorage)
}

func faultsInMove(t *testing.T, storage string) {
	t.Helper()
	w, fence := newWorld(t, twoHosts)
	instance := web(w).Disk("data", "1Gi").With(storedOn(storage)).With(toHost("xs1")).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	w.WaitAtRest(t)
	uuid := instance.Status.UUID
	before, objects := settled(w, uuid), census(w)
	watchDisks(w)
	booted := bootedAt(w, byUUID(t, w, "VM", uuid))
	round := func(t *testing.T) {
		t.Helper()
		target := otherHost(hostOf(w, uuid))
		if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err != nil {
			t.Fatal(err)
		}
		edit(t, w, instance, toHost(target))
		waitOn(t, w, instance, target)
		w.WaitAtRest(t)
		if diff := differences(before, settled(w, uuid)); diff != "" {
			t.Errorf("after the move:\n%s", diff)
		}
		if after := census(w); !maps.Equal(objects, after) {
			t.Errorf("the pool had %v and has %v", objects, after)
		}
		if at := bootedAt(w, byUUID(t, w, "VM", uuid)); at != booted {
			t.Errorf("it was booted at %s, and again at %s", booted, at)
		}
		if err := keptDisks(w); err != nil { // the pool itself removes what it has moved
			t.Error(err)
		}
		watchDisks(w)
	}
	fence.Arm(0)
	round(t)
	methods := map[string]bool{}
	for _, call := range calls(fence) {
		if method := strings.TrimPrefix(call, "Async."); !strings.HasPrefix(method, "task.") {
			methods[method] = true
		}
	}
	faults := map[string][]xensim.Fault{}
	loseCalls(faults, slices.Sorted(maps.Keys(methods)), faultsTogether)
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			w.Simulator.SetFaults(faults[name])
			round(t)
		})
	}
}
