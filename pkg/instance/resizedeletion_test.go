package instance

import (
	"context"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestDeletedAnywhereInResize: wherever in a resize the instance is deleted, its deletion comes to an end. With Delete nothing of
// it is left on the pool, with Trash and Orphan a VM with one root disk and nothing else.
func TestDeletedAnywhereInResize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := given(complete(v1alpha1.PowerStateRunning), capable, wanting(func(w *Want) { w.DriftGrace = 0 }))
		f.Hosts[0].MemoryFree, f.Hosts[0].MemoryTotal = 64*gib, 64*gib
		spec := sizeSpec{flavor: "small", disk: 10 * gib, power: v1alpha1.PowerStateRunning}
		written := &data{upTo: map[string]int{f.VM.rootDisk().VDI.UUID: 0}}
		var taken []string
		for range rapid.IntRange(1, 4).Draw(t, "edits") {
			spec = drawSpec(t, spec, f)
			taken = append(taken, "|")
			taken = append(taken, run(t, f, spec, rapid.IntRange(0, 20).Draw(t, "steps before the next edit"), -1, written)...)
		}
		policy := rapid.SampledFrom([]v1alpha1.DeletionPolicy{v1alpha1.DeletionDelete, v1alpha1.DeletionTrash, v1alpha1.DeletionOrphan}).Draw(t, "policy")
		f.Me.Deleting, f.Want.Deletion, f.Want.Off = true, policy, v1alpha1.PowerOffHard
		f.Copy = nil // the controller ends it first
		if rapid.Bool().Draw(t, "a lost answer") {
			doubled(f)
		}
		releasedAfter(t, f, func() { spec.apply(f) }, append(taken, "| "+string(policy)))
	})
}

// TestSecondCopiesGo: a copy that was made twice, because the answer to the first call was lost, leaves nothing behind, wherever
// somebody dies while they go.
func TestSecondCopiesGo(t *testing.T) {
	announced := func(f *Facts) { f.VM.rootDisk().VDI.OtherConfig[markCopying] = "id1" }
	halted := []factsOption{complete(v1alpha1.PowerStateHalted), sizedAs("small", 20*gib), journalled("small", "large", 10*gib, 20*gib), ofFlavor("small"), manualOption}
	clones := func(f *Facts) {
		f.RestorePoints[0].OtherConfig[markCopying] = "id1"
		resizeEffects["CopyRestorePoint"](f)
		doubled(f)
	}
	snapshots := func(f *Facts) {
		announced(f)
		resizeEffects["TakeRestorePoint"](f)
		doubled(f)
	}
	for name, options := range map[string][]factsOption{
		"clones of the restore point": {pointOf, clones},
		"nameless restore points":     {snapshots},
	} {
		t.Run(name, func(t *testing.T) {
			f := given(slices.Concat(halted, options, []factsOption{deleting(v1alpha1.DeletionDelete)})...)
			releasedAfter(t, f, func() {}, nil)
		})
	}
}

// releasedAfter takes the steps of a deletion to its end, and checks what is left.
func releasedAfter(t complaining, f *Facts, apply func(), taken []string) {
	t.Helper()
	for range 60 {
		if f.VM != nil {
			apply()
		}
		plan := Decide(f, testTime)
		if plan.Released {
			gone(t, f, taken)
			return
		}
		if len(plan.Steps) == 0 {
			t.Fatalf("%s after %v", plan.Outcome, taken)
		}
		step := plan.Steps[0]
		taken = append(taken, step.Name)
		effect, known := halfEffects[step.Name]
		for _, model := range []map[string]func(*Facts){resizeEffects, effects} {
			if !known {
				effect, known = model[step.Name]
			}
		}
		if !known {
			t.Fatalf("the model does not know step %s, after %v", step.Name, taken)
		}
		effect(f)
	}
	t.Fatalf("no end after %v", taken)
}

