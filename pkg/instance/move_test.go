package instance

import (
	"maps"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// twoHosts puts the VM on the first of two hosts, with its root disk on the first's own storage, and says what a move goes by.
func twoHosts(f *Facts) {
	f.Hosts = []Host{
		{
			Ref: "host", Name: "xs1", Enabled: true, Live: true, CPUs: 16, MemoryTotal: 64 * gib, MemoryFree: 32 * gib, Management: "mgmt",
			Sees: map[xenapi.SRRef]bool{"sr": true, "nfs": true}, Lacks: map[xenapi.NetworkRef]bool{},
		},
		{
			Ref: "other", Name: "xs2", Enabled: true, Live: true, CPUs: 16, MemoryTotal: 64 * gib, MemoryFree: 32 * gib, Management: "mgmt",
			Sees: map[xenapi.SRRef]bool{"sr2": true, "nfs": true}, Lacks: map[xenapi.NetworkRef]bool{},
		},
	}
	f.Repositories = []Repository{
		{Ref: "nfs", Name: "nfs", Type: "nfs", Shared: true, Free: 900 * gib},
		{Ref: "sr", Name: "local of xs1", Type: "ext", Free: 500 * gib},
		{Ref: "sr2", Name: "local of xs2", Type: "ext", Free: 500 * gib},
	}
	f.Move = &MoveFacts{}
	vdi := &f.VM.Disks[0].VDI
	vdi.SRType, vdi.SRName, vdi.Used, vdi.Name = "ext", "local of xs1", 4*gib, "team-a/web root"
	if f.VM.Power == v1alpha1.PowerStateRunning {
		f.VM.Host, f.VM.HostName, f.VM.Guest.CanMove = "host", "xs1", true
	}
}

// onNFS puts the root disk where both hosts see it.
func onNFS(f *Facts) {
	f.VM.Disks[0].VDI.SR, f.VM.Disks[0].VDI.SRName, f.VM.Disks[0].VDI.SRType, f.VM.Disks[0].VDI.SRShared = "nfs", "nfs", "nfs", true
}

// at asks for a host.
func at(host xenapi.HostRef, pin bool) factsOption {
	return wanting(func(w *Want) { w.Host, w.Pinned = host, pin })
}

// second changes the second host.
func second(change func(*Host)) factsOption { return func(f *Facts) { change(&f.Hosts[1]) } }

// roomier asks for a size that only the second host has room for.
func roomier(f *Facts) {
	f.Want.Size = &Size{VCPUs: 2, MaxVCPUs: 2, MinMemory: 40 * gib, Memory: 40 * gib, MaxMemory: 40 * gib}
	f.Hosts[1].MemoryFree = 60 * gib
	f.Want.Resize.Strategy = v1alpha1.ResizeRestart
}

// moveRemembered gives the VM the journal of a move of its disks, as they are.
func moveRemembered(f *Facts) {
	disk := &f.VM.Disks[0]
	journal := moveJournal{Format: journalFormat, Operation: moveOperation, VM: f.VM.UUID, Disks: []movingDisk{{
		VBD: disk.UUID, VDI: disk.VDI.UUID, Name: disk.VDI.Name, OtherConfig: maps.Clone(disk.VDI.OtherConfig),
	}}}
	f.VM.OtherConfig[xencache.MarkJournal] = journal.String()
	disk.VDI.Name = f.Me.movingName()
}

// arrived is the VM after a storage migration: on the other host, with another disk that has no marks.
func arrived(f *Facts) {
	f.VM.Host, f.VM.HostName = "other", "xs2"
	vdi := &f.VM.Disks[0].VDI
	vdi.Ref, vdi.UUID, vdi.SR, vdi.SRName, vdi.OtherConfig, vdi.Marks = "moved", "moved-uuid", "sr2", "local of xs2", nil, xencache.Marks{}
}

// TestMoves says for each place where the VM is and is to be what is done next, or what keeps it.
func TestMoves(t *testing.T) {
	running, halted := complete(v1alpha1.PowerStateRunning), complete(v1alpha1.PowerStateHalted)
	off := wanting(func(w *Want) { w.Power = v1alpha1.PowerStateHalted })
	tests := map[string]struct {
		facts *Facts
		step  string
		kind  reconcile.Kind
		says  string
	}{
		"nothing is asked for": {facts: given(running, twoHosts)},
		"it is there":          {facts: given(running, twoHosts, at("host", false)), step: "PreferHost"},
		"it is there, as the pool knows": {
			facts: given(running, twoHosts, at("host", true), having(func(vm *VM) { vm.Affinity = "host" })),
		},
		"live":                                                  {facts: given(running, twoHosts, onNFS, at("other", false)), step: "Migrate"},
		"live, and nowhere else":                                {facts: given(running, twoHosts, onNFS, at("other", true)), step: "PreferHost"},
		"a preference that was acted on":                        {facts: given(running, twoHosts, onNFS, at("other", false), having(func(vm *VM) { vm.Affinity = "other" }))},
		"a pin counts for ever":                                 {facts: given(running, twoHosts, onNFS, at("other", true), having(func(vm *VM) { vm.Affinity = "other" })), step: "Migrate"},
		"with its disks":                                        {facts: given(running, twoHosts, at("other", false)), step: "RememberDisks"},
		"with its disks, remembered":                            {facts: given(running, twoHosts, at("other", false), moveRemembered), step: "SendDisks"},
		"with its disks, off":                                   {facts: given(off, halted, twoHosts, at("other", false)), step: "RememberDisks"},
		"off, and its disks are in sight":                       {facts: given(off, halted, twoHosts, onNFS, at("other", false)), step: "PreferHost"},
		"arrived without its marks":                             {facts: given(running, twoHosts, at("other", false), moveRemembered, arrived), step: "RestoreDisks"},
		"the wish is taken back":                                {facts: given(running, twoHosts, moveRemembered), step: "RestoreDisks"},
		"deleted on its way":                                    {facts: given(running, twoHosts, moveRemembered, arrived, deleting(v1alpha1.DeletionDelete)), step: "RestoreDisks"},
		"a flavor that fits only elsewhere":                     {facts: given(running, twoHosts, roomier), step: "RememberDisks"},
		"a flavor that fits only elsewhere, on the way":         {facts: given(running, twoHosts, roomier, moveRemembered), step: "SendDisks"},
		"a flavor that fits elsewhere, and the disks are there": {facts: given(running, twoHosts, onNFS, roomier), step: "RememberSizes"},
		"the pool is held": {
			facts: given(running, twoHosts, onNFS, at("other", true), func(f *Facts) { f.Me.Held, f.Me.HeldReason = "no", v1alpha1.ReasonMaintenance }),
		},

		"the host is full": {
			facts: given(running, twoHosts, onNFS, at("other", true), second(func(h *Host) { h.MemoryFree = gib })),
			kind:  reconcile.KindTerminal, says: "xs2: 1Gi of memory free, needed 2Gi",
		},
		"the host is full, and only preferred": {
			facts: given(running, twoHosts, onNFS, at("other", false), second(func(h *Host) { h.MemoryFree = gib })),
			says:  "the VM is on xs1 and is to be on xs2 (placement.host)",
		},
		"the host is disabled": {
			facts: given(running, twoHosts, onNFS, at("other", true), second(func(h *Host) { h.Enabled = false })),
			kind:  reconcile.KindTerminal, says: "xs2: disabled",
		},
		"the host has not the network": {
			facts: given(running, twoHosts, onNFS, at("other", true), second(func(h *Host) { h.Lacks["net"] = true })),
			kind:  reconcile.KindTerminal, says: "has no network",
		},
		"no place for the disk": {
			facts: given(running, twoHosts, at("other", true), func(f *Facts) { f.Repositories = f.Repositories[:0] }),
			kind:  reconcile.KindTerminal, says: "does not see local of xs1, where disk root is, and nothing that it sees can take it",
		},
		"changed blocks are tracked": {
			facts: given(running, twoHosts, at("other", true), having(func(vm *VM) { vm.Disks[0].VDI.TracksChanges = true })),
			kind:  reconcile.KindTerminal, says: "changed block tracking",
		},
		"changed blocks are tracked, and the host is only preferred": {
			facts: given(running, twoHosts, at("other", false), having(func(vm *VM) { vm.Disks[0].VDI.TracksChanges = true })),
			says:  "changed block tracking",
		},
		"changed blocks are tracked, and a flavor fits only elsewhere": {
			facts: given(running, twoHosts, roomier, having(func(vm *VM) { vm.Disks[0].VDI.TracksChanges = true })),
			kind:  reconcile.KindTerminal, says: "changed block tracking",
		},
		"a flavor fits only elsewhere, and cannot be had for another reason": {
			facts: given(running, twoHosts, roomier, having(func(vm *VM) { vm.Blocked["hard_shutdown"] = "ask Ann" })),
			kind:  reconcile.KindTerminal, says: "hard_shutdown is blocked",
		},
		"a flavor fits only elsewhere, and the VM may not be started": {
			facts: given(running, twoHosts, roomier, func(f *Facts) { f.Me.PowerOnGates = []string{"ann"} }), says: "changes wait until the VM is off",
		},
		"a guest that is to stop is not moved before": {facts: given(running, off, twoHosts, onNFS, at("other", true)), step: "ShutDown"},
		"changed blocks are tracked, and the disk stays": {
			facts: given(running, twoHosts, onNFS, at("other", false), having(func(vm *VM) { vm.Disks[0].VDI.TracksChanges = true })), step: "Migrate",
		},
		"the disk hangs on another VM too": {
			facts: given(running, twoHosts, at("other", true), having(func(vm *VM) { vm.Disks[0].VDI.Users = 2 })),
			kind:  reconcile.KindTerminal, says: "hangs on another VM too",
		},
		"no agent": {
			facts: given(running, twoHosts, onNFS, at("other", true), noAgent), kind: reconcile.KindTerminal, says: "drivers do not report",
		},
		"nested virtualisation": {
			facts: given(running, twoHosts, onNFS, at("other", true), having(func(vm *VM) { vm.Platform = map[string]string{platformNested: "true"} })),
			kind:  reconcile.KindTerminal, says: "nested-virt",
		},
		"nested virtualisation, in short": {
			facts: given(running, twoHosts, onNFS, at("other", true), having(func(vm *VM) { vm.Platform = map[string]string{platformNested: "1"} })),
			kind:  reconcile.KindTerminal, says: "nested-virt",
		},
		"bound to its host": {
			facts: given(running, twoHosts, onNFS, at("other", true), having(func(vm *VM) { vm.Platform = map[string]string{platformNoMigrate: "1"} })),
			kind:  reconcile.KindTerminal, says: "nomigrate",
		},
		"blocked by an administrator": {
			facts: given(running, twoHosts, onNFS, at("other", true), having(func(vm *VM) { vm.Blocked["pool_migrate"] = "ask Ann" })),
			kind:  reconcile.KindTerminal, says: "pool_migrate is blocked on the VM (blocked_operations): ask Ann",
		},
		"a resize is not over": {
			facts: given(running, twoHosts, at("other", false), having(func(vm *VM) { vm.OtherConfig[xencache.MarkJournal] = `{"operation":"Something"}` })),
		},
		"in rescue": {
			facts: given(complete(v1alpha1.PowerStateHalted), twoHosts, active, at("other", false), having(func(vm *VM) { vm.Disks[0].VDI.Users = 2 })),
			says:  "in rescue",
		},
		"no host of the name, preferred": {
			facts: given(running, twoHosts, wanting(func(w *Want) { w.HostProblem = &Problem{Reason: v1alpha1.ReasonHostNotFound, Message: "no such host"} })),
			says:  "no such host",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := Decide(test.facts, testTime)
			step := ""
			if len(plan.Steps) > 0 {
				step = plan.Steps[0].Name
			}
			if step != test.step {
				t.Fatalf("step %q, want %q; %v", step, test.step, plan.Outcome)
			}
			if step == "" && (plan.Outcome.Kind() != test.kind || !strings.Contains(plan.Outcome.Message(), test.says)) {
				t.Errorf("%v, want %v with %q", plan.Outcome, test.kind, test.says)
			}
		})
	}
}

