package controllers_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// pendingFor complains unless a field waits for something.
func pendingFor(field string, requires v1alpha1.ChangeRequires) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		at := slices.IndexFunc(i.Status.PendingChanges, func(c v1alpha1.PendingChange) bool { return c.Field == field })
		if at < 0 || i.Status.PendingChanges[at].Requires != requires {
			return fmt.Errorf("pending are %+v", i.Status.PendingChanges)
		}
		return nil
	}
}

// withReason complains unless an instance is Ready for a reason.
func withReason(reason string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		return testkit.Condition(i, v1alpha1.ConditionReady, metav1.ConditionTrue, reason)
	}
}

// TestResizeOnNextBoot: a running guest is left alone, and what waits is said; it is done when the guest is off next, by a
// restart that is asked for or by itself; a VM that is off stays off.
func TestResizeOnNextBoot(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := small(t, w, func(i *v1alpha1.XenInstance) { i.Spec.PowerDriftGraceSeconds = ptr.To[int32](0) })
	vm := byUUID(t, w, "VM", instance.Status.UUID)
	booted := bootedAt(w, vm)

	fence.Arm(0)
	edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
	waitInstance(t, w, instance, "it waits for a boot", withReason(v1alpha1.ReasonPowerOffRequired), isRunning,
		pendingFor("flavorRef.memory", v1alpha1.RequiresPowerOff), pendingFor("rootDisk.size", v1alpha1.RequiresPowerOff))
	w.WaitAtRest(t)
	within(t, fence, "waiting", 0)
	if bootedAt(w, vm) != booted {
		t.Error("the guest was restarted")
	}
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "now" })
	waitInstance(t, w, instance, "a restart makes it large", resizedTo("large"), instanceReady, isRunning)
	reads(t, w, instance, "before")

	edit(t, w, instance, flavored("small"))
	waitInstance(t, w, instance, "it waits for a boot again", withReason(v1alpha1.ReasonPowerOffRequired))
	w.Simulator.Guest().Shutdown(vm)
	waitInstance(t, w, instance, "it is small after the guest went off", resizedTo("small"), instanceReady, isRunning)

	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
	waitInstance(t, w, instance, "it is off", instanceReady, isHalted)
	booted = bootedAt(w, vm)
	edit(t, w, instance, together(flavored("large"), restarting))
	waitInstance(t, w, instance, "it is large and still off", resizedTo("large"), instanceReady, isHalted)
	w.WaitAtRest(t)
	if bootedAt(w, vm) != booted {
		t.Error("a VM that was off was started")
	}
}