// halfEffects are what the first call of those steps makes of the facts that have several, when somebody dies after it.
var halfEffects = map[string]func(*Facts){
	"DestroyRestorePoints": func(f *Facts) {
		first := droppable(f)[0]
		is := func(v VDI) bool { return v.UUID == first.UUID }
		f.RestorePoints = slices.DeleteFunc(slices.Clone(f.RestorePoints), is)
		f.Copies = slices.DeleteFunc(slices.Clone(f.Copies), is)
	},
	"DropUnfinishedPoint": func(f *Facts) {
		first := namelessPoints(f)[0]
		f.Copies = slices.DeleteFunc(slices.Clone(f.Copies), func(v VDI) bool { return v.UUID == first.UUID })
	},
	"DropHalfCopies": func(f *Facts) {
		first := f.halfCopies()[0]
		f.Loose = slices.DeleteFunc(slices.Clone(f.Loose), func(v VDI) bool { return v.UUID == first.UUID })
	},
	"ReleaseStart": func(f *Facts) {
		if f.VM.Blocked = maps.Clone(f.VM.Blocked); f.VM.Blocked["start"] != "" {
			delete(f.VM.Blocked, "start")
			return
		}
		delete(f.VM.Blocked, "start_on")
	},
}

// doubled has a copy made twice, as when the answer to the first call was lost.
func doubled(f *Facts) {
	for _, c := range f.Copies {
		c.UUID += "-again"
		c.Ref = xenapi.VDIRef(c.UUID)
		f.Copies = append(slices.Clone(f.Copies), c)
	}
}

// gone checks what a deletion leaves.
func gone(t complaining, f *Facts, taken []string) {
	t.Helper()
	policy := f.Want.Deletion
	if left := len(f.Loose) + len(f.RestorePoints) + len(f.Copies); left > 0 {
		t.Fatalf("%d disks are left: %+v %+v %+v, after %v", left, f.Loose, f.RestorePoints, f.Copies, taken)
	}
	switch {
	case policy == v1alpha1.DeletionDelete && f.VM != nil:
		t.Fatalf("the VM is left after %v", taken)
	case policy == v1alpha1.DeletionDelete:
	case f.VM == nil || f.VM.rootDisk() == nil || f.resizeJournal() != nil || !startReleased(f):
		t.Fatalf("the VM is %+v after %v", f.VM, taken)
	case policy == v1alpha1.DeletionTrash && (f.VM.rootDisk().VDI.Marks.Role != xencache.RoleRootDisk || f.VM.rootDisk().VDI.OtherConfig[markCopying] != ""):
		t.Fatalf("the root disk is %+v after %v", f.VM.rootDisk().VDI, taken)
	}
}

// complaining is a test, or one of those that a property test makes.
type complaining interface {
	Helper()
	Fatalf(format string, args ...any)
}

// TestOrderOfDestruction: the last trace by which a copy is known for ours goes after the copy, so that a pool which fails in
// between leaves nothing that nobody knows.
func TestOrderOfDestruction(t *testing.T) {
	simulator := testkit.StartSimulator(t, xensim.Options{})
	client, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{simulator.Endpoint}, Username: simulator.User, Password: simulator.Password, CABundle: simulator.CACert(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	onPool := func(disks []VDI) {
		for i := range disks {
			disks[i].Ref = xenapi.VDIRef(simulator.Insert("VDI", map[string]any{
				"name_label": disks[i].UUID, "SR": simulator.FindByName(t, "SR", "Local storage"), "virtual_size": disks[i].Size, "managed": true, "type": "user",
			}))
		}
	}
	f := given(complete(v1alpha1.PowerStateHalted), sizedAs("small", 20*gib), journalled("small", "large", 10*gib, 20*gib), ofFlavor("small"), manualOption)
	f.VM.rootDisk().VDI.OtherConfig[markCopying] = "id1"
	resizeEffects["TakeRestorePoint"](f)
	doubled(f)
	onPool(f.Copies)
	simulator.SetFaults([]xensim.Fault{{Call: "VDI.destroy", Error: "INTERNAL_ERROR", Params: []string{"x"}, Count: 1}})
	run := &Run{Facts: f, Client: client, Now: testTime}
	if _, err := markPoint(t.Context(), run); err == nil {
		t.Error("a second restore point that stays is no complaint")
	}
	for _, nameless := range f.Copies {
		if config, _ := simulator.Records("VDI")[string(nameless.Ref)]["other_config"].(map[string]string); config[markResize] != "" {
			t.Error("one is the restore point while there are two: the second would be taken for somebody's")
		}
	}
}
