package instance

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// swapRoot puts another disk into the place of the root disk of a VM that is off. The new one has announced itself: it is
// complete and carries the marks of a root disk and why it comes (presentRoot). The old one stays, as a restore point. At
// no moment is there less than one disk that carries the marks of one or the other.
var swapRoot = Sequence{
	{Name: "DisplaceRoot", Holds: ifNeeded(swapPending, rootDisplaced), Act: displaceRoot},
	{Name: "TakeRootAway", Holds: ifNeeded(swapPending, rootAway), Act: takeRootAway},
	{Name: "PutRootIn", Holds: ifNeeded(swapPending, func(*Facts) bool { return false }), Act: putRootIn},
}

// incomingKind is why a disk takes the place of the root disk.
type incomingKind string

const (
	// incomingShrunk is a smaller copy of the root disk.
	incomingShrunk incomingKind = "Shrunk"
	// incomingRestored is the root disk as it was before the resize.
	incomingRestored incomingKind = "Restored"
)

// incomingMark is what the mark of such a disk holds.
func (f *Facts) incomingMark(kind incomingKind) string {
	if j := f.resizeJournal(); j != nil {
		return j.Point + "/" + string(kind)
	}
	return ""
}

// incomingRoot is the disk that is to take the place of the root disk, nil if there is none or it is there already.
func (f *Facts) incomingRoot() *VDI {
	j := f.resizeJournal()
	if j == nil {
		return nil
	}
	i := slices.IndexFunc(f.Loose, func(v VDI) bool {
		return v.mine() && v.Marks.Role == xencache.RoleRootDisk && strings.HasPrefix(v.OtherConfig[markIncoming], j.Point+"/") && v.Users == 0 &&
			!f.outlived(&v)
	})
	if i < 0 {
		return nil
	}
	return &f.Loose[i]
}

// diskGoesBack reports whether the root disk from before the resize is to take the place of the root disk, or has.
func (f *Facts) diskGoesBack() bool {
	mark := f.incomingMark(incomingRestored)
	if mark == "" {
		return false
	}
	if incoming := f.incomingRoot(); incoming != nil {
		return incoming.OtherConfig[markIncoming] == mark
	}
	root := f.VM.rootDisk()
	return root != nil && root.VDI.OtherConfig[markIncoming] == mark && root.VDI.Marks.Role == xencache.RoleRootDisk
}

// presentRoot makes a complete disk the one that takes the place of the root disk. Its marks are one call: before it the disk is
// nothing to the VM, after it the swap goes on whatever happens. What others have set on the root disk and its block device is
// written down by then.
func (r *Run) presentRoot(ctx context.Context, vdi *VDI, kind incomingKind) error {
	want := r.wantRoot()
	if want == nil {
		want = &WantDisk{Name: rootName, Role: xencache.RoleRootDisk, DeleteOnEnd: true}
	}
	if err := r.keepLabels(ctx, vdi); err != nil {
		return err
	}
	otherConfig := r.foreignEntries(vdi)
	maps.Copy(otherConfig, r.diskMarks(*want, vdi.UUID))
	if root := r.VM.rootDisk(); root != nil && root.settings().String() != "" {
		otherConfig[markDevice] = root.settings().String()
	}
	otherConfig[markIncoming] = r.incomingMark(kind)
	if of, isCopy := vdi.OtherConfig[markCopyOf]; isCopy {
		otherConfig[markCopyOf] = of
	}
	return r.doing(r.Client.VDI.SetOtherConfig(ctx, vdi.Ref, otherConfig), "mark the new root disk")
}

// swapPending reports whether a disk waits to take the place of the root disk.
func swapPending(f *Facts) bool { return f.incomingRoot() != nil }

// rootMisnamed reports whether the disk in the place of the root disk carries the marks of a restore point although nothing is
// to take its place: somebody has started the VM in the middle of a swap, and it is the root disk again.
func rootMisnamed(f *Facts) bool {
	return f.VM.rootDisk() != nil && rootDisplaced(f) && !swapPending(f)
}

// reinstateStep gives such a disk its marks back.
var reinstateStep = Step{Name: "ReinstateRoot", Holds: func(f *Facts) bool { return !rootMisnamed(f) }, Act: reinstateRoot}

func reinstateRoot(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	root, want := r.VM.rootDisk(), r.wantRoot()
	if want == nil {
		want = &WantDisk{Name: rootName, Role: xencache.RoleRootDisk, DeleteOnEnd: true}
	}
	otherConfig := withoutMarks(root.VDI.OtherConfig)
	maps.Copy(otherConfig, r.diskMarks(*want, root.VDI.UUID))
	return "", r.doing(r.Client.VDI.SetOtherConfig(ctx, root.VDI.Ref, otherConfig), "mark the root disk as such again")
}

func rootDisplaced(f *Facts) bool {
	root := f.VM.rootDisk()
	return root == nil || (root.VDI.Marks.Role == xencache.RoleRestorePoint && root.VDI.mine())
}

// displaceRoot makes the root disk a restore point while it is still in its place: from then on it is found as one.
func displaceRoot(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	root := r.VM.rootDisk()
	return "", r.doing(r.Client.VDI.SetOtherConfig(ctx, root.VDI.Ref, r.pointMarks(&root.VDI)), "keep the root disk as a restore point")
}

func rootAway(f *Facts) bool { return f.VM.diskAt(strconv.Itoa(rootDevice)) == nil }

func takeRootAway(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	device := r.VM.diskAt(strconv.Itoa(rootDevice))
	err := r.Client.VBD.Destroy(ctx, device.Ref)
	if isGone(err) {
		err = nil
	}
	return "", r.doing(err, "take the root disk away")
}

func putRootIn(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	marks := r.Me.Marks(xencache.RoleRootDisk, "")
	marks.Disk = rootName
	incoming := r.incomingRoot()
	vbd := xenapi.VBD{
		VM: r.VM.Ref, VDI: incoming.Ref, UserDevice: strconv.Itoa(rootDevice), Bootable: true,
		Mode: xenapi.VBDModeRW, Type: xenapi.VBDTypeDisk, Unpluggable: true, OtherConfig: marks.OtherConfig(),
	}
	settingsFor(incoming).apply(&vbd)
	_, err := r.Client.VBD.Create(ctx, vbd)
	return "", r.doing(err, "put the new root disk in")
}

// halfRoots are new root disks that were being written when somebody died: not complete, and nothing to the VM.
func (f *Facts) halfRoots() []VDI {
	return slices.DeleteFunc(slices.Clone(f.Loose), func(v VDI) bool {
		return v.Marks.Role != xencache.RoleNewRoot || v.Users > 0
	})
}
