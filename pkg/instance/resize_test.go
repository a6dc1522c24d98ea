package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// sizeOfFlavor are the sizes that the tests' flavors have.
var sizeOfFlavor = map[string]Size{
	"small":  {VCPUs: 2, MaxVCPUs: 2, MinMemory: 2 * gib, Memory: 2 * gib, MaxMemory: 2 * gib},
	"large":  {VCPUs: 4, MaxVCPUs: 4, MinMemory: 4 * gib, Memory: 4 * gib, MaxMemory: 4 * gib},
	"huge":   {VCPUs: 8, MaxVCPUs: 8, MinMemory: 8 * gib, Memory: 8 * gib, MaxMemory: 8 * gib, Weight: 512, Cap: 400, CoresPerSocket: 4},
	"roomy":  {VCPUs: 2, MaxVCPUs: 8, MinMemory: 2 * gib, Memory: 2 * gib, MaxMemory: 8 * gib},
	"roomie": {VCPUs: 4, MaxVCPUs: 8, MinMemory: 4 * gib, Memory: 4 * gib, MaxMemory: 8 * gib},
}

// ofFlavor asks for a flavor.
func ofFlavor(name string) factsOption {
	return wanting(func(w *Want) {
		size := sizeOfFlavor[name]
		w.Flavor, w.Size = name, &size
	})
}

// rootOf asks for a size of the root disk.
func rootOf(size int64) factsOption { return wanting(func(w *Want) { w.Disks[0].Size = size }) }

// resizes says how a change of size comes about.
func resizes(change func(*WantResize)) factsOption {
	return wanting(func(w *Want) { change(&w.Resize) })
}

var (
	atOnceOption = resizes(func(r *WantResize) { r.Strategy = v1alpha1.ResizeRestart })
	manualOption = resizes(func(r *WantResize) { r.Manual = true })
)

// capable gives the guest what it needs to be changed while it runs.
func capable(f *Facts) { f.VM.Guest.HotplugCPU, f.VM.Guest.Balloon = true, true }

// journalled puts a resize between two flavors on the VM, begun while it was running.
func journalled(from, to string, disk, toDisk int64) factsOption {
	return func(f *Facts) {
		j := resizeJournal{
			Format: journalFormat, Operation: resizeOperation, VM: f.VM.UUID, ID: "id1", Point: "id1", Since: testTime.Add(-time.Minute),
			Power: v1alpha1.PowerStateRunning, From: resizeTarget{from, sizeOfFlavor[from], disk}, To: resizeTarget{to, sizeOfFlavor[to], toDisk},
		}
		if f.halted() {
			j.LastStart = f.lastStart() // it was stopped for the resize
		}
		f.VM.OtherConfig[xencache.MarkJournal] = j.String()
	}
}

// sizedAs gives the VM the size of a flavor, and its root disk a size.
func sizedAs(flavor string, disk int64) factsOption {
	return having(func(vm *VM) { vm.Size, vm.Disks[0].VDI.Size = sizeOfFlavor[flavor], disk })
}

// pointOf puts a restore point of the root disk on the pool.
func pointOf(f *Facts) {
	marks := f.Me.Marks(xencache.RoleRestorePoint, "point-uuid").OtherConfig()
	marks[markResize], marks[markTakenAt] = "id1", testTime.Format(time.RFC3339Nano)
	f.RestorePoints = append(f.RestorePoints, VDI{
		Ref: "point", UUID: "point-uuid", Size: 10 * gib, Snapshot: true, OtherConfig: marks, Marks: xencache.ReadMarks(marks),
	})
}

// ranAlready says that the VM has run with its new size.
func ranAlready(f *Facts) { mark(f, markApplied, testTime.Format(time.RFC3339)) }

// midSwap is a VM that is off, with a disk that goes back on its way to its place and none in it.
func midSwap(options ...factsOption) *Facts {
	f := given(complete(v1alpha1.PowerStateHalted), sizedAs("small", 20*gib), journalled("small", "large", 10*gib, 20*gib), ofFlavor("small"))
	run := &Run{Facts: f, Now: testTime}
	displaced := remarked(f.VM.rootDisk().VDI, run.pointMarks(&f.VM.rootDisk().VDI))
	f.VM.Disks = nil
	f.RestorePoints = append(f.RestorePoints, displaced)
	marks := f.diskMarks(f.Want.Disks[0], "restored-uuid")
	marks[markIncoming] = f.incomingMark(incomingRestored)
	f.Loose = append(f.Loose, remarked(VDI{Ref: "restored", UUID: "restored-uuid", Size: 10 * gib, SR: "sr"}, marks))
	for _, option := range options {
		option(f)
	}
	return f
}