// TestPlaceForDisks: what the spec names comes before what is alike, and that before what has most room.
func TestPlaceForDisks(t *testing.T) {
	for name, test := range map[string]struct {
		change factsOption
		want   xenapi.SRRef
	}{
		"of the same kind":          {func(*Facts) {}, "sr2"},
		"as the spec says":          {wanting(func(w *Want) { w.Disks[0].SR = "nfs" }), "nfs"},
		"where there is room":       {func(f *Facts) { f.Repositories[2].Free = gib }, "nfs"},
		"nowhere":                   {func(f *Facts) { f.Repositories[0].Free, f.Repositories[2].Free = gib, gib }, ""},
		"all of it where it is due": {func(f *Facts) { f.Repositories[2].Thick, f.Repositories[2].Free = true, 5*gib }, "nfs"},
	} {
		t.Run(name, func(t *testing.T) {
			f := given(complete(v1alpha1.PowerStateRunning), twoHosts, test.change)
			fit := f.placement(&f.Hosts[1], f.VM.Size)
			var got xenapi.SRRef
			if len(fit.Moves) == 1 {
				got = fit.Moves[0].To.Ref
			}
			if got != test.want || fit.Fits() != (test.want != "") {
				t.Errorf("to %q, want %q: %+v", got, test.want, fit.Why)
			}
		})
	}
}

