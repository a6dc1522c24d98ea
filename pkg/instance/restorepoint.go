package instance

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// takePoint keeps the root disk as it is before it is grown, if the user is going to be asked. A snapshot of a disk takes
// neither a name nor marks, it has those of its source: so that carries the mark of the resize for the moment, and a copy
// that carries it too, and hangs nowhere, is ours.
var takePoint = Sequence{
	{Name: "AnnounceRestorePoint", Holds: ifNeeded(pointNeeded, pointAnnounced), Act: announcePoint},
	{Name: "TakeRestorePoint", Holds: ifNeeded(pointNeeded, pointThere), Act: snapshotRoot, Failed: sizingFailed},
	{Name: "MarkRestorePoint", Holds: noNamelessPoint, Act: markPoint},
	{Name: "WithdrawAnnouncement", Holds: announcementWithdrawn, Act: withdrawAnnouncement},
}

// dropPoints destroys the restore points when the resize is confirmed or reverted.
var dropPoints = Step{Name: "DestroyRestorePoints", Holds: noPoints, Act: destroyPoints}

// ifNeeded is a predicate that is asked only while something is needed; else it holds.
func ifNeeded(needed, holds func(*Facts) bool) func(*Facts) bool {
	return func(f *Facts) bool { return !needed(f) || holds(f) }
}

// maxChain is how many disks may stand behind the root disk before no snapshot is taken of it: storage drivers refuse at
// 30, and a clone for going back is one more.
const maxChain = 27

// chainParent is where VHD storage drivers name the disk behind a disk.
const chainParent = "vhd-parent"

// observeResize finds what resizes have made: restore points, and copies that a crash has left before they got their
// marks.
func (f *Facts) observeResize(v xencache.View) {
	j := f.resizeJournal()
	for _, ref := range v.VDIsByMark(f.Me.Installation, f.Me.Key) {
		vdi := observeVDI(v, ref)
		switch {
		case vdi == nil || !f.Me.Owns(vdi.Marks):
		case vdi.mine() && vdi.Marks.Role == xencache.RoleRestorePoint && !f.isRoot(vdi):
			f.RestorePoints = append(f.RestorePoints, *vdi)
		case j != nil && vdi.Marks.IsCopyOf(vdi.UUID) && vdi.Users == 0 && !vdi.Attached && vdi.OtherConfig[markCopying] == j.Point:
			f.Copies = append(f.Copies, *vdi)
		}
	}
	byUUID := func(a, b VDI) int { return strings.Compare(a.UUID, b.UUID) }
	slices.SortFunc(f.RestorePoints, byUUID)
	slices.SortFunc(f.Copies, byUUID)
	if f.VM == nil {
		return
	}
	if root := f.VM.rootDisk(); root != nil {
		root.VDI.Chain = chainLength(v, root.VDI.Ref)
		if sr := v.SR(root.VDI.SR); sr != nil && sr.PhysicalSize > 0 {
			root.VDI.SRFree = sr.PhysicalSize - sr.PhysicalUtilisation
		}
	}
}

// isRoot reports whether a disk is in the place of the VM's root disk, whatever its marks say.
func (f *Facts) isRoot(vdi *VDI) bool {
	if f.VM == nil {
		return false
	}
	root := f.VM.rootDisk()
	return root != nil && root.VDI.Ref == vdi.Ref
}

// chainLength is how many disks stand behind a disk at least: those that the storage names, or the snapshots of it.
func chainLength(v xencache.View, ref xenapi.VDIRef) int {
	named := 0
	for at := v.VDI(ref); at != nil && named <= maxChain && at.SMConfig[chainParent] != ""; named++ {
		_, at = v.VDIByUUID(at.SMConfig[chainParent])
	}
	return max(named, len(v.VDISnapshotsOf(ref)))
}

// points are the restore points of the resize under way; the first is the one from before it.
func (f *Facts) points() []VDI {
	j := f.resizeJournal()
	if j == nil {
		return nil
	}
	points := slices.DeleteFunc(slices.Clone(f.RestorePoints), func(p VDI) bool { return p.OtherConfig[markResize] != j.Point })
	slices.SortStableFunc(points, func(a, b VDI) int { return strings.Compare(a.OtherConfig[markTakenAt], b.OtherConfig[markTakenAt]) })
	return points
}

// point is the restore point that resize.discardTo may name, nil without one.
func (f *Facts) point() *VDI {
	if points := f.points(); len(points) > 0 {
		return &points[0]
	}
	return nil
}

// namelessPoints are snapshots of the root disk that have not got their marks yet.
func namelessPoints(f *Facts) []VDI {
	root := f.VM.rootDisk()
	if f.point() != nil || root == nil || root.VDI.OtherConfig[markCopying] == "" {
		return nil // there is one, or none was begun: what carries the mark is somebody's
	}
	return slices.DeleteFunc(slices.Clone(f.Copies), func(c VDI) bool { return !c.Snapshot })
}

func noNamelessPoint(f *Facts) bool { return len(namelessPoints(f)) == 0 }

// pointNeeded reports whether the root disk is about to be changed in its place, and the user is to be asked afterwards.
func pointNeeded(f *Facts) bool {
	return f.resizeJournal() != nil && f.Want.Resize.Manual && f.rootSmall() && !f.resizeReverting() && f.point() == nil
}

func pointThere(f *Facts) bool { return f.point() != nil || !noNamelessPoint(f) }

