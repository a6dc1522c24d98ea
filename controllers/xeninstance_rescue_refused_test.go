package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// refusedRescue is a rescue that cannot be.
type refusedRescue struct {
	// change is what is asked besides the rescue with the image.
	change func(*v1alpha1.Rescue)
	// obstacle puts something in the way and returns how it goes away.
	obstacle func(*meddler) (remove func())
	reason   string
	// says is a part of the message.
	says string
}

// rescueImageWith adds an image of the rescue image's disk that differs in something.
func rescueImageWith(m *meddler, name string, change func(*v1alpha1.XenImageSpec)) {
	m.Helper()
	image := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: rescueImage}}
	m.must(m.w.Client.Get(m.Context(), client.ObjectKeyFromObject(image), image))
	other := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: image.Spec}
	change(&other.Spec)
	create(m.T, m.w, other)
}

// pool changes the XenPool.
func (m *meddler) xenPool(change func(*v1alpha1.XenPoolSpec)) {
	m.Helper()
	pool := &v1alpha1.XenPool{ObjectMeta: metav1.ObjectMeta{Name: testkit.PoolName}}
	m.must(m.w.Client.Get(m.Context(), client.ObjectKeyFromObject(pool), pool))
	before := pool.DeepCopy()
	change(&pool.Spec)
	m.must(m.w.Client.Patch(m.Context(), pool, client.MergeFrom(before)))
}

func refusedRescues() map[string]refusedRescue {
	image := func(name string) func(*v1alpha1.Rescue) { return func(r *v1alpha1.Rescue) { r.ImageRef.Name = name } }
	return map[string]refusedRescue{
		"no image, and the pool has none": {change: func(r *v1alpha1.Rescue) { r.ImageRef = nil }, reason: v1alpha1.ReasonImageNotFound},
		"an image that is not there":      {change: image("nowhere"), reason: v1alpha1.ReasonImageNotFound},
		"an image that the pool names and is not there": {
			change: func(r *v1alpha1.Rescue) { r.ImageRef = nil }, reason: v1alpha1.ReasonImageNotFound,
			obstacle: func(m *meddler) func() {
				m.xenPool(func(p *v1alpha1.XenPoolSpec) { p.Defaults = &v1alpha1.PoolDefaults{RescueImage: "nowhere"} })
				return func() { m.xenPool(func(p *v1alpha1.XenPoolSpec) { p.Defaults = nil }) }
			},
		},
		"an image that is not ready": {
			change: image("later"), reason: v1alpha1.ReasonImageNotReady, says: "deadbeef-0000-4000-8000-000000000000",
			obstacle: func(m *meddler) func() {
				rescueImageWith(m, "later", func(s *v1alpha1.XenImageSpec) { s.Source.Existing.VDIUUID = "deadbeef-0000-4000-8000-000000000000" })
				return nil
			},
		},
		"an image that needs more memory": {
			change: image("big"), reason: v1alpha1.ReasonRescueImageUnsuitable,
			obstacle: func(m *meddler) func() {
				rescueImageWith(m, "big", func(s *v1alpha1.XenImageSpec) { s.MinMemory = ptr.To(resource.MustParse("64Gi")) })
				return nil
			},
		},
		"a Secret that is not there": {
			change: func(r *v1alpha1.Rescue) { r.CredentialsSecretRef = &v1alpha1.LocalSecretReference{Name: "nowhere"} }, reason: v1alpha1.ReasonSecretNotFound,
		},
		"a Secret of somebody under the name of the generated one": {
			reason: v1alpha1.ReasonInvalidSpec,
			obstacle: func(m *meddler) func() {
				secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: m.w.Namespace, Name: "web-rescue"}}
				create(m.T, m.w, secret)
				return func() { m.must(m.w.Client.Delete(m.Context(), secret)) }
			},
		},
		"storage that is full": {
			reason: v1alpha1.ReasonInsufficientStorage,
			obstacle: func(m *meddler) func() {
				sr := m.w.Simulator.FindByName(m.T, "SR", "Local storage")
				size := m.w.Simulator.Records("SR")[sr]["physical_utilisation"]
				fill := func(size any) { m.must(m.w.Simulator.Update("SR", sr, map[string]any{"physical_utilisation": size})) }
				fill(m.w.Simulator.Records("SR")[sr]["physical_size"])
				return func() { fill(size) }
			},
		},
		"a VM that may not be turned off": {
			reason: v1alpha1.ReasonOperationBlocked,
			obstacle: func(m *meddler) func() {
				m.must(m.pool.VM.AddToBlockedOperations(m.Context(), m.own, xenapi.VMOperationHardShutdown, "it is at work"))
				return func() {
					m.must(m.pool.VM.RemoveFromBlockedOperations(m.Context(), m.own, xenapi.VMOperationHardShutdown))
				}
			},
		},
		"a gate": {
			reason: v1alpha1.ReasonGated,
			obstacle: func(m *meddler) func() {
				gate := func(set bool) {
					edit(m.T, m.w, m.instance, func(i *v1alpha1.XenInstance) {
						i.Annotations = maps.Clone(i.Annotations)
						if delete(i.Annotations, v1alpha1.GatePowerOnPrefix+"backup"); set {
							i.Annotations[v1alpha1.GatePowerOnPrefix+"backup"] = "is being made"
						}
					})
				}
				gate(true)
				return func() { gate(false) }
			},
		},
		"a pool in maintenance": {
			reason: v1alpha1.ReasonMaintenance,
			obstacle: func(m *meddler) func() {
				m.xenPool(func(p *v1alpha1.XenPoolSpec) { p.Maintenance = true })
				return func() { m.xenPool(func(p *v1alpha1.XenPoolSpec) { p.Maintenance = false }) }
			},
		},
	}
}

