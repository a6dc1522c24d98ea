package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// markCopyOf stands on a smaller copy of a root disk and names the disk, markCopyFor says what was asked for, in short: what is
// asked for anew is tried anew.
const (
	markCopyOf  = "kubexen.io/copy-of"
	markCopyFor = "kubexen.io/copy-for"
)

// shrinkBlockReason is what we write to our two keys of blocked_operations, and by which we know them for ours. While they are
// there nobody starts the VM, so the copy is what the disk has. Somebody who takes them away may have started it since.
const shrinkBlockReason = "root disk being copied by KubeXen"

// Copier makes a smaller copy of the root disk, in the manager's own process. The copy is begun anew after a crash. There is one
// copy of an instance at a time.
type Copier interface {
	// Start begins a copy, unless one is under way. The instance is woken as it goes on, and when it is over.
	Start(CopyRequest)
	// Stop ends and forgets the copy. It reports whether nothing of it runs any more; otherwise the instance is woken when it does
	// not.
	Stop() (stopped bool)
	// EndTasks ends the pool's tasks that a copy of a dead manager has left.
	EndTasks(context.Context) error
}

// CopyRequest is what a smaller copy is made of.
type CopyRequest struct {
	// VDI is the uuid of the disk, Size the least size of the copy in bytes.
	VDI  string
	Size int64
	// Name is the copy's, Marks are its other_config.
	Name  string
	Marks map[string]string
}

// CopyState is how far a copy is that this process has begun.
type CopyState struct {
	CopyRequest
	Percent int32
	// Over says that it has ended: Copy is the uuid of the complete copy then, or Failed says why there is none.
	Over   bool
	Copy   string
	Failed *Problem
	// Attempt counts how often it has been tried in a row, Ago is how long ago it failed.
	Attempt int
	Ago     time.Duration
	// Settled says that it has been over for so long that the copy must have been seen, if it is there.
	Settled bool
}

// shrinkRoot makes a smaller copy of the root disk of a VM that is off, beside it; the copy then takes its place (swapRoot). The
// disk is only looked at here: one that cannot be made smaller is refused, and the VM is as it was.
var shrinkRoot = Sequence{
	{Name: "StopCopy", Holds: noIdleCopying, Act: stopCopy, Here: true},
	dropHalfCopiesStep,
	{Name: "RefuseShrink", Holds: ifNeeded((*Facts).shrinkWanted, func(f *Facts) bool { return f.copyRefusal() == nil }), Act: refuseShrink},
	{Name: "KeepFromStarting", Holds: ifNeeded((*Facts).shrinkWanted, startBlocked), Act: keepFromStarting},
	{Name: "CopyRoot", Holds: ifNeeded((*Facts).shrinkWanted, copyBegun), Act: copyRoot, Here: true},
	{Name: "PresentCopy", Holds: ifNeeded((*Facts).shrinkWanted, func(*Facts) bool { return false }), Act: presentCopy},
}

// dropHalfCopiesStep destroys copies that nobody will finish, or that nobody wants any more.
var dropHalfCopiesStep = Step{Name: "DropHalfCopies", Holds: noHalfCopies, Act: dropHalfCopies}

// releaseStartStep lets the VM be started again, when no copy of its root disk is needed any more.
var releaseStartStep = Step{Name: "ReleaseStart", Holds: startReleased, Act: releaseStart}

// keepFromStarting begins a copy, so one from before is forgotten: the VM may have been started since, or the same was asked for
// before and taken back.
func keepFromStarting(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if _, err := stopCopy(ctx, r); err != nil {
		return "", err
	}
	return "", r.blockStarts(ctx, shrinkBlockReason)
}

// startReleased reports whether no key of ours keeps the VM from being started.
func startReleased(f *Facts) bool {
	return !slices.ContainsFunc(trashBlocks, func(o xenapi.VMOperation) bool { return f.VM.Blocked[string(o)] == shrinkBlockReason })
}

// releaseStart takes our keys away; an administrator's stay.
func releaseStart(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.releaseStarts(ctx, shrinkBlockReason)
}

// copyRequest is the copy that is wanted now.
func (f *Facts) copyRequest() CopyRequest {
	marks := f.Me.Marks(xencache.RoleNewRoot, "").OtherConfig()
	root, want := f.VM.rootDisk(), f.wantRoot()
	marks[markCopyOf], marks[markCopyFor] = root.VDI.UUID, f.Want.Resize.Token
	return CopyRequest{VDI: root.VDI.UUID, Size: want.ShrinkTo, Name: root.VDI.Name, Marks: marks}
}

