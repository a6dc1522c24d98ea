package controllers_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// walkEdits is how many edits a walk has.
const walkEdits = 10

// TestResizesConverge: one edit of size, power and confirmation after the other, without waiting for what they lead to, with
// calls that fail and managers that die in between: the last spec counts in the end, with one VM, one root disk and no restore
// point. The pure planner is walked through far more (TestResizesEnd of package instance).
func TestResizesConverge(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			w, _ := newWorld(t, withAgents)
			instance := small(t, w, manually, func(i *v1alpha1.XenInstance) {
				i.Spec.PowerDriftGraceSeconds = ptr.To[int32](0)
				i.Spec.PowerOff = &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard}
			})
			objects := census(w)
			for range walkEdits {
				walk(t, w, instance, random)
			}
			w.Simulator.SetFaults(nil)
			edit(t, w, instance, together(flavored("large"), restarting, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning }))
			waitInstance(t, w, instance, "it is large in the end", resizedTo("large"), instanceReady, isRunning)
			w.WaitAtRest(t)
			reads(t, w, instance, "before")
			if after := census(w); objects["VM"] != after["VM"] || objects["VDI"] != after["VDI"] || objects["VBD"] != after["VBD"] {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
		})
	}
}

// walk makes one edit, or lets something go wrong, and waits until the edit was seen or a little longer.
func walk(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, random *rand.Rand) {
	t.Helper()
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err != nil {
		t.Fatal(err)
	}
	what := pick("flavor", "flavor", "disk", "power", "confirm", "discard", "fault", "crash")
	t.Log(what)
	change := func(*v1alpha1.XenInstance) {}
	switch what {
	case "flavor":
		change = flavored(pick("small", "large"))
	case "disk":
		change = rooted(pick("12Gi", "16Gi", "20Gi"))
	case "power":
		state := v1alpha1.PowerState(pick("Running", "Halted"))
		change = func(i *v1alpha1.XenInstance) { i.Spec.PowerState = state }
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
		call := pick("VM.start", "VDI.snapshot", "VM.set_memory_limits", "VBD.create")
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
