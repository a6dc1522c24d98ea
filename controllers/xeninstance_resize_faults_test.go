package controllers_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// resizeFaultsTogether is how many calls fail in one resize, there and back.
const resizeFaultsTogether = 7

// TestFaultsInResize: whatever call of a resize fails once, and however, it goes on: there with a restore point, and back with
// the disk; the disk holds in the end what it held in the beginning, and nothing is left over.
func TestFaultsInResize(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := small(t, w, manually)
	objects := census(w)
	fence.Arm(0)
	round := func(t *testing.T) {
		t.Helper()
		edit(t, w, instance, together(flavored("large"), rooted("20Gi")))
		waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
		scribble(t, w, instance, "after")
		edit(t, w, instance, together(flavored("small"), rooted("12Gi"), func(i *v1alpha1.XenInstance) {
			i.Spec.Resize.DiscardTo = i.Status.Resize.RestorePoint.ID
		}))
		waitInstance(t, w, instance, "it is small", resizedTo("small"), instanceReady, isRunning)
		w.WaitAtRest(t)
		reads(t, w, instance, "before")
		if after := census(w); objects["VDI"] != after["VDI"] || objects["VBD"] != after["VBD"] || objects["VM"] != after["VM"] {
			t.Errorf("the pool had %v and has %v", objects, after)
		}
	}
	round(t)
	methods := map[string]bool{}
	for _, call := range calls(fence) {
		if method := strings.TrimPrefix(call, "Async."); !strings.HasPrefix(method, "task.") {
			methods[method] = true
		}
	}
	faults := map[string][]xensim.Fault{
		"a restart while it stops": {{Call: "VM.clean_shutdown", Restart: true, Count: 1}},
		"the disk is in use":       {{Call: "VM.start", Error: "VDI_IN_USE", Params: []string{"OpaqueRef:a", "attach"}, Count: 1}},
	}
	loseCalls(faults, slices.Sorted(maps.Keys(methods)), resizeFaultsTogether)
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			w.Simulator.SetFaults(faults[name])
			round(t)
		})
	}
}

// TestResizeFigures: everything that a flavor says comes and goes with it, but for scratch disks, which stay. A data disk that is
// to grow does so in the same power-off.
func TestResizeFigures(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	rich := testkit.Flavor("rich", 4, "2Gi")
	rich.Spec.CoresPerSocket, rich.Spec.CPUWeight, rich.Spec.CPUCap = ptr.To[int32](2), ptr.To[int32](512), ptr.To[int32](150)
	rich.Spec.EphemeralDisk, rich.Spec.SwapDisk, rich.Spec.NetworkRateLimitKBps = quantity("3Gi"), quantity("1Gi"), ptr.To[int32](1000)
	create(t, w, rich)
	instance := small(t, w, restarting, func(i *v1alpha1.XenInstance) {
		i.Spec.Disks = []v1alpha1.Disk{{Name: "data", Size: quantity("1Gi"), OnInstanceDelete: v1alpha1.DiskDelete}}
	})
	vm := byUUID(t, w, "VM", instance.Status.UUID)
	shown := func() string {
		record := w.Simulator.Records("VM")[vm]
		platform, _ := record["platform"].(map[string]string)
		var limits, disks []string
		for _, vif := range w.Simulator.Records("VIF") {
			if vif["VM"] == vm {
				limits = append(limits, fmt.Sprint(vif["qos_algorithm_params"]))
			}
		}
		for _, vbd := range w.Simulator.Records("VBD") {
			if vdi, isRef := vbd["VDI"].(string); vbd["VM"] == vm && isRef && vbd["userdevice"] != "0" {
				disks = append(disks, fmt.Sprint(w.Simulator.Records("VDI")[vdi]["virtual_size"]))
			}
		}
		slices.Sort(disks)
		return fmt.Sprintf("cores=%s %v limits=%v disks=%v", platform["cores-per-socket"], record["VCPUs_params"], limits, disks)
	}
	before, disksThere := shown(), guardDisks(w)
	edit(t, w, instance, together(flavored("rich"), func(i *v1alpha1.XenInstance) { i.Spec.Disks[0].Size = quantity("2Gi") }))
	waitInstance(t, w, instance, "it is rich", resizedTo("rich"), instanceReady, isRunning, func(i *v1alpha1.XenInstance) error {
		if len(i.Status.PendingChanges) > 0 {
			return fmt.Errorf("pending are %+v", i.Status.PendingChanges)
		}
		return nil
	})
	w.WaitAtRest(t)
	const scratch = "disks=[1073741824 2147483648 3221225472]"
	if got, want := shown(), "cores=2 map[cap:150 weight:512] limits=[map[kbps:1000]] "+scratch; got != want {
		t.Errorf("it has %s, want %s", got, want)
	}
	edit(t, w, instance, flavored("small"))
	waitInstance(t, w, instance, "it is small", resizedTo("small"), instanceReady, isRunning)
	w.WaitAtRest(t)
	if got, want := shown(), strings.Replace(before, "disks=[1073741824]", scratch, 1); got != want {
		t.Errorf("it has %s, want %s", got, want)
	}
	disksThere(t)
}
