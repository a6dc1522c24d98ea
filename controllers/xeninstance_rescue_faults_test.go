package controllers_test

import (
	"errors"
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

// guardDisks remembers the disks that are on the pool. What it returns complains about each that is gone since, and about
// each call that asked for one of the instance's own to be destroyed, whatever became of it.
func guardDisks(w *testkit.World) func(t *testing.T) {
	before := w.Simulator.Records("VDI")
	own := map[string]bool{}
	for ref, disk := range before {
		if strings.HasPrefix(fmt.Sprint(disk["name_label"]), w.Namespace+"/web ") {
			own[ref] = true
		}
	}
	return func(t *testing.T) {
		t.Helper()
		after := w.Simulator.Records("VDI")
		for ref, disk := range before {
			if _, there := after[ref]; !there {
				t.Errorf("the disk %q is gone", disk["name_label"])
			}
		}
		for _, call := range w.Simulator.Calls() {
			if strings.TrimPrefix(call.Method, "Async.") == "VDI.destroy" && own[call.Ref] {
				t.Errorf("%s of %q", call.Method, call.Object)
			}
		}
	}
}

// faultsTogether is how many calls fail in one rescue.
const faultsTogether = 4

// loseCalls adds to the faults that each method's answer is lost once, and that the session is lost before it once; so many
// methods together.
func loseCalls(faults map[string][]xensim.Fault, methods []string, together int) {
	for some := range slices.Chunk(methods, together) {
		answers, sessions := "lost answers of "+strings.Join(some, ", "), "lost sessions before "+strings.Join(some, ", ")
		for _, method := range some {
			faults[answers] = append(faults[answers], xensim.Fault{Call: method, Drop: "after", Count: 1})
			faults[sessions] = append(faults[sessions], xensim.Fault{Call: method, LoseSession: true, Count: 1})
		}
	}
}

// methodsOf are the methods that were called since the fence was armed, those of tasks left out.
func methodsOf(fence *testkit.Fence) []string {
	methods := map[string]bool{}
	for _, call := range calls(fence) {
		if method := strings.TrimPrefix(call, "Async."); !strings.HasPrefix(method, "task.") {
			methods[method] = true
		}
	}
	return slices.Sorted(maps.Keys(methods))
}

// TestFaultsInRescue: whatever call of the way into a rescue or out of it fails once, and however, it goes on; and the VM is
// in the end as it was in the beginning.
func TestFaultsInRescue(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Disk("data", "1Gi").Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	before, objects := picture(w, instance.Status.UUID), census(w)
	disksThere := guardDisks(w)
	w.Simulator.ResetCalls()
	fence.Arm(0)
	round := func(t *testing.T) {
		t.Helper()
		edit(t, w, instance, inRescue)
		waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
		edit(t, w, instance, outOfRescue)
		waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
		w.WaitAtRest(t)
		if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
			t.Errorf("after the rescue:\n%s", diff)
		}
		if after := census(w); !maps.Equal(objects, after) {
			t.Errorf("the pool had %v and has %v", objects, after)
		}
	}
	round(t)
	methods := methodsOf(fence)
	faults := map[string][]xensim.Fault{
		"the disk is in use":         {{Call: "VM.start", Error: "VDI_IN_USE", Params: []string{"OpaqueRef:a", "attach"}, Count: 1}},
		"no memory":                  {{Call: "VM.start", Error: "HOST_NOT_ENOUGH_FREE_MEMORY", Params: []string{"2", "1"}, Count: 1}},
		"the start fails in the end": {{Call: "VM.start", Error: "INTERNAL_ERROR", Params: []string{"boom"}, FailTask: true, Count: 1}},
		"the clone finds no space":   {{Call: "VM.clone", Error: "SR_FULL", Params: []string{"2", "1"}, Count: 1}},
		"the drive finds no space":   {{Call: "VDI.create", Error: "SR_FULL", Params: []string{"2", "1"}, Count: 1}},
		"a restart while it starts":  {{Call: "VM.start", Restart: true, Count: 1}},
		"a restart while it clones":  {{Call: "VM.clone", Restart: true, Count: 1}},
	}
	loseCalls(faults, methods, faultsTogether)
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			w.Simulator.SetFaults(faults[name])
			round(t)
		})
	}
	disksThere(t)
}

// onceEach makes every call of the methods go wrong once in one way.
func onceEach(methods []string, wrong func(*xensim.Fault)) []xensim.Fault {
	faults := make([]xensim.Fault, len(methods))
	for i, method := range methods {
		faults[i] = xensim.Fault{Call: method, Count: 1}
		wrong(&faults[i])
	}
	return faults
}

// refuse has a call refused once, failLater has the task fail that it begins.
func refuse(call, code string) xensim.Fault {
	return xensim.Fault{Call: call, Error: code, Params: []string{"2", "1"}, Count: 1}
}