// job is the copy that this process makes or has made, if it is the one that is wanted now and nobody may have started the VM
// since it was begun.
func (f *Facts) job() *CopyState {
	if f.Copy == nil || !f.shrinkWanted() || !startBlocked(f) {
		return nil
	}
	want, have := f.copyRequest(), f.Copy.CopyRequest
	if have.VDI != want.VDI || have.Size != want.Size || !maps.Equal(have.Marks, want.Marks) {
		return nil
	}
	return f.Copy
}

// copying reports whether the copy is being made: there is no step to take until it is over and seen.
func (f *Facts) copying() bool {
	job := f.job()
	return job != nil && (!job.Over || job.rests() || (job.Copy != "" && f.copyDisk() == nil && !job.Settled))
}

// A copy is tried so often, with pauses that double. The VM is off meanwhile, and starts again as it was when it is given up.
const (
	maxCopyAttempts = 5
	copyPause       = 2 * time.Second
)

// rest is how long the copy is left alone after a failure that may pass.
func (c *CopyState) rest() time.Duration { return copyPause<<max(0, c.Attempt-1) - c.Ago }

// rests reports whether the copy has failed and is to be begun again, but not yet.
func (c *CopyState) rests() bool {
	return c.Failed != nil && c.Failed.Passing && c.Attempt < maxCopyAttempts && c.rest() > 0
}

// CopyPercent is how much of a copy of the root disk is made, nil if none is under way.
func (f *Facts) CopyPercent() *int32 {
	if !f.copying() || f.Copy.Over {
		return nil
	}
	return &f.Copy.Percent
}

// copyOutcome is what a pass ends in meanwhile.
func (f *Facts) copyOutcome() reconcile.Outcome {
	if job := f.job(); job.rests() {
		return reconcile.Wait(job.Failed.Reason, "the root disk could not be copied, which is tried again: "+job.Failed.Message).After(job.rest())
	}
	return reconcile.Wait(v1alpha1.ReasonResizing, fmt.Sprintf("the root disk is being copied to one of %s while the VM is off, see status.operation.percent",
		bytesText(f.wantRoot().ShrinkTo))).After(recheckAfter)
}

// copyLeft reports whether there is something of a copy that nobody needs any more.
func (f *Facts) copyLeft() bool { return !noIdleCopying(f) || !noHalfCopies(f) }

// noIdleCopying reports whether no copy is being made that is not wanted any more.
func noIdleCopying(f *Facts) bool { return f.Copy == nil || f.Copy.Over || f.copying() }

func stopCopy(_ context.Context, r *Run) (xenapi.TaskRef, error) {
	if !r.Copier.Stop() {
		return "", &Problem{Reason: v1alpha1.ReasonResizing, Message: "waiting until the copy of the root disk has stopped", Passing: true}
	}
	return "", nil
}

// halfCopies are copies of the root disk that are not complete, and complete ones from before the VM may have been started.
func (f *Facts) halfCopies() []VDI {
	job := f.job()
	if job != nil && !job.Over {
		return nil // one of them is being written
	}
	half := slices.DeleteFunc(f.halfRoots(), func(v VDI) bool { return job != nil && v.UUID == job.Copy })
	for _, vdi := range f.Loose {
		if vdi.mine() && vdi.Marks.Role == xencache.RoleRootDisk && vdi.OtherConfig[markIncoming] == f.incomingMark(incomingShrunk) &&
			vdi.Users == 0 && f.outlived(&vdi) {
			half = append(half, vdi)
		}
	}
	return half
}

// outlived reports whether a disk is a copy of the root disk, and the VM may have been started with the root disk since.
func (f *Facts) outlived(copied *VDI) bool {
	root := f.VM.rootDisk()
	return root != nil && copied.OtherConfig[markCopyOf] == root.VDI.UUID && !startBlocked(f)
}

func noHalfCopies(f *Facts) bool { return len(f.halfCopies()) == 0 }

func dropHalfCopies(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if err := r.Copier.EndTasks(ctx); err != nil {
		return "", r.doing(err, "tidy up after an earlier attempt to copy the root disk")
	}
	for _, vdi := range r.halfCopies() {
		err := r.Client.VDI.Destroy(ctx, vdi.Ref)
		switch {
		case errors.Is(err, xenapi.ErrVDIInUse): // for the transfer of before
			return "", r.doing(errors.New("the pool has not let go of it yet"), "destroy an unfinished copy of the root disk")
		case err != nil && !isGone(err):
			return "", r.doing(err, "destroy an unfinished copy of the root disk")
		}
	}
	return "", nil
}

