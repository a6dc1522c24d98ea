package instance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// toShrink is a VM that is off and whose root disk is to be made smaller, 4 GiB instead of 10.
func toShrink(options ...factsOption) *Facts {
	smaller := wanting(func(w *Want) { w.Disks[0].Size, w.Disks[0].ShrinkTo = 4*gib, 4*gib })
	base := []factsOption{complete(v1alpha1.PowerStateHalted), smaller, journalled("small", "small", 10*gib, 4*gib), kept}
	return given(append(base, options...)...)
}

// kept has the VM kept from being started, startable not.
func kept(f *Facts) {
	f.VM.Blocked = map[string]string{string(xenapi.VMOperationStart): shrinkBlockReason, string(xenapi.VMOperationStartOn): shrinkBlockReason}
}

func startable(f *Facts) { f.VM.Blocked = map[string]string{} }

// copied has this process make a smaller copy.
func copied(change func(*CopyState)) factsOption {
	return func(f *Facts) {
		f.Copy = &CopyState{CopyRequest: f.copyRequest()}
		change(f.Copy)
	}
}

// beside puts a disk of ours beside the VM.
func beside(role xencache.Role, more map[string]string) factsOption {
	return func(f *Facts) {
		marks := f.Me.Marks(role, "copy-uuid").OtherConfig()
		for key, value := range more {
			marks[key] = value
		}
		f.Loose = append(f.Loose, VDI{Ref: "copy", UUID: "copy-uuid", Size: 4 * gib, OtherConfig: marks, Marks: xencache.ReadMarks(marks)})
	}
}

// TestShrinking says for each situation of a shrink what is done next.
func TestShrinking(t *testing.T) {
	half := beside(xencache.RoleNewRoot, nil)
	presented := beside(xencache.RoleRootDisk, map[string]string{
		markIncoming: "id1/" + string(incomingShrunk), markCopyOf: testRoot, xencache.MarkDisk: rootName,
	})
	back := wanting(func(w *Want) { w.Disks[0].Size, w.Disks[0].ShrinkTo = 10*gib, 0 })
	done := func(c *CopyState) { c.Over, c.Copy = true, "copy-uuid" }
	failed := func(p Problem) func(*CopyState) { return func(c *CopyState) { c.Over, c.Failed = true, &p } }

	tests := map[string]struct {
		facts *Facts
		step  string
		waits bool
	}{
		"the VM is kept from being started first": {facts: toShrink(startable), step: "KeepFromStarting"},
		"in the end it may be started again":      {facts: toShrink(sizedAs("small", 4*gib)), step: "ReleaseStart"},
		"the copy is begun":                       {facts: toShrink(), step: "CopyRoot"},
		"it is being made":                        {facts: toShrink(copied(func(*CopyState) {})), waits: true},
		"it is being made, and half there":        {facts: toShrink(copied(func(*CopyState) {}), half), waits: true},
		"another size is asked for meanwhile":     {facts: toShrink(copied(func(c *CopyState) { c.Size = 5 * gib })), step: "StopCopy"},
		"it may be started meanwhile":             {facts: toShrink(copied(func(*CopyState) {}), startable), step: "StopCopy"},
		"the spec goes back meanwhile":            {facts: toShrink(copied(func(*CopyState) {}), back), step: "StopCopy"},
		"what a dead manager left":                {facts: toShrink(half), step: "DropHalfCopies"},
		"what a failed attempt left":              {facts: toShrink(half, copied(func(c *CopyState) { failed(Problem{Passing: true})(c); c.Ago = time.Minute })), step: "DropHalfCopies"},
		"what failed rests first": {facts: toShrink(copied(func(c *CopyState) {
			failed(Problem{Reason: v1alpha1.ReasonResizing, Passing: true})(c)
			c.Attempt, c.Ago = 3, 7*time.Second
		})), waits: true},
		"what failed often is given up": {facts: toShrink(copied(func(c *CopyState) {
			failed(Problem{Reason: v1alpha1.ReasonResizing, Passing: true})(c)
			c.Attempt = maxCopyAttempts
		})), step: "RefuseShrink"},
		"what failed is tried again":                 {facts: toShrink(copied(func(c *CopyState) { failed(Problem{Passing: true})(c); c.Attempt, c.Ago = 3, 9*time.Second })), step: "CopyRoot"},
		"what is refused is not":                     {facts: toShrink(copied(failed(Problem{}))), step: "RefuseShrink"},
		"it is complete":                             {facts: toShrink(half, copied(done)), step: "PresentCopy"},
		"it is complete, of before a start":          {facts: toShrink(half, copied(done), startable), step: "DropHalfCopies"},
		"it is complete, and no event has shown it":  {facts: toShrink(copied(done)), waits: true},
		"it is complete, and somebody destroyed it":  {facts: toShrink(copied(func(c *CopyState) { done(c); c.Settled = true })), step: "CopyRoot"},
		"it is presented":                            {facts: toShrink(presented), step: "DisplaceRoot"},
		"it is presented, and the VM started since":  {facts: toShrink(presented, startable), step: "DropHalfCopies"},
		"half of it is left, and nobody wants it":    {facts: toShrink(half, back, journalled("small", "small", 10*gib, 10*gib)), step: "DropHalfCopies"},
		"it is made, and nobody wants it any more":   {facts: toShrink(copied(func(*CopyState) {}), back, journalled("small", "small", 10*gib, 10*gib)), step: "StopCopy"},
		"it is complete, and nobody wants it now":    {facts: toShrink(half, copied(done), back, journalled("small", "small", 10*gib, 10*gib)), step: "DropHalfCopies"},
		"a disk of somebody else's VM is left alone": {facts: toShrink(half, func(f *Facts) { f.Loose[0].Users = 1 }), step: "CopyRoot"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			plan := Decide(test.facts, testTime)
			switch {
			case test.waits && (len(plan.Steps) > 0 || plan.Outcome.Kind() != reconcile.KindWait || plan.Outcome.Reason() != v1alpha1.ReasonResizing):
				t.Errorf("steps %v, %v; want to wait", plan.Steps, plan.Outcome)
			case !test.waits && (len(plan.Steps) != 1 || plan.Steps[0].Name != test.step):
				t.Errorf("steps %v, %v; want %s", plan.Steps, plan.Outcome, test.step)
			}
		})
	}
}