// ofSizeBefore asks for the size from before the resize, as the wanter does when the flavor is taken out again.
func ofSizeBefore(f *Facts) {
	f.Want.Size = nil
	w := &wanter{in: &Inputs{Object: &v1alpha1.XenInstance{}}, vm: f.VM, want: f.Want}
	w.resize(&v1alpha1.XenInstanceSpec{Resize: &v1alpha1.Resize{Strategy: v1alpha1.ResizeRestart, Confirmation: v1alpha1.ResizeManual}})
	f.Want = w.want
}

// TestResizing says for each situation of a resize what is done next, or what the user reads instead.
func TestResizing(t *testing.T) {
	const running, halted, paused = v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted, v1alpha1.PowerStatePaused
	confirmed := func(id string) factsOption { return resizes(func(r *WantResize) { r.Confirm = id }) }
	discard := func(id string) factsOption { return resizes(func(r *WantResize) { r.DiscardTo = id }) }
	timeout := func(policy v1alpha1.ResizeTimeoutPolicy, since time.Duration) factsOption {
		return func(f *Facts) {
			f.Want.Resize.Timeout, f.Want.Resize.OnTimeout = time.Hour, policy
			if delete(f.VM.OtherConfig, markApplied); since > 0 {
				f.VM.OtherConfig[markApplied] = testTime.Add(-since).Format(time.RFC3339)
			}
		}
	}
	wantPower := func(state v1alpha1.PowerState) factsOption { return wanting(func(w *Want) { w.Power = state }) }
	applied := []factsOption{complete(running), sizedAs("large", 20*gib), journalled("small", "large", 10*gib, 20*gib), ofFlavor("large"), rootOf(20 * gib), manualOption, atOnceOption, ranAlready}
	after := func(options ...factsOption) *Facts {
		return given(append(append([]factsOption{}, applied...), options...)...)
	}

	tests := map[string]struct {
		facts  *Facts
		steps  string
		kind   reconcile.Kind
		reason string
	}{
		"OnNextBoot leaves a running guest alone": {facts: given(complete(running), ofFlavor("large")), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"Restart begins": {facts: given(complete(running), ofFlavor("large"), atOnceOption), steps: stepRememberSizes},
		"a gate keeps a guest from being stopped":          {facts: given(complete(running), ofFlavor("large"), atOnceOption, func(f *Facts) { f.Me.PowerOnGates = []string{"a"} }), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"maintenance too":                                  {facts: given(complete(running), ofFlavor("large"), atOnceOption, func(f *Facts) { f.Me.Held = "no" }), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"a VM that is off is changed at once":              {facts: given(complete(halted), ofFlavor("large"), wantPower(halted)), steps: stepRememberSizes},
		"a paused one is not":                              {facts: given(complete(paused), ofFlavor("large"), atOnceOption, wantPower(paused)), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"live, without asking, is a plain change":          {facts: given(ofFlavor("roomy"), complete(running), ofFlavor("roomie"), capable), steps: "AddVCPUs"},
		"live, with asking, is remembered first":           {facts: given(ofFlavor("roomy"), complete(running), ofFlavor("roomie"), capable, manualOption), steps: stepRememberSizes},
		"live goes before what needs a boot":               {facts: given(ofFlavor("roomy"), complete(running), ofFlavor("roomie"), capable, rootOf(20*gib)), steps: "AddVCPUs"},
		"with asking it goes with the rest":                {facts: given(ofFlavor("roomy"), complete(running), ofFlavor("roomie"), capable, rootOf(20*gib), manualOption), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"without an agent nothing is live":                 {facts: given(ofFlavor("roomy"), complete(running), ofFlavor("roomie"), noAgent), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"the guest is stopped":                             {facts: given(complete(running), ofFlavor("large"), journalled("small", "large", 10*gib, 10*gib), atOnceOption), steps: "ShutDown"},
		"off: the sizes":                                   {facts: given(complete(halted), ofFlavor("large"), journalled("small", "large", 10*gib, 10*gib)), steps: "SizeVM"},
		"off: the disk":                                    {facts: given(complete(halted), ofFlavor("large"), sizedAs("large", 10*gib), rootOf(20*gib), journalled("small", "large", 10*gib, 20*gib)), steps: "GrowRoot"},
		"off: a restore point before the disk grows":       {facts: given(complete(halted), ofFlavor("large"), rootOf(20*gib), journalled("small", "large", 10*gib, 20*gib), manualOption), steps: "AnnounceRestorePoint"},
		"off: no restore point if the disk stays":          {facts: given(complete(halted), ofFlavor("large"), journalled("small", "large", 10*gib, 10*gib), manualOption), steps: "SizeVM"},
		"sized: it is started":                             {facts: given(complete(halted), ofFlavor("large"), sizedAs("large", 10*gib), journalled("small", "large", 10*gib, 10*gib)), steps: "Start"},
		"sized: what else waits for it is done first":      {facts: given(complete(halted), ofFlavor("large"), sizedAs("large", 10*gib), dataDisk("data", "4", 2*gib), attached("data", "4", gib, nil), journalled("small", "large", 10*gib, 10*gib)), steps: "GrowDisks"},
		"refused: nothing else is done first":              {facts: given(complete(halted), ofFlavor("small"), sizedAs("small", 10*gib), dataDisk("data", "4", 2*gib), attached("data", "4", gib, nil), journalled("small", "large", 10*gib, 10*gib), wanting(func(w *Want) { w.Refused = &resizeRefusal{} })), steps: "Start"},
		"sized, and off as asked: it ends":                 {facts: given(complete(halted), wantPower(halted), ofFlavor("large"), sizedAs("large", 10*gib), journalled("small", "large", 10*gib, 10*gib)), steps: "EndResize"},
		"running: it ends":                                 {facts: after(resizes(func(r *WantResize) { r.Manual = false })), steps: "EndResize"},
		"running: the restore point goes first":            {facts: after(resizes(func(r *WantResize) { r.Manual = false }), pointOf), steps: "DestroyRestorePoints"},
		"manual: it waits":                                 {facts: after(pointOf), kind: reconcile.KindDone, reason: v1alpha1.ReasonAwaitingConfirmation},
		"manual: that it runs is written down":             {facts: after(pointOf, func(f *Facts) { delete(f.VM.OtherConfig, markApplied) }), steps: "RememberApplied"},
		"confirmed":                                        {facts: after(pointOf, confirmed("id1")), steps: "DestroyRestorePoints"},
		"a stale confirmation":                             {facts: after(pointOf, confirmed("id0")), kind: reconcile.KindDone, reason: v1alpha1.ReasonAwaitingConfirmation},
		"discardTo alone discards nothing":                 {facts: after(pointOf, discard("point-uuid")), kind: reconcile.KindDone, reason: v1alpha1.ReasonAwaitingConfirmation},
		"somebody looks at the restore point":              {facts: after(pointOf, confirmed("id1"), func(f *Facts) { f.RestorePoints[0].Users = 1 }), kind: reconcile.KindWait, reason: v1alpha1.ReasonDeviceInUse},
		"the old flavor again":                             {facts: after(pointOf, ofFlavor("small"), rootOf(10*gib)), steps: "ShutDown"},
		"the old flavor again, at the next boot":           {facts: after(pointOf, ofFlavor("small"), rootOf(10*gib), resizes(func(r *WantResize) { r.Strategy = v1alpha1.ResizeOnNextBoot })), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"going back with the disk: what can fail first":    {facts: after(pointOf, ofFlavor("small"), rootOf(10*gib), discard("point-uuid")), steps: "AnnounceCopy"},
		"it ran, and its guest goes off: no start of ours": {facts: given(append(append([]factsOption{}, applied...), pointOf, having(func(vm *VM) { vm.Power = halted }), wanting(func(w *Want) { w.Drift = v1alpha1.PowerDriftIgnore }), wasRunning)...), kind: reconcile.KindDone, reason: v1alpha1.ReasonDrifted},
		"a third flavor that cannot be": {facts: after(pointOf, wanting(func(w *Want) {
			w.Size = &Size{VCPUs: 2, MaxVCPUs: 2, MinMemory: 90 * gib, Memory: 90 * gib, MaxMemory: 90 * gib}
		})), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonFlavorTooLarge},
		"suspended, and confirmed":                      {facts: after(pointOf, confirmed("id1"), wantPower(v1alpha1.PowerStateSuspended), having(func(vm *VM) { vm.Power = v1alpha1.PowerStateSuspended })), steps: "DestroyRestorePoints"},
		"start is blocked by an administrator":          {facts: given(complete(running), ofFlavor("large"), atOnceOption, having(func(vm *VM) { vm.Blocked["start"] = "mine" })), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonOperationBlocked},
		"the root disk is on its way, a name is wrong":  {facts: midSwap(wanting(func(w *Want) { w.Problems = []Problem{{Reason: v1alpha1.ReasonNetworkNotFound}} })), steps: "PutRootIn"},
		"somebody has started it without its root disk": {facts: midSwap(having(func(vm *VM) { vm.Power = running })), kind: reconcile.KindDone, reason: v1alpha1.ReasonPowerOffRequired},
		"deleted then: off first":                       {facts: midSwap(having(func(vm *VM) { vm.Power, vm.Guest.CanShutDown = running, true }), deleting(v1alpha1.DeletionTrash)), steps: "ShutDown"},
		"deleted in the middle: the disk gets there":    {facts: midSwap(deleting(v1alpha1.DeletionTrash)), steps: "PutRootIn"},
		"a root disk marked as a restore point is none": {facts: given(complete(halted), wantPower(halted), sizedAs("small", 20*gib), journalled("small", "large", 10*gib, 20*gib), func(f *Facts) {
			root := f.VM.rootDisk()
			root.VDI = remarked(root.VDI, (&Run{Facts: f, Now: testTime}).pointMarks(&root.VDI))
		}), steps: "ReinstateRoot"},
		"an adopted VM gets the size back that it had": {facts: given(complete(running), sizedAs("large", 10*gib), journalled("", "large", 10*gib, 10*gib), manualOption, atOnceOption, wanting(func(w *Want) { w.Flavor = "" }), ofSizeBefore), steps: "ShutDown"},
		"a third flavor is another resize":             {facts: after(pointOf, ofFlavor("huge")), steps: stepRetarget},
		"a third flavor is not confirmed by the first": {facts: after(pointOf, ofFlavor("huge"), confirmed("id1")), steps: stepRetarget},
		"the old flavor alone keeps the larger disk":   {facts: after(pointOf, ofFlavor("small")), steps: "ShutDown"},
		"time-out: it is written down when it began":   {facts: after(timeout(v1alpha1.ResizeTimeoutRevert, 0)), steps: "RememberApplied"},
		"time-out: there is time left":                 {facts: after(timeout(v1alpha1.ResizeTimeoutRevert, time.Minute)), kind: reconcile.KindDone, reason: v1alpha1.ReasonAwaitingConfirmation},
		"time-out: Confirm":                            {facts: after(timeout(v1alpha1.ResizeTimeoutConfirm, time.Hour)), steps: "EndResize"},
		"time-out: Revert":                             {facts: after(timeout(v1alpha1.ResizeTimeoutRevert, time.Hour)), steps: "RefuseUnconfirmed"},
		"a rescue goes before":                         {facts: given(complete(halted), ofFlavor("large"), having(func(vm *VM) { vm.OtherConfig[xencache.MarkJournal] = `{"operation":"Move","vm":"x"}` })), steps: "Start"},
		"another VM's journal is no resize of this one": {
			facts: given(complete(halted), wantPower(halted), having(func(vm *VM) {
				vm.OtherConfig[xencache.MarkJournal] = resizeJournal{Operation: resizeOperation, VM: "another"}.String()
			})),
			kind: reconcile.KindDone,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := Decide(test.facts, testTime)
			if got := stepNames(plan.Steps); got != test.steps {
				t.Fatalf("steps %q, want %q; %s", got, test.steps, plan.Outcome)
			}
			if test.steps == "" && (plan.Outcome.Kind() != test.kind || plan.Outcome.Reason() != test.reason) {
				t.Errorf("outcome %s, want %s %s", plan.Outcome, test.kind, test.reason)
			}
		})
	}
}

// TestGoingBackWithTheDisk: the steps that bring the root disk back, each after the effect of the one before.
func TestGoingBackWithTheDisk(t *testing.T) {
	f := given(complete(v1alpha1.PowerStateHalted), sizedAs("small", 20*gib), journalled("small", "large", 10*gib, 20*gib), ofFlavor("small"),
		manualOption, pointOf, resizes(func(r *WantResize) { r.DiscardTo = "point-uuid" }))
	var taken []string
	for range 20 {
		plan := Decide(f, testTime)
		if len(plan.Steps) == 0 {
			t.Fatalf("%s after %v", plan.Outcome, taken)
		}
		step := plan.Steps[0]
		if taken = append(taken, step.Name); step.Name == "EndResize" {
			break
		}
		resizeEffects[step.Name](f)
		if !step.Holds(f) {
			t.Fatalf("%s was taken and does not hold", step.Name)
		}
	}
	const want = "AnnounceCopy CopyRestorePoint PresentRestorePoint DisplaceRoot TakeRootAway PutRootIn Start DestroyRestorePoints EndResize"
	if got := strings.Join(taken, " "); got != want {
		t.Errorf("steps\n%s, want\n%s", got, want)
	}
	if root := f.VM.rootDisk(); root.VDI.Size != 10*gib {
		t.Errorf("the root disk is %+v", root.VDI)
	}
}

// TestSizeParts says what each figure of a size waits for, and why.
func TestSizeParts(t *testing.T) {
	roomy := []factsOption{ofFlavor("roomy"), complete(v1alpha1.PowerStateRunning), capable}
	with := func(options ...factsOption) *Facts {
		return given(append(append([]factsOption{}, roomy...), options...)...)
	}
	lives := func(f *Facts) { f.VM.Size.StaticMin = gib }
	tests := map[string]struct {
		facts    *Facts
		field    string
		requires v1alpha1.ChangeRequires
		why      string
	}{
		"more VCPUs":                     {with(ofFlavor("roomie")), "flavorRef.vcpus", v1alpha1.RequiresLive, "from 2 to 4"},
		"more VCPUs than it can have":    {with(ofFlavor("huge"), wanting(func(w *Want) { w.Size.VCPUs = 16 })), "flavorRef.vcpus", v1alpha1.RequiresPowerOff, "at most 8"},
		"fewer VCPUs":                    {given(ofFlavor("roomie"), complete(v1alpha1.PowerStateRunning), capable, ofFlavor("roomy")), "flavorRef.vcpus", v1alpha1.RequiresPowerOff, "cannot be taken"},
		"more VCPUs without an agent":    {with(ofFlavor("roomie"), noAgent), "flavorRef.vcpus", v1alpha1.RequiresPowerOff, "does not report"},
		"more memory":                    {with(ofFlavor("roomie")), "flavorRef.memory", v1alpha1.RequiresLive, "from 2Gi to 4Gi"},
		"more memory than it can have":   {given(complete(v1alpha1.PowerStateRunning), capable, ofFlavor("large")), "flavorRef.memory", v1alpha1.RequiresPowerOff, "at most 2Gi"},
		"less memory":                    {given(ofFlavor("roomie"), complete(v1alpha1.PowerStateRunning), capable, lives, ofFlavor("roomy")), "flavorRef.memory", v1alpha1.RequiresLive, "from 4Gi to 2Gi"},
		"less than it was started with":  {given(ofFlavor("roomie"), complete(v1alpha1.PowerStateRunning), capable, having(func(vm *VM) { vm.Size.StaticMin = 4 * gib }), ofFlavor("roomy")), "flavorRef.memory", v1alpha1.RequiresPowerOff, "at least 4Gi"},
		"memory with nested":             {with(ofFlavor("large"), having(func(vm *VM) { vm.Platform = map[string]string{platformNested: "true"} })), "flavorRef.memory", v1alpha1.RequiresPowerOff, "nested"},
		"memory with nested, in short":   {with(ofFlavor("large"), having(func(vm *VM) { vm.Platform = map[string]string{platformNested: "1"} })), "flavorRef.memory", v1alpha1.RequiresPowerOff, "nested"},
		"the most VCPUs":                 {with(ofFlavor("small")), "flavorRef.maxVCPUs", v1alpha1.RequiresPowerOff, "when the VM is started"},
		"the most memory":                {with(ofFlavor("small")), "flavorRef.maxMemory", v1alpha1.RequiresPowerOff, "when the VM is started"},
		"weight":                         {with(ofFlavor("huge")), "flavorRef.cpuWeight", v1alpha1.RequiresPowerOff, "from 0 to 512"},
		"cap":                            {with(ofFlavor("huge")), "flavorRef.cpuCap", v1alpha1.RequiresPowerOff, "from 0 to 400"},
		"cores":                          {with(ofFlavor("huge")), "flavorRef.coresPerSocket", v1alpha1.RequiresPowerOff, "from 0 to 4"},
		"off, everything is at once":     {given(complete(v1alpha1.PowerStateHalted), ofFlavor("huge")), "flavorRef.maxMemory", v1alpha1.RequiresLive, "from 2Gi to 8Gi"},
		"the root disk":                  {with(rootOf(20 * gib)), "rootDisk.size", v1alpha1.RequiresPowerOff, "from 10Gi to 20Gi"},
		"the root disk, to be confirmed": {with(rootOf(20*gib), manualOption), "rootDisk.size", v1alpha1.RequiresPowerOff, "restore point"},
		"Restart says so":                {with(rootOf(20*gib), atOnceOption), "rootDisk.size", v1alpha1.RequiresPowerOff, "off and on"},
		"no room":                        {with(ofFlavor("roomie"), func(f *Facts) { f.Hosts[0].MemoryFree = gib; f.VM.Host = "other" }), "flavorRef.vcpus", v1alpha1.RequiresHold, "no host"},
		"to be confirmed":                {given(complete(v1alpha1.PowerStateRunning), sizedAs("large", 10*gib), journalled("small", "large", 10*gib, 10*gib), ofFlavor("large"), manualOption), "resize.confirm", v1alpha1.RequiresConfirmation, "id1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, change := range Pending(test.facts) {
				if change.Field == test.field {
					if change.Requires != test.requires || !strings.Contains(change.Message, test.why) {
						t.Errorf("%+v, want %s because of %q", change, test.requires, test.why)
					}
					return
				}
			}
			t.Errorf("%s is not among %+v", test.field, Pending(test.facts))
		})
	}
}

// TestStrangeRestorePointIsSaid: a resize.discardTo that names no restore point of the resize is not passed over in silence.
func TestStrangeRestorePointIsSaid(t *testing.T) {
	waits := []factsOption{complete(v1alpha1.PowerStateRunning), sizedAs("large", 20*gib), journalled("small", "large", 10*gib, 20*gib), manualOption, ranAlready, pointOf}
	for name, test := range map[string]struct {
		id   string
		more []factsOption
		said bool
	}{
		"none":                       {"", []factsOption{ofFlavor("large"), rootOf(20 * gib)}, false},
		"its own":                    {"point-uuid", []factsOption{ofFlavor("large"), rootOf(20 * gib)}, false},
		"another":                    {"another", []factsOption{ofFlavor("large"), rootOf(20 * gib)}, true},
		"another, and it goes back":  {"another", []factsOption{ofFlavor("small")}, true},
		"its own, and it goes back":  {"point-uuid", []factsOption{ofFlavor("small")}, false},
		"any, without a restore one": {"another", []factsOption{ofFlavor("large"), rootOf(20 * gib), func(f *Facts) { f.RestorePoints = nil }}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := given(slices.Concat(waits, test.more, []factsOption{resizes(func(r *WantResize) { r.DiscardTo = test.id })})...)
			if message := f.resizeMessage(); strings.Contains(message, "does nothing") != test.said {
				t.Errorf("the message is %q", message)
			}
		})
	}
}

// TestResizeGuide: the guide has a line for each figure of a size.
func TestResizeGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/resize.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := []string{"rootDisk.size", "rootDisk.shrinkTo"}
	for _, part := range sizeParts(given(complete(v1alpha1.PowerStateRunning))) {
		fields = append(fields, part.field)
	}
	for _, field := range fields {
		if !strings.Contains(string(guide), "`"+field+"`") {
			t.Errorf("docs/resize.md does not say what a change of %s waits for", field)
		}
	}
}

// TestResizeProblems says why a resize is not begun, and that nothing is touched.
func TestResizeProblems(t *testing.T) {
	tests := map[string]struct {
		facts  *Facts
		reason string
		text   string
	}{
		"no host has the memory": {given(complete(v1alpha1.PowerStateRunning), ofFlavor("huge"), func(f *Facts) { f.Hosts[0].MemoryFree = gib }), v1alpha1.ReasonInsufficientMemory, "xs1"},
		"no host ever has":       {given(complete(v1alpha1.PowerStateRunning), wanting(func(w *Want) { w.Size.Memory, w.Size.MaxMemory = 65*gib, 65*gib })), v1alpha1.ReasonFlavorTooLarge, "64Gi"},
		"below the image":        {given(complete(v1alpha1.PowerStateRunning), ofFlavor("large"), resizes(func(r *WantResize) { r.MinMemory = 6 * gib })), v1alpha1.ReasonFlavorTooSmall, "6Gi"},
		"the disk below the image": {
			given(complete(v1alpha1.PowerStateRunning), wanting(func(w *Want) { w.Disks[0].Size, w.Disks[0].ShrinkTo = 5*gib, 5*gib }), resizes(func(r *WantResize) { r.MinDisk = 6 * gib })),
			v1alpha1.ReasonFlavorTooSmall, "rootDisk.shrinkTo",
		},
		"nested virtualisation": {
			given(complete(v1alpha1.PowerStateRunning), ofFlavor("roomy"), having(func(vm *VM) { vm.Platform = map[string]string{platformNested: "true"} })),
			v1alpha1.ReasonSizeUnsupported, "nested",
		},
		"nested virtualisation, in short": {
			given(complete(v1alpha1.PowerStateRunning), ofFlavor("roomy"), having(func(vm *VM) { vm.Platform = map[string]string{platformNested: "1"} })),
			v1alpha1.ReasonSizeUnsupported, "nested",
		},
		"a long chain": {
			given(complete(v1alpha1.PowerStateRunning), rootOf(20*gib), manualOption, having(func(vm *VM) { vm.Disks[0].VDI.Chain = maxChain })),
			v1alpha1.ReasonChainTooLong, "snapshots",
		},
		"full storage": {
			given(complete(v1alpha1.PowerStateRunning), rootOf(20*gib), having(func(vm *VM) { vm.Disks[0].VDI.SRType, vm.Disks[0].VDI.SRFree = "lvm", gib })),
			v1alpha1.ReasonInsufficientStorage, "1Gi free",
		},
		"it may not be stopped": {
			given(complete(v1alpha1.PowerStateRunning), ofFlavor("large"), having(func(vm *VM) { vm.Blocked["hard_shutdown"] = "mine" })),
			v1alpha1.ReasonOperationBlocked, "mine",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			atOnceOption(test.facts)
			plan := Decide(test.facts, testTime)
			if len(plan.Steps) > 0 || plan.Outcome.Reason() != test.reason || !strings.Contains(plan.Outcome.Message(), test.text) {
				t.Errorf("%s %s, want %s with %q", stepNames(plan.Steps), plan.Outcome, test.reason, test.text)
			}
			if status := Status(test.facts, Report{Plan: plan, Outcome: plan.Outcome, Now: testTime}); status.PowerState != v1alpha1.PowerStateRunning || status.Resize != nil {
				t.Errorf("status %+v", status)
			}
		})
	}
}

// TestSizeMatters tells failures of a start that may be due to the VM's size from those that are not.
func TestSizeMatters(t *testing.T) {
	tests := map[string]struct {
		err  error
		want bool
	}{
		"no memory":      {&xenapi.Error{Code: xenapi.ErrHostNotEnoughFreeMemory}, true},
		"no host":        {&xenapi.Error{Code: xenapi.ErrNoHostsAvailable}, true},
		"internal":       {fmt.Errorf("start: %w", &xenapi.Error{Code: "INTERNAL_ERROR"}), true},
		"running":        {&xenapi.Error{Code: xenapi.ErrVMBadPowerState}, false},
		"a disk in use":  {&xenapi.Error{Code: xenapi.ErrVDIInUse}, false},
		"blocked":        {&xenapi.Error{Code: xenapi.ErrOperationBlocked}, false},
		"the connection": {errors.New("connection reset"), false},
		"cancelled":      {context.Canceled, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := sizeMatters(test.err); got != test.want {
				t.Errorf("%v: %v, want %v", test.err, got, test.want)
			}
		})
	}
}
