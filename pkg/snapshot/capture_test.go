package snapshot

import (
	"fmt"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xencache/xencachetest"
)

const installation = "ours"

// nightly is a snapshot of web.
func nightly(change func(*v1alpha1.XenSnapshotSpec)) Snapshot {
	s := Snapshot{
		Key: xencache.Key{Kind: "XenSnapshot", Namespace: "team-a", Name: "nightly"}, UID: "uid-1",
		Spec: &v1alpha1.XenSnapshotSpec{InstanceRef: v1alpha1.InstanceReference{Name: "web"}, Type: v1alpha1.SnapshotTypeDisk, Disks: v1alpha1.SnapshotDisksAll},
	}
	if change != nil {
		change(s.Spec)
	}
	return s
}

// running is a VM with two disks and a config drive.
func running(change func(*Source)) *Source {
	source := &Source{Ref: "vm", UUID: "vm-uuid", Power: xenapi.VMPowerStateRunning, Disks: []Disk{
		{Name: "root", Ref: "root"}, {Name: "drive", Device: 3, Ref: "drive", Drive: true}, {Name: "data", Device: 4, Ref: "data"},
	}}
	if change != nil {
		change(source)
	}
	return source
}

// taken is the snapshot as the call leaves it; with its marks, and with its name.
func taken(s Snapshot, uuid string) Local {
	return Local{Ref: xenapi.VMRef(uuid), UUID: uuid, Name: s.MarkName(installation), OtherConfig: map[string]string{
		"mac_seed": "seed", xencache.MarkInstallation: installation, xencache.MarkRef: "XenInstance/team-a/web", xencache.MarkSelf: "vm-uuid",
	}}
}

func withMarks(s Snapshot, l Local) Local {
	l.OtherConfig = marked(s, Facts{Local: &l, Source: running(nil)}, installation)
	return l
}

func named(s Snapshot, l Local) Local {
	l.Name = nameOf(s)
	return l
}

