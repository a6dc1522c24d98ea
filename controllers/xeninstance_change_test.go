package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestPower leads a VM through all power states, and back from where somebody else has put it.
func TestPower(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).With(func(i *v1alpha1.XenInstance) {
		grace := int32(0)
		i.Spec.PowerDriftGraceSeconds = &grace
	}).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	for _, state := range []v1alpha1.PowerState{
		v1alpha1.PowerStatePaused, v1alpha1.PowerStateSuspended, v1alpha1.PowerStatePaused, v1alpha1.PowerStateHalted,
		v1alpha1.PowerStatePaused, v1alpha1.PowerStateRunning, v1alpha1.PowerStateSuspended, v1alpha1.PowerStateHalted,
	} {
		waitAgent(t, w, instance)
		edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = state })
		waitPowered(t, w, instance, state)
	}

	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateSuspended })
	w.WaitStalled(t, instance, v1alpha1.ReasonIllegalTransition)

	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Annotations[v1alpha1.GatePowerOnPrefix+"backup"] = ""
		i.Spec.PowerState = v1alpha1.PowerStateRunning
	})
	w.WaitFor(t, instance, "the start is gated", func() error {
		return testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonGated)
	})
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { delete(i.Annotations, v1alpha1.GatePowerOnPrefix+"backup") })
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)

	vm := byUUID(t, w, "VM", instance.Status.UUID)
	booted := bootedAt(w, vm)
	w.Simulator.Guest().Shutdown(vm)
	testkit.Eventually(t, "the guest that shut itself down runs again", func(context.Context) error {
		if w.Simulator.Records("VM")[vm]["power_state"] != "Running" || bootedAt(w, vm) == booted {
			return errors.New("not yet")
		}
		return nil
	})

	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerDriftPolicy = v1alpha1.PowerDriftIgnore })
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.Simulator.Guest().Shutdown(vm)
	w.WaitFor(t, instance, "the guest may stay off", func() error {
		return errors.Join(testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonDrifted), isHalted(instance))
	})
}

// TestAHaltThatIsWithdrawn: a guest that goes off because it was asked to, and is to run again by then, has not drifted.
func TestAHaltThatIsWithdrawn(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).With(func(i *v1alpha1.XenInstance) { i.Spec.PowerDriftPolicy = v1alpha1.PowerDriftIgnore }).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	vm := byUUID(t, w, "VM", instance.Status.UUID)
	booted := bootedAt(w, vm)
	w.Simulator.Guest().IgnoreShutdown(vm, true)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
	w.WaitFor(t, instance, "the guest is asked to go off", func() error {
		return testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonShuttingDown)
	})
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
	w.WaitFor(t, instance, "the wish is seen", func() error {
		return testkit.Condition(instance, v1alpha1.ConditionPowerStateSynced, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	})
	w.Simulator.Guest().IgnoreShutdown(vm, false)
	w.Simulator.Guest().Shutdown(vm)
	testkit.Eventually(t, "the guest runs again", func(context.Context) error {
		if w.Simulator.Records("VM")[vm]["power_state"] != "Running" || bootedAt(w, vm) == booted {
			return errors.New("not yet")
		}
		return nil
	})
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
}

// waitAgent waits until the guest's agent reports, if the guest runs: only then can it be suspended or asked to shut down.
func waitAgent(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance) {
	t.Helper()
	if instance.Status.PowerState != v1alpha1.PowerStateRunning {
		return
	}
	w.WaitFor(t, instance, "the guest's agent reports", func() error {
		return testkit.Condition(instance, v1alpha1.ConditionGuestReady, metav1.ConditionTrue, "")
	})
}

// bootedAt is when a VM was booted last.
func bootedAt(w *testkit.World, vm string) string {
	metrics, _ := w.Simulator.Records("VM")[vm]["metrics"].(string)
	return fmt.Sprint(w.Simulator.Records("VM_metrics")[metrics]["start_time"])
}