// addRoomyFlavors makes two flavors between which a guest can change while it runs.
func addRoomyFlavors(t testing.TB, w *testkit.World) {
	t.Helper()
	for name, vcpus := range map[string]int32{"roomy": 2, "roomier": 4} {
		flavor := testkit.Flavor(name, vcpus, fmt.Sprintf("%dGi", vcpus))
		flavor.Spec.MaxVCPUs, flavor.Spec.MaxMemory = ptr.To[int32](8), quantity("8Gi")
		if err := client.IgnoreAlreadyExists(w.Client.Create(t.Context(), flavor)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestResizeLive: what a running guest can be given is given to it while it runs; to be confirmed if that is asked for.
func TestResizeLive(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRoomyFlavors(t, w)
	instance := small(t, w, flavored("roomy"))
	vm := byUUID(t, w, "VM", instance.Status.UUID)
	booted := bootedAt(w, vm)
	fence.Arm(0)
	edit(t, w, instance, flavored("roomier"))
	waitInstance(t, w, instance, "it is roomier", resizedTo("roomier"), instanceReady, isRunning)
	w.WaitAtRest(t)
	within(t, fence, "live", 4)
	if instance.Status.Flavor.VCPUs != 4 || instance.Status.Flavor.Memory.String() != "4Gi" {
		t.Errorf("flavor %+v", instance.Status.Flavor)
	}

	edit(t, w, instance, flavored("roomy"))
	waitInstance(t, w, instance, "memory goes down at once, VCPUs wait for a boot",
		withReason(v1alpha1.ReasonPowerOffRequired), pendingFor("flavorRef.vcpus", v1alpha1.RequiresPowerOff),
		func(i *v1alpha1.XenInstance) error {
			if i.Status.Flavor.Memory.String() != "4Gi" {
				return nil
			}
			return errors.New("the memory has not changed")
		})
	edit(t, w, instance, together(flavored("roomier"), func(i *v1alpha1.XenInstance) {
		i.Spec.Resize = &v1alpha1.Resize{Confirmation: v1alpha1.ResizeManual}
	}))
	waitInstance(t, w, instance, "the rest is live, and to be confirmed", awaiting, isRunning)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = i.Status.Resize.ID })
	waitInstance(t, w, instance, "it is roomier", resizedTo("roomier"), instanceReady)
	if bootedAt(w, vm) != booted {
		t.Error("the guest was restarted")
	}
}

// TestResizeTimesOut: silence is consent or refusal, as the user has said; it never costs what was written, and a refusal
// does not fight the spec.
func TestResizeTimesOut(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	unanswered := func(policy v1alpha1.ResizeTimeoutPolicy) func(*v1alpha1.XenInstance) {
		return func(i *v1alpha1.XenInstance) {
			manually(i)
			i.Spec.Resize.ConfirmTimeoutSeconds, i.Spec.Resize.OnTimeout = ptr.To[int32](2), policy
		}
	}
	instance := small(t, w, unanswered(v1alpha1.ResizeTimeoutConfirm))
	edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
	waitInstance(t, w, instance, "it waits, and says until when", awaiting, func(i *v1alpha1.XenInstance) error {
		if i.Status.Resize == nil || i.Status.Resize.ConfirmBy == nil {
			return errors.New("no confirmBy")
		}
		return nil
	})
	waitInstance(t, w, instance, "silence is consent", resizedTo("large"), instanceReady, isRunning)

	edit(t, w, instance, together(unanswered(v1alpha1.ResizeTimeoutRevert), flavored("small"), rooted("24Gi")))
	waitInstance(t, w, instance, "it waits", awaiting)
	point := instance.Status.Resize.RestorePoint.ID
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.DiscardTo = point })
	scribble(t, w, instance, "after")
	waitInstance(t, w, instance, "silence is refusal", refused(v1alpha1.ReasonRolledBack, "large"), isRunning)
	reads(t, w, instance, "after")
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Description = "another" })
	waitInstance(t, w, instance, "another change is made, the refused one not", refused(v1alpha1.ReasonRolledBack, "large"))
	w.WaitAtRest(t)
	within(t, fence, "another change", 1)

	edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
	waitInstance(t, w, instance, "the spec as the VM is", resizedTo("large"), instanceReady)
}

// TestResizeRolledBack: a VM that cannot have its new size, or does not start with it, gets the old one back, and runs; it is
// tried again only when that is asked for.
func TestResizeRolledBack(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := small(t, w, manually)
	objects := census(w)
	for _, fault := range []xensim.Fault{ // the last leaves the disk grown
		{Call: "VDI.snapshot", Error: "SR_FULL", Params: []string{"2", "1"}, Count: 1},
		{Call: "VM.set_memory_limits", Error: "MEMORY_CONSTRAINT_VIOLATION", Count: 1},
		{Call: "VDI.resize", Error: "SR_BACKEND_FAILURE_44", Params: []string{"", "no space", ""}, Count: 1},
		{Call: "VM.start", Error: "INTERNAL_ERROR", Params: []string{"no"}, Count: 1},
	} {
		t.Run(fault.Call, func(t *testing.T) {
			w.Simulator.SetFaults([]xensim.Fault{fault})
			edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
			waitInstance(t, w, instance, "it runs as before", refused(v1alpha1.ReasonRolledBack, "small"), isRunning, func(i *v1alpha1.XenInstance) error {
				if message := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionFlavorApplied).Message; !strings.Contains(message, fault.Error) {
					return errors.New(message)
				}
				return nil
			})
			w.WaitAtRest(t)
			reads(t, w, instance, "before")
			if after := census(w); objects["VDI"] != after["VDI"] {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			edit(t, w, instance, together(flavored("small"), rooted("12Gi")))
			waitInstance(t, w, instance, "the spec is as it was", resizedTo("small"), instanceReady)
		})
	}
	w.Simulator.SetFaults([]xensim.Fault{{Call: "VM.start", Error: "INTERNAL_ERROR", Params: []string{"no"}, Count: 1}})
	edit(t, w, instance, flavored("large"))
	waitInstance(t, w, instance, "it runs as before", refused(v1alpha1.ReasonRolledBack, "small"), isRunning)
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Annotations[v1alpha1.AnnotationReconcileRequestedAt] = "again" })
	waitInstance(t, w, instance, "it is large when asked again", awaiting, isRunning)
}

