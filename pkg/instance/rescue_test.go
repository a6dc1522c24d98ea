package instance

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const (
	rescueUUID     = "33333333-3333-3333-3333-333333333333"
	rescueRootUUID = "44444444-4444-4444-4444-444444444444"
)

// asking asks for a rescue with an image that is ready.
func asking(f *Facts) {
	f.Want.Rescue = WantRescue{
		On: true, Token: "asked", Image: "rescue", Disks: v1alpha1.RescueDisksAll, Networks: v1alpha1.RescueNetworksSame, Generated: true,
		Template: &Template{Ref: "rescue-template", UUID: "template-uuid", Name: "rescue", RootSize: gib, RootSR: "sr"},
	}
}

// withMoreMemory asks for more memory than the VM has.
func withMoreMemory(w *Want) {
	size := *w.Size
	size.MinMemory, size.Memory, size.MaxMemory = 2*size.MinMemory, 2*size.Memory, 2*size.MaxMemory
	w.Size = &size
}

// remembering puts the journal on the VM.
func remembering(f *Facts) {
	asking(f)
	f.VM.OtherConfig[xencache.MarkJournal] = newRescueJournal(f, testTime.Add(-time.Hour)).String()
}

// withClone gives the instance the rescue VM as the clone has just made it.
func withClone(f *Facts) {
	remembering(f)
	f.Rescue = &VM{
		Ref: "rescue-vm", UUID: rescueUUID, Name: f.Me.rescueMarkName(), Template: true, Power: v1alpha1.PowerStateHalted,
		OtherConfig: map[string]string{xencache.MarkRole: "image"}, Blocked: map[string]string{}, Running: map[xenapi.TaskRef]string{},
		Disks: []Disk{{
			Ref: "rescue-vbd", Device: "0", OtherConfig: map[string]string{xencache.MarkInstallation: "home", xencache.MarkRef: "XenClusterImage/rescue"},
			VDI: VDI{Ref: "rescue-vdi", UUID: rescueRootUUID, SR: "sr", Users: 1},
		}},
		NICs: []NIC{{Ref: "image-vif", Device: "0", MAC: "02:aa:bb:cc:dd:ee"}},
	}
}

// prepared gives it the rescue VM when that is complete.
func prepared(f *Facts) {
	withClone(f)
	for _, step := range []string{
		"MarkRescueVM", "SizeRescueVM", "LeaveRescueTemplates", "MarkRescueDisks", "RemoveRescueNICs", "MakeRescueNICs",
		"MakeRescueDrive", "FillRescueDrive", "AttachRescueDrive", "NameRescueVM",
	} {
		effects[step](f)
	}
}

// active gives it a rescue that is as asked.
func active(f *Facts) {
	f.VM.Power = v1alpha1.PowerStateHalted
	prepared(f)
	effects["BlockOriginal"](f)
	effects["AttachOriginalDisks"](f)
	f.Rescue.Power, f.Rescue.StartedAt = v1alpha1.PowerStateRunning, testTime.Add(-time.Hour)
	f.Rescue.Guest = Guest{Reports: true, CanShutDown: true}
}

