package instance

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// TestDecide says for each situation what is done next, or what the user reads instead.
func TestDecide(t *testing.T) {
	const (
		running, halted, suspended, paused = v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted,
			v1alpha1.PowerStateSuspended, v1alpha1.PowerStatePaused
	)
	power := func(state v1alpha1.PowerState) factsOption { return wanting(func(w *Want) { w.Power = state }) }
	began := func(operation string, ago time.Duration) factsOption {
		return priorly(func(s *v1alpha1.XenInstanceStatus) {
			at := metav1.NewTime(testTime.Add(-ago))
			s.Operation = &v1alpha1.Operation{Type: operation, StartedAt: &at}
		})
	}
	problem := func(reason string, passing bool) factsOption {
		return wanting(func(w *Want) {
			w.Problems = append(w.Problems, Problem{Reason: reason, Message: "no", Passing: passing})
		})
	}
	token := func(token, prior, mark string) factsOption {
		return func(f *Facts) {
			f.Want.RestartToken, f.Prior.RestartToken = token, prior
			if mark != "" {
				f.VM.OtherConfig[markRestart] = mark
			}
		}
	}
	before := testTime.Add(-time.Hour).Format(time.RFC3339)

	tests := map[string]struct {
		facts *Facts
		// steps is what is to be done now; "" is nothing.
		steps string
		kind  reconcile.Kind
		// reason is of the outcome when there is no step.
		reason   string
		after    time.Duration
		released bool
	}{
		// making
		"nothing there": {
			facts: given(), steps: "MakeVM",
		},
		"image not ready yet": {
			facts: given(problem(v1alpha1.ReasonImageNotReady, true)), kind: reconcile.KindWait, reason: v1alpha1.ReasonImageNotReady, after: recheckAfter,
		},
		"a wrong name is said before what will pass": {
			facts: given(problem(v1alpha1.ReasonImageNotReady, true), problem(v1alpha1.ReasonNetworkNotFound, false)),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonNetworkNotFound, after: recheckAfter,
		},
		"flavor larger than any host": {
			facts: given(wanting(func(w *Want) { w.Size.Memory = 65 * gib })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonFlavorTooLarge, after: recheckAfter,
		},
		"more VCPUs than any host has": {
			facts: given(wanting(func(w *Want) { w.Size.VCPUs = 17 })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonFlavorTooLarge, after: recheckAfter,
		},
		"a clone from before a restart may be ours": {
			facts: given(func(f *Facts) { f.UnknownClone = true }),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonCreating, after: cloneRecheck,
		},
		"a fresh clone": {
			facts: given(unfinishedClone),
			steps: "MarkVM",
		},
		"a fresh clone whose image has vanished": {
			facts: given(unfinishedClone, problem(v1alpha1.ReasonTemplateNotFound, false)),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonTemplateNotFound, after: recheckAfter,
		},
		"complete and off": {
			facts: given(complete(halted)), steps: "Start",
		},
		"complete and running": {
			facts: given(complete(running)), kind: reconcile.KindDone,
		},
		"off as asked": {
			facts: given(power(halted), complete(halted)), kind: reconcile.KindDone,
		},

		// lost and found
		"the VM vanished": {
			facts: given(priorly(func(s *v1alpha1.XenInstanceStatus) { s.UUID = testUUID })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonExternallyDeleted,
		},
		"the VM vanished and only the annotation knows it": {
			facts: given(func(f *Facts) { f.Me.BoundUUID = testUUID }),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonExternallyDeleted,
		},
		"the VM vanished and a blank one is wanted": {
			facts: given(priorly(func(s *v1alpha1.XenInstanceStatus) { s.UUID = testUUID }), wanting(func(w *Want) { w.RecreateIfMissing = true })),
			steps: "MakeVM",
		},
		"the root disk vanished": {
			facts: given(complete(halted), having(func(vm *VM) { vm.Disks = nil })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonExternallyDeleted,
		},
		"the root disk is away while the VM is reverted": {
			facts: given(complete(halted), having(func(vm *VM) { vm.Disks = nil; vm.Running["task"] = "revert" })),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonInstanceBusy,
		},
		"belongs to another": {
			facts: given(complete(running), func(f *Facts) { f.Owner = "XenInstance/team-b/web" }),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonOwnedByAnother,
		},
		"names a VM that it may not have": {
			facts: given(func(f *Facts) {
				f.Denied = &Problem{Reason: v1alpha1.ReasonNamespaceNotAllowed}
				f.Me.BoundUUID = testUUID
			}),
			kind: reconcile.KindTerminal, reason: v1alpha1.ReasonNamespaceNotAllowed,
		},
		"a twin that never ran": {
			facts: given(complete(running), func(f *Facts) {
				clone := given(unfinishedClone)
				f.Twins = []VM{*clone.VM}
			}),
			steps: "DiscardTwin",
		},
		"a twin that ran": {
			facts: given(complete(running), func(f *Facts) { f.Twins = []VM{*given(complete(halted)).VM} }),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonDuplicateFound,
		},
		"restored under another uid": {
			facts: given(complete(running), func(f *Facts) { f.Me.UID = "uid-2"; f.Prior = v1alpha1.XenInstanceStatus{} }),
			steps: "MarkVM",
		},

		// power
		"start is gated": {
			facts: given(complete(halted), func(f *Facts) { f.Me.PowerOnGates = []string{"backup"} }),
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonGated,
		},
		"start is blocked by an administrator": {
			facts: given(complete(halted), having(func(vm *VM) { vm.Blocked["start"] = "maintenance" })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonOperationBlocked,
		},
		"the pool is in maintenance": {
			facts: given(complete(halted), func(f *Facts) { f.Me.Held, f.Me.HeldReason = "held", v1alpha1.ReasonMaintenance }),
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonMaintenance,
		},
		"resume":                      {facts: given(complete(suspended)), steps: "Resume"},
		"unpause":                     {facts: given(complete(paused)), steps: "Unpause"},
		"pause":                       {facts: given(power(paused), complete(running)), steps: "Pause"},
		"start paused":                {facts: given(power(paused), complete(halted)), steps: "StartPaused"},
		"suspend":                     {facts: given(power(suspended), complete(running)), steps: "Suspend"},
		"suspend without drivers":     {facts: given(power(suspended), complete(running), noAgent), kind: reconcile.KindWait, reason: v1alpha1.ReasonSuspending, after: recheckAfter},
		"suspend what is paused":      {facts: given(power(suspended), complete(paused)), steps: "Unpause"},
		"suspend what is off":         {facts: given(power(suspended), complete(halted)), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonIllegalTransition},
		"halt":                        {facts: given(power(halted), complete(running)), steps: "ShutDown", after: 300 * time.Second},
		"halt a while later":          {facts: given(power(halted), complete(running), began(operationShutdown, time.Minute)), steps: "ShutDown", after: 240 * time.Second},
		"halt, and time is over":      {facts: given(power(halted), complete(running), began(operationShutdown, 5*time.Minute)), steps: "PowerOff"},
		"halt without an agent":       {facts: given(power(halted), complete(running), noAgent), kind: reconcile.KindWait, reason: v1alpha1.ReasonShuttingDown, after: 300 * time.Second},
		"halt what is paused, softly": {facts: given(power(halted), complete(paused)), steps: "Unpause"},
		"halt what is suspended":      {facts: given(power(halted), complete(suspended)), steps: "Resume"},
		"halt hard": {
			facts: given(power(halted), complete(suspended), wanting(func(w *Want) { w.Off = v1alpha1.PowerOffHard })), steps: "PowerOff",
		},
		"halt softly, and time is over": {
			facts: given(power(halted), complete(running), wanting(func(w *Want) { w.Off = v1alpha1.PowerOffSoft }), began(operationShutdown, time.Hour)),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonGuestNotResponding,
		},

		// drift
		"the guest shut itself down": {
			facts: given(complete(halted), wasRunning), kind: reconcile.KindWait, reason: v1alpha1.ReasonDrifted, after: 30 * time.Second,
		},
		"a snapshot with memory is being taken": {
			facts: given(complete(suspended), wasRunning, captured), kind: reconcile.KindWait, reason: v1alpha1.ReasonInstanceBusy,
		},
		"a snapshot with memory of a guest that somebody has suspended": {
			facts: given(complete(suspended), captured, priorly(func(s *v1alpha1.XenInstanceStatus) {
				s.Conditions[0].Status, s.Conditions[0].Reason = metav1.ConditionFalse, v1alpha1.ReasonDrifted
				s.Conditions[0].LastTransitionTime = metav1.NewTime(testTime)
			})),
			kind: reconcile.KindWait, reason: v1alpha1.ReasonDrifted, after: 30 * time.Second,
		},
		"the guest has been off for a while": {
			facts: given(complete(halted), priorly(func(s *v1alpha1.XenInstanceStatus) {
				s.Conditions = []metav1.Condition{{
					Type: v1alpha1.ConditionPowerStateSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDrifted,
					LastTransitionTime: metav1.NewTime(testTime.Add(-31 * time.Second)),
				}}
			})),
			steps: "Start",
		},
		"no grace": {
			facts: given(complete(halted), wasRunning, wanting(func(w *Want) { w.DriftGrace = 0 })), steps: "Start",
		},
		"the guest may stay off": {
			facts: given(complete(halted), wasRunning, wanting(func(w *Want) { w.Drift = v1alpha1.PowerDriftIgnore })),
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonDrifted,
		},
		"a new power state is no drift": {
			facts: given(complete(halted), wanting(func(w *Want) { w.Drift = v1alpha1.PowerDriftIgnore }), priorly(func(s *v1alpha1.XenInstanceStatus) {
				s.PowerState = halted
				s.Conditions[0].Status, s.Conditions[0].Reason = metav1.ConditionTrue, v1alpha1.ReasonHalted
			})),
			steps: "Start",
		},
		"status lost and the guest may stay off": {
			facts: given(complete(halted), wanting(func(w *Want) { w.Drift = v1alpha1.PowerDriftIgnore }), priorly(func(s *v1alpha1.XenInstanceStatus) { *s = v1alpha1.XenInstanceStatus{} })),
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonDrifted,
		},

		// restart
		"a new token":                    {facts: given(complete(running), token("2", "1", "")), steps: "MarkRestart"},
		"the token that it came with":    {facts: given(complete(running), token("1", "", ""), priorly(func(s *v1alpha1.XenInstanceStatus) { s.UUID = "" })), kind: reconcile.KindDone},
		"marked and not done":            {facts: given(complete(running), token("2", "1", "2,"+before)), steps: "Reboot", after: 300 * time.Second},
		"marked and time is over":        {facts: given(complete(running), token("2", "1", "2,"+before), began(operationRestart, time.Hour)), steps: "Reset"},
		"marked and done, not echoed":    {facts: given(complete(running), token("2", "1", "2,"+testTime.Add(-2*time.Hour).Format(time.RFC3339))), kind: reconcile.KindDone},
		"marked and off: start it":       {facts: given(complete(halted), wasRunning, token("2", "1", "2,"+before)), steps: "Start"},
		"a token for one that stays off": {facts: given(power(halted), complete(halted), token("2", "1", "")), kind: reconcile.KindDone},
		"a restart while changes wait": {
			facts: given(complete(running), token("2", "1", "2,"+before), wanting(func(w *Want) { w.Size = &Size{VCPUs: 4, MaxVCPUs: 4, MinMemory: gib, Memory: gib, MaxMemory: gib} })),
			steps: "ShutDown", after: 300 * time.Second,
		},

		// changes
		"another flavor while it runs": {
			facts: given(complete(running), wanting(func(w *Want) {
				w.Flavor = "large"
				w.Size = &Size{VCPUs: 4, MaxVCPUs: 4, MinMemory: gib, Memory: gib, MaxMemory: gib}
			})),
			kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired,
		},
		"another flavor while it is off": {
			facts: given(complete(halted), wanting(func(w *Want) {
				w.Flavor = "large"
				w.Size = &Size{VCPUs: 4, MaxVCPUs: 4, MinMemory: gib, Memory: gib, MaxMemory: gib}
			})),
			steps: stepRememberSizes,
		},
		"another name":                 {facts: given(complete(running), wanting(func(w *Want) { w.Name = "db" })), steps: "NameVM"},
		"a new disk":                   {facts: given(complete(running), dataDisk("data", "4", gib)), steps: "MakeDisks"},
		"a disk that was made":         {facts: given(complete(running), dataDisk("data", "4", gib), loose("data", gib)), steps: "AttachDisks"},
		"a disk that is not plugged":   {facts: given(complete(running), dataDisk("data", "4", gib), attached("data", "4", gib, nil), having(func(vm *VM) { vm.Disks[1].Attached = false })), steps: "PlugDisks"},
		"not plugged, and no drivers":  {facts: given(complete(running), dataDisk("data", "4", gib), attached("data", "4", gib, nil), having(func(vm *VM) { vm.Disks[1].Attached = false }), noAgent), kind: reconcile.KindDone, reason: v1alpha1.ReasonRestartRequired},
		"a larger disk while it runs":  {facts: given(complete(running), dataDisk("data", "4", 2*gib), attached("data", "4", gib, nil)), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"a larger disk while it's off": {facts: given(complete(halted), dataDisk("data", "4", 2*gib), attached("data", "4", gib, nil)), steps: "GrowDisks"},
		"a disk taken out":             {facts: given(complete(running), attached("data", "4", gib, nil)), steps: "DetachDisks"},
		"a disk taken out, no drivers": {facts: given(complete(running), attached("data", "4", gib, nil), noAgent), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"a disk taken out for good":    {facts: given(complete(running), loose("data", gib), func(f *Facts) { f.Loose[0].OtherConfig[MarkOnRemove] = markDelete }), steps: "DiscardDisks"},
		"a disk taken out, kept":       {facts: given(complete(running), loose("data", gib)), kind: reconcile.KindDone},
		"a place that is taken": {
			facts: given(complete(running), dataDisk("data", "4", gib), loose("data", gib), having(func(vm *VM) {
				vm.Disks = append(vm.Disks, Disk{Ref: "other", Device: "4", VDI: VDI{Ref: "stranger"}})
			})),
			kind: reconcile.KindTerminal, reason: v1alpha1.ReasonDeviceInUse,
		},
		"nothing is changed while a name is unknown": {
			facts: given(complete(running), attached("data", "4", gib, nil), problem(v1alpha1.ReasonNetworkNotFound, false)),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonNetworkNotFound, after: recheckAfter,
		},
		"an interface on another network": {facts: given(complete(running), wanting(func(w *Want) { w.NICs[0].Network = "dmz" })), steps: "SetNICs"},
		"an interface taken out":          {facts: given(complete(running), wanting(func(w *Want) { w.NICs = nil })), steps: "RemoveNICs"},
		"a stranger's interface stays": {
			facts: given(complete(running), having(func(vm *VM) { vm.NICs = append(vm.NICs, NIC{Ref: "other", Device: "3", MAC: "02:ff:00:00:00:01"}) })),
			kind:  reconcile.KindDone,
		},

		// adoption
		"observed": {
			facts: given(complete(running), adopting, wanting(func(w *Want) { w.Observe, w.Name = true, "else" })),
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonObserved,
		},
		"found, to be adopted":    {facts: given(complete(running), adopting, unmarked), steps: "MarkVM"},
		"adopted, but it differs": {facts: given(complete(running), adopting, wanting(func(w *Want) { w.HoldMismatch = true; w.Power = halted })), kind: reconcile.KindDone, reason: v1alpha1.ReasonAdoptionHeld},
		"adopted, and it agrees":  {facts: given(complete(running), adopting, wanting(func(w *Want) { w.HoldMismatch = true })), steps: "AgreeOnce"},
		"adopted, to be changed":  {facts: given(complete(running), adopting, wanting(func(w *Want) { w.Power = halted })), steps: "AgreeOnce"},
		"adopted once, then edited": {
			facts: given(complete(running), adopting, having(func(vm *VM) { vm.OtherConfig[markAdopted] = "true" }), wanting(func(w *Want) { w.HoldMismatch = true; w.Power = halted })),
			steps: "ShutDown", after: 300 * time.Second,
		},
		"nothing to adopt": {facts: given(wanting(func(w *Want) { w.Source = Source{ExistingUUID: testUUID} })), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonVMNotFound, after: recheckAfter},

		// the end
		"to the trash, running":     {facts: given(complete(running), deleting(v1alpha1.DeletionTrash)), steps: "ShutDown", after: 300 * time.Second},
		"to the trash, off":         {facts: given(complete(halted), deleting(v1alpha1.DeletionTrash)), steps: "BlockStart"},
		"in the trash":              {facts: given(complete(halted), deleting(v1alpha1.DeletionTrash), inTrash), released: true},
		"destroy, running":          {facts: given(complete(running), deleting(v1alpha1.DeletionDelete)), steps: "PowerOff"},
		"destroy, a disk is kept":   {facts: given(complete(running), dataDisk("data", "4", gib), attached("data", "4", gib, nil), deleting(v1alpha1.DeletionDelete)), steps: "ShutDown", after: 300 * time.Second},
		"destroy, off":              {facts: given(complete(halted), deleting(v1alpha1.DeletionDelete)), steps: "DestroyVM"},
		"destroyed, disks are left": {facts: given(loose(rootName, gib), deleting(v1alpha1.DeletionDelete)), steps: "DestroyDisk"},
		"destroyed, a kept disk":    {facts: given(loose("data", gib), deleting(v1alpha1.DeletionDelete)), released: true},
		"destroy is blocked": {
			facts: given(complete(running), deleting(v1alpha1.DeletionDelete), having(func(vm *VM) { vm.Blocked["destroy"] = "legal hold" })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonOperationBlocked,
		},
		"orphan":                     {facts: given(complete(running), deleting(v1alpha1.DeletionOrphan)), steps: "UnmarkDevices"},
		"orphaned":                   {facts: given(complete(running), unmarked, deleting(v1alpha1.DeletionOrphan)), released: true},
		"half made":                  {facts: given(unfinishedClone, deleting(v1alpha1.DeletionTrash)), steps: "DiscardVM"},
		"another's":                  {facts: given(complete(running), deleting(v1alpha1.DeletionDelete), func(f *Facts) { f.Owner = "x" }), released: true},
		"only observed":              {facts: given(complete(running), deleting(v1alpha1.DeletionDelete), wanting(func(w *Want) { w.Observe = true })), released: true},
		"deletion is gated":          {facts: given(complete(running), deleting(v1alpha1.DeletionDelete), func(f *Facts) { f.Me.DeleteGates = []string{"x"} }), kind: reconcile.KindDone, reason: v1alpha1.ReasonGated},
		"a clone may still come":     {facts: given(deleting(v1alpha1.DeletionDelete), func(f *Facts) { f.UnknownClone = true }), kind: reconcile.KindWait, reason: v1alpha1.ReasonDeleting, after: cloneRecheck},
		"taken back from the trash":  {facts: given(complete(halted), inTrash), steps: "UnmarkTrashed"},
		"deleted, and never existed": {facts: given(deleting(v1alpha1.DeletionTrash)), released: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := Decide(test.facts, testTime)
			got := stepNames(plan.Steps)
			if got != test.steps {
				t.Errorf("steps: %q, want %q", got, test.steps)
			}
			if plan.Released != test.released {
				t.Errorf("released: %v, want %v", plan.Released, test.released)
			}
			if test.steps == "" && (plan.Outcome.Kind() != test.kind || plan.Outcome.Reason() != test.reason) {
				t.Errorf("outcome: %s, want %s %s", plan.Outcome, test.kind, test.reason)
			}
			if test.after != 0 && plan.Outcome.Deadline() != test.after {
				t.Errorf("again after %s, want %s", plan.Outcome.Deadline(), test.after)
			}
		})
	}
}

func stepNames(steps []Step) string {
	names := make([]string, len(steps))
	for i, step := range steps {
		names[i] = step.Name
	}
	return strings.Join(names, " ")
}

// loose leaves a disk of ours without a VM.
func loose(name string, size int64) factsOption {
	return func(f *Facts) {
		role := xencache.RoleDataDisk
		if name == rootName {
			role = xencache.RoleRootDisk
		}
		marks := f.diskMarks(WantDisk{Name: name, Role: role}, name+"-uuid")
		f.Loose = append(f.Loose, VDI{
			Ref: "loose", UUID: name + "-uuid", Size: size, SR: "sr", OtherConfig: marks, Marks: xencache.ReadMarks(marks),
		})
	}
}

// adopting has the VM named by source.existing.
func adopting(f *Facts) {
	f.Want.Source = Source{ExistingUUID: testUUID}
	f.Want.Disks, f.Want.DisksListed = nil, false
}

func unmarked(f *Facts) {
	f.VM.Marks = xencache.Marks{}
	f.VM.OtherConfig = map[string]string{}
	f.VM.NICs[0].OtherConfig = nil
}

func inTrash(f *Facts) {
	f.VM.OtherConfig[xencache.MarkTrashedAt] = testTime.Format(time.RFC3339)
	f.VM.Name = trashName(f)
	f.VM.Blocked = map[string]string{"start": trashBlockReason, "start_on": trashBlockReason}
}
