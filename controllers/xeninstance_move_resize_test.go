package controllers_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// cramp leaves a host with eight gibibytes of memory.
func cramp(t *testing.T, w *testkit.World, name string) {
	t.Helper()
	host := w.Simulator.Records("host")[w.Simulator.FindByName(t, "host", name)]
	metrics, _ := host["metrics"].(string)
	if err := w.Simulator.Update("host_metrics", metrics, map[string]any{"memory_total": int64(8 << 30), "memory_free": int64(7 << 30)}); err != nil {
		t.Fatal(err)
	}
}

// TestFlavorFitsElsewhere: a flavor that the VM's host has no room for brings it to another, with its disks if that does not see
// them; these go before the guest is stopped.
func TestFlavorFitsElsewhere(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, twoHosts)
	create(t, w, testkit.Flavor("wide", 2, "16Gi"))
	cramp(t, w, "xs1")
	for name, storage := range map[string]string{"shared storage": sharedStorage, "local storage": localStorage} {
		t.Run(name, func(t *testing.T) {
			instance := web(w).DeletedBy(v1alpha1.DeletionDelete).With(storedOn(storage)).With(toHost("xs1")).With(restarting).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			w.WaitAtRest(t)
			if host := hostOf(w, instance.Status.UUID); host != "xs1" {
				t.Fatalf("it begins on %s", host)
			}
			objects := census(w)
			fence.Arm(0)
			edit(t, w, instance, flavored("wide"))
			waitInstance(t, w, instance, "it has its new size elsewhere", resizedTo("wide"), isOn("xs2"))
			w.WaitAtRest(t)
			made := strings.Join(calls(fence), " ")
			t.Log(made)
			moved, stopped := strings.Index(made, "VM.migrate_send"), strings.Index(made, "VM.clean_shutdown")
			if storage == localStorage && (moved < 0 || moved > stopped) {
				t.Error("the disks were not moved before the guest was stopped")
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			remove(t, w, instance)
		})
	}
}

// TestFailedMoveBeforeAResize: while the disks cannot go where a flavor fits, the guest runs on as it was; without the wish for
// the flavor nothing of the attempt is left.
func TestFailedMoveBeforeAResize(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, twoHosts)
	create(t, w, testkit.Flavor("wide", 2, "16Gi"))
	cramp(t, w, "xs1")
	instance := web(w).With(storedOn(localStorage)).With(toHost("xs1")).With(restarting).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	w.WaitAtRest(t)
	before, disksThere := picture(w, instance.Status.UUID), guardDisks(w)
	w.Simulator.SetFaults([]xensim.Fault{{Call: "VM.migrate_send", Error: "MIRROR_FAILED", Params: []string{"a"}, Midway: true}})
	fence.Arm(0)
	edit(t, w, instance, flavored("wide"))
	w.WaitFor(t, instance, "the migration has failed", func() error {
		if operation := instance.Status.Operation; operation == nil || !strings.Contains(operation.LastError, "MIRROR_FAILED") {
			return fmt.Errorf("the operation is %+v", operation)
		}
		return nil
	})
	w.WaitAtRest(t)
	if made := strings.Join(calls(fence), " "); strings.Contains(made, "shutdown") {
		t.Errorf("the guest was stopped: %s", made)
	}
	edit(t, w, fresh(t, w, instance), flavored("small"))
	waitInstance(t, w, instance, "it is as it was", resizedTo("small"), isOn("xs1"))
	w.WaitAtRest(t)
	if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
		t.Errorf("after the failure:\n%s", diff)
	}
	disksThere(t)
}

// TestFlavorFitsNowhere: a flavor that no host has room for now touches nothing, and the user reads of each host what it lacks.
func TestFlavorFitsNowhere(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, twoHosts)
	create(t, w, testkit.Flavor("wide", 2, "16Gi"))
	cramp(t, w, "xs1")
	instance := web(w).With(storedOn(localStorage)).With(toHost("xs1")).With(restarting).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	if err := w.Simulator.Update("host", w.Simulator.FindByName(t, "host", "xs2"), map[string]any{"enabled": false}); err != nil {
		t.Fatal(err)
	}
	w.WaitAtRest(t)
	before, disksThere := picture(w, instance.Status.UUID), guardDisks(w)
	edit(t, w, instance, flavored("wide"))
	w.WaitFor(t, instance, "it says what each host lacks", func() error {
		ready := meta.FindStatusCondition(instance.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || !strings.Contains(ready.Message, "xs1: ") || !strings.Contains(ready.Message, "needed 16") || !strings.Contains(ready.Message, "xs2: disabled") {
			return fmt.Errorf("Ready is %+v", ready)
		}
		return nil
	})
	w.WaitAtRest(t)
	if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
		t.Errorf("the VM was touched:\n%s", diff)
	}
	disksThere(t)
	edit(t, w, fresh(t, w, instance), flavored("small"))
	waitInstance(t, w, instance, "it is as it was", resizedTo("small"), isOn("xs1"))
}