// copyRefusal is why the root disk cannot be made smaller, nil if nobody has said so.
func (f *Facts) copyRefusal() *Problem {
	job := f.job()
	switch {
	case job == nil || job.Failed == nil:
		return nil
	case !job.Failed.Passing:
		return job.Failed
	case job.Attempt >= maxCopyAttempts:
		return &Problem{Reason: v1alpha1.ReasonShrinkRefused, Message: fmt.Sprintf(
			"given up after %d attempts, the last of which ended so: %s", job.Attempt, job.Failed.Message)}
	}
	return nil
}

func refuseShrink(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	refusal := r.copyRefusal()
	return "", r.refuseResize(ctx, refusal.Reason, "the root disk is not made smaller: "+refusal.Message)
}

// copyBegun reports whether the copy is being made or is complete.
func copyBegun(f *Facts) bool {
	job := f.job()
	return job != nil && (!job.Over || f.copyDisk() != nil)
}

func copyRoot(_ context.Context, r *Run) (xenapi.TaskRef, error) {
	r.Copier.Start(r.copyRequest())
	return "", nil
}

// copyDisk is the complete copy, nil if the pool's events have not shown it yet.
func (f *Facts) copyDisk() *VDI {
	job := f.job()
	if job == nil || job.Copy == "" {
		return nil
	}
	i := slices.IndexFunc(f.Loose, func(v VDI) bool { return v.UUID == job.Copy && v.mine() })
	if i < 0 {
		return nil
	}
	return &f.Loose[i]
}

// presentCopy lets the copy take the place of the root disk. The copier still knows of it until the next one: what it does not
// know of is taken for a half copy.
func presentCopy(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.presentRoot(ctx, r.copyDisk(), incomingShrunk)
}

// shrinkProblems is why the root disk is not made smaller, as far as it is known before the guest is touched: what is on the
// disk is seen only when the VM is off.
func shrinkProblems(f *Facts) []Problem {
	if !f.shrinkWanted() {
		return nil
	}
	var problems []Problem
	if f.CopyProblem != nil {
		problems = append(problems, *f.CopyProblem)
	}
	root, to := f.VM.rootDisk(), f.wantRoot().ShrinkTo
	if slices.Contains(thickStorage, root.VDI.SRType) && root.VDI.SRFree >= 0 && root.VDI.SRFree < to {
		problems = append(problems, Problem{Reason: v1alpha1.ReasonInsufficientStorage, Passing: true, Message: fmt.Sprintf(
			"the smaller copy of the root disk needs %s of %s, which has %s free; free some", bytesText(to), root.VDI.SRName, bytesText(root.VDI.SRFree))})
	}
	return problems
}

// pendingOtherShrink says of a size that is named, and is not the one that is asked for, why nothing is made smaller.
func pendingOtherShrink(f *Facts, add adder) {
	named, root, want := f.Want.Resize.OtherShrink, f.VM.rootDisk(), f.wantRoot()
	if named == 0 || root == nil || want == nil || f.Want.Refused != nil || root.VDI.Size <= min(named, want.Size)+sizeRounding {
		return
	}
	add("rootDisk.shrinkTo", v1alpha1.RequiresConfirmation, "nothing is made smaller: shrinkTo is %s and the size that is asked for is %s; name the same in both",
		bytesText(named), bytesText(want.Size))
}

// WantsCopy reports whether the root disk is to be copied to a smaller one.
func (f *Facts) WantsCopy() bool { return f.VM != nil && f.shrinkWanted() }

// StopsForCopy reports whether a plan is about to turn a running guest off whose root disk is to be copied then.
func (f *Facts) StopsForCopy(plan Plan) bool {
	resizing := plan.Operation == operationResize && f.Want.Resize.Strategy == v1alpha1.ResizeRestart
	return f.WantsCopy() && f.running() && len(plan.Steps) > 0 && (resizing || plan.Operation == operationRestart)
}

// copierRecheck is when a guest that waits for the copies of others asks again.
const copierRecheck = 10 * time.Second

// AwaitCopier is the plan of a guest that runs on until as many disks as may be are not copied any more.
func AwaitCopier(most int) Plan {
	return Plan{Outcome: reconcile.Wait(v1alpha1.ReasonResizing, fmt.Sprintf(
		"waiting while the root disks of other VMs are copied, of which there may be %d at a time (--max-shrinks); the VM runs on until then", most)).After(copierRecheck)}
}
