package snapshot

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const (
	// maxLinks is how many disks may stand behind a disk before no snapshot is taken of it: storage drivers refuse at 30,
	// and others take snapshots too (sm, vhdutil.py).
	maxLinks = 28
	// lookAgain is how often something is looked at again of which no event tells.
	lookAgain = time.Minute
	// BusyAgain is how often a VM is looked at again that somebody else is at work on, another snapshot of it for instance: that
	// lasts seconds, and the events of a VM wake its instance, not its snapshots.
	BusyAgain = 2 * time.Second
)

// Step is one act of taking a snapshot.
type Step struct {
	// Name is what metrics and logs call it.
	Name string
	// holds is pure: whether there is nothing left to do.
	holds func(Snapshot, Facts, string) bool
	// Begin starts a long act and returns its task; nil for one that is done when Do returns.
	Begin func(context.Context, *pool.Handle, Snapshot, Facts) (xenapi.TaskRef, error)
	// Do takes the step: one call, and again one if it is taken twice.
	Do func(context.Context, *pool.Handle, Snapshot, Facts) error
}

// Holds says whether the step has nothing left to do. It is the barrier after the step, too.
func (s *Step) Holds(snapshot Snapshot, f Facts, installation string) bool {
	return s.holds(snapshot, f, installation)
}

// capture takes a snapshot. It has its mark-name from the first moment until the last step, so whoever comes after a crash
// finds it and goes on.
var capture = []Step{
	{Name: "TakeSnapshot", holds: isTaken, Begin: take},
	{Name: "MarkSnapshot", holds: isMarked, Do: mark},
	{Name: "NameSnapshot", holds: isNamed, Do: name},
}

// discardTwin removes what a crash left of a second attempt.
var discardTwin = Step{Name: "DiscardTwin", holds: func(_ Snapshot, f Facts, _ string) bool { return len(f.Twins) == 0 },
	Do: func(ctx context.Context, h *pool.Handle, s Snapshot, f Facts) error {
		return destroy(ctx, h, s, f.Twins[0])
	}}

// Next returns the next step of taking the snapshot, nil if it is complete, or why there is no way. knows says whether a task
// was begun by this process.
func Next(s Snapshot, f Facts, installation string, knows func(xenapi.TaskRef) bool) (*Step, reconcile.Outcome) {
	if f.Local == nil {
		if why := refuse(s, f, knows); !why.IsDone() {
			return nil, why
		}
	}
	if len(f.Twins) > 0 {
		if f.Twins[0].Name != s.MarkName(installation) {
			return nil, reconcile.Terminal(v1alpha1.ReasonDuplicateFound, fmt.Sprintf(
				"snapshots %s and %s both carry this object's mark; delete one of them on the pool", f.Local.UUID, f.Twins[0].UUID)).After(lookAgain)
		}
		return &discardTwin, capturing
	}
	if s.Spec.Type == v1alpha1.SnapshotTypeMemory && f.Local != nil && f.Local.Memory.IsNull() {
		return nil, f.withoutMemory()
	}
	for i := range capture {
		if step := &capture[i]; !step.holds(s, f, installation) {
			return step, capturing
		}
	}
	return nil, reconcile.Done()
}

// withoutMemory says that what was to have memory has none, or none yet.
func (f Facts) withoutMemory() reconcile.Outcome {
	if f.Source != nil && len(f.Source.Running) > 0 {
		return capturing.After(BusyAgain)
	}
	return reconcile.Terminal(v1alpha1.ReasonNotRunning, fmt.Sprintf(
		"the pool took snapshot %s without memory, as of a VM that does not run; delete this XenSnapshot, and make another one while the VM runs", f.Local.UUID)).After(lookAgain)
}

var capturing = reconcile.Wait(v1alpha1.ReasonCapturing, "the snapshot is being taken")