func init() {
	for name, effect := range map[string]func(*Facts){
		"RememberOriginal": func(f *Facts) { f.VM.OtherConfig[xencache.MarkJournal] = newRescueJournal(f, testTime).String() },
		"MakeRescueVM":     withClone,
		"MarkRescueVM": func(f *Facts) {
			f.Rescue.OtherConfig = f.Me.Marks(xencache.RoleRescueVM, rescueUUID).OtherConfig()
			f.Rescue.Marks = xencache.ReadMarks(f.Rescue.OtherConfig)
		},
		"SizeRescueVM":         func(f *Facts) { f.Rescue.Size = f.VM.Size },
		"LeaveRescueTemplates": func(f *Facts) { f.Rescue.Template = false },
		"MarkRescueDisks": func(f *Facts) {
			vdi := &f.Rescue.Disks[0].VDI
			vdi.OtherConfig = f.rescueDiskMarks(rootName, vdi.UUID)
			vdi.Marks = xencache.ReadMarks(vdi.OtherConfig)
		},
		"RemoveRescueNICs": func(f *Facts) { f.Rescue.NICs = nil },
		"MakeRescueNICs": func(f *Facts) {
			f.Rescue.NICs = slices.Clone(f.VM.NICs)
			for i := range f.Rescue.NICs {
				f.Rescue.NICs[i].OtherConfig = f.Me.Marks("", "").OtherConfig()
			}
		},
		"MakeRescueDrive": func(f *Facts) {
			f.Loose = append(f.Loose, VDI{
				Ref: "drive-vdi", UUID: "drive", OtherConfig: f.rescueDiskMarks(rescueDrive, ""),
				Marks: xencache.ReadMarks(f.rescueDiskMarks(rescueDrive, "")),
			})
		},
		"FillRescueDrive": func(f *Facts) { f.rescueDriveDisk().Marks.Self = "drive" },
		"AttachRescueDrive": func(f *Facts) {
			vdi := *f.rescueDriveDisk()
			f.Loose = slices.DeleteFunc(f.Loose, func(v VDI) bool { return v.Ref == vdi.Ref })
			vdi.Users = 1
			f.Rescue.Disks = append(f.Rescue.Disks, Disk{Ref: "drive-vbd", Device: "3", VDI: vdi})
		},
		"NameRescueVM":  func(f *Facts) { f.Rescue.Name = f.rescueName() },
		"BlockOriginal": func(f *Facts) { f.VM.Blocked["start"], f.VM.Blocked["start_on"] = rescueBlockReason, rescueBlockReason },
		"AttachOriginalDisks": func(f *Facts) {
			for _, loan := range missingLoans(f) {
				disk := *loan
				disk.Ref = "loan-" + loan.Ref
				f.Rescue.Disks = append(f.Rescue.Disks, disk)
			}
		},
		"RememberTimeout": func(f *Facts) { f.VM.OtherConfig[markRescueTimedOut] = f.Want.Rescue.Token },
		"DetachOriginalDisks": func(f *Facts) {
			f.Rescue.Disks = slices.DeleteFunc(f.Rescue.Disks, func(d Disk) bool { return !f.ownRescueDisk(&d.VDI) })
		},
		"DestroyRescueVM": func(f *Facts) {
			for _, disk := range f.Rescue.Disks {
				disk.VDI.Users = 0
				f.Loose = append(f.Loose, disk.VDI)
			}
			f.Rescue = nil
		},
		"DestroyRescueDisks": func(f *Facts) {
			f.Loose = slices.DeleteFunc(f.Loose, func(v VDI) bool { return f.ownRescueDisk(&v) })
		},
		"ClearRescueDisks": func(f *Facts) {
			f.Loose = slices.DeleteFunc(f.Loose, func(v VDI) bool { return f.ownRescueDisk(&v) })
		},
		"ReleaseOriginal": func(f *Facts) {
			for key, reason := range f.VM.Blocked {
				if reason == rescueBlockReason {
					delete(f.VM.Blocked, key)
				}
			}
		},
		"ForgetRescue":  func(f *Facts) { delete(f.VM.OtherConfig, xencache.MarkJournal) },
		"ForgetTimeout": func(f *Facts) { delete(f.VM.OtherConfig, markRescueTimedOut) },
	} {
		effects[name] = effect
	}
}

