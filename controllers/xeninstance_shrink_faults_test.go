package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestFaultsInShrink: whatever call of the way to a smaller root disk goes wrong, once and however, the disk becomes smaller with
// every file on it, and nothing else is left.
func TestFaultsInShrink(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	image, tree := guestImage(t, mbrTable)
	instance := guest(t, w, image, restarting)
	size := int64(500)
	round := func(t *testing.T) {
		t.Helper()
		size -= 16
		edit(t, w, instance, shrunkTo(fmt.Sprintf("%dMi", size)))
		waitInstance(t, w, instance, "it is smaller", resizedTo("small"), instanceReady, isRunning)
		if got := instance.Status.RootDisk.Size.Value(); got != size<<20 {
			t.Errorf("the root disk has %d bytes", got)
		}
		w.WaitAtRest(t)
		nothingLeft(t, w, 1)
	}
	fence.Arm(0)
	round(t)
	methods := slices.DeleteFunc(methodsOf(fence), func(m string) bool { return strings.HasPrefix(m, "session.") })
	faults := map[string][]xensim.Fault{
		"answers lost":                   onceEach(methods, func(f *xensim.Fault) { f.Drop = "after" }),
		"sessions lost":                  onceEach(methods, func(f *xensim.Fault) { f.LoseSession = true }),
		"the export ends early":          {{Call: "export_raw_vdi", TruncateBody: 100_000, Count: 1}},
		"the copy cannot be read again":  {{Call: "export_raw_vdi", TruncateBody: 100_000, Skip: 1, Count: 1}},
		"a restart during the export":    {{Call: "export_raw_vdi", Restart: true, Count: 1}},
		"a restart as the copy is made":  {{Call: "VDI.create", Restart: true, Count: 1}},
		"a restart as the disk goes":     {{Call: "VBD.destroy", Restart: true, Count: 1}},
		"the copy is in use for a while": {{Call: "import_raw_vdi", Error: "INTERNAL_ERROR", Params: []string{"x"}, Count: 1}, {Call: "VDI.destroy", Error: "VDI_IN_USE", Params: []string{"OpaqueRef:a", "destroy"}, Count: 2}},
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			w.Simulator.SetFaults(faults[name])
			round(t)
		})
	}
	w.Simulator.SetFaults(nil)
	edit(t, w, instance, shrunkTo(afterShrink))
	waitInstance(t, w, instance, "it is as small as in other tests", resizedTo("small"), instanceReady, isRunning)
	checkGuest(t, w, instance, mbrTable, image, tree)
}

// TestFaultsInDiscard: whatever call of the way back from a smaller root disk goes wrong, once and however, the disk from before is
// there again, with every byte, and nothing else is left.
func TestFaultsInDiscard(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	image, _ := guestImage(t, mbrTable)
	instance := guest(t, w, image, manually)
	before, old := content(t, w, instance), instance.Status.RootDisk.VDIUUID
	round := func(t *testing.T, faults []xensim.Fault) {
		t.Helper()
		edit(t, w, instance, shrunkTo(afterShrink))
		waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
		w.WaitAtRest(t)
		fence.Arm(0)
		w.Simulator.SetFaults(faults)
		edit(t, w, instance, together(rooted(beforeShrink), func(i *v1alpha1.XenInstance) {
			i.Spec.RootDisk.ShrinkTo, i.Spec.Resize.DiscardTo = nil, old
		}))
		waitInstance(t, w, instance, "it has its old disk", resizedTo("small"), instanceReady, isRunning)
		w.WaitAtRest(t)
		if instance.Status.RootDisk.VDIUUID != old || content(t, w, instance) != before {
			t.Errorf("the root disk is %+v, it was %s; or its content differs", instance.Status.RootDisk, old)
		}
		nothingLeft(t, w, 1)
		w.Simulator.SetFaults(nil)
	}
	round(t, nil)
	methods := slices.DeleteFunc(methodsOf(fence), func(m string) bool { return strings.HasPrefix(m, "session.") })
	for _, expected := range []string{"VDI.set_other_config", "VBD.destroy", "VBD.create", "VDI.destroy", "VM.start", "VM.set_other_config"} {
		if !slices.Contains(methods, expected) {
			t.Fatalf("the way back is %v, without %s", methods, expected)
		}
	}
	for name, wrong := range map[string]func(*xensim.Fault){
		"answers lost":  func(f *xensim.Fault) { f.Drop = "after" },
		"sessions lost": func(f *xensim.Fault) { f.LoseSession = true },
	} {
		t.Run(name, func(t *testing.T) { round(t, onceEach(methods, wrong)) })
	}
}