// TestResizeAndRescue exclude each other.
func TestResizeAndRescue(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := small(t, w, manually)
	edit(t, w, instance, flavored("large"))
	waitInstance(t, w, instance, "it waits to be confirmed", awaiting)
	edit(t, w, instance, inRescue)
	waitInstance(t, w, instance, "no rescue while it waits", rescued(v1alpha1.ReasonInstanceBusy), isRunning, func(i *v1alpha1.XenInstance) error {
		message := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionRescued).Message
		if i.Status.Resize == nil || !strings.Contains(message, i.Status.Resize.ID) {
			return errors.New(message)
		}
		return nil
	})
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = i.Status.Resize.ID })
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	edit(t, w, instance, flavored("small"))
	waitInstance(t, w, instance, "no resize in rescue", rescued(v1alpha1.ReasonRescueActive), pendingFor("flavorRef.vcpus", v1alpha1.RequiresHold))
	edit(t, w, instance, outOfRescue)
	waitInstance(t, w, instance, "the resize follows the return", awaiting, isRunning)
}

// TestResizeRefusals: what cannot be is said, and the guest runs on as it was.
func TestResizeRefusals(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	huge := testkit.Flavor("huge", 2, "2Gi")
	huge.Spec.Memory = *quantity("20Ti")
	crowded := testkit.Flavor("crowded", 2, "2Gi")
	crowded.Spec.Memory = *quantity("62Gi")
	wide := testkit.Flavor("wide", 2, "2Gi")
	wide.Spec.MaxVCPUs = ptr.To[int32](9)
	create(t, w, huge)
	create(t, w, crowded)
	create(t, w, wide)
	addRoomyFlavors(t, w)
	instance := small(t, w, restarting)
	vm := byUUID(t, w, "VM", instance.Status.UUID)
	booted := bootedAt(w, vm)
	tests := map[string]struct {
		change func(*v1alpha1.XenInstance)
		reason string
	}{
		"no such flavor":        {flavored("nothing"), v1alpha1.ReasonFlavorNotFound},
		"larger than any host":  {flavored("huge"), v1alpha1.ReasonFlavorTooLarge},
		"no room on any host":   {flavored("crowded"), v1alpha1.ReasonInsufficientMemory},
		"nested virtualisation": {flavored("roomy"), v1alpha1.ReasonSizeUnsupported},
		"over the quota":        {flavored("wide"), v1alpha1.ReasonQuotaExceeded}, // by what it can grow to
	}
	if err := w.Simulator.Update("VM", vm, map[string]any{"platform": map[string]string{"nested-virt": "true"}}); err != nil {
		t.Fatal(err)
	}
	lab := testkit.Pool(testkit.PoolName).Object()
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(lab), lab); err != nil {
		t.Fatal(err)
	}
	before := lab.DeepCopy()
	lab.Spec.Grants[0].Quota = &v1alpha1.PoolQuota{VCPUs: ptr.To[int32](8)}
	if err := w.Client.Patch(t.Context(), lab, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w.WaitAtRest(t)
			fence.Arm(0)
			edit(t, w, instance, test.change)
			waitInstance(t, w, instance, "it is refused", func(i *v1alpha1.XenInstance) error {
				return testkit.Condition(i, v1alpha1.ConditionFlavorApplied, metav1.ConditionFalse, test.reason)
			}, isRunning)
			w.WaitAtRest(t)
			within(t, fence, name, 0)
			if bootedAt(w, vm) != booted {
				t.Error("the guest was restarted")
			}
		})
	}
	edit(t, w, instance, flavored("small"))
	waitInstance(t, w, instance, "all is well again", resizedTo("small"), instanceReady)
}