// TestRefusedRescue: what cannot be is said, and the VM is untouched.
func TestRefusedRescue(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	before := picture(w, instance.Status.UUID)
	for name, test := range refusedRescues() {
		t.Run(name, func(t *testing.T) {
			m := newMeddler(t, w, instance)
			if test.obstacle != nil {
				if remove := test.obstacle(m); remove != nil {
					defer remove()
				}
				w.WaitAtRest(t)
			}
			there := picture(w, instance.Status.UUID)
			fence.Arm(0)
			edit(t, w, instance, func(i *v1alpha1.XenInstance) {
				inRescue(i)
				if test.change != nil {
					test.change(i.Spec.Rescue)
				}
			})
			waitRefused(t, w, instance, test.reason)
			w.WaitAtRest(t)
			condition := meta.FindStatusCondition(instance.Status.Conditions, v1alpha1.ConditionRescued)
			if !strings.Contains(condition.Message, test.says) {
				t.Errorf("it says %q, want %q in it", condition.Message, test.says)
			}
			if made := calls(fence); len(made) > 0 {
				t.Errorf("calls were made: %v", made)
			}
			if diff := differences(there, picture(w, instance.Status.UUID)); diff != "" {
				t.Errorf("the VM was touched:\n%s", diff)
			}
			edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Rescue = nil })
			waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
		})
	}
	if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
		t.Errorf("in the end:\n%s", diff)
	}
	if hasEvent(t, w, instance, v1alpha1.ReasonReturned) {
		t.Error("an Event tells of the return from a rescue that was never begun")
	}
	err := tryEdit(t, w, instance.DeepCopy(), func(i *v1alpha1.XenInstance) {
		inRescue(i)
		i.Spec.Rescue.TimeoutSeconds = ptr.To[int32](0)
	})
	if !apierrors.IsInvalid(err) {
		t.Errorf("for a time-out of 0 the API server says %v", err)
	}
}

// hasEvent reports whether an Event of the instance has the reason.
func hasEvent(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, reason string) bool {
	t.Helper()
	var events eventsv1.EventList
	if err := w.Client.List(t.Context(), &events, client.InNamespace(instance.Namespace)); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
		return e.Regarding.UID == instance.UID && e.Reason == reason
	})
}

// waitRefused waits until a rescue is refused, with a reason and a text.
func waitRefused(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, reason string) {
	t.Helper()
	w.WaitFor(t, instance, "the rescue is refused: "+reason, func() error {
		if err := rescued(reason)(instance); err != nil {
			return err
		}
		if seen := instance.Status.ObservedGeneration; seen != instance.Generation {
			return fmt.Errorf("generation %d is seen", seen)
		}
		return testkit.CheckKstatus(instance)
	})
}

