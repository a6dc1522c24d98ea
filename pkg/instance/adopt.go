package instance

import (
	"context"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// markAdopted says that an adopted VM and its spec have agreed once; from then on a changed spec is carried out.
const markAdopted = "kubexen.io/adopted"

// whenObserving shows the VM and writes nothing.
func whenObserving(f *Facts, _ time.Time) (Plan, bool) {
	if !f.Want.Observe {
		return undecided()
	}
	message := "managementPolicy is Observe: nothing is written to the pool"
	if n := len(Pending(f)); n > 0 {
		message = fmt.Sprintf("%s; Manage would change %d things, see status.pendingChanges", message, n)
	}
	return stop(reconcile.Done().Because(v1alpha1.ReasonObserved, message))
}

// whenAdopting takes a VM over that existed before: it is marked first, so that two objects cannot both have it, and
// changed only when that is asked for or nothing needs changing.
func whenAdopting(f *Facts, _ time.Time) (Plan, bool) {
	if f.Want.Source.ExistingUUID == "" || adopted(f) {
		return undecided()
	}
	if f.VM.Template {
		return stop(reconcile.Terminal(v1alpha1.ReasonInvalidSpec,
			"source.existing names a template; a template is a source (templateUUID), not a VM"))
	}
	if len(f.Want.Problems) > 0 {
		return stop(blockedBy(f.Want.Problems))
	}
	if !vmMarked(f) {
		return Plan{Operation: operationAdopt, Steps: []Step{{Name: "MarkVM", Holds: vmMarked, Act: markVM}}}, true
	}
	if adoptionHeld(f) {
		return stop(reconcile.Done().Because(v1alpha1.ReasonAdoptionHeld,
			"the VM differs from the spec, see status.pendingChanges; set adoption.onMismatch to Apply, or make the spec as the VM is"))
	}
	return Plan{Operation: operationAdopt, Steps: []Step{{Name: "AgreeOnce", Holds: adopted, Act: agreeOnce}}}, true
}

func adopted(f *Facts) bool { return f.VM.OtherConfig[markAdopted] != "" }

// adoptionHeld reports whether a VM that existed before must stay as it is because it differs from the spec.
func adoptionHeld(f *Facts) bool {
	if f.Want.Source.ExistingUUID == "" || !f.Want.HoldMismatch || f.Want.Observe || adopted(f) {
		return false
	}
	return !change.holds(f) || f.resizeDiffers() || (f.Want.Power != "" && f.Want.Power != f.VM.Power)
}

// holds reports whether every step holds, those that cannot be taken now included. Marks are no difference.
func (s Sequence) holds(f *Facts) bool {
	for _, step := range s {
		switch step.Name {
		case "MarkVM", "MarkDisks", "RecordFlavor":
			continue
		}
		if !step.Holds(f) {
			return false
		}
	}
	return true
}

func agreeOnce(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, markAdopted, "true")
}

// trashed reports whether the VM is in the trash.
func (f *Facts) trashed() bool { return f.VM != nil && f.VM.OtherConfig[xencache.MarkTrashedAt] != "" }

const stepUnmarkTrashed = "UnmarkTrashed"

// undelete takes a VM back from the trash, in the reverse order of putting it there.
var undelete = Sequence{
	{Name: stepUnmarkTrashed, Holds: func(f *Facts) bool { return !f.trashed() }, Act: unmarkTrashed},
}

// whenTrashed takes the VM back that the annotation names: only so can a live object have a VM that is in the trash. It
// stays there while the object asks for what cannot be.
func whenTrashed(f *Facts, _ time.Time) (Plan, bool) {
	if !f.trashed() {
		return undecided()
	}
	if len(f.Want.Problems) > 0 {
		return stop(blockedBy(f.Want.Problems))
	}
	return Plan{Operation: operationUndelete, Steps: undelete.Next(f)}, true
}

// unmarkTrashed releases the VM; the mark goes last, so that a crash in between is followed by doing it again.
func unmarkTrashed(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if err := r.releaseStarts(ctx, trashBlockReason); err != nil {
		return "", err
	}
	if r.Want.Name != "" {
		if err := r.Client.VM.SetNameLabel(ctx, r.VM.Ref, r.Want.Name); err != nil {
			return "", r.doing(err, "give the name back")
		}
	}
	err := r.Client.VM.RemoveFromOtherConfig(ctx, r.VM.Ref, xencache.MarkTrashedAt)
	return "", r.doing(err, "take the VM out of the trash")
}
