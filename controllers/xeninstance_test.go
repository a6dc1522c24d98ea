package controllers_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestInstanceLives tells a VM's life, and holds each part of it against its budget of calls and writes.
func TestInstanceLives(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	w.WaitAtRest(t)

	instance := web(w).DeletedBy(v1alpha1.DeletionDelete).Object()
	part(t, w, fence, "create", 14, 6+busy, func() {
		create(t, w, instance)
		w.WaitFor(t, instance, "the guest reports its address", func() error {
			if instance.Status.PrimaryAddress == "" {
				return errors.New("no address")
			}
			return testkit.Ready(instance)
		})
	})
	part(t, w, fence, "a pass that has nothing to do", 0, 1, func() {
		edit(t, w, instance, func(i *v1alpha1.XenInstance) {
			i.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = "now"
		})
		w.WaitFor(t, instance, "the request is answered", func() error {
			if instance.Status.LastHandledReconcileAt != "now" {
				return errors.New("not yet")
			}
			return nil
		})
	})
	part(t, w, fence, "halt", 3, 2, func() {
		edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
		waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
	})
	part(t, w, fence, "start", 3, 3, func() {
		edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
		waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	})
	part(t, w, fence, "delete", 6, 5, func() {
		if err := w.Client.Delete(t.Context(), instance); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, instance)
	})

	drive := web(w).With(withBootstrap).Object()
	part(t, w, fence, "create with a config drive", 19, 7+busy, func() {
		create(t, w, drive)
		w.WaitReady(t, drive)
	})
}

// busy is how many writes more a VM may take to be made than where nothing else runs: the slower it goes, the more steps of the
// way its status shows.
const busy = 2

// part is one part of a story, with the most calls and writes that it may take.
func part(t *testing.T, w *testkit.World, fence *testkit.Fence, name string, mostCalls, mostWrites int, story func()) {
	t.Helper()
	fence.Arm(0)
	story()
	w.WaitAtRest(t)
	made, written := calls(fence), writes(fence)
	t.Logf("%s: %d calls, %d writes", name, len(made), len(written))
	if len(made) > mostCalls {
		t.Errorf("%s takes %d calls, budget %d: %v", name, len(made), mostCalls, made)
	}
	if len(written) > mostWrites {
		t.Errorf("%s takes %d writes, budget %d: %v", name, len(written), mostWrites, written)
	}
}

// waitPowered waits until an instance is Ready and in a power state.
func waitPowered(t testing.TB, w *testkit.World, instance *v1alpha1.XenInstance, state v1alpha1.PowerState) {
	t.Helper()
	w.WaitFor(t, instance, fmt.Sprintf("%s is %s", instance.Name, state), func() error {
		return errors.Join(testkit.Ready(instance), powered(state)(instance))
	})
}