// TestRescueDecisions says for each situation on the way into a rescue, in it and out of it what is done next.
func TestRescueDecisions(t *testing.T) {
	const running, halted = v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted
	off := wanting(func(w *Want) { w.Rescue.On = false })
	lasting := func(d time.Duration) factsOption { return wanting(func(w *Want) { w.Rescue.Timeout = d }) }
	stopping := func(operation string, ago time.Duration) factsOption {
		return priorly(func(s *v1alpha1.XenInstanceStatus) {
			at := metav1.NewTime(testTime.Add(-ago))
			s.Operation = &v1alpha1.Operation{Type: operation, ID: phaseStop, StartedAt: &at}
		})
	}
	blocked := func(f *Facts) { effects["BlockOriginal"](f) }
	tests := map[string]struct {
		facts  *Facts
		steps  string
		kind   reconcile.Kind
		reason string
	}{
		// refused: nothing is touched
		"not asked for": {facts: given(complete(running)), kind: reconcile.KindDone},
		"image not ready": {
			facts: given(complete(running), asking, wanting(func(w *Want) {
				w.Rescue.Problems = []Problem{{Reason: v1alpha1.ReasonImageNotReady, Passing: true}}
			})),
			kind: reconcile.KindWait, reason: v1alpha1.ReasonImageNotReady,
		},
		"refused, and the VM is kept as asked all the same": {
			facts: given(complete(halted), asking, wanting(func(w *Want) { w.Rescue.MinMemory = 4 * gib })), steps: stepStart,
		},
		"the image needs more memory": {
			facts: given(complete(running), asking, wanting(func(w *Want) { w.Rescue.MinMemory = 4 * gib })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonRescueImageUnsuitable,
		},
		"no host has the memory": {
			facts: given(wanting(func(w *Want) { w.Power = halted }), complete(halted), asking, func(f *Facts) { f.Hosts[0].MemoryFree = gib }),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonInsufficientMemory,
		},
		"the storage is full": {
			facts: given(complete(running), asking, wanting(func(w *Want) { w.Rescue.storage = &rescueStorage{Name: "local", Free: driveSize - 1} })),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonInsufficientStorage,
		},
		"the image is larger than the room on the storage": {
			facts: given(complete(running), asking, wanting(func(w *Want) { w.Rescue.storage = &rescueStorage{Name: "local", Free: gib, Needed: gib} })),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonInsufficientStorage,
		},
		"the storage does not tell": {
			facts: given(complete(running), asking, wanting(func(w *Want) { w.Rescue.storage = &rescueStorage{Name: "local", Free: -1, Needed: gib} })),
			steps: "RememberOriginal",
		},
		"every host is full": {
			facts: given(wanting(func(w *Want) { w.Power = halted }), complete(halted), asking, func(f *Facts) { f.Hosts[0].MemoryFree = 0 }),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonInsufficientMemory,
		},
		"begun by a later version": {
			facts: given(complete(running), active, having(func(vm *VM) {
				vm.OtherConfig[xencache.MarkJournal] = strings.Replace(vm.OtherConfig[xencache.MarkJournal], `"format":1`, `"format":2`, 1)
			})),
			kind: reconcile.KindTerminal, reason: v1alpha1.ReasonInstanceBusy,
		},
		"the VM's own memory will be free": {
			facts: given(complete(running), asking, having(func(vm *VM) { vm.HostName = "xs1" }), func(f *Facts) { f.Hosts[0].MemoryFree = gib }),
			steps: "RememberOriginal",
		},
		"a suspended VM": {
			facts: given(wanting(func(w *Want) { w.Power = v1alpha1.PowerStateSuspended }), complete(v1alpha1.PowerStateSuspended), asking),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonIllegalTransition,
		},
		"an administrator keeps it from being turned off": {
			facts: given(complete(running), asking, having(func(vm *VM) { vm.Blocked["hard_shutdown"] = "no" })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonOperationBlocked,
		},
		"the pool is in maintenance": {
			facts: given(complete(running), asking, func(f *Facts) { f.Me.Held, f.Me.HeldReason = "held", v1alpha1.ReasonMaintenance }),
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonMaintenance,
		},
		"only observed": {
			facts: given(complete(running), asking, wanting(func(w *Want) { w.Observe = true })), kind: reconcile.KindDone, reason: v1alpha1.ReasonObserved,
		},

		// entering
		"asked for":                {facts: given(complete(running), asking), steps: "RememberOriginal"},
		"remembered":               {facts: given(complete(running), remembering), steps: "MakeRescueVM"},
		"a clone that may be ours": {facts: given(complete(running), remembering, func(f *Facts) { f.UnknownRescueClone = true }), kind: reconcile.KindWait, reason: v1alpha1.ReasonProgressing},
		"the image has vanished": {
			facts: given(complete(running), remembering, wanting(func(w *Want) { w.Rescue.Template = nil })),
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonImageNotReady,
		},
		"cloned":                        {facts: given(complete(running), withClone), steps: "MarkRescueVM"},
		"two clones":                    {facts: given(complete(running), withClone, func(f *Facts) { f.RescueTwins = []VM{*f.Rescue} }), steps: "DiscardRescueTwin"},
		"prepared while the guest runs": {facts: given(complete(running), prepared), steps: "BlockOriginal"},
		"blocked":                       {facts: given(complete(running), prepared, blocked), steps: stepShutDown},
		"the guest does not answer":     {facts: given(complete(running), prepared, blocked, stopping(operationEnterRescue, 31*time.Second)), steps: stepPowerOff},
		"no agent":                      {facts: given(complete(running), prepared, blocked, noAgent), steps: stepPowerOff},
		"no agent yet": {
			facts: given(complete(running), prepared, blocked, noAgent, having(func(vm *VM) { vm.StartedAt = testTime.Add(-time.Second) })),
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonShuttingDown,
		},
		"stopped":  {facts: given(complete(halted), prepared, blocked), steps: "AttachOriginalDisks"},
		"attached": {facts: given(complete(halted), prepared, blocked, func(f *Facts) { effects["AttachOriginalDisks"](f) }), steps: stepStart},

		// in rescue
		"in rescue": {facts: given(complete(running), active), kind: reconcile.KindDone, reason: v1alpha1.ReasonInRescue},
		"in rescue, and the VM itself is wanted off": {
			facts: given(complete(running), active, wanting(func(w *Want) { w.Power = halted })), kind: reconcile.KindDone, reason: v1alpha1.ReasonInRescue,
		},
		"in rescue, and a restart is asked for": {
			facts: given(complete(running), active, func(f *Facts) { f.Want.RestartToken, f.Prior.RestartToken = "b", "a" }), steps: stepMarkRestart,
		},
		"the rescue VM was turned off":    {facts: given(complete(running), active, func(f *Facts) { f.Rescue.Power = halted }), steps: stepStart},
		"the rescue VM was destroyed":     {facts: given(complete(running), active, func(f *Facts) { effects["DestroyRescueVM"](f) }), steps: "ClearRescueDisks"},
		"the VM itself was started":       {facts: given(complete(running), active, having(func(vm *VM) { vm.Power = running; vm.Guest.CanShutDown = true })), steps: stepShutDown},
		"the VM itself was let start":     {facts: given(complete(running), active, having(func(vm *VM) { delete(vm.Blocked, "start") })), steps: "BlockOriginal"},
		"started, and drift is left be":   {facts: given(complete(running), active, having(func(vm *VM) { vm.Power = running }), wanting(func(w *Want) { w.Drift = v1alpha1.PowerDriftIgnore })), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonRescueDegraded},
		"within its time":                 {facts: given(complete(running), active, lasting(2*time.Hour)), kind: reconcile.KindDone, reason: v1alpha1.ReasonInRescue},
		"its time is over":                {facts: given(complete(running), active, lasting(time.Minute)), steps: "RememberTimeout"},
		"its time is over and remembered": {facts: given(complete(running), active, lasting(time.Minute), func(f *Facts) { effects["RememberTimeout"](f) }), steps: stepShutDown},

		// leaving
		"given up when nothing was made": {facts: given(complete(running), remembering, off), steps: "ForgetRescue"},
		"given up with a fresh clone":    {facts: given(complete(running), withClone, off), steps: "MarkRescueDisks"},
		"given up when prepared":         {facts: given(complete(running), prepared, off), steps: "DestroyRescueVM"},
		"the return":                     {facts: given(complete(running), active, off), steps: stepShutDown},
		"the rescue VM does not answer":  {facts: given(complete(running), active, off, stopping(operationLeaveRescue, 31*time.Second)), steps: stepPowerOff},
		"the rescue VM is off":           {facts: given(complete(running), active, off, func(f *Facts) { f.Rescue.Power = halted }), steps: "DetachOriginalDisks"},
		"it may not be destroyed":        {facts: given(complete(running), prepared, off, func(f *Facts) { f.Rescue.Blocked["destroy"] = "mine" }), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonOperationBlocked},
		"the return in maintenance":      {facts: given(complete(running), active, off, func(f *Facts) { f.Me.Held, f.Me.HeldReason = "held", v1alpha1.ReasonMaintenance }), kind: reconcile.KindDone, reason: v1alpha1.ReasonMaintenance},
		"back, it ran before":            {facts: given(wanting(func(w *Want) { w.Power = "" }), complete(running), remembering, off, having(func(vm *VM) { vm.Power = halted })), steps: stepStart},
		"back, and a change waits":       {facts: given(complete(running), remembering, off, having(func(vm *VM) { vm.Power = halted }), wanting(withMoreMemory)), steps: "ForgetRescue"},
		"back, a change waits, and nobody would start it afterwards": {
			facts: given(wanting(func(w *Want) { w.Power = "" }), complete(running), remembering, off, having(func(vm *VM) { vm.Power = halted }), wanting(withMoreMemory)),
			steps: stepStart,
		},
		"back, it was off before":           {facts: given(wanting(func(w *Want) { w.Power = "" }), complete(halted), remembering, off), steps: "ForgetRescue"},
		"a rescue VM that nobody remembers": {facts: given(complete(running), active, off, having(func(vm *VM) { delete(vm.OtherConfig, xencache.MarkJournal) })), steps: stepShutDown},
		"timed out before":                  {facts: given(complete(running), asking, func(f *Facts) { effects["RememberTimeout"](f) }), kind: reconcile.KindDone},
		"timed out before, asked for anew":  {facts: given(complete(running), asking, func(f *Facts) { f.VM.OtherConfig[markRescueTimedOut] = "other" }), steps: "RememberOriginal"},
		"timed out before, and off":         {facts: given(complete(running), asking, off, func(f *Facts) { effects["RememberTimeout"](f) }), steps: "ForgetTimeout"},

		// deleting
		"deleted in rescue":            {facts: given(complete(running), active, deleting(v1alpha1.DeletionDelete)), steps: stepShutDown},
		"deleted when the VM is gone":  {facts: given(complete(running), active, deleting(v1alpha1.DeletionDelete), func(f *Facts) { f.VM = nil }), steps: stepShutDown},
		"deleted, the VM stays off":    {facts: given(complete(halted), remembering, deleting(v1alpha1.DeletionTrash)), steps: "ForgetRescue"},
		"let go, the VM is as it was":  {facts: given(complete(running), remembering, deleting(v1alpha1.DeletionOrphan), having(func(vm *VM) { vm.Power = halted })), steps: stepStart},
		"deletion is held in a rescue": {facts: given(complete(running), active, deleting(v1alpha1.DeletionDelete), func(f *Facts) { f.Me.DeleteGates = []string{"a"} }), kind: reconcile.KindDone, reason: v1alpha1.ReasonGated},
		"a restored object, in rescue": {facts: given(complete(running), active, priorly(func(s *v1alpha1.XenInstanceStatus) { *s = v1alpha1.XenInstanceStatus{} })), kind: reconcile.KindDone, reason: v1alpha1.ReasonInRescue},
		"the VM itself vanished": {
			facts: given(complete(running), active, func(f *Facts) { f.VM = nil }), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonExternallyDeleted,
		},
		"the VM itself vanished, and off": {facts: given(complete(running), active, off, func(f *Facts) { f.VM = nil }), steps: stepShutDown},
		"a clone of a VM that remembers":  {facts: given(complete(running), remembering, off, having(func(vm *VM) { vm.UUID = rescueUUID; vm.Marks.Self = rescueUUID })), kind: reconcile.KindDone},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := Decide(test.facts, testTime)
			var names []string
			for _, step := range plan.Steps {
				names = append(names, step.Name)
			}
			if got := strings.Join(names, " "); got != test.steps {
				t.Fatalf("steps %q, want %q; outcome %s", got, test.steps, plan.Outcome)
			}
			if test.steps == "" && (plan.Outcome.Kind() != test.kind || plan.Outcome.Reason() != test.reason) {
				t.Errorf("outcome %s, want %s %s", plan.Outcome, test.kind, test.reason)
			}
		})
	}
}

