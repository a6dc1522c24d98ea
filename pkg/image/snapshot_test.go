package image

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xencache/xencachetest"
)

func ofSnapshot() Image {
	image := ofDisk()
	image.Spec = &v1alpha1.XenImageSpec{Source: v1alpha1.ImageSource{Snapshot: &v1alpha1.SnapshotReference{Name: "monday"}}}
	return image
}

// disk connects a disk to a VM at a position.
func disk(vm, vdi, position string) xenapi.VBD {
	return xenapi.VBD{VM: xenapi.VMRef(vm), VDI: xenapi.VDIRef(vdi), UserDevice: position, Type: xenapi.VBDTypeDisk}
}

// TestWhatIsTakenForTheClone: a clone of the snapshot is found by its name; what others made is neither taken nor removed.
func TestWhatIsTakenForTheClone(t *testing.T) {
	image := ofSnapshot()
	name := cloneName(installation, image)
	pool := xencachetest.Pool{
		"vm": {
			"snap":     xenapi.VM{UUID: "snap", IsASnapshot: true, IsATemplate: true, CurrentOperations: map[string]xenapi.VMOperation{"OpaqueRef:task": xenapi.VMOperationClone, "OpaqueRef:other": xenapi.VMOperationExport}},
			"clone":    xenapi.VM{UUID: "b", NameLabel: name, IsATemplate: true},
			"twin":     xenapi.VM{UUID: "c", NameLabel: name, IsATemplate: true},
			"theirs":   xenapi.VM{UUID: "a", NameLabel: name},                                        // a VM that somebody made of it
			"snapped":  xenapi.VM{UUID: "a2", NameLabel: name, IsATemplate: true, IsASnapshot: true}, // somebody's snapshot of it
			"faraway":  xenapi.VM{UUID: "a3", NameLabel: name, IsATemplate: true},                    // the copy on another storage repository
			"diskless": xenapi.VM{UUID: "a4", NameLabel: name, IsATemplate: true},
		},
		"vbd": {
			"1": disk("snap", "snap-root", "0"),
			"2": disk("clone", "root", "0"), "3": disk("clone", "data", "4"), "4": disk("clone", "shared", "5"),
			"5": xenapi.VBD{VM: "clone", VDI: "iso", UserDevice: "3", Type: xenapi.VBDTypeCD},
			"6": disk("twin", "twin-root", "0"), "7": disk("theirs", "their-root", "0"), "8": disk("snapped", "snapped-root", "0"),
			"9": disk("faraway", "far-root", "0"), "10": disk("theirs", "shared", "5"),
		},
		"vdi": {
			"snap-root": xenapi.VDI{UUID: "v0", SR: "here"}, "root": xenapi.VDI{UUID: "v1", SR: "here"}, "data": xenapi.VDI{UUID: "v2", SR: "here"},
			"shared": xenapi.VDI{UUID: "v3", SR: "here"}, "iso": xenapi.VDI{UUID: "v4", SR: "isos"}, "twin-root": xenapi.VDI{UUID: "v5", SR: "here"},
			"their-root": xenapi.VDI{UUID: "v6", SR: "here"}, "snapped-root": xenapi.VDI{UUID: "v7", SR: "here", IsASnapshot: true}, "far-root": xenapi.VDI{UUID: "v8", SR: "there"},
		},
	}
	xencachetest.View(t, installation, pool, func(v xencache.View) {
		f := ObserveClone(v, installation, image, "here", "snap")
		if f.TemplateRef != "clone" || f.Twin != "twin" || f.RootRef != "root" || f.SnapshotRef != "snap" || f.Source != "here" {
			t.Errorf("found are clone %s, twin %s, root %s of snapshot %s on %s", f.TemplateRef, f.Twin, f.RootRef, f.SnapshotRef, f.Source)
		}
		if !slices.Equal(f.Cloning, []xenapi.TaskRef{"OpaqueRef:task"}) {
			t.Errorf("under way are %v", f.Cloning)
		}
		slices.Sort(f.Others)
		if !slices.Equal(f.Others, []xenapi.VDIRef{"data", "shared"}) {
			t.Errorf("further disks are %v", f.Others)
		}
		gone := clonedDisks(v, image, []xenapi.VMRef{"clone", "snapped"})
		slices.Sort(gone)
		if !slices.Equal(gone, []xenapi.VDIRef{"data", "root"}) { // neither what another VM has, nor a snapshot's
			t.Errorf("with the clone would go %v", gone)
		}
		if gone := clonedDisks(v, ofDisk(), []xenapi.VMRef{"clone"}); len(gone) != 0 {
			t.Errorf("with an image that is no clone would go %v", gone)
		}
		if f := ObserveClone(v, installation, image, "nowhere", "another"); f.Snapshot != nil || f.Template != nil || len(f.Cloning) != 0 {
			t.Errorf("of what is not there is found %+v", f)
		}
	})
}