// TestResizeRefusedForTheDisk: what the root disk, its storage or its image does not allow is said while the guest runs, and
// neither the VM nor any disk is touched.
func TestResizeRefusedForTheDisk(t *testing.T) {
	t.Parallel()
	grown := together(flavored("large"), rooted("20Gi"))
	for name, test := range map[string]struct {
		how, change  func(*v1alpha1.XenInstance)
		hinder       func(t *testing.T, w *testkit.World, uuid string) // nil for nothing
		reason, says string
	}{
		"as many snapshots as the storage takes": {
			how: manually, change: grown, reason: v1alpha1.ReasonChainTooLong, says: "delete old snapshots of it",
			hinder: func(t *testing.T, w *testkit.World, uuid string) { untilRefused(t, w, administrator(t, w), uuid) },
		},
		"less than the image needs": {
			how: restarting, change: together(flavored("large"), shrunkTo("1Gi")), reason: v1alpha1.ReasonFlavorTooSmall, says: "2Gi",
		},
		"more than the storage has": {
			how: restarting, change: grown, reason: v1alpha1.ReasonInsufficientStorage, says: "the root disk needs 8",
			hinder: func(t *testing.T, w *testkit.World, _ string) {
				sr := w.Simulator.FindByName(t, "SR", localStorage)
				full := map[string]any{"type": "lvm", "physical_utilisation": w.Simulator.Records("SR")[sr]["physical_size"]} // each disk has all of its space at once
				if err := w.Simulator.Update("SR", sr, full); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, fence := newWorld(t, withAgents)
			existingVM(t, w, "golden")
			disk, _ := w.Simulator.Records("VDI")[w.Simulator.FindByName(t, "VDI", "golden")]["uuid"].(string)
			image := xenImage(w, "golden", v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{VDIUUID: disk}})
			image.Spec.MinDisk = quantity("2Gi")
			create(t, w, image)
			w.WaitReady(t, image)
			instance := fromImage(w, "web", "golden", testkit.PoolName)
			instance.Spec.RootDisk = &v1alpha1.RootDisk{Size: quantity("12Gi")}
			test.how(instance)
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			if test.hinder != nil {
				test.hinder(t, w, instance.Status.UUID)
			}
			w.WaitAtRest(t)
			before, objects, disksThere := picture(w, instance.Status.UUID), census(w), guardDisks(w)
			booted := bootedAt(w, byUUID(t, w, "VM", instance.Status.UUID))

			fence.Arm(0)
			edit(t, w, instance, test.change)
			waitInstance(t, w, instance, "it is refused", isRunning, notReadyBecause(test.reason), func(i *v1alpha1.XenInstance) error {
				if message := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionReady).Message; !strings.Contains(message, test.says) {
					return fmt.Errorf("the message does not say %q: %s", test.says, message)
				}
				return nil
			})
			w.WaitAtRest(t)
			within(t, fence, name, 0)
			if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
				t.Errorf("the VM was touched:\n%s", diff)
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			if at := bootedAt(w, byUUID(t, w, "VM", instance.Status.UUID)); at != booted {
				t.Errorf("it was booted at %s, and again at %s", booted, at)
			}
			disksThere(t)
		})
	}
}
