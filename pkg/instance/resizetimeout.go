package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// waitForUser is how it stands with the time that a user has to confirm a resize.
type waitForUser int

const (
	// timeoutNone means there is no end to it.
	timeoutNone waitForUser = iota
	// timeoutNotCounted means that it has yet to be written down when it began.
	timeoutNotCounted
	// timeoutCounting means there is time left.
	timeoutCounting
	// timedOut means it is over.
	timedOut
)

var (
	rememberAppliedStep = Step{
		Name: "RememberApplied", Holds: func(f *Facts) bool { return f.VM.OtherConfig[markApplied] != "" }, Act: rememberApplied,
	}
	refuseTimedOutStep = Step{Name: "RefuseUnconfirmed", Holds: func(f *Facts) bool { return f.Want.Refused != nil }, Act: refuseTimedOut}
	forgetRefusalStep  = Step{
		Name: "ForgetRefusal", Holds: func(f *Facts) bool { return f.VM.OtherConfig[markResizeRefused] == "" }, Act: forgetRefusal,
	}
)

// confirmBy is when the time to confirm is over; ok is false while there is no such time.
func (f *Facts) confirmBy() (at time.Time, ok bool) {
	want := &f.Want.Resize
	if f.resizeJournal() == nil || !want.Manual || want.Timeout == 0 || f.resizeReverting() {
		return time.Time{}, false
	}
	since, err := time.Parse(time.RFC3339, f.VM.OtherConfig[markApplied])
	return since.Add(want.Timeout), err == nil
}

func (f *Facts) confirmTimeout(now time.Time) waitForUser {
	want := &f.Want.Resize
	if !want.Manual || want.Timeout == 0 || f.resizeReverting() {
		return timeoutNone
	}
	switch at, counted := f.confirmBy(); {
	case !counted:
		return timeoutNotCounted
	case now.Before(at):
		return timeoutCounting
	}
	return timedOut
}

// rememberApplied writes down on the VM since when it waits, so that the time goes on whatever is lost.
func rememberApplied(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, markApplied, r.Now.UTC().Format(time.RFC3339))
}

func refuseTimedOut(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.refuseResize(ctx, v1alpha1.ReasonRolledBack, fmt.Sprintf("nobody confirmed it within %s", r.Want.Resize.Timeout))
}

func forgetRefusal(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.RemoveFromOtherConfig(ctx, r.VM.Ref, markResizeRefused), "forget the size that was refused")
}

// startFailed remembers that the VM did not start with its new size, so that it gets the old one back.
func startFailed(ctx context.Context, r *Run, cause error) error {
	return r.giveUpSize(ctx, "the VM did not start with it: ", cause)
}

// sizingFailed remembers that the VM could not be given its new size: better it runs with the old one than not at all.
func sizingFailed(ctx context.Context, r *Run, cause error) error {
	return r.giveUpSize(ctx, "it could not be had: ", cause)
}

// giveUpSize has the old size come back, if the new one is what has failed. What has nothing to do with the size is none of
// it: it is tried again.
func (r *Run) giveUpSize(ctx context.Context, what string, cause error) error {
	j := r.resizeJournal()
	if j == nil || r.Want.Refused != nil || r.resizeReverting() || r.resizeTarget() == j.From || !sizeMatters(cause) {
		return nil
	}
	return r.refuseResize(ctx, v1alpha1.ReasonRolledBack, what+cause.Error())
}

// sizeMatters reports whether something may have failed for the VM's size: the pool has refused it, and not because the VM,
// a disk or the session were not as expected.
func sizeMatters(err error) bool {
	var refusal *xenapi.Error
	if !errors.As(err, &refusal) || errors.Is(err, xenapi.ErrOutcomeUnknown) || errors.Is(err, xenapi.ErrTooManyTasks) {
		return false
	}
	return !isAny(err, xenapi.ErrVMBadPowerState, xenapi.ErrHandleInvalid, xenapi.ErrOtherOperationInProgress, xenapi.ErrVDIInUse,
		xenapi.ErrOperationBlocked, xenapi.ErrRBACPermissionDenied, xenapi.ErrPermissionDenied,
		xenapi.ErrTaskCancelled, xenapi.ErrSessionInvalid)
}
