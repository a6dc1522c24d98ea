package instance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Device numbers on the rescue VM: the root disk on loan, and from where the others follow.
const (
	loanRootDevice  = 1
	firstLoanDevice = firstDataDevice
)

// rescueBlockReason is what we write to our two keys of blocked_operations, and by which we know them for ours.
const rescueBlockReason = "in rescue by KubeXen"

func originalRemembered(f *Facts) bool { return f.journal() != nil }

func rememberOriginal(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, xencache.MarkJournal, newRescueJournal(r.Facts, r.Now).String())
}

// originalBlocked reports whether the instance's own VM is kept from starting, by us or anyone.
func originalBlocked(f *Facts) bool { return startBlocked(f) }

func blockOriginal(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.blockStarts(ctx, rescueBlockReason)
}

// originalReleased reports whether no key of ours is left on the instance's own VM.
func originalReleased(f *Facts) bool {
	return f.VM == nil || !slices.ContainsFunc(trashBlocks, func(o xenapi.VMOperation) bool { return f.VM.Blocked[string(o)] == rescueBlockReason })
}

// releaseOriginal takes our keys away; an administrator's stay.
func releaseOriginal(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.releaseStarts(ctx, rescueBlockReason)
}

// loanable are the disks of the instance's own VM that the rescue VM gets, the root disk first. Its config drive is not
// among them: the guest of the rescue VM would take it for its own.
func (f *Facts) loanable() []*Disk {
	var loans []*Disk
	for i := range f.VM.Disks {
		disk := &f.VM.Disks[i]
		if disk.CD || disk.VDI.Ref.IsNull() || (f.Me.Owns(disk.VDI.Marks) && disk.VDI.Marks.Role == xencache.RoleConfigDrive) {
			continue
		}
		loans = append(loans, disk)
	}
	if root := f.VM.rootDisk(); root != nil {
		slices.SortStableFunc(loans, func(a, b *Disk) int { return b2i(b == root) - b2i(a == root) })
	}
	if j := f.journal(); j != nil && j.Disks == v1alpha1.RescueDisksRoot && len(loans) > 1 {
		return loans[:1]
	}
	return loans
}

// missingLoans are the disks that the rescue VM does not have (yet).
func missingLoans(f *Facts) []*Disk {
	return slices.DeleteFunc(f.loanable(), func(loan *Disk) bool {
		return slices.ContainsFunc(f.Rescue.Disks, func(d Disk) bool { return d.VDI.Ref == loan.VDI.Ref })
	})
}

func loansAttached(f *Facts) bool { return len(missingLoans(f)) == 0 }

// attachLoans attaches the disks to the rescue VM: the root disk at 1, the others from 4 on in their order. What was
// read-only stays so.
func attachLoans(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	root, taken := r.VM.rootDisk(), map[string]bool{}
	for _, loan := range missingLoans(r.Facts) {
		first := firstLoanDevice
		if root != nil && loan.Ref == root.Ref {
			first = loanRootDevice
		}
		device := r.Rescue.freeDevice(first, taken)
		taken[device] = true
		marks := r.Me.Marks("", "")
		marks.Disk = firstNonEmpty(loan.Entry, "device-"+loan.Device)
		mode := xenapi.VBDModeRW
		if loan.ReadOnly {
			mode = xenapi.VBDModeRO
		}
		_, err := r.Client.VBD.Create(ctx, xenapi.VBD{
			VM: r.Rescue.Ref, VDI: loan.VDI.Ref, UserDevice: device, Mode: mode, Type: xenapi.VBDTypeDisk, Unpluggable: true,
			OtherConfig: marks.OtherConfig(),
		})
		if err != nil {
			return "", r.doing(err, "attach the disk at %s to the rescue VM", loan.Device)
		}
	}
	return "", nil
}

// onLoan are the disks on the rescue VM that are not its own. One that hangs there as the clone brought it is its own.
func onLoan(f *Facts) []*Disk {
	if f.Rescue == nil {
		return nil
	}
	var loans []*Disk
	for i := range f.Rescue.Disks {
		if disk := &f.Rescue.Disks[i]; !disk.CD && !disk.VDI.Ref.IsNull() && !f.ownRescueDisk(&disk.VDI) {
			loans = append(loans, disk)
		}
	}
	return loans
}

