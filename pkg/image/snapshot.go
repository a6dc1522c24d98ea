package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// CloneFacts are what a pool shows of an image while it is being made of a snapshot that is there: a clone of the snapshot VM
// on the way to become the template. Once its root disk carries the image's marks, CopyFacts tell the rest.
type CloneFacts struct {
	// Snapshot is what is cloned, nil if the pool does not have it.
	SnapshotRef xenapi.VMRef
	Snapshot    *xenapi.VM
	// Source is the storage repository of its root disk.
	Source xenapi.SRRef
	// Cloning are the clones of it that are under way, whoever began them.
	Cloning []xenapi.TaskRef
	// Template is the clone, nil if there is none yet; Root its root disk, Others its further disks.
	TemplateRef xenapi.VMRef
	Template    *xenapi.VM
	RootRef     xenapi.VDIRef
	Root        *xenapi.VDI
	Others      []xenapi.VDIRef
	// Twin is a second clone that a crash left.
	Twin xenapi.VMRef
	sr   xenapi.SRRef
}

// ObserveClone reads what the pool shows of an image that is being made of a snapshot, on a storage repository.
func ObserveClone(v xencache.View, installation string, image Image, sr xenapi.SRRef, snapshotUUID string) CloneFacts {
	c := CloneFacts{sr: sr}
	if c.SnapshotRef, c.Snapshot = v.VMByUUID(snapshotUUID); c.Snapshot != nil {
		if _, root := rootOf(v, c.SnapshotRef); root != nil {
			c.Source = root.SR
		}
		for task, operation := range c.Snapshot.CurrentOperations {
			if operation == xenapi.VMOperationClone || operation == xenapi.VMOperationCopy {
				c.Cloning = append(c.Cloning, xenapi.TaskRef(task))
			}
		}
	}
	clones := unfinishedClones(v, installation, image, sr)
	if len(clones) == 0 {
		return c
	}
	c.TemplateRef, c.Template = clones[0], v.VM(clones[0])
	c.RootRef, c.Root = rootOf(v, c.TemplateRef)
	for _, ref := range disksOf(v, c.TemplateRef) {
		if ref != c.RootRef {
			c.Others = append(c.Others, ref)
		}
	}
	if len(clones) > 1 {
		c.Twin = clones[1]
	}
	return c
}

// unfinishedClones are the templates of the image whose root disk is on a storage repository, and does not carry the image's
// marks yet.
func unfinishedClones(v xencache.View, installation string, image Image, sr xenapi.SRRef) []xenapi.VMRef {
	var clones []xenapi.VMRef
	for _, ref := range v.VMsByMark(installation, image.Key) {
		vm := v.VM(ref)
		_, root := rootOf(v, ref)
		if vm.NameLabel == cloneName(installation, image) && vm.IsATemplate && !vm.IsASnapshot && root != nil && root.SR == sr {
			clones = append(clones, ref)
		}
	}
	slices.SortFunc(clones, func(a, b xenapi.VMRef) int { return strings.Compare(v.VM(a).UUID, v.VM(b).UUID) })
	return clones
}

func cloneName(installation string, image Image) string {
	return xencache.MarkName(installation, image.Key, xencache.RoleImage)
}

// disksOf are the disks of a VM, without CDs.
func disksOf(v xencache.View, vm xenapi.VMRef) []xenapi.VDIRef {
	var disks []xenapi.VDIRef
	for _, ref := range v.VBDsOf(vm) {
		if vbd := v.VBD(ref); vbd.Type == xenapi.VBDTypeDisk && !vbd.VDI.IsNull() && v.VDI(vbd.VDI) != nil {
			disks = append(disks, vbd.VDI)
		}
	}
	return disks
}

// clonedDisks are the disks of templates that were cloned from a snapshot, marked or not: nobody else has them.
func clonedDisks(v xencache.View, image Image, templates []xenapi.VMRef) []xenapi.VDIRef {
	if image.Spec.Source.Snapshot == nil {
		return nil
	}
	var disks []xenapi.VDIRef
	for _, template := range templates {
		for _, ref := range disksOf(v, template) {
			if !v.VDI(ref).IsASnapshot && len(v.VBDsOfVDI(ref)) == 1 {
				disks = append(disks, ref)
			}
		}
	}
	return disks
}

