package controllers_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// flavored asks for another flavor.
func flavored(name string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) { i.Spec.FlavorRef.Name = name }
}

// rooted asks for another size of the root disk.
func rooted(size string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) { i.Spec.RootDisk.Size = quantity(size) }
}

// restarting has sizes changed at once; manually has them confirmed besides.
func restarting(i *v1alpha1.XenInstance) {
	i.Spec.Resize = &v1alpha1.Resize{Strategy: v1alpha1.ResizeRestart}
}

func manually(i *v1alpha1.XenInstance) {
	i.Spec.Resize = &v1alpha1.Resize{Strategy: v1alpha1.ResizeRestart, Confirmation: v1alpha1.ResizeManual}
}

// together makes several changes in one.
func together(changes ...func(*v1alpha1.XenInstance)) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) {
		for _, change := range changes {
			change(i)
		}
	}
}

// resizedTo complains until no resize is under way and the VM has the size of the flavor.
func resizedTo(flavor string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		switch {
		case i.Status.Resize != nil:
			return fmt.Errorf("a resize is under way: %+v", i.Status.Resize)
		case i.Status.Flavor == nil || i.Status.Flavor.Name != flavor:
			return fmt.Errorf("flavor %+v", i.Status.Flavor)
		case i.Status.RestorePoints != 0:
			return fmt.Errorf("%d restore points are left", i.Status.RestorePoints)
		}
		return testkit.Condition(i, v1alpha1.ConditionFlavorApplied, metav1.ConditionTrue, "")
	}
}

// awaiting complains until a resize waits for its user.
func awaiting(i *v1alpha1.XenInstance) error {
	if i.Status.Resize == nil || i.Status.Resize.Stage != v1alpha1.ResizeAwaitingConfirmation {
		return fmt.Errorf("the resize is %+v", i.Status.Resize)
	}
	return testkit.Condition(i, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAwaitingConfirmation)
}

// waitInstance waits until the last change was seen and the conditions hold.
func waitInstance(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, what string, holds ...func(*v1alpha1.XenInstance) error) {
	t.Helper()
	w.WaitFor(t, i, what, func() error {
		if i.Status.ObservedGeneration != i.Generation {
			return errors.New("the change is not seen yet")
		}
		problems := []error{testkit.CheckKstatus(i)}
		for _, hold := range holds {
			problems = append(problems, hold(i))
		}
		return errors.Join(problems...)
	})
}

// instanceReady complains until an instance is Ready.
func instanceReady(i *v1alpha1.XenInstance) error { return testkit.Ready(i) }

// scribble writes a text to the root disk, as the guest does. It is written where a file system has its data.
func scribble(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, text string) {
	t.Helper()
	disk, err := w.Simulator.Guest().Disk(byUUID(t, w, "VM", i.Status.UUID), "0")
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	copy(block, text)
	for _, at := range []int64{0, 5 << 20, 9 << 30} {
		if _, err := disk.WriteAt(block, at); err != nil {
			t.Fatal(err)
		}
	}
}

// reads complains if the root disk does not begin with a text.
func reads(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, text string) {
	t.Helper()
	disk, err := w.Simulator.Guest().Disk(byUUID(t, w, "VM", i.Status.UUID), "0")
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for _, at := range []int64{0, 5 << 20, 9 << 30} {
		if _, err := disk.ReadAt(block, at); err != nil {
			t.Fatal(err)
		}
		if got := string(bytes.TrimRight(block, "\x00")); got != text {
			t.Errorf("the root disk has %q at %d, want %q", got, at, text)
		}
	}
}

// within complains if a part of a story took more calls than its budget.
func within(t testing.TB, fence *testkit.Fence, what string, budget int) {
	t.Helper()
	made := calls(fence)
	t.Logf("%s: %d calls: %s", what, len(made), strings.Join(made, " "))
	if len(made) > budget {
		t.Errorf("%s took %d calls, budget %d", what, len(made), budget)
	}
}

// small is a running instance with 2 VCPUs, 1 GiB and 12 GiB of root disk, whose guest has written to its disk.
func small(t testing.TB, w *testkit.World, change ...func(*v1alpha1.XenInstance)) *v1alpha1.XenInstance {
	t.Helper()
	instance := web(w).DeletedBy(v1alpha1.DeletionDelete).With(together(change...)).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitFor(t, instance, "the guest's agent reports", func() error {
		return testkit.Condition(instance, v1alpha1.ConditionGuestReady, metav1.ConditionTrue, "")
	})
	scribble(t, w, instance, "before")
	w.WaitAtRest(t)
	return instance
}

// TestResize: up and down again, in one power-off each; the same VM with the same disk and addresses.
func TestResize(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := small(t, w, restarting)
	uuid, disk, mac := instance.Status.UUID, instance.Status.RootDisk.VDIUUID, instance.Status.Networks[0].MAC
	disksThere := guardDisks(w)
	w.Simulator.ResetCalls()

	fence.Arm(0)
	edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
	waitInstance(t, w, instance, "it is large", resizedTo("large"), instanceReady, isRunning)
	w.WaitAtRest(t)
	within(t, fence, "up", 10)
	if size := instance.Status.RootDisk.Size.String(); size != "20Gi" || instance.Status.Flavor.VCPUs != 4 {
		t.Errorf("root disk %s, flavor %+v", size, instance.Status.Flavor)
	}
	reads(t, w, instance, "before")

	fence.Arm(0)
	edit(t, w, instance, flavored("small"))
	waitInstance(t, w, instance, "it is small", resizedTo("small"), instanceReady, isRunning)
	w.WaitAtRest(t)
	within(t, fence, "down", 10)
	reads(t, w, instance, "before")
	if instance.Status.UUID != uuid || instance.Status.RootDisk.VDIUUID != disk || instance.Status.Networks[0].MAC != mac {
		t.Errorf("it is another VM: %+v", instance.Status)
	}
	disksThere(t)
}