func nothingOnLoan(f *Facts) bool { return len(onLoan(f)) == 0 }

func detachLoans(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, disk := range onLoan(r.Facts) {
		if err := r.Client.VBD.Destroy(ctx, disk.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "take the disk at %s from the rescue VM", disk.Device)
		}
	}
	return "", nil
}

func destroyRescueVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	err := r.Client.VM.Destroy(ctx, r.Rescue.Ref)
	if isGone(err) {
		err = nil
	}
	return "", r.doing(err, "destroy the rescue VM")
}

// rescueLeftovers are disks of a rescue VM that is gone. Only its own, by their marks; and none that anybody uses.
func rescueLeftovers(f *Facts) []VDI {
	var left []VDI
	for _, vdi := range f.Loose {
		if f.ownRescueDisk(&vdi) && vdi.Users == 0 {
			left = append(left, vdi)
		}
	}
	return left
}

func noRescueLeftovers(f *Facts) bool { return len(rescueLeftovers(f)) == 0 }

// noDisksOfLostRescue reports whether no disk is left of a rescue VM that somebody has destroyed.
func noDisksOfLostRescue(f *Facts) bool { return f.Rescue != nil || noRescueLeftovers(f) }

func destroyRescueDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, vdi := range rescueLeftovers(r.Facts) {
		if err := r.Client.VDI.Destroy(ctx, vdi.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "destroy the rescue VM's disk %s", vdi.Marks.Disk)
		}
	}
	return "", nil
}

// forgetRescue removes the Secret with the generated password and then the journal, which is how the return is known to be
// over.
func forgetRescue(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if err := r.DropRescueSecret(ctx); err != nil {
		return "", r.doing(err, "delete the password of the rescue VM")
	}
	return "", r.doing(r.Client.VM.RemoveFromOtherConfig(ctx, r.VM.Ref, xencache.MarkJournal), "forget the rescue")
}

// timeoutRemembered reports whether a rescue that is still asked for, and over, is known to be over.
func timeoutRemembered(f *Facts) bool {
	return f.VM == nil || f.Me.Deleting || !f.Want.Rescue.On || f.rescueTimedOut()
}

func rememberTimeout(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, markRescueTimedOut, r.Want.Rescue.Token)
}

var forgetTimeoutStep = Step{
	Name: "ForgetTimeout", Holds: func(f *Facts) bool { return f.VM.OtherConfig[markRescueTimedOut] == "" },
	Act: func(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
		return "", r.doing(r.Client.VM.RemoveFromOtherConfig(ctx, r.VM.Ref, markRescueTimedOut), "forget the rescue that timed out")
	},
}

// shown are the facts about the VM that the user sees: the rescue VM while it takes the place of the instance's own.
func (f *Facts) shown() *Facts {
	if f.rescueShown() {
		return f.asRescue()
	}
	return f
}

func (f *Facts) rescueShown() bool {
	return f.Rescue != nil && f.Rescue.Power != v1alpha1.PowerStateHalted
}

// rescueStatus is the rescue under way, as status shows it.
func rescueStatus(f *Facts) *v1alpha1.RescueStatus {
	if !f.rescueUnderWay() {
		return nil
	}
	status := &v1alpha1.RescueStatus{Shown: f.rescueShown()}
	if f.Rescue != nil {
		status.VMUUID = f.Rescue.UUID
	}
	j := f.journal()
	if j == nil {
		return status
	}
	since := metav1.NewTime(j.Since)
	status.Since, status.Image = &since, j.Image
	if j.Generated && f.rescueComplete() {
		status.SecretRef = &v1alpha1.LocalSecretReference{Name: RescueSecretName(f.Me.Key.Name)}
	}
	if at, ends := f.rescueExpiry(); ends && f.Want.Rescue.On {
		expires := metav1.NewTime(at)
		status.ExpiresAt = &expires
	}
	return status
}

// RescueSecretName is the name of the Secret with the generated password for the rescue VM of an instance.
func RescueSecretName(instance string) string { return instance + "-rescue" }

