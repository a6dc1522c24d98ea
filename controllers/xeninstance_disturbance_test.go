package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// waitCall waits until the manager behind a fence has made a call or a write.
func waitCall(t *testing.T, fence *testkit.Fence, what string) {
	t.Helper()
	testkit.Eventually(t, what+" was made", func(context.Context) error {
		actions := fence.Actions()
		if !slices.ContainsFunc(actions, func(a testkit.Action) bool { return a.What == what }) {
			return fmt.Errorf("there were %v", actions)
		}
		return nil
	})
}

// wantOneVM complains unless exactly one VM carries an instance's name, and one disk was made for it.
func wantOneVM(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, disksBefore int) {
	t.Helper()
	found := 0
	for _, record := range w.Simulator.Records("VM") {
		if record["name_label"] == instance.Namespace+"/"+instance.Name {
			found++
		}
	}
	if disks := len(w.Simulator.Records("VDI")) - disksBefore; found != 1 || disks != 1 {
		t.Errorf("%d VMs and %d disks were made, want one of each", found, disks)
	}
}

// TestAnotherCoordinator: another member becomes the coordinator while a VM is made. The old one answers HOST_IS_SLAVE,
// sessions and tasks are lost; the VM is made, once.
func TestAnotherCoordinator(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	for _, call := range []string{"Async.VM.clone", "VM.set_name_label", "Async.VM.start"} {
		t.Run("after "+call, func(t *testing.T) {
			w.WaitAtRest(t)
			disks := len(w.Simulator.Records("VDI"))
			fence.Arm(0)
			instance := web(w).DeletedBy(v1alpha1.DeletionDelete).Object()
			create(t, w, instance)
			waitCall(t, fence, call)
			if err := w.Simulator.SetCoordinator(otherMember(t, w)); err != nil {
				t.Fatal(err)
			}
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			w.WaitAtRest(t)
			wantOneVM(t, w, instance, disks)
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
		})
	}
}

// otherMember is the name of a host that is not the coordinator.
func otherMember(t *testing.T, w *testkit.World) string {
	t.Helper()
	var coordinator any
	for _, record := range w.Simulator.Records("pool") {
		coordinator = record["master"]
	}
	for ref, record := range w.Simulator.Records("host") {
		if ref != coordinator {
			return record["name_label"].(string)
		}
	}
	t.Fatal("the pool has one host")
	return ""
}

// TestAPIServerRestarts: the API server goes away while a VM is made, and a guest shuts itself down meanwhile. When it is
// back the VM is there, once, runs, and its status says so.
func TestAPIServerRestarts(t *testing.T) {
	t.Parallel()
	w := testkit.NewWorld(t, testkit.StartOwn(t), runManager, withAgents)
	fence := w.StartManager()
	addFlavors(t, w)
	steady := web(w).With(func(i *v1alpha1.XenInstance) {
		i.Name = "steady"
		i.Spec.PowerDriftGraceSeconds = new(int32)
	}).Object()
	create(t, w, steady)
	waitPowered(t, w, steady, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	steadyVM := byUUID(t, w, "VM", steady.Status.UUID)
	booted := bootedAt(w, steadyVM)
	disks := len(w.Simulator.Records("VDI"))
	fence.Arm(0)

	instance := web(w).Object()
	create(t, w, instance)
	waitCall(t, fence, "Async.VM.clone")
	w.ControlPlane.StopAPIServer()
	w.Simulator.Guest().Shutdown(steadyVM)
	testkit.Eventually(t, "the pool goes on without the API server", func(context.Context) error {
		if w.Simulator.Records("VM")[steadyVM]["power_state"] != "Halted" {
			return errors.New("the guest still runs")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.ControlPlane.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}

	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitFor(t, steady, "the guest that shut itself down runs again", func() error {
		if bootedAt(w, steadyVM) == booted {
			return errors.New("it was not booted")
		}
		return errors.Join(testkit.Ready(steady), isRunning(steady))
	})
	w.WaitAtRest(t)
	wantOneVM(t, w, instance, disks)
}