// TestResizeConfirmed: what is to be confirmed waits, Ready, with a restore point; a stale confirmation does nothing, also
// between the same two flavors; the right one ends it.
func TestResizeConfirmed(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := small(t, w, manually)
	objects := census(w)
	disksThere := guardDisks(w)
	w.Simulator.ResetCalls()

	fence.Arm(0)
	edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
	waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
	w.WaitAtRest(t)
	within(t, fence, "manual", 13)
	resize := instance.Status.Resize
	if resize.From != "small" || resize.To != "large" || resize.RestorePoint == nil || instance.Status.RestorePoints != 1 {
		t.Fatalf("%+v, %d restore points", resize, instance.Status.RestorePoints)
	}
	if !strings.Contains(resize.Message, resize.ID) || !strings.Contains(resize.Message, resize.RestorePoint.ID) {
		t.Errorf("the message does not say what to do: %s", resize.Message)
	}
	first := resize.ID
	cloned := copied(w, byUUID(t, w, "VDI", resize.RestorePoint.ID))
	snapshot := copied(w, byUUID(t, w, "VDI", instance.Status.RootDisk.VDIUUID))
	objects["VDI"] += 2

	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = "another" })
	waitInstance(t, w, instance, "it still waits", awaiting)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.DiscardTo = "another" })
	waitInstance(t, w, instance, "it still waits", awaiting)
	w.WaitAtRest(t)
	within(t, fence, "stale confirmations", 0)

	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = first })
	waitInstance(t, w, instance, "it is confirmed", resizedTo("large"), instanceReady)
	w.WaitAtRest(t)
	within(t, fence, "confirm", 3)
	for _, ref := range []string{cloned, snapshot} {
		if _, there := w.Simulator.Records("VDI")[ref]; !there {
			t.Error("an administrator's copy is gone")
		}
	}
	if after := census(w); objects["VDI"] != after["VDI"] {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
	reads(t, w, instance, "before")
	disksThere(t)

	edit(t, w, instance, flavored("small"))
	waitInstance(t, w, instance, "going down waits to be confirmed", awaiting)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = i.Status.Resize.ID })
	waitInstance(t, w, instance, "it is small", resizedTo("small"), instanceReady)
	edit(t, w, instance, together(flavored("large"), func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = first }))
	waitInstance(t, w, instance, "the confirmation of the first does not count for another between the same flavors", awaiting)
	if instance.Status.Resize.ID == first {
		t.Error("two resizes have one id")
	}
}

// copied is a copy of a disk that an administrator makes: it has the marks of its source.
func copied(w *testkit.World, ref string) string {
	source := w.Simulator.Records("VDI")[ref]
	return w.Simulator.Insert("VDI", map[string]any{
		"name_label": source["name_label"], "SR": source["SR"], "virtual_size": source["virtual_size"], "managed": true, "type": "user",
		"other_config": source["other_config"], "is_a_snapshot": source["is_a_snapshot"] != true, "snapshot_of": ref,
	})
}

// TestResizeReverted: the old flavor again, and everything is as before; the disk keeps what was written since, unless the
// user says otherwise.
func TestResizeReverted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		disk    string
		discard bool
		budget  int
		written string
	}{
		"sizes":                       {"12Gi", false, 8, "after"},
		"sizes, and the disk is kept": {"20Gi", false, 10, "after"},
		"and the disk goes back":      {"20Gi", true, 16, "before"},
	}
	w, fence := newWorld(t, withAgents)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			instance := small(t, w, manually)
			objects := census(w)
			edit(t, w, instance, together(flavored("large"), rooted(test.disk)))
			waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
			scribble(t, w, instance, "after")
			point := instance.Status.Resize.RestorePoint
			w.WaitAtRest(t)
			w.Simulator.ResetCalls()

			if test.discard {
				edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.DiscardTo = point.ID })
				waitInstance(t, w, instance, "what would be lost is said beforehand", awaiting, func(i *v1alpha1.XenInstance) error {
					if i.Status.Resize == nil || !strings.Contains(i.Status.Resize.Message, "LOSES") {
						return errors.New(i.Status.Resize.Message)
					}
					return nil
				})
			}
			fence.Arm(0)
			edit(t, w, instance, together(flavored("small"), rooted("12Gi")))
			waitInstance(t, w, instance, "it is small", resizedTo("small"), instanceReady, isRunning)
			w.WaitAtRest(t)
			within(t, fence, "revert", test.budget)
			reads(t, w, instance, test.written)
			size := test.disk
			if test.discard {
				size = "12Gi"
			}
			if got := instance.Status.RootDisk.Size.String(); got != size {
				t.Errorf("the root disk has %s, want %s", got, size)
			}
			if after := census(w); objects["VDI"] != after["VDI"] || objects["VBD"] != after["VBD"] {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
		})
	}
}

// refused complains until the instance is Stalled for a reason, with its old flavor.
func refused(reason, flavor string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		if i.Status.Flavor == nil || i.Status.Flavor.Name != flavor || i.Status.Resize != nil {
			return fmt.Errorf("flavor %+v, resize %+v", i.Status.Flavor, i.Status.Resize)
		}
		ready := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != reason || ready.Status != metav1.ConditionFalse {
			return fmt.Errorf("Ready is %+v", ready)
		}
		return nil
	}
}