// TestRescueStatus says what the user sees of a rescue.
func TestRescueStatus(t *testing.T) {
	f := given(complete(v1alpha1.PowerStateRunning), active, wanting(func(w *Want) {
		w.Rescue.Timeout, w.Rescue.Image, w.Power = 2*time.Hour, "another", v1alpha1.PowerStateHalted
	}))
	f.Rescue.HostName = "xs2"
	plan := Decide(f, testTime)
	status := Status(f, Report{Plan: plan, Outcome: plan.Outcome, Now: testTime})
	if status.UUID != testUUID || status.PowerState != v1alpha1.PowerStateRunning || status.HostName != "xs2" {
		t.Errorf("%s is %s on %s", status.UUID, status.PowerState, status.HostName)
	}
	rescue := status.Rescue
	if rescue == nil || rescue.VMUUID != rescueUUID || rescue.Image != "rescue" || !rescue.Shown || rescue.SecretRef == nil ||
		!rescue.ExpiresAt.Time.Equal(testTime.Add(time.Hour)) || !rescue.Since.Time.Equal(testTime.Add(-time.Hour)) {
		t.Errorf("status.rescue: %+v", rescue)
	}
	fields := map[string]v1alpha1.ChangeRequires{}
	for _, change := range status.PendingChanges {
		fields[change.Field] = change.Requires
	}
	for _, field := range []string{"powerState", "rescue.imageRef"} {
		if fields[field] != v1alpha1.RequiresHold {
			t.Errorf("%s is not held: %v", field, fields)
		}
	}
}

// TestOnlyOwnDisksOfARescueAreDestroyed: whatever hangs on the rescue VM or is left of it, only its own disks ever go.
func TestOnlyOwnDisksOfARescueAreDestroyed(t *testing.T) {
	f := given(complete(v1alpha1.PowerStateRunning), active)
	copied := f.rescueDiskMarks(rootName, rescueRootUUID)
	f.Loose = append(f.Loose,
		VDI{Ref: "copy", UUID: "copy", Marks: xencache.ReadMarks(copied), OtherConfig: copied},
		VDI{Ref: "used", UUID: rescueRootUUID, Marks: xencache.ReadMarks(copied), Users: 1},
		VDI{Ref: "data", UUID: "data", Marks: f.Me.Marks(xencache.RoleDataDisk, "data")},
	)
	if left := rescueLeftovers(f); len(left) != 0 {
		t.Errorf("would be destroyed: %+v", left)
	}
	f.Rescue.Name = f.Me.rescueMarkName() // as if it were not complete: it has run
	if fresh := f.freshDisks(f.Rescue); len(fresh) != 0 {
		t.Errorf("would be marked as its own: %+v", fresh)
	}
}