func pointAnnounced(f *Facts) bool {
	return !noNamelessPoint(f) || f.VM.rootDisk().VDI.OtherConfig[markCopying] == f.resizeJournal().Point
}

func announcePoint(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.announceCopy(ctx, &r.VM.rootDisk().VDI)
}

// announceCopy marks a disk that is about to be copied by a call that takes no marks.
func (r *Run) announceCopy(ctx context.Context, vdi *VDI) error {
	if vdi.OtherConfig[markCopying] != "" {
		if err := r.Client.VDI.RemoveFromOtherConfig(ctx, vdi.Ref, markCopying); err != nil {
			return r.doing(err, "replace the mark of an earlier resize")
		}
	}
	return r.doing(r.Client.VDI.AddToOtherConfig(ctx, vdi.Ref, markCopying, r.resizeJournal().Point), "announce the copy of disk %s", vdi.UUID)
}

func snapshotRoot(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	_, err := r.Client.VDI.Snapshot(ctx, r.VM.rootDisk().VDI.Ref, map[string]string{})
	return "", r.doing(err, "take a restore point of the root disk")
}

// markPoint makes the snapshot the restore point. A second one, of a call whose answer was lost, is destroyed: it is a
// snapshot that nobody but us has. It goes first, because beside a restore point it would be taken for somebody's.
func markPoint(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	nameless := namelessPoints(r.Facts)
	for _, second := range nameless[1:] {
		if err := r.Client.VDI.Destroy(ctx, second.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "destroy a second restore point")
		}
	}
	return "", r.doing(r.Client.VDI.SetOtherConfig(ctx, nameless[0].Ref, r.pointMarks(&nameless[0])), "mark the restore point")
}

// pointMarks is the other_config of a disk that is a restore point of the resize under way.
func (r *Run) pointMarks(vdi *VDI) map[string]string {
	marks := r.Me.Marks(xencache.RoleRestorePoint, vdi.UUID)
	marks.Disk = rootName
	otherConfig := withoutMarks(vdi.OtherConfig)
	maps.Copy(otherConfig, marks.OtherConfig())
	otherConfig[markResize] = r.resizeJournal().Point
	otherConfig[markTakenAt] = r.Now.UTC().Format(time.RFC3339Nano)
	return otherConfig
}

// announced is a disk that is marked for a copy which is not wanted (any more), nil if there is none: the next one who copies
// it would have the mark on his.
func (f *Facts) announced() *VDI {
	root, point := f.VM.rootDisk(), f.point()
	if root != nil && root.VDI.OtherConfig[markCopying] != "" && !pointNeeded(f) && point == nil && noNamelessPoint(f) {
		return &root.VDI
	}
	if point == nil || point.OtherConfig[markCopying] == "" || swapPending(f) || f.diskGoesBack() {
		return nil
	}
	waits := f.running() && f.Want.Resize.Strategy == v1alpha1.ResizeOnNextBoot && len(copiesOfPoint(f)) > 0
	if !pointWanted(f) || waits { // else it goes with the end of the resize, which is near
		return point
	}
	return nil
}

func announcementWithdrawn(f *Facts) bool { return f.announced() == nil }

func withdrawAnnouncement(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VDI.RemoveFromOtherConfig(ctx, r.announced().Ref, markCopying), "withdraw the announcement of a copy")
}

// withdrawStep is that last step by itself.
var withdrawStep = takePoint[len(takePoint)-1]

// What a resize does to its restore point before it ends: first to one that was not finished, then to the mark on the root disk,
// after which copies of that are nobody's but who made them.
var (
	dropNamelessStep = Step{Name: "DropUnfinishedPoint", Holds: noNamelessPoint, Act: dropNameless}
	withdrawRootStep = Step{Name: "WithdrawMark", Holds: rootNotAnnounced, Act: withdrawRoot}
)

func dropNameless(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, vdi := range namelessPoints(r.Facts) {
		if err := r.Client.VDI.Destroy(ctx, vdi.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "destroy an unfinished restore point")
		}
	}
	return "", nil
}

func rootNotAnnounced(f *Facts) bool {
	return f.VM.rootDisk() == nil || f.VM.rootDisk().VDI.OtherConfig[markCopying] == ""
}

func withdrawRoot(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VDI.RemoveFromOtherConfig(ctx, r.VM.rootDisk().VDI.Ref, markCopying), "take the mark of the copy off the root disk")
}

// droppable are copies of the restore point that have never got their marks, and the restore points of the resize under way:
// without those nobody would know whose the copies are. What somebody has given to a VM is left to him.
func droppable(f *Facts) []VDI {
	points := f.points()
	slices.Reverse(points) // the one that is copied last
	return slices.DeleteFunc(append(copiesOfPoint(f), points...), func(v VDI) bool { return v.Users > 0 })
}

func noPoints(f *Facts) bool { return len(droppable(f)) == 0 }

// pointInUse is a restore point that somebody has given to a VM, to look at it for instance; nil if there is none.
func (f *Facts) pointInUse() *VDI {
	points := f.points()
	if i := slices.IndexFunc(points, func(p VDI) bool { return p.Users > 0 }); i >= 0 {
		return &points[i]
	}
	return nil
}

func destroyPoints(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, point := range droppable(r.Facts) {
		if err := r.Client.VDI.Destroy(ctx, point.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "destroy the restore point %s", point.UUID)
		}
	}
	return "", nil
}