// TestStubbornGuest: a guest that does not shut down is turned off when its time is over, unless that is not allowed.
func TestStubbornGuest(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	tests := map[string]struct {
		mode   v1alpha1.PowerOffMode
		agent  bool
		halted bool
	}{
		"TrySoft":                  {v1alpha1.PowerOffTrySoft, true, true},
		"TrySoft without an agent": {v1alpha1.PowerOffTrySoft, false, true},
		"Hard":                     {v1alpha1.PowerOffHard, true, true},
		"Soft":                     {v1alpha1.PowerOffSoft, true, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			second := int32(1)
			instance := web(w).DeletedBy(v1alpha1.DeletionDelete).With(func(i *v1alpha1.XenInstance) {
				i.Spec.PowerOff = &v1alpha1.PowerOff{Mode: test.mode, SoftTimeoutSeconds: &second}
			}).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			vm := byUUID(t, w, "VM", instance.Status.UUID)
			w.Simulator.Guest().IgnoreShutdown(vm, true)
			w.Simulator.Guest().SetAgent(vm, test.agent)
			edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
			if test.halted {
				waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
			} else {
				w.WaitStalled(t, instance, v1alpha1.ReasonGuestNotResponding)
			}
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
		})
	}
}

// TestDevices: disks and interfaces come, grow and go as the spec says, while the guest runs where it can.
func TestDevices(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).Disk("data", "2Gi").Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	mac := instance.Status.Networks[0].MAC

	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.Disks = append(i.Spec.Disks, v1alpha1.Disk{Name: "more", Size: quantity("1Gi"), OnRemove: v1alpha1.DiskRemoveDelete})
		i.Spec.Networks = append(i.Spec.Networks, v1alpha1.NetworkInterface{Name: "dmz", Network: "Pool-wide network associated with eth1"})
		i.Spec.Networks[0].Network = "vlan-less internal"
	})
	w.WaitFor(t, instance, "disk and interface are plugged", func() error {
		if len(instance.Status.Disks) != 2 || !instance.Status.Disks[1].Attached || len(instance.Status.Networks) != 2 ||
			!instance.Status.Networks[1].Attached || instance.Status.Networks[0].Network != "vlan-less internal" {
			return fmt.Errorf("disks %+v, networks %+v", instance.Status.Disks, instance.Status.Networks)
		}
		return testkit.Ready(instance)
	})
	if instance.Status.Networks[0].MAC != mac {
		t.Error("the MAC address changed with the network")
	}
	if devices := []int32{*instance.Status.Disks[0].Device, *instance.Status.Disks[1].Device}; !slices.Equal(devices, []int32{4, 5}) {
		t.Errorf("devices %v", devices)
	}

	more := instance.Status.Disks[1].VDIUUID
	data := instance.Status.Disks[0].VDIUUID
	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.Disks = nil
		i.Spec.Networks = i.Spec.Networks[:1]
	})
	w.WaitFor(t, instance, "disks and interface are gone", func() error {
		if len(instance.Status.Disks)+len(instance.Status.Networks) != 1 {
			return errors.New("not yet")
		}
		return testkit.Ready(instance)
	})
	w.WaitAtRest(t)
	uuids := map[string]bool{}
	for _, record := range w.Simulator.Records("VDI") {
		uuids[record["uuid"].(string)] = true
	}
	if uuids[more] || !uuids[data] {
		t.Errorf("disk to be deleted is there: %v; disk to be kept: %v", uuids[more], uuids[data])
	}

	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.Disks = []v1alpha1.Disk{{Name: "data", Size: quantity("4Gi")}}
		i.Spec.FlavorRef.Name = "large"
	})
	w.WaitFor(t, instance, "growing waits for the VM to be off", func() error {
		return errors.Join(testkit.Ready(instance), testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonPowerOffRequired))
	})
	if instance.Status.Disks[0].VDIUUID != data {
		t.Error("the disk that was kept is not attached again")
	}
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "now" })
	w.WaitFor(t, instance, "disk and flavor are larger after a restart", func() error {
		if instance.Status.Disks[0].Size.String() != "4Gi" || instance.Status.Flavor.VCPUs != 4 || instance.Status.RestartToken != "now" {
			return fmt.Errorf("disks %+v, flavor %+v", instance.Status.Disks, instance.Status.Flavor)
		}
		return errors.Join(testkit.Ready(instance), isRunning(instance))
	})
}