// TestBestFit: a host that sees the disks comes before one with more memory.
func TestBestFit(t *testing.T) {
	f := given(complete(v1alpha1.PowerStateHalted), twoHosts, second(func(h *Host) { h.MemoryFree = 60 * gib }))
	if best := bestFit(f.placements(f.VM.Size)); best == nil || best.Host.Name != "xs1" {
		t.Errorf("the best is %+v, want xs1, which sees the disk", best)
	}
	onNFS(f)
	if best := bestFit(f.placements(f.VM.Size)); best == nil || best.Host.Name != "xs2" {
		t.Errorf("the best is %+v, want xs2, which has more memory", best)
	}
	f.Hosts[0].Enabled, f.Hosts[1].Live = false, false
	fits := f.placements(f.VM.Size)
	if best := bestFit(fits); best != nil {
		t.Errorf("%s fits", best.Host.Name)
	}
	if got, want := explain(fits), "xs1: disabled; xs2: not reachable"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestCopiesOfADisk: a copy that an interrupted migration has left is destroyed only while every disk hangs where it did.
func TestCopiesOfADisk(t *testing.T) {
	f := given(complete(v1alpha1.PowerStateRunning), twoHosts, at("other", false), moveRemembered)
	f.Move.Copies = []VDI{{Ref: "copy", UUID: "copy-uuid", Name: f.Me.movingName()}}
	if got := f.leftCopies(); len(got) != 1 {
		t.Errorf("%d copies, want 1", len(got))
	}
	if plan := Decide(f, testTime); len(plan.Steps) == 0 || plan.Steps[0].Name != "DiscardCopies" {
		t.Errorf("the plan is %+v", plan.Steps)
	}
	f.VM.Disks[0].VDI = VDI{}
	if got := f.leftCopies(); len(got) != 0 {
		t.Error("without its disk the copy may be the only one")
	}
}

// TestRestoredMarks: what a disk had in other_config comes back, and its own uuid with it.
func TestRestoredMarks(t *testing.T) {
	f := given(complete(v1alpha1.PowerStateRunning), twoHosts, having(func(vm *VM) { vm.Disks[0].VDI.OtherConfig["theirs"] = "kept" }), moveRemembered, arrived)
	known := f.moveJournal().of("vbd-uuid")
	got := known.wanted(&f.VM.Disks[0].VDI)
	if got[xencache.MarkSelf] != "moved-uuid" || got["theirs"] != "kept" || got[xencache.MarkRole] != string(xencache.RoleRootDisk) {
		t.Errorf("the marks are %v", got)
	}
	if left := f.unrestored(); len(left) != 1 {
		t.Fatalf("%d disks are not restored, want 1", len(left))
	}
	f.VM.Disks[0].VDI.Name, f.VM.Disks[0].VDI.OtherConfig = known.Name, got
	if left := f.unrestored(); len(left) != 0 {
		t.Error("the disk has everything back")
	}
	if copied := (&Facts{VM: &VM{UUID: "a clone", OtherConfig: f.VM.OtherConfig}}).moveJournal(); copied != nil {
		t.Error("a clone's copy of the journal counts")
	}
}