func TestTheStepsOfAClone(t *testing.T) {
	snapshot := CloneFacts{SnapshotRef: "snap", Snapshot: &xenapi.VM{UUID: "snap"}, Source: "here", sr: "here"}
	with := func(change func(*CloneFacts)) CloneFacts {
		f := snapshot
		f.TemplateRef, f.Template, f.RootRef, f.Root = "clone", &xenapi.VM{UUID: "t"}, "root", &xenapi.VDI{UUID: "r"}
		change(&f)
		return f
	}
	marks := marksOf(installation, ofSnapshot(), "r").OtherConfig()
	for name, tc := range map[string]struct {
		facts        CloneFacts
		knows        bool
		step, reason string
		kind         reconcile.Kind
	}{
		"nothing yet":                   {facts: snapshot, step: "CloneSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"the snapshot is gone":          {kind: reconcile.KindTerminal, reason: v1alpha1.ReasonSnapshotNotReady},
		"a snapshot without disks":      {facts: CloneFacts{Snapshot: &xenapi.VM{}}, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonSnapshotNotReady},
		"somebody clones it":            {facts: func() CloneFacts { f := snapshot; f.Cloning = []xenapi.TaskRef{"t"}; return f }(), kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"a clone of ours for another":   {facts: func() CloneFacts { f := snapshot; f.Cloning = []xenapi.TaskRef{"t"}; return f }(), knows: true, step: "CloneSnapshot", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"two, after a crash":            {facts: with(func(f *CloneFacts) { f.Twin = "twin" }), step: "DropTwin", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"with its data disks":           {facts: with(func(f *CloneFacts) { f.Others = []xenapi.VDIRef{"data"} }), step: "DropDisks", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"with its root disk":            {facts: with(func(*CloneFacts) {}), step: "MarkDisk", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"with the marks of the VM":      {facts: with(func(f *CloneFacts) { f.Root.OtherConfig = marksOf(installation, ofSnapshot(), "other").OtherConfig() }), step: "MarkDisk", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"marked":                        {facts: with(func(f *CloneFacts) { f.Root.OtherConfig = marks })},
		"marked, the snapshot has gone": {facts: with(func(f *CloneFacts) { f.Root.OtherConfig, f.Snapshot = marks, nil })},
	} {
		t.Run(name, func(t *testing.T) {
			step, outcome := NextClone(ofSnapshot(), tc.facts, installation, func(xenapi.TaskRef) bool { return tc.knows })
			got := ""
			if step != nil {
				got = step.Name
			}
			if got != tc.step || outcome.Kind() != tc.kind || outcome.Reason() != tc.reason {
				t.Errorf("next is %q with %v, want %q with %v %s", got, outcome, tc.step, tc.kind, tc.reason)
			}
		})
	}
}

// TestAttemptsOfAnImport: one that failed is tried again after ever longer, one that can never succeed is not, and what the status
// remembers holds when the process does not.
func TestAttemptsOfAnImport(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	passing := &transfer.Failure{Reason: v1alpha1.ReasonStoreUnavailable, Err: errors.New("no route")}
	permanent := &transfer.Failure{Reason: v1alpha1.ReasonInvalidImage, Permanent: true, Err: errors.New("no disk")}
	failed := func(err error) *transfer.State { return &transfer.State{Phase: transfer.Failed, Err: err} }
	for name, tc := range map[string]struct {
		shown    v1alpha1.ImageCopy
		state    *transfer.State
		start    bool
		reason   string
		kind     reconcile.Kind
		attempts int32
		retry    string
	}{
		"the first":                      {start: true, reason: v1alpha1.ReasonImporting, kind: reconcile.KindWait, attempts: 1},
		"in line":                        {shown: v1alpha1.ImageCopy{Attempts: 1}, state: &transfer.State{}, reason: v1alpha1.ReasonWaitingForTransfer, kind: reconcile.KindWait, attempts: 1},
		"on its way":                     {shown: v1alpha1.ImageCopy{Attempts: 1}, state: &transfer.State{Phase: transfer.Running}, reason: v1alpha1.ReasonImporting, kind: reconcile.KindWait, attempts: 1},
		"failed once":                    {shown: v1alpha1.ImageCopy{Attempts: 1}, state: failed(passing), reason: v1alpha1.ReasonStoreUnavailable, kind: reconcile.KindWait, attempts: 1, retry: at(5 * time.Second)},
		"failed the third time":          {shown: v1alpha1.ImageCopy{Attempts: 3}, state: failed(passing), reason: v1alpha1.ReasonStoreUnavailable, kind: reconcile.KindWait, attempts: 3, retry: at(20 * time.Second)},
		"failed the hundredth time":      {shown: v1alpha1.ImageCopy{Attempts: 100}, state: failed(passing), reason: v1alpha1.ReasonStoreUnavailable, kind: reconcile.KindWait, attempts: 100, retry: at(10 * time.Minute)},
		"waiting for the next":           {shown: v1alpha1.ImageCopy{Attempts: 1, NextRetryTime: at(time.Second)}, state: failed(passing), reason: v1alpha1.ReasonStoreUnavailable, kind: reconcile.KindWait, attempts: 1, retry: at(time.Second)},
		"the next":                       {shown: v1alpha1.ImageCopy{Attempts: 1, NextRetryTime: at(0)}, state: failed(passing), start: true, reason: v1alpha1.ReasonImporting, kind: reconcile.KindWait, attempts: 2},
		"waiting, in another process":    {shown: v1alpha1.ImageCopy{Attempts: 4, NextRetryTime: at(time.Minute)}, reason: v1alpha1.ReasonRetrying, kind: reconcile.KindWait, attempts: 4, retry: at(time.Minute)},
		"on its way when the other died": {shown: v1alpha1.ImageCopy{Attempts: 4}, start: true, reason: v1alpha1.ReasonImporting, kind: reconcile.KindWait, attempts: 5},
		"no disk at all":                 {shown: v1alpha1.ImageCopy{Attempts: 1}, state: failed(permanent), reason: v1alpha1.ReasonInvalidImage, kind: reconcile.KindTerminal, attempts: 1},
		"complete":                       {shown: v1alpha1.ImageCopy{Attempts: 1, LastError: "x"}, state: &transfer.State{Phase: transfer.Succeeded}, reason: v1alpha1.ReasonImporting, kind: reconcile.KindWait, attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			state := transfer.State{}
			if tc.state != nil {
				state = *tc.state
			}
			shown := tc.shown
			start, outcome := NextImport(&shown, state, tc.state != nil, now)
			if start != tc.start || outcome.Kind() != tc.kind || outcome.Reason() != tc.reason || shown.Attempts != tc.attempts || shown.NextRetryTime != tc.retry {
				t.Errorf("start %t, %v, attempt %d, next %q", start, outcome, shown.Attempts, shown.NextRetryTime)
			}
		})
	}
}

func TestSourcesAreShownWithoutSecrets(t *testing.T) {
	spec := &v1alpha1.XenImageSpec{Source: v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: "https://store/file?signature=secret"}}}
	if text := SourceText(spec); strings.Contains(text, "secret") || !strings.Contains(text, "https://store/file") {
		t.Errorf("shown is %q", text)
	}
}