// CloneStep is one act of making a template of a snapshot.
type CloneStep struct {
	// Name is what metrics and logs call it.
	Name string
	// Holds says whether there is nothing left to do.
	Holds func(Image, CloneFacts, string) bool
	// Begin starts a long act and returns its task; nil for one that is done when Do returns.
	Begin func(context.Context, *pool.Handle, Image, CloneFacts) (xenapi.TaskRef, error)
	Do    func(context.Context, *pool.Handle, Image, CloneFacts) error
}

// makeClone makes the clone, and of its root disk the image's.
var makeClone = []CloneStep{
	{Name: "CloneSnapshot", Holds: isCloned, Begin: cloneSnapshot},
	{Name: "DropTwin", Holds: func(_ Image, f CloneFacts, _ string) bool { return f.Twin.IsNull() }, Do: dropTwin},
	{Name: "DropDisks", Holds: hasRootOnly, Do: dropDisks}, // an image is what is booted from
	{Name: "MarkDisk", Holds: isRootMarked, Do: markRoot},
}

// NextClone returns the next step, nil if the clone is as it should be, or why there is no way. knows says whether a task was
// begun by this process.
func NextClone(image Image, f CloneFacts, installation string, knows func(xenapi.TaskRef) bool) (*CloneStep, reconcile.Outcome) {
	switch unknown := slices.ContainsFunc(f.Cloning, func(task xenapi.TaskRef) bool { return !knows(task) }); {
	case f.Template != nil:
	case f.Snapshot == nil || f.Source.IsNull():
		return nil, reconcile.Terminal(v1alpha1.ReasonSnapshotNotReady, "the snapshot is no longer on the pool, or has no root disk").After(lookAgain)
	case unknown:
		return nil, reconcile.Wait(v1alpha1.ReasonCreating, "the snapshot is being cloned, maybe for this image; waiting until that is over").After(30 * time.Second)
	}
	for i := range makeClone {
		if step := &makeClone[i]; !step.Holds(image, f, installation) {
			return step, reconcile.Wait(v1alpha1.ReasonCreating, "the snapshot is being cloned")
		}
	}
	return nil, reconcile.Done()
}

func isCloned(_ Image, f CloneFacts, _ string) bool { return f.Template != nil }

// cloneSnapshot begins a clone, or a copy if the image is to be on another storage repository.
func cloneSnapshot(ctx context.Context, h *pool.Handle, image Image, f CloneFacts) (xenapi.TaskRef, error) {
	name := cloneName(h.Installation, image)
	if f.Source != f.sr {
		return h.Client.VM.CopyAsync(ctx, f.SnapshotRef, name, f.sr)
	}
	return h.Client.VM.CloneAsync(ctx, f.SnapshotRef, name)
}

func dropTwin(ctx context.Context, h *pool.Handle, image Image, f CloneFacts) error {
	var disks []xenapi.VDIRef
	h.Cache.View(func(v xencache.View) { disks = clonedDisks(v, image, []xenapi.VMRef{f.Twin}) })
	if err := destroyDisks(ctx, h, image, disks); err != nil {
		return err
	}
	return h.Client.VM.Destroy(ctx, f.Twin)
}

func hasRootOnly(_ Image, f CloneFacts, _ string) bool { return len(f.Others) == 0 }

func dropDisks(ctx context.Context, h *pool.Handle, image Image, f CloneFacts) error {
	return destroyDisks(ctx, h, image, f.Others)
}

func destroyDisks(ctx context.Context, h *pool.Handle, image Image, disks []xenapi.VDIRef) error {
	for _, disk := range disks {
		if err := h.Client.VDI.Destroy(ctx, disk); err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
			return fmt.Errorf("destroy a further disk of the clone for %s: %w", image.Key, err)
		}
	}
	return nil
}

// isRootMarked reports whether the root disk is the image's: then all else follows as for one that was imported.
func isRootMarked(image Image, f CloneFacts, installation string) bool {
	marks := xencache.VDIMarks(f.Root)
	return marks.Installation == installation && marks.Ref == image.Key && marks.Role == xencache.RoleImage && marks.Self == f.Root.UUID
}

func markRoot(ctx context.Context, h *pool.Handle, image Image, f CloneFacts) error {
	config := marksOf(h.Installation, image, f.Root.UUID).OtherConfig()
	for key, value := range f.Root.OtherConfig {
		if !xencache.IsMark(key) {
			config[key] = value
		}
	}
	if err := h.Client.VDI.SetNameLabel(ctx, f.RootRef, nameOf(image)); err != nil {
		return err
	}
	return h.Client.VDI.SetOtherConfig(ctx, f.RootRef, config)
}