// TestCorruptedCopy: a copy that does not hold what was written to it is noticed and made again; until then the VM has its own
// disk.
func TestCorruptedCopy(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	image, tree := guestImage(t, mbrTable)
	instance := guest(t, w, image, restarting)
	old := instance.Status.RootDisk.VDIUUID
	w.Simulator.SetFaults([]xensim.Fault{{Call: "import_raw_vdi", CorruptBody: 4 << 20, Count: 1}})
	edit(t, w, instance, shrunkTo(afterShrink))
	w.WaitFor(t, instance, "the wrong bytes are noticed", func() error {
		ready := meta.FindStatusCondition(instance.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonChecksumMismatch || !strings.Contains(ready.Message, "other bytes than were written") {
			return fmt.Errorf("Ready is %+v", ready)
		}
		if instance.Status.RootDisk.VDIUUID != old {
			t.Error("the VM has the corrupted copy")
		}
		return nil
	})
	waitInstance(t, w, instance, "it is smaller", resizedTo("small"), instanceReady, isRunning)
	checkGuest(t, w, instance, mbrTable, image, tree)
	w.WaitAtRest(t)
	nothingLeft(t, w, 1)
}

// TestNoRoomForTheCopy: a storage repository that is full is said, and the VM runs again with its disk and its old size.
func TestNoRoomForTheCopy(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	image, _ := guestImage(t, mbrTable)
	instance := guest(t, w, image, restarting)
	before, disksThere := content(t, w, instance), guardDisks(w)
	w.Simulator.SetFaults([]xensim.Fault{{Call: "VDI.create", Error: "SR_FULL", Params: []string{"2", "1"}}})
	edit(t, w, instance, together(flavored("large"), shrunkTo(afterShrink)))
	waitInstance(t, w, instance, "it is refused", stalledBecause(v1alpha1.ReasonInsufficientStorage, "SR_FULL"), isRunning)
	if instance.Status.Flavor.VCPUs != 2 || content(t, w, instance) != before {
		t.Errorf("it has %+v, or another content", instance.Status.Flavor)
	}
	disksThere(t)
	nothingLeft(t, w, 1)
}

// TestStartedByHandInShrink: nobody starts the VM while its disk is being copied, unless he takes our lock away. What the guest
// writes then is on the smaller disk: the copy from before is thrown away.
func TestStartedByHandInShrink(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	image, tree := guestImage(t, mbrTable)
	instance := guest(t, w, image, restarting)
	vm := xenapi.VMRef(byUUID(t, w, "VM", instance.Status.UUID))
	w.Simulator.SetFaults([]xensim.Fault{{Call: "import_raw_vdi", Latency: 3_000_000_000, Count: 1}})
	fence.Arm(0)
	edit(t, w, instance, shrunkTo(afterShrink))
	testkit.Eventually(t, "the disk is read and about to be written", func(context.Context) error {
		if n := len(slices.DeleteFunc(calls(fence), func(call string) bool { return call != "task.create" })); n < 2 {
			return fmt.Errorf("%d transfers were begun", n)
		}
		return nil
	})
	admin := administrator(t, w)
	if err := admin.VM.Start(t.Context(), vm, false, false); !errors.Is(err, xenapi.ErrOperationBlocked) {
		t.Errorf("to start it ended in %v", err)
	}
	if err := admin.VM.RemoveFromBlockedOperations(t.Context(), vm, xenapi.VMOperationStart); err != nil {
		t.Fatal(err)
	}
	if err := admin.VM.Start(t.Context(), vm, false, false); err != nil {
		t.Fatal(err)
	}
	const at, late = 1 << 19, "written by the guest while the disk was copied"
	if _, err := guestRoot(t, w, instance).WriteAt([]byte(late), at); err != nil {
		t.Fatal(err)
	}
	waitInstance(t, w, instance, "it is smaller", resizedTo("small"), instanceReady, isRunning)
	expected, err := os.OpenFile(image, os.O_WRONLY, 0) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	if _, err := expected.WriteAt([]byte(late), at); errors.Join(err, expected.Close()) != nil {
		t.Fatal(err)
	}
	checkGuest(t, w, instance, mbrTable, image, tree)
	if blocked := w.Simulator.Records("VM")[string(vm)]["blocked_operations"]; len(blocked.(map[string]string)) > 0 {
		t.Errorf("it is still kept from %v", blocked)
	}
	nothingLeft(t, w, 1)
}

// TestOneShrinkAtATime: the second guest runs on while the disk of the first is copied; then it is its turn.
func TestOneShrinkAtATime(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	image, tree := guestImage(t, mbrTable)
	first := guest(t, w, image, restarting)
	second := testkit.Instance(w.Namespace, "db", testkit.PoolName).FromTemplate(template).OfFlavor("small").
		RootDisk(beforeShrink).Network("lan", network).DeletedBy(v1alpha1.DeletionDelete).With(restarting).Object()
	create(t, w, second)
	waitPowered(t, w, second, v1alpha1.PowerStateRunning)
	install(t, w, second, image)
	w.Simulator.SetFaults([]xensim.Fault{{Call: "export_raw_vdi", Latency: 2_000_000_000, Count: 1}})
	edit(t, w, first, shrunkTo(afterShrink))
	w.WaitFor(t, first, "it is off", func() error { return powered(v1alpha1.PowerStateHalted)(first) })
	edit(t, w, second, shrunkTo(afterShrink))
	w.WaitFor(t, second, "it waits for its turn, running", func() error {
		ready := meta.FindStatusCondition(second.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || !strings.Contains(ready.Message, "--max-shrinks") {
			return fmt.Errorf("Ready is %+v", ready)
		}
		return isRunning(second)
	})
	for _, instance := range []*v1alpha1.XenInstance{first, second} {
		waitInstance(t, w, instance, "it is smaller", resizedTo("small"), instanceReady, isRunning)
		checkGuest(t, w, instance, mbrTable, image, tree)
	}
	nothingLeft(t, w, 2)
}

// TestDeletedInShrink: an instance is deleted while its disk is copied. Nothing of the copy is left; a VM that stays can be
// started, with the disk that it had.
func TestDeletedInShrink(t *testing.T) {
	t.Parallel()
	for policy, left := range map[v1alpha1.DeletionPolicy]int{v1alpha1.DeletionDelete: 0, v1alpha1.DeletionTrash: 1, v1alpha1.DeletionOrphan: 0} {
		t.Run(string(policy), func(t *testing.T) {
			w, _ := newWorld(t, withAgents)
			image, _ := guestImage(t, mbrTable)
			instance := guest(t, w, image, restarting, func(i *v1alpha1.XenInstance) { i.Spec.DeletionPolicy = policy })
			vm, old := byUUID(t, w, "VM", instance.Status.UUID), byUUID(t, w, "VDI", instance.Status.RootDisk.VDIUUID)
			w.Simulator.SetFaults([]xensim.Fault{{Call: "import_raw_vdi", Latency: 1_000_000_000, Count: 1}})
			edit(t, w, instance, shrunkTo(afterShrink))
			testkit.Eventually(t, "a copy is being made", func(context.Context) error {
				if disksWithRole(w.Simulator, "new-root") == 0 {
					return errors.New("there is none")
				}
				return nil
			})
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
			w.WaitAtRest(t)
			nothingLeft(t, w, left)
			_, there := w.Simulator.Records("VDI")[old]
			if stays := policy != v1alpha1.DeletionDelete; there != stays {
				t.Errorf("the root disk is there: %v", there)
			}
			blocked, _ := w.Simulator.Records("VM")[vm]["blocked_operations"].(map[string]string)
			for operation, why := range blocked {
				if strings.Contains(why, "copied") {
					t.Errorf("it is kept from %s: %s", operation, why)
				}
			}
		})
	}
}