// TestAnotherSizeAfterShrink says what another size makes of a resize whose smaller disk is in its place, or on its way: the disk
// from before goes only when the user agrees, or goes back.
func TestAnotherSizeAfterShrink(t *testing.T) {
	sizes := func(flavor string, size, shrinkTo int64) factsOption {
		return func(f *Facts) { ofFlavor(flavor)(f); f.Want.Disks[0].Size, f.Want.Disks[0].ShrinkTo = size, shrinkTo }
	}
	displaced := func(f *Facts) { pointOf(f); f.RestorePoints[0].Snapshot, f.RestorePoints[0].Size = false, 20*gib }
	discarding := resizes(func(r *WantResize) { r.DiscardTo = "point-uuid" })
	looked := func(f *Facts) { f.RestorePoints[0].Users = 1 }
	inPlace := func(disk int64) []factsOption {
		return []factsOption{
			complete(v1alpha1.PowerStateRunning), sizedAs("small", disk), manualOption, atOnceOption, ranAlready, displaced,
			func(f *Facts) {
				f.VM.rootDisk().VDI.OtherConfig[markIncoming] = "id1/" + string(incomingShrunk)
			},
		}
	}
	shrunk := func(to string, more ...factsOption) *Facts {
		return given(slices.Concat(inPlace(4*gib), []factsOption{journalled("small", to, 20*gib, 4*gib)}, more)...)
	}
	copying := func(to string, more ...factsOption) *Facts {
		halfway := []factsOption{complete(v1alpha1.PowerStateHalted), sizedAs("small", 20*gib), manualOption, kept, journalled("small", to, 20*gib, 4*gib)}
		return given(slices.Concat(halfway, more)...)
	}
	for name, test := range map[string]struct {
		facts *Facts
		step  string
	}{
		"a third flavor":                               {shrunk("small", sizes("huge", 4*gib, 4*gib)), stepRetarget},
		"a third flavor, from two":                     {shrunk("large", sizes("huge", 4*gib, 4*gib)), stepRetarget},
		"smaller again":                                {shrunk("small", sizes("small", 2*gib, 2*gib)), stepRetarget},
		"smaller again, with the old flavor":           {shrunk("large", sizes("small", 2*gib, 2*gib)), stepRetarget},
		"larger, and smaller than before":              {shrunk("small", sizes("small", 8*gib, 8*gib)), stepRetarget},
		"the old size":                                 {shrunk("small", sizes("small", 20*gib, 0)), "ShutDown"},
		"no size":                                      {shrunk("small", sizes("small", 0, 0)), "DestroyRestorePoints"},
		"the old flavor, and the smaller disk is kept": {shrunk("large", sizes("small", 4*gib, 4*gib), sizedAs("large", 4*gib)), "ShutDown"},
		"another smaller size while it is copied":      {copying("small", sizes("small", 8*gib, 8*gib)), stepRetarget},
		"the old flavor while it is copied":            {copying("large", sizes("small", 4*gib, 4*gib)), stepRetarget},
		"the disk from before":                         {shrunk("small", sizes("small", 20*gib, 0), discarding), "ShutDown"},
		"that disk, and somebody looks at it":          {shrunk("small", sizes("small", 20*gib, 0), discarding, looked), ""},
		"the old size while it is copied":              {copying("small", sizes("small", 20*gib, 0)), "ReleaseStart"},
	} {
		t.Run(name, func(t *testing.T) {
			if plan := Decide(test.facts, testTime); stepNames(plan.Steps) != test.step {
				t.Errorf("steps %v, %v; want %s", stepNames(plan.Steps), plan.Outcome, test.step)
			}
		})
	}
}

