package controllers_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// walkEdits is how many edits a walk has.
const walkEdits = 10

// TestResizesConverge: one edit of size, power and confirmation after the other, without waiting for what they lead to, with
// calls that fail, managers that die and people who turn the VM on and off in between: the last spec counts in the end, with one
// VM, one root disk with every file, and no restore point. The pure planner is walked through far more (TestResizesEnd of package instance).
func TestResizesConverge(t *testing.T) {
	t.Parallel()
	seeds := []uint64{12, 13, 15} // they have all kinds of edits
	if os.Getenv(testkit.EveryActionVariable) != "" {
		for seed := range uint64(12) {
			seeds = append(seeds, seed)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			w, _ := newWorld(t, withAgents)
			image, tree := guestImage(t, mbrTable)
			instance := guest(t, w, image, manually, func(i *v1alpha1.XenInstance) {
				i.Spec.PowerDriftGraceSeconds = ptr.To[int32](0)
				i.Spec.PowerOff = &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard}
			})
			objects, admin := census(w), administrator(t, w)
			for range walkEdits {
				walk(t, w, instance, random, admin)
			}
			w.Simulator.SetFaults(nil)
			edit(t, w, instance, together(flavored("large"), restarting, shrunkTo(afterShrink), func(i *v1alpha1.XenInstance) {
				i.Spec.PowerState, i.Spec.RestartToken = v1alpha1.PowerStateRunning, "in the end"
				i.Annotations = map[string]string{v1alpha1.AnnotationReconcileRequestedAt: "in the end"} // what was refused is tried again
			}))
			waitInstance(t, w, instance, "it is large with a small disk in the end", resizedTo("large"), instanceReady, isRunning)
			w.WaitAtRest(t)
			checkGuest(t, w, instance, mbrTable, image, tree)
			nothingLeft(t, w, 1)
			if after := census(w); objects["VM"] != after["VM"] || objects["VDI"] != after["VDI"] || objects["VBD"] != after["VBD"] {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
		})
	}
}

// walk makes one edit, or lets something go wrong, and waits until the edit was seen or a little longer.
func walk(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, random *rand.Rand, admin *xenapi.Client) {
	t.Helper()
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err != nil {
		t.Fatal(err)
	}
	what := pick("flavor", "flavor", "shrink", "shrink", "disk", "power", "time-out", "hand", "confirm", "discard", "fault", "crash")
	t.Log(what)
	change := func(*v1alpha1.XenInstance) {}
	switch what {
	case "flavor":
		change = flavored(pick("small", "large"))
	case "disk":
		size := pick("1Gi", "12Gi", "16Gi")
		change = together(rooted(size), func(i *v1alpha1.XenInstance) { i.Spec.RootDisk.ShrinkTo = nil })
	case "shrink":
		change = shrunkTo(pick("400Mi", "500Mi", "1Gi"))
	case "power":
		state := v1alpha1.PowerState(pick("Running", "Halted", "Suspended"))
		change = func(i *v1alpha1.XenInstance) { i.Spec.PowerState = state }
	case "time-out":
		policy := v1alpha1.ResizeTimeoutPolicy(pick("Confirm", "Revert"))
		change = func(i *v1alpha1.XenInstance) {
			i.Spec.Resize.ConfirmTimeoutSeconds, i.Spec.Resize.OnTimeout = ptr.To[int32](1), policy
		}
	case "hand":
		byHand(t, w, instance, admin)
	case "confirm":
		change = func(i *v1alpha1.XenInstance) {
			if i.Status.Resize != nil {
				i.Spec.Resize.Confirm = i.Status.Resize.ID
			}
		}
	case "discard":
		change = func(i *v1alpha1.XenInstance) {
			if i.Status.Resize != nil && i.Status.Resize.RestorePoint != nil {
				i.Spec.Resize.DiscardTo = i.Status.Resize.RestorePoint.ID
			}
		}
	case "fault":
		call := pick("VM.start", "VDI.snapshot", "VM.set_memory_limits", "VBD.create", "VDI.create", "import_raw_vdi")
		w.Simulator.SetFaults([]xensim.Fault{{Call: call, Drop: pick("before", "after"), Count: 1}})
	case "crash":
		w.KillManager()
		w.StartManager()
	}
	edit(t, w, instance, change)
	rest := random.IntN(2) == 0
	w.WaitFor(t, instance, "the edit is seen", func() error {
		if instance.Status.ObservedGeneration != instance.Generation {
			return errors.New("not yet")
		}
		if rest && instance.Status.Operation != nil {
			return fmt.Errorf("%s goes on", instance.Status.Operation.Type)
		}
		return nil
	})
}

// byHand turns the VM on or off, whatever the operator is about to do with it, and takes away what keeps it from being started.
func byHand(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, admin *xenapi.Client) {
	t.Helper()
	vm := xenapi.VMRef(byUUID(t, w, "VM", instance.Status.UUID))
	if w.Simulator.Records("VM")[string(vm)]["power_state"] == "Running" {
		t.Log("it is turned off:", admin.VM.HardShutdown(t.Context(), vm))
		return
	}
	for _, operation := range []xenapi.VMOperation{xenapi.VMOperationStart, xenapi.VMOperationStartOn} {
		t.Log("it may be started:", admin.VM.RemoveFromBlockedOperations(t.Context(), vm, operation))
	}
	t.Log("it is started:", admin.VM.Start(t.Context(), vm, false, false)) // refused where it has no disk, or is suspended
}