// TestARefusedRescueBeginsLater: when there is room again, what was asked for is done without being asked anew.
func TestARefusedRescueBeginsLater(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Powered(v1alpha1.PowerStateHalted).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
	free := map[string]any{}
	for ref, metrics := range w.Simulator.Records("host_metrics") {
		free[ref] = metrics["memory_free"]
		if err := w.Simulator.Update("host_metrics", ref, map[string]any{"memory_free": int64(64 << 20)}); err != nil {
			t.Fatal(err)
		}
	}
	w.WaitAtRest(t)
	edit(t, w, instance, inRescue)
	waitRefused(t, w, instance, v1alpha1.ReasonInsufficientMemory)
	for ref, bytes := range free {
		if err := w.Simulator.Update("host_metrics", ref, map[string]any{"memory_free": bytes}); err != nil {
			t.Fatal(err)
		}
	}
	w.WaitAtRest(t)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Annotations = maps.Clone(i.Annotations)
		i.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = "now" // or a minute later by itself
	})
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
}

// TestASuspendedVMIsNotRescued: what it has in memory would not fit its disks any more.
func TestASuspendedVMIsNotRescued(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	for _, state := range []v1alpha1.PowerState{v1alpha1.PowerStatePaused, v1alpha1.PowerStateSuspended} {
		edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = state })
		waitPowered(t, w, instance, state)
		w.WaitAtRest(t)
		fence.Arm(0)
		edit(t, w, instance, inRescue)
		waitRefused(t, w, instance, v1alpha1.ReasonIllegalTransition)
		if made := calls(fence); len(made) > 0 {
			t.Errorf("calls were made for a VM that is %s: %v", state, made)
		}
		edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Rescue = nil })
	}
}

// TestTheOwnImageIsNoRescueImage: its file systems would be mistaken for those to be repaired. It is refused when it is named,
// and when the pool names it.
func TestTheOwnImageIsNoRescueImage(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := testkit.Instance(w.Namespace, "web", testkit.PoolName).FromClusterImage(rescueImage).OfFlavor("small").Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	newMeddler(t, w, instance).xenPool(func(p *v1alpha1.XenPoolSpec) { p.Defaults = &v1alpha1.PoolDefaults{RescueImage: rescueImage} })
	w.WaitAtRest(t)
	if err := tryEdit(t, w, instance.DeepCopy(), inRescue); err == nil || !strings.Contains(err.Error(), "own image") {
		t.Errorf("the API server says %v", err)
	}
	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Rescue = &v1alpha1.Rescue{State: v1alpha1.RescueOn} })
	waitRefused(t, w, instance, v1alpha1.ReasonRescueImageUnsuitable)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
}

// TestTheOwnTemplateIsNoRescueImage: an image that is the template which the instance was made of is its own image as well.
func TestTheOwnTemplateIsNoRescueImage(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	_, record := vmOf(t, w.Simulator, uuidOf(w.Simulator, "VM", w.Simulator.FindByName(t, "VM", template)))
	image := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: rescueImage}, Spec: v1alpha1.XenImageSpec{
		Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{TemplateUUID: fmt.Sprint(record["uuid"])}},
		Pools:  []v1alpha1.ImagePool{{Name: testkit.PoolName}},
	}}
	create(t, w, image)
	w.WaitReady(t, image)
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, inRescue)
	waitRefused(t, w, instance, v1alpha1.ReasonRescueImageUnsuitable)
	condition := meta.FindStatusCondition(instance.Status.Conditions, v1alpha1.ConditionRescued)
	if !strings.Contains(condition.Message, "is the instance's own") {
		t.Errorf("it says %q", condition.Message)
	}
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
}

// TestARescueVMIsNobodysInstance: no other object can have the rescue VM, least of all to rescue it.
func TestARescueVMIsNobodysInstance(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	w.WaitAtRest(t)
	fence.Arm(0)
	thief := testkit.Instance(w.Namespace, "thief", testkit.PoolName).Adopting(instance.Status.Rescue.VMUUID).With(inRescue).Object()
	create(t, w, thief)
	w.WaitStalled(t, thief, v1alpha1.ReasonOwnedByAnother)
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
	if err := w.Client.Delete(t.Context(), thief); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, thief)
	testkit.Eventually(t, "the rescue goes on", func(ctx context.Context) error {
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(instance), instance); err != nil {
			return err
		}
		return rescued(v1alpha1.ReasonRescueActive)(instance)
	})
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
}

// TestNoRescueBeforeAResizeIsConfirmed: the resize is to be ended first, one way or the other.
func TestNoRescueBeforeAResizeIsConfirmed(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := small(t, w, manually)
	edit(t, w, instance, flavored("large"))
	waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, inRescue)
	waitRefused(t, w, instance, v1alpha1.ReasonInstanceBusy)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = i.Status.Resize.ID })
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
}
