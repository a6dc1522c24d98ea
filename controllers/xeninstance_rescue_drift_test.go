package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// meddler is an administrator who works on the pool while an instance is in rescue.
type meddler struct {
	*testing.T
	w        *testkit.World
	pool     *xenapi.Client
	instance *v1alpha1.XenInstance
	own      xenapi.VMRef
}

// newMeddler works on the pool of an instance that is in rescue.
func newMeddler(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance) *meddler {
	t.Helper()
	pool, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{w.Simulator.Endpoint}, Username: w.Simulator.User, Password: w.Simulator.Password, CABundle: w.Simulator.CACert(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close(context.Background()) })
	return &meddler{T: t, w: w, pool: pool, instance: instance, own: xenapi.VMRef(byUUID(t, w, "VM", instance.Status.UUID))}
}

// rescue is the rescue VM as status names it.
func (m *meddler) rescue() xenapi.VMRef {
	m.Helper()
	return xenapi.VMRef(byUUID(m.T, m.w, "VM", m.instance.Status.Rescue.VMUUID))
}

func (m *meddler) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// unseen does something while the instance is paused, so that all of it is there when the manager looks.
func (m *meddler) unseen(meddle func()) {
	m.Helper()
	m.paused("true")
	m.w.WaitFor(m.T, m.instance, "it is paused", func() error {
		return testkit.Condition(m.instance, v1alpha1.ConditionPaused, metav1.ConditionTrue, "")
	})
	m.w.WaitAtRest(m.T)
	meddle()
	m.paused("")
}

func (m *meddler) paused(value string) {
	m.Helper()
	edit(m.T, m.w, m.instance, func(i *v1alpha1.XenInstance) {
		annotations := maps.Clone(i.Annotations)
		annotations[v1alpha1.AnnotationPaused] = value
		if value == "" {
			delete(annotations, v1alpha1.AnnotationPaused)
		}
		i.Annotations = annotations
	})
}

// power is the power state of a VM on the pool.
func (m *meddler) power(vm xenapi.VMRef) any {
	return m.w.Simulator.Records("VM")[string(vm)]["power_state"]
}

// startOwn starts the VM itself, in spite of everything.
func (m *meddler) startOwn() {
	m.Helper()
	m.must(m.pool.VM.HardShutdown(m.Context(), m.rescue()))
	for _, operation := range []xenapi.VMOperation{xenapi.VMOperationStart, xenapi.VMOperationStartOn} {
		m.must(m.pool.VM.RemoveFromBlockedOperations(m.Context(), m.own, operation))
	}
	m.must(m.pool.VM.Start(m.Context(), m.own, false, false))
}

// loan is the block device of a disk of the instance on the rescue VM.
func (m *meddler) loan(device string) xenapi.VBDRef {
	m.Helper()
	for ref, vbd := range m.w.Simulator.Records("VBD") {
		if vbd["VM"] == string(m.rescue()) && vbd["userdevice"] == device {
			return xenapi.VBDRef(ref)
		}
	}
	m.Fatalf("the rescue VM has no disk at %s", device)
	return ""
}

// active waits until the rescue is as it should be.
func (m *meddler) active() {
	m.Helper()
	m.w.WaitFor(m.T, m.instance, "the rescue is as it should be", func() error {
		return errors.Join(testkit.Ready(m.instance), rescued(v1alpha1.ReasonRescueActive)(m.instance))
	})
	m.w.WaitAtRest(m.T)
	if own, rescue := m.power(m.own), m.power(m.rescue()); own != "Halted" || rescue != "Running" {
		m.Errorf("the VM itself is %v, the rescue VM %v", own, rescue)
	}
}