// refuse says why no snapshot can be taken of the VM now.
func refuse(s Snapshot, f Facts, knows func(xenapi.TaskRef) bool) reconcile.Outcome {
	if f.Source == nil {
		return reconcile.Wait(v1alpha1.ReasonInstanceNotFound,
			fmt.Sprintf("XenInstance %s has no VM on the pool; the snapshot is taken when it has one", s.Spec.InstanceRef.Name)).After(lookAgain)
	}
	for task, operation := range f.Source.Running {
		if !knows(task) || s.Spec.Type == v1alpha1.SnapshotTypeMemory { // which the pool suspends the VM for
			return reconcile.Wait(v1alpha1.ReasonInstanceBusy,
				fmt.Sprintf("waiting until %s of VM %s is over", operation, f.Source.UUID)).After(BusyAgain)
		}
	}
	if s.Spec.Type == v1alpha1.SnapshotTypeMemory && f.Source.Power == xenapi.VMPowerStateHalted && f.Source.inRescue() {
		return reconcile.Wait(v1alpha1.ReasonNotRunning, "the instance is in rescue, so its own VM is off and has no memory to capture; "+
			"the snapshot is taken after the return, or make a XenSnapshot of type Disk").After(lookAgain)
	}
	if s.Spec.Type == v1alpha1.SnapshotTypeMemory && f.Source.Power == xenapi.VMPowerStateHalted {
		return reconcile.Wait(v1alpha1.ReasonNotRunning,
			"a halted VM has no memory to capture; start the instance, or make a XenSnapshot of type Disk").After(lookAgain)
	}
	if Root(f.Source.Disks) == nil && f.Source.changing() {
		return reconcile.Wait(v1alpha1.ReasonInstanceBusy, "the root disk of the VM is being replaced by another one; the snapshot is taken when that is over").After(BusyAgain)
	}
	if Root(f.Source.Disks) == nil && s.Spec.Disks == v1alpha1.SnapshotDisksRoot {
		return reconcile.Terminal(v1alpha1.ReasonDiskNotFound, fmt.Sprintf("VM %s has no disk at device 0", f.Source.UUID)).After(lookAgain)
	}
	for _, disk := range wanted(s, f.Source) {
		if disk.Links >= maxLinks {
			return reconcile.Wait(v1alpha1.ReasonChainTooLong, fmt.Sprintf(
				"disk %s has %d snapshots or clones behind it, and the storage refuses more than 30; delete old snapshots of it, on which the storage shortens the chain by and by",
				disk.Name, disk.Links)).After(lookAgain)
		}
	}
	return reconcile.Done()
}

// wanted are the disks of the VM that are to be captured.
func wanted(s Snapshot, source *Source) []Disk {
	var disks []Disk
	for _, disk := range source.Disks {
		if !disk.Drive && (s.Spec.Disks != v1alpha1.SnapshotDisksRoot || disk.Name == rootName) {
			disks = append(disks, disk)
		}
	}
	return disks
}

func isTaken(_ Snapshot, f Facts, _ string) bool { return f.Local != nil }

// take begins the snapshot of the disks that are asked for, or the checkpoint with memory, which has all.
func take(ctx context.Context, h *pool.Handle, s Snapshot, f Facts) (xenapi.TaskRef, error) {
	if s.Spec.Type == v1alpha1.SnapshotTypeMemory {
		return h.Client.VM.CheckpointAsync(ctx, f.Source.Ref, s.MarkName(h.Installation))
	}
	asked := map[xenapi.VDIRef]struct{}{}
	for _, disk := range wanted(s, f.Source) {
		asked[disk.Ref] = struct{}{}
	}
	var ignored []xenapi.VDIRef
	for _, disk := range f.Source.Disks {
		if _, found := asked[disk.Ref]; !found {
			ignored = append(ignored, disk.Ref)
		}
	}
	return h.Client.VM.SnapshotAsync(ctx, f.Source.Ref, s.MarkName(h.Installation), ignored)
}

func isMarked(s Snapshot, f Facts, installation string) bool {
	return maps.Equal(f.Local.OtherConfig, marked(s, f, installation))
}

// marked is the other_config with our marks instead of those that were copied from the instance.
func marked(s Snapshot, f Facts, installation string) map[string]string {
	config := map[string]string{}
	for key, value := range f.Local.OtherConfig {
		if key == MarkInstance || !xencache.IsMark(key) {
			config[key] = value
		}
	}
	if config[MarkInstance] == "" {
		switch of := f.Local.OtherConfig[xencache.MarkSelf]; {
		case of != "" && of != f.Local.UUID:
			config[MarkInstance] = of
		case f.Source != nil:
			config[MarkInstance] = f.Source.UUID
		}
	}
	marks := xencache.Marks{Installation: installation, Ref: s.Key, UID: s.UID, Self: f.Local.UUID, Role: xencache.RoleSnapshot}
	maps.Copy(config, marks.OtherConfig())
	return config
}

func mark(ctx context.Context, h *pool.Handle, s Snapshot, f Facts) error {
	return h.Client.VM.SetOtherConfig(ctx, f.Local.Ref, marked(s, f, h.Installation))
}

// isNamed is the last step: until it is taken the name is the mark.
func isNamed(s Snapshot, f Facts, _ string) bool { return f.Local.Name == nameOf(s) }

func name(ctx context.Context, h *pool.Handle, s Snapshot, f Facts) error {
	return h.Client.VM.SetNameLabel(ctx, f.Local.Ref, nameOf(s))
}

// nameOf is what people see on the pool.
func nameOf(s Snapshot) string { return s.Key.Namespace + "/" + s.Key.Name }