func failLater(call, code string) xensim.Fault {
	fault := refuse(call, code)
	fault.FailTask = true
	return fault
}

// TestFaultsInReturn: whatever call fails when a rescue times out, or when the instance is deleted in it, the return goes on
// to its end.
func TestFaultsInReturn(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *testkit.World, *v1alpha1.XenInstance) (gone bool){
		"time-out": func(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance) bool {
			edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Rescue.TimeoutSeconds = ptr.To[int32](1) })
			waitRescued(t, w, instance, v1alpha1.ReasonRescueTimedOut)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Rescue = nil })
			waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
			return false
		},
		"deletion": func(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance) bool {
			remove(t, w, instance)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) { faultsInReturn(t, end) })
	}
}

func faultsInReturn(t *testing.T, end func(*testing.T, *testkit.World, *v1alpha1.XenInstance) (gone bool)) {
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	w.WaitAtRest(t)
	objects := census(w)
	round := func(t *testing.T, faults []xensim.Fault) {
		t.Helper()
		instance := web(w).Disk("data", "1Gi").DeletedBy(v1alpha1.DeletionDelete).With(storedOn("")).Object()
		create(t, w, instance)
		waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
		w.WaitAtRest(t)
		before, disksThere := picture(w, instance.Status.UUID), guardDisks(w)
		edit(t, w, instance, inRescue)
		waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
		w.WaitAtRest(t)
		fence.Arm(0)
		w.Simulator.SetFaults(faults)
		if gone := end(t, w, instance); !gone {
			w.WaitAtRest(t)
			if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
				t.Errorf("after the rescue:\n%s", diff)
			}
			disksThere(t)
			remove(t, w, instance)
		}
		w.WaitAtRest(t)
		if after := census(w); !maps.Equal(objects, after) {
			t.Errorf("the pool had %v and has %v", objects, after)
		}
	}
	round(t, nil)
	methods := methodsOf(fence)
	lost := onceEach(methods, func(f *xensim.Fault) { f.Drop = "after" })
	for name, faults := range map[string][]xensim.Fault{
		"every answer and session is lost once":    append(lost, onceEach(methods, func(f *xensim.Fault) { f.LoseSession = true })...),
		"restarts of the toolstack":                onceEach([]string{"VM.destroy", "VM.remove_from_other_config"}, func(f *xensim.Fault) { f.Restart = true }),
		"the disk is in use, and the VM":           {refuse("VM.start", "VDI_IN_USE"), refuse("VBD.destroy", "OPERATION_NOT_ALLOWED"), refuse("VM.destroy", "OTHER_OPERATION_IN_PROGRESS")},
		"no memory, and its own disks are in use":  {refuse("VM.start", "HOST_NOT_ENOUGH_FREE_MEMORY"), refuse("VDI.destroy", "VDI_IN_USE")},
		"what was begun fails, and the SR is full": {failLater("VM.clean_shutdown", "VM_SHUTDOWN_TIMEOUT"), failLater("VM.start", "SR_FULL")},
	} {
		t.Run(name, func(t *testing.T) { round(t, faults) })
	}
}

// TestOffLeadsOutOfAFailedRescue: a rescue VM that cannot start leaves nothing that Off does not undo.
func TestOffLeadsOutOfAFailedRescue(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	before, objects := picture(w, instance.Status.UUID), census(w)
	disksThere := guardDisks(w)
	w.Simulator.ResetCalls()
	name := fmt.Sprintf("%s/web-rescue", w.Namespace)
	for call, reason := range map[string]string{
		"VM.start": v1alpha1.ReasonInsufficientMemory, "VBD.create": v1alpha1.ReasonRetrying, "VM.set_memory_limits": v1alpha1.ReasonRetrying,
	} {
		code := "INTERNAL_ERROR"
		if call == "VM.start" {
			code = "HOST_NOT_ENOUGH_FREE_MEMORY"
		}
		fault := xensim.Fault{Call: call, Error: code, Params: []string{"2", "1"}}
		if call == "VM.start" {
			fault.Object = name
		}
		w.Simulator.SetFaults([]xensim.Fault{fault})
		edit(t, w, instance, inRescue)
		w.WaitFor(t, instance, "the rescue fails at "+call, func() error {
			if err := testkit.Ready(instance); err == nil {
				return errors.New("it is Ready")
			}
			if operation := instance.Status.Operation; operation == nil || operation.Attempts == 0 {
				return fmt.Errorf("no attempt has failed, want %s: %+v", reason, operation)
			}
			return nil
		})
		edit(t, w, instance, outOfRescue)
		waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
		w.WaitAtRest(t)
		if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
			t.Errorf("%s: after the rescue:\n%s", call, diff)
		}
		if after := census(w); !maps.Equal(objects, after) {
			t.Errorf("%s: the pool had %v and has %v", call, objects, after)
		}
	}
	disksThere(t)
}