// What is known before the guest is touched keeps it running.
func TestShrinkIsNotBegunWithoutRoom(t *testing.T) {
	smaller := wanting(func(w *Want) { w.Disks[0].Size, w.Disks[0].ShrinkTo = 4*gib, 4*gib })
	for name, lack := range map[string]factsOption{
		"scratch": func(f *Facts) { f.CopyProblem = &Problem{Reason: v1alpha1.ReasonInsufficientStorage, Passing: true} },
		"storage": having(func(vm *VM) { vm.Disks[0].VDI.SRType, vm.Disks[0].VDI.SRFree = "lvm", gib }),
	} {
		t.Run(name, func(t *testing.T) {
			f := given(complete(v1alpha1.PowerStateRunning), smaller, atOnceOption, lack)
			if plan := Decide(f, testTime); len(plan.Steps) > 0 || plan.Outcome.Reason() != v1alpha1.ReasonInsufficientStorage {
				t.Errorf("steps %v, %v", plan.Steps, plan.Outcome)
			}
		})
	}
}

// copier is a Copier that runs nothing.
type copier struct {
	started []CopyRequest
	stopped int
	running bool
	tidied  error
}

func (c *copier) Start(r CopyRequest)            { c.started = append(c.started, r) }
func (c *copier) Stop() bool                     { c.stopped++; return !c.running }
func (c *copier) EndTasks(context.Context) error { return c.tidied }

// A copy that runs is waited for, and no half copy goes while the pool still has
// tasks for it.
func TestShrinkActs(t *testing.T) {
	c := &copier{}
	run := func(f *Facts) *Run { return &Run{Facts: f, Copier: c} }
	if _, err := copyRoot(t.Context(), run(toShrink())); err != nil || len(c.started) != 1 || c.started[0].VDI != testRoot || c.started[0].Size != 4*gib {
		t.Fatalf("%+v, %v", c.started, err)
	}
	c.running = true
	var problem *Problem
	if _, err := stopCopy(t.Context(), run(toShrink())); !errors.As(err, &problem) || !problem.Passing {
		t.Errorf("while it runs: %v", err)
	}
	stopped := c.stopped
	if _, err := keepFromStarting(t.Context(), run(toShrink(startable))); !errors.As(err, &problem) || c.stopped != stopped+1 {
		t.Errorf("a copy from before is not forgotten: %v", err)
	}
	c.tidied = errors.New("the pool went away")
	if _, err := dropHalfCopies(t.Context(), run(toShrink(beside(xencache.RoleNewRoot, nil)))); !errors.Is(err, c.tidied) {
		t.Errorf("with tasks left: %v", err)
	}
}

// A size in shrinkTo that nobody asks for does nothing, and it is said.
func TestOtherShrinkIsSaid(t *testing.T) {
	for name, test := range map[string]struct {
		size, named int64
		said        bool
	}{
		"larger than the size":         {size: 4 * gib, named: 6 * gib, said: true},
		"smaller than the size":        {size: 10 * gib, named: 4 * gib, said: true},
		"larger than the disk already": {size: 10 * gib, named: 20 * gib},
	} {
		t.Run(name, func(t *testing.T) {
			f := given(complete(v1alpha1.PowerStateRunning), wanting(func(w *Want) { w.Disks[0].Size, w.Resize.OtherShrink = test.size, test.named }))
			pending := Pending(f)
			if said := len(pending) == 1 && pending[0].Field == "rootDisk.shrinkTo"; said != test.said {
				t.Errorf("pending are %v", pending)
			}
			if plan := Decide(f, testTime); len(plan.Steps) > 0 {
				t.Errorf("steps %v", plan.Steps)
			}
		})
	}
}