// TestMeddlingInRescue: whatever somebody does on the pool to an instance in rescue, it is put right or said, nothing gets
// worse, and Off leads back to how everything was.
func TestMeddlingInRescue(t *testing.T) {
	t.Parallel()
	for name, meddle := range map[string]func(*meddler){
		"the rescue VM is turned off": func(m *meddler) {
			rescue := m.rescue()
			m.must(m.pool.VM.HardShutdown(m.Context(), rescue))
			m.w.WaitFor(m.T, m.instance, "it runs again", func() error {
				if m.power(rescue) != "Running" {
					return errors.New("it is off")
				}
				return nil
			})
			m.active()
			if m.rescue() != rescue {
				m.Error("it is another")
			}
		},
		"the rescue VM is destroyed": func(m *meddler) {
			rescue, uuid := m.rescue(), m.instance.Status.Rescue.VMUUID
			m.unseen(func() {
				m.must(m.pool.VM.HardShutdown(m.Context(), rescue))
				m.must(m.pool.VM.Destroy(m.Context(), rescue))
			})
			m.w.WaitFor(m.T, m.instance, "there is another", func() error {
				if status := m.instance.Status.Rescue; status.VMUUID == "" || status.VMUUID == uuid {
					return fmt.Errorf("it is %+v", status)
				}
				return nil
			})
			m.active()
		},
		"the VM itself is started": func(m *meddler) {
			m.unseen(m.startOwn)
			m.active()
		},
		"the VM itself is let start": func(m *meddler) {
			m.must(m.pool.VM.RemoveFromBlockedOperations(m.Context(), m.own, xenapi.VMOperationStart))
			m.w.WaitFor(m.T, m.instance, "start is blocked again", func() error {
				blocked, _ := m.w.Simulator.Records("VM")[string(m.own)]["blocked_operations"].(map[string]string)
				if blocked["start"] == "" {
					return fmt.Errorf("blocked are %v", blocked)
				}
				return nil
			})
			m.active()
		},
		"a disk is taken away": func(m *meddler) {
			disk := m.loan("4")
			m.must(m.pool.VBD.Unplug(m.Context(), disk))
			m.must(m.pool.VBD.Destroy(m.Context(), disk))
			m.w.WaitFor(m.T, m.instance, "that is said", func() error { return rescued(v1alpha1.ReasonRescueDegraded)(m.instance) })
			m.must(m.pool.VM.HardShutdown(m.Context(), m.rescue()))
			m.active()
			m.loan("4")
		},
		"the rescue VM is suspended": func(m *meddler) {
			m.must(m.pool.VM.Suspend(m.Context(), m.rescue()))
			m.w.WaitFor(m.T, m.instance, "it runs again", func() error {
				if m.power(m.rescue()) != "Running" {
					return errors.New("it does not run")
				}
				return nil
			})
			m.active()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWorld(t, withAgents)
			addRescueImage(t, w)
			instance := web(w).Disk("data", "1Gi").Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			w.WaitAtRest(t)
			before, objects, disksThere := picture(w, instance.Status.UUID), census(w), guardDisks(w)
			edit(t, w, instance, inRescue)
			waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
			waitAgent(t, w, instance)
			meddle(newMeddler(t, w, instance))
			edit(t, w, instance, outOfRescue)
			waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
			w.WaitAtRest(t)
			if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
				t.Errorf("after the rescue:\n%s", diff)
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			disksThere(t)
		})
	}
}

// TestDriftIsLeftInRescue: a VM that somebody has started while its instance is in rescue goes on, if that is the policy; it
// is said, and Off makes an end of the rescue without a restart.
func TestDriftIsLeftInRescue(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).With(func(i *v1alpha1.XenInstance) { i.Spec.PowerDriftPolicy = v1alpha1.PowerDriftIgnore }).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	objects := census(w)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	m := newMeddler(t, w, instance)
	m.unseen(m.startOwn)
	w.WaitStalled(t, instance, v1alpha1.ReasonRescueDegraded)
	booted := bootedAt(w, string(m.own))
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	w.WaitAtRest(t)
	if bootedAt(w, string(m.own)) != booted || m.power(m.own) != "Running" {
		t.Error("the VM itself was restarted")
	}
	if after := census(w); !maps.Equal(objects, after) {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
}

// TestVanishedInRescue: somebody destroys the VM itself while its instance is in rescue. That is said, the rescue VM goes on
// with the disks; Off removes it and leaves them, and nothing is made in place of the VM.
func TestVanishedInRescue(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	objects, disksThere := census(w), guardDisks(w)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	m := newMeddler(t, w, instance)
	rescue := m.rescue()
	m.must(m.pool.VM.Destroy(t.Context(), m.own))
	w.WaitStalled(t, instance, v1alpha1.ReasonExternallyDeleted)
	if m.power(rescue) != "Running" {
		t.Error("the rescue VM does not run")
	}
	edit(t, w, instance, outOfRescue)
	w.WaitFor(t, instance, "the rescue VM is gone", func() error {
		if instance.Status.Rescue != nil {
			return fmt.Errorf("%+v", instance.Status.Rescue)
		}
		return testkit.Condition(instance, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonExternallyDeleted)
	})
	w.WaitAtRest(t)
	if after := census(w); after["VM"] != objects["VM"]-1 || after["VDI"] != objects["VDI"] {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
	disksThere(t)
}