// TestPaused: with the annotation nothing is done; without it what was asked meanwhile is.
func TestPaused(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Annotations[v1alpha1.AnnotationPaused] = "" })
	w.WaitFor(t, instance, "it is paused", func() error {
		return errors.Join(testkit.Condition(instance, v1alpha1.ConditionPaused, metav1.ConditionTrue, ""), testkit.Ready(instance))
	})
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
	w.WaitFor(t, instance, "the edit is seen, and that it is not done", func() error {
		if instance.Status.ObservedGeneration != instance.Generation {
			return errors.New("not yet")
		}
		return errors.Join(testkit.CheckKstatus(instance), testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPaused))
	})
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { delete(i.Annotations, v1alpha1.AnnotationPaused) })
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
}

// TestObserveMakesNothing: who observes and names no VM gets none.
func TestObserveMakesNothing(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	w.WaitAtRest(t)
	fence.Arm(0)
	instance := web(w).Observed().Object()
	create(t, w, instance)
	w.WaitFor(t, instance, "it is said", func() error {
		return refusal(instance, true, v1alpha1.ReasonVMNotFound, []string{"Observe", "source.existing"})
	})
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
}

// TestFaults: whatever goes wrong on the way, the VM is made, once, and nothing is left over.
func TestFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		faults []xensim.Fault
	}{
		"the connection drops after the clone":       {faults: []xensim.Fault{{Call: "VM.clone", Drop: "after", Count: 1}}},
		"the connection drops before the clone":      {faults: []xensim.Fault{{Call: "VM.clone", Drop: "before", Count: 1}}},
		"the connection drops after making the disk": {faults: []xensim.Fault{{Call: "VDI.create", Drop: "after", Count: 1}}},
		"the connection drops after making the NIC":  {faults: []xensim.Fault{{Call: "VIF.create", Drop: "after", Count: 1}}},
		"the connection drops after attaching":       {faults: []xensim.Fault{{Call: "VBD.create", Drop: "after", Count: 1}}},
		"the connection drops after the start":       {faults: []xensim.Fault{{Call: "VM.start", Drop: "after", Count: 1}}},
		"the session is lost again and again":        {faults: []xensim.Fault{{Call: "VM.*", LoseSession: true, Count: 4}}},
		"the toolstack restarts during the clone":    {faults: []xensim.Fault{{Call: "VM.clone", Restart: true, Count: 1}}},
		"the toolstack restarts during the start":    {faults: []xensim.Fault{{Call: "VM.start", Restart: true, Count: 1}}},
		"events are lost":                            {faults: []xensim.Fault{{Call: "event.from", LoseEvents: true, Count: 3}}},
		"the clone is slow":                          {faults: []xensim.Fault{{Call: "VM.clone", SlowTask: 50, Count: 1}}},
		"the clone fails at its end":                 {faults: []xensim.Fault{{Call: "VM.clone", Error: "INTERNAL_ERROR", Params: []string{"x"}, FailTask: true, Count: 1}}},
		"the storage is full for a while":            {faults: []xensim.Fault{{Call: "VDI.create", FullSR: true, Count: 2}}},
		"no host has the memory for a while":         {faults: []xensim.Fault{{Call: "VM.start", Error: "NO_HOSTS_AVAILABLE", Count: 2}}},
		"memory is short for a while":                {faults: []xensim.Fault{{Call: "VM.start", Error: "HOST_NOT_ENOUGH_FREE_MEMORY", Params: []string{"4294967296", "1073741824"}, Count: 2}}},
		"a disk is in use for a while":               {faults: []xensim.Fault{{Call: "VM.start", Error: "VDI_IN_USE", Params: []string{"OpaqueRef:x"}, Count: 1}}},
		"a host is still booting":                    {faults: []xensim.Fault{{Call: "VM.set_name_label", Error: "HOST_STILL_BOOTING", Count: 1}}},
	}
	w, _ := newWorld(t, withAgents)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := len(w.Simulator.Records("VDI"))
			w.Simulator.SetFaults(test.faults)
			instance := web(w).DeletedBy(v1alpha1.DeletionDelete).Object()
			began := time.Now()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			t.Logf("after %s", time.Since(began).Round(100*time.Millisecond))
			w.WaitAtRest(t)
			if made := len(w.Simulator.Records("VDI")) - before; made != 1 {
				t.Errorf("%d disks were made, want 1", made)
			}
			w.Simulator.SetFaults(nil)
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
		})
	}
}
