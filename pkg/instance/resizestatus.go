package instance

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// resizeStatus is the resize under way, as status shows it; nil without one.
func resizeStatus(f *Facts, now time.Time) *v1alpha1.ResizeStatus {
	j := f.resizeJournal()
	if j == nil {
		return nil
	}
	since := metav1.NewTime(j.Since)
	status := &v1alpha1.ResizeStatus{
		ID: j.ID, From: j.From.Flavor, To: j.To.Flavor, Stage: f.resizeStage(now), StartedAt: &since,
		Message: cut(f.resizeMessage(), maxText),
	}
	if at, ok := f.confirmBy(); ok {
		by := metav1.NewTime(at)
		status.ConfirmBy = &by
	}
	if point := f.point(); point != nil {
		status.RestorePoint = &v1alpha1.RestorePoint{ID: point.UUID, Size: quantity(point.Size), StorageRepository: point.SRName}
		if at, err := point.takenAt(); err == nil {
			taken := metav1.NewTime(at)
			status.RestorePoint.TakenAt = &taken
		}
	}
	return status
}

func (f *Facts) resizeStage(now time.Time) v1alpha1.ResizeStage {
	switch {
	case f.resizeReverting():
		return v1alpha1.ResizeReverting
	case f.awaitsConfirmation(now):
		return v1alpha1.ResizeAwaitingConfirmation
	case f.resized() && (!f.halted() || !f.resizeStarts()) && f.Want.Resize.Manual:
		return v1alpha1.ResizeConfirming
	}
	return v1alpha1.ResizeApplying
}

// resizeMessage is what the user can do about a resize, and what would be lost by it.
func (f *Facts) resizeMessage() string {
	message := f.resizeAdvice()
	if id := f.Want.Resize.DiscardTo; id != "" && (f.point() == nil || f.point().UUID != id) && f.Want.Resize.Manual && !f.diskGoesBack() {
		message += fmt.Sprintf(". resize.discardTo %s is no restore point of this resize, and does nothing", id)
	}
	return message
}

// resizeAdvice is the same without what has no effect.
func (f *Facts) resizeAdvice() string {
	j := f.resizeJournal()
	if f.resizeReverting() {
		return f.revertMessage()
	}
	if !f.Want.Resize.Manual {
		return fmt.Sprintf("on the way from %s to %s", j.From.text(), j.To.text())
	}
	if f.Want.Resize.Confirm == j.ID {
		return fmt.Sprintf("%s stays; the restore point is being removed", j.To.text())
	}
	message := fmt.Sprintf("set resize.confirm to %s to keep %s, or flavorRef%s back to %s", j.ID, j.To.text(), f.diskToo(), j.From.text())
	point := f.point()
	switch {
	case point == nil:
		return message
	case f.Want.Resize.DiscardTo == point.UUID:
		return message + fmt.Sprintf(". With resize.discardTo as it is, going back LOSES what was written to the root disk since %s", takenText(point))
	}
	return message + fmt.Sprintf(". Going back keeps the root disk, unless resize.discardTo is %s, which loses what was written since %s",
		point.UUID, takenText(point))
}

// takenAt is of when a restore point is, to the second.
func (v *VDI) takenAt() (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, v.OtherConfig[markTakenAt])
	return at.Truncate(time.Second), err
}

func takenText(point *VDI) string {
	at, err := point.takenAt()
	if err != nil {
		return "it was taken"
	}
	return at.Format(time.RFC3339)
}

// diskToo names the field that goes back where the flavor does not change.
func (f *Facts) diskToo() string {
	if j := f.resizeJournal(); j.From.Flavor == j.To.Flavor {
		return " or rootDisk.size"
	}
	return ""
}

func (f *Facts) revertMessage() string {
	j := f.resizeJournal()
	switch {
	case f.Want.Refused != nil:
		return fmt.Sprintf("going back to %s: %s", j.From.text(), f.Want.Refused.Message)
	case f.diskGoesBack() || pointWanted(f):
		return fmt.Sprintf("going back to %s, with the root disk from before", j.From.text())
	}
	return fmt.Sprintf("going back to %s; the root disk stays as it is", j.From.text())
}

// text shows a target to people.
func (t resizeTarget) text() string {
	name := orElse(t.Flavor, "no flavor")
	if t.Disk > 0 {
		return fmt.Sprintf("%s (%s, root disk %s)", name, t.Size.text(), bytesText(t.Disk))
	}
	return fmt.Sprintf("%s (%s)", name, t.Size.text())
}

// pendingConfirmation lists what the user is asked for.
func pendingConfirmation(f *Facts, add adder) {
	if f.awaitsConfirmation(time.Time{}) {
		add("resize.confirm", v1alpha1.RequiresConfirmation, "%s", f.resizeMessage())
	}
}

// awaitingOutcome is the end of a pass that waits for the user to confirm.
func (f *Facts) awaitingOutcome() reconcile.Outcome {
	message := f.resizeMessage()
	if at, ok := f.confirmBy(); ok {
		message += fmt.Sprintf("; %s follows by itself at %s", f.Want.Resize.OnTimeout, at.Format(time.RFC3339))
	}
	return reconcile.Done().Because(v1alpha1.ReasonAwaitingConfirmation, cut(message, maxText))
}

// whenResizeRefused says why a size is not changed, or was taken back. Everything else is as asked.
func whenResizeRefused(f *Facts, _ time.Time) (Plan, bool) {
	if refusal := f.Want.Refused; refusal != nil {
		return stop(reconcile.Terminal(refusal.Reason, f.refusalText()))
	}
	if (f.resizeJournal() == nil || !onTarget(f)) && !f.Want.Observe && !adoptionHeld(f) {
		if problems := resizeProblems(f); len(problems) > 0 {
			return stop(blockedBy(problems))
		}
	}
	return undecided()
}

// refusalText says of a size that was refused what is now, and what would have it tried again.
func (f *Facts) refusalText() string {
	refusal := f.Want.Refused
	now := "the VM has " + strings.TrimPrefix(f.Want.Flavor+", ", ", ") + f.VM.Size.text()
	if !sized(f) {
		now = fmt.Sprintf("the VM has %s still, and gets %s back when it is off", f.VM.Size.text(), orElse(f.Want.Flavor, "what it had"))
	}
	return fmt.Sprintf("the size that is asked for (%s) was given up: %s; %s. Ask for another size, or for the same anew with the annotation %s",
		orElse(refusal.Flavor, "the root disk's"), refusal.Message, now, v1alpha1.AnnotationReconcileRequestedAt)
}

// withConfirmDeadline has a plan looked at again when the time to confirm is over.
func (f *Facts) withConfirmDeadline(plan Plan, now time.Time) Plan {
	if at, ok := f.confirmBy(); ok && now.Before(at) {
		plan.Outcome = plan.Outcome.After(at.Sub(now))
	}
	return plan
}