func TestWhichStepOfACaptureComesNext(t *testing.T) {
	s := nightly(nil)
	memory := nightly(func(spec *v1alpha1.XenSnapshotSpec) { spec.Type = v1alpha1.SnapshotTypeMemory })
	root := nightly(func(spec *v1alpha1.XenSnapshotSpec) { spec.Disks = v1alpha1.SnapshotDisksRoot })
	fresh := taken(s, "a")
	withItsMarks := withMarks(s, fresh)
	complete := named(s, withItsMarks)
	theirs := func(source *Source) { source.Running = map[xenapi.TaskRef]string{"task": "clean_shutdown"} }
	swapping := func(source *Source) {
		source.Disks = source.Disks[1:]
		source.OtherConfig = map[string]string{xencache.MarkJournal: `{"operation":"Resize","vm":"vm-uuid"}`}
	}
	for name, tc := range map[string]struct {
		snapshot Snapshot
		facts    Facts
		knows    bool
		step     string
		kind     reconcile.Kind
		reason   string
		after    time.Duration // looked at again, if it matters
	}{
		"nothing taken yet":            {snapshot: s, facts: Facts{Source: running(nil)}, step: "TakeSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"no VM":                        {snapshot: s, kind: reconcile.KindWait, reason: v1alpha1.ReasonInstanceNotFound},
		"an operation of others":       {snapshot: s, facts: Facts{Source: running(theirs)}, kind: reconcile.KindWait, reason: v1alpha1.ReasonInstanceBusy, after: BusyAgain},
		"an operation of ours":         {snapshot: s, facts: Facts{Source: running(theirs)}, knows: true, step: "TakeSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"memory, and ours goes on":     {snapshot: memory, facts: Facts{Source: running(theirs)}, knows: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonInstanceBusy, after: BusyAgain},
		"memory that is not there":     {snapshot: memory, facts: Facts{Source: running(nil), Local: &complete}, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonNotRunning},
		"memory that is not there yet": {snapshot: memory, facts: Facts{Source: running(theirs), Local: &fresh}, kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing, after: BusyAgain},
		"memory of a halted VM":        {snapshot: memory, facts: Facts{Source: running(func(source *Source) { source.Power = xenapi.VMPowerStateHalted })}, kind: reconcile.KindWait, reason: v1alpha1.ReasonNotRunning},
		"disks of a halted VM":         {snapshot: s, facts: Facts{Source: running(func(source *Source) { source.Power = xenapi.VMPowerStateHalted })}, step: "TakeSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"no root disk":                 {snapshot: root, facts: Facts{Source: running(func(source *Source) { source.Disks = source.Disks[1:] })}, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonDiskNotFound},
		"no root disk at the moment":   {snapshot: s, facts: Facts{Source: running(swapping)}, kind: reconcile.KindWait, reason: v1alpha1.ReasonInstanceBusy, after: BusyAgain},
		"a long chain":                 {snapshot: s, facts: Facts{Source: running(func(source *Source) { source.Disks[2].Links = maxLinks })}, kind: reconcile.KindWait, reason: v1alpha1.ReasonChainTooLong},
		"a long chain of another disk": {snapshot: root, facts: Facts{Source: running(func(source *Source) { source.Disks[2].Links = maxLinks })}, step: "TakeSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"a long chain of the drive":    {snapshot: s, facts: Facts{Source: running(func(source *Source) { source.Disks[1].Links = maxLinks })}, step: "TakeSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"a nearly long chain":          {snapshot: s, facts: Facts{Source: running(func(source *Source) { source.Disks[2].Links = maxLinks - 1 })}, step: "TakeSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"taken":                        {snapshot: s, facts: Facts{Source: running(nil), Local: &fresh}, step: "MarkSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"marked":                       {snapshot: s, facts: Facts{Source: running(nil), Local: &withItsMarks}, step: "NameSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"named":                        {snapshot: s, facts: Facts{Source: running(nil), Local: &complete}},
		"named, and the VM has gone":   {snapshot: s, facts: Facts{Local: &complete}},
		"a second attempt of a crash":  {snapshot: s, facts: Facts{Source: running(nil), Local: &complete, Twins: []Local{taken(s, "b")}}, step: "DiscardTwin", kind: reconcile.KindWait, reason: v1alpha1.ReasonCapturing},
		"two complete ones":            {snapshot: s, facts: Facts{Source: running(nil), Local: &complete, Twins: []Local{named(s, withMarks(s, taken(s, "b")))}}, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonDuplicateFound},
	} {
		t.Run(name, func(t *testing.T) {
			step, outcome := Next(tc.snapshot, tc.facts, installation, func(xenapi.TaskRef) bool { return tc.knows })
			got := ""
			if step != nil {
				got = step.Name
			}
			if got != tc.step || outcome.Kind() != tc.kind || outcome.Reason() != tc.reason {
				t.Errorf("next is %q with %v, want %q with %v %s", got, outcome, tc.step, tc.kind, tc.reason)
			}
			if tc.after != 0 && outcome.Deadline() != tc.after {
				t.Errorf("it is looked at again after %s, want %s", outcome.Deadline(), tc.after)
			}
		})
	}
}

func TestTheMarksOfASnapshot(t *testing.T) {
	s := nightly(nil)
	got := withMarks(s, taken(s, "a")).OtherConfig
	want := map[string]string{
		"mac_seed": "seed", MarkInstance: "vm-uuid", xencache.MarkInstallation: installation, xencache.MarkRef: s.Key.String(),
		xencache.MarkUID: "uid-1", xencache.MarkSelf: "a", xencache.MarkRole: string(xencache.RoleSnapshot), xencache.MarkFormat: "1",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the marks are %v, want %v", got, want)
	}
}

func TestTheLengthOfAChain(t *testing.T) {
	for name, tc := range map[string]struct {
		parents int  // that the storage names
		known   bool // whether it has records of them
		want    int
	}{
		"none": {0, true, 0}, "one": {1, true, 1}, "many": {27, true, 27}, "too many": {29, true, maxLinks + 1},
		"one that has no record": {1, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			pool := xencachetest.Pool{"vm": {"vm": xenapi.VM{UUID: "vm-uuid"}}, "vbd": {"vbd": xenapi.VBD{VM: "vm", VDI: "0", UserDevice: "0", Type: xenapi.VBDTypeDisk}}, "vdi": {}}
			for i := range tc.parents + 1 {
				disk := xenapi.VDI{UUID: fmt.Sprint("disk-", i), Managed: i == 0, SMConfig: map[string]string{}}
				if i < tc.parents {
					disk.SMConfig[parentKey] = fmt.Sprint("disk-", i+1)
				}
				if i == 0 || tc.known {
					pool["vdi"][fmt.Sprint(i)] = disk
				}
			}
			xencachetest.View(t, installation, pool, func(v xencache.View) {
				f := Observe(v, installation, nightly(nil), "vm-uuid")
				if f.Source == nil || len(f.Source.Disks) != 1 || f.Source.Disks[0].Links != tc.want {
					t.Errorf("the VM is %+v, want one disk with %d behind it", f.Source, tc.want)
				}
			})
		})
	}
}