// setRescued says whether the instance is in rescue, and how far it is on the way there or back.
func setRescued(status *v1alpha1.XenInstanceStatus, f *Facts, report Report) {
	set := setter(status, v1alpha1.ConditionRescued)
	kind := report.Plan.Operation
	phase := orElse(phaseTexts[kind][report.Plan.ID], report.Outcome.Message())
	if problem := report.Outcome.Err(); problem != nil {
		phase += ": " + problem.Error()
	}
	switch {
	case f.rescueUnderWay() && (!f.rescueWanted(report.Now) || f.Me.Deleting):
		set(metav1.ConditionFalse, v1alpha1.ReasonLeavingRescue, phase)
	case f.rescueUnderWay() && kind == operationEnterRescue && !rescueWasActive(f):
		set(metav1.ConditionFalse, v1alpha1.ReasonEnteringRescue, phase)
	case f.rescueUnderWay():
		setRescueActive(set, f)
	case f.rescueTimedOut():
		set(metav1.ConditionFalse, v1alpha1.ReasonRescueTimedOut,
			"timeoutSeconds were over and the VM is back; it is not rescued again until spec.rescue changes")
	case f.Want.Rescue.On && f.VM != nil && (report.Outcome.Reason() != "" || report.Outcome.Kind() != reconcile.KindDone):
		set(metav1.ConditionFalse, orElse(report.Outcome.Reason(), v1alpha1.ReasonEnteringRescue), report.Outcome.Message())
	default:
		set(metav1.ConditionFalse, v1alpha1.ReasonNotRequested, "")
	}
}

// setRescueActive tells a rescue that is as it should be from one that somebody has changed.
func setRescueActive(set func(metav1.ConditionStatus, string, string), f *Facts) {
	switch {
	case f.startedInRescue():
		set(metav1.ConditionTrue, v1alpha1.ReasonRescueDegraded, "somebody has started the VM itself while it is in rescue")
	case f.Rescue == nil || f.Rescue.Power != v1alpha1.PowerStateRunning:
		set(metav1.ConditionFalse, v1alpha1.ReasonEnteringRescue, "the rescue VM does not run")
	case !loansAttached(f):
		set(metav1.ConditionTrue, v1alpha1.ReasonRescueDegraded, fmt.Sprintf(
			"somebody has detached the disk %s from the rescue VM; it comes back when that is off for a moment", missingLoans(f)[0].VDI.UUID))
	default:
		set(metav1.ConditionTrue, v1alpha1.ReasonRescueActive, "the rescue VM "+f.Rescue.UUID+" runs with the VM's disks")
	}
}

// rescueWasActive reports whether the instance was in rescue when its status was written last.
func rescueWasActive(f *Facts) bool {
	return meta.IsStatusConditionTrue(f.Prior.Conditions, v1alpha1.ConditionRescued)
}

// pendingRescue lists what waits for the return from the rescue.
func pendingRescue(f *Facts, add adder) {
	if f.Want.Observe && f.Want.Rescue.On {
		add("rescue.state", v1alpha1.RequiresHold, "enter rescue with image %s", f.Want.Rescue.Image)
	}
	j := f.journal()
	if j == nil {
		return
	}
	if power := f.Want.Power; power != "" && power != v1alpha1.PowerStateRunning {
		add("powerState", v1alpha1.RequiresHold, "%s after the return from rescue", power)
	}
	if !f.Want.Rescue.On {
		return
	}
	for _, held := range []struct{ field, have, want string }{
		{"rescue.imageRef", j.Image, f.Want.Rescue.Image},
		{"rescue.attachDisks", string(j.Disks), string(f.Want.Rescue.Disks)},
		{"rescue.networks", string(j.Networks), string(f.Want.Rescue.Networks)},
	} {
		if held.want != "" && held.have != held.want {
			add(held.field, v1alpha1.RequiresHold, "from %s to %s at the next rescue", held.have, held.want)
		}
	}
}

// leavesPowerAlone keeps a power state that powerDriftPolicy Ignore leaves alone from being put right after the return.
func (f *Facts) leavesPowerAlone(now time.Time) bool {
	return f.journal() != nil && !f.rescueWanted(now) && !f.restoresPower() && f.Want.Drift == v1alpha1.PowerDriftIgnore
}
