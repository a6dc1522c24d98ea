package instance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// guestRetry is how soon a guest that refused a clean shutdown is asked again.
const guestRetry = 5 * time.Second

// deniedRetry is how soon what the pool refused to our account is tried again without being asked to.
const deniedRetry = 15 * time.Minute

// inFlight is the outcome of a pass that set a step in motion. All steps of making a VM look the same, so that making
// one does not write a status for each.
func inFlight(plan Plan, step string) reconcile.Outcome {
	reason, known := stepReasons[step]
	switch {
	case plan.Operation == operationCreate:
		reason = v1alpha1.ReasonCreating
	case phaseTexts[plan.Operation][plan.ID] != "":
		return reconcile.Wait(rescueReasons[plan.Operation], phaseTexts[plan.Operation][plan.ID])
	case plan.Operation == operationMove && plan.ID == "":
		return reconcile.Wait(v1alpha1.ReasonMigrating, "what a move of the disks has left is put right")
	case plan.Operation == operationMove:
		return reconcile.Wait(v1alpha1.ReasonMigrating, "the VM is moving to host "+plan.ID)
	case plan.Operation == operationResize:
		reason = v1alpha1.ReasonResizing
	case plan.Operation == operationRestart:
		reason = v1alpha1.ReasonRestarting
	case !known && plan.Operation == operationDelete:
		reason = v1alpha1.ReasonDeleting
	case !known:
		reason = v1alpha1.ReasonProgressing
	}
	return reconcile.Wait(reason, stepMessages[reason])
}

// stepReasons say what the user sees while a step is in flight.
var stepReasons = map[string]string{
	stepStart: v1alpha1.ReasonStarting, stepStartPaused: v1alpha1.ReasonStarting, stepResume: v1alpha1.ReasonResuming,
	stepUnpause: v1alpha1.ReasonResuming, stepPause: v1alpha1.ReasonPausing, stepSuspend: v1alpha1.ReasonSuspending,
	stepShutDown: v1alpha1.ReasonShuttingDown, stepPowerOff: v1alpha1.ReasonShuttingDown, stepUnmarkTrashed: v1alpha1.ReasonUndeleted,
}

var stepMessages = map[string]string{
	v1alpha1.ReasonCreating:     "the VM is being made",
	v1alpha1.ReasonStarting:     "the VM is being started",
	v1alpha1.ReasonResuming:     "the VM is being resumed",
	v1alpha1.ReasonPausing:      "the VM is being paused",
	v1alpha1.ReasonSuspending:   "the VM is being suspended",
	v1alpha1.ReasonShuttingDown: "the VM is being shut down",
	v1alpha1.ReasonRestarting:   "the VM is being restarted",
	v1alpha1.ReasonResizing:     "the VM is on its way to its new size, see status.resize",
	v1alpha1.ReasonUndeleted:    "the VM is taken back from the trash",
	v1alpha1.ReasonDeleting:     "what deletionPolicy asks for is being carried out",
	v1alpha1.ReasonProgressing:  "changes are being carried out",
}

// failed turns an act's error into what the pass ends in: whether it is tried again, how soon, and what the user reads.
func failed(ctx context.Context, r *Run, step string, err error) reconcile.Outcome {
	var problem *Problem
	switch {
	case errors.As(err, &problem):
		return blockedBy([]Problem{*problem})
	case isAny(err, xenapi.ErrVMBadPowerState, xenapi.ErrHandleInvalid, xenapi.ErrMapDuplicateKey, xenapi.ErrDeviceAlreadyExists,
		xenapi.ErrOtherOperationInProgress):
		// The pool is not as we saw it: somebody else acted. What is true now comes as an event.
		return reconcile.Retry(v1alpha1.ReasonRetrying, err)
	case errors.Is(err, xenapi.ErrTooManyTasks):
		return reconcile.Wait(v1alpha1.ReasonProgressing, "waiting for a free task on the pool").After(echoTimeout)
	case isAny(err, xenapi.ErrVMLacksFeature, xenapi.ErrVMShutdownTimeout) && asksGuest(step):
		return reconcile.Wait(v1alpha1.ReasonShuttingDown, "the guest does not answer the request to shut down; it is asked again").After(guestRetry)
	case errors.Is(err, xenapi.ErrOperationBlocked):
		return reconcile.Terminal(v1alpha1.ReasonOperationBlocked, err.Error()).After(recheckAfter)
	case isAny(err, xenapi.ErrRBACPermissionDenied, xenapi.ErrPermissionDenied, xenapi.ErrLicenceRestriction):
		return reconcile.Terminal(v1alpha1.ReasonPermissionDenied, err.Error()).After(deniedRetry)
	case isAny(err, unmovable...):
		return reconcile.Terminal(v1alpha1.ReasonMigrationRefused, err.Error()).After(recheckAfter)
	case isAny(err, xenapi.ErrMemoryConstraintViolation, xenapi.ErrMemoryConstraintViolationMaxpin, xenapi.ErrMemoryConstraintViolationOrder,
		xenapi.ErrMACInvalid):
		return reconcile.Terminal(v1alpha1.ReasonInvalidSpec, err.Error())
	case isAny(err, xenapi.ErrSRFull, xenapi.ErrSRBackendNoSpace):
		return reconcile.Retry(v1alpha1.ReasonInsufficientStorage, explained(err, "the storage repository is full; free some space or name another"))
	case errors.Is(err, xenapi.ErrHostNotEnoughFreeMemory):
		return reconcile.Retry(v1alpha1.ReasonInsufficientMemory, explained(err, memoryText(err)))
	case isAny(err, xenapi.ErrNoHostsAvailable, xenapi.ErrHostDisabled, xenapi.ErrVMRequiresSR, xenapi.ErrVMRequiresNetwork):
		return noHost(ctx, r, err)
	case errors.Is(err, xenapi.ErrVDIInUse):
		return reconcile.Retry(v1alpha1.ReasonDeviceInUse, explained(err, "another VM has one of the disks"))
	}
	return reconcile.Retry(v1alpha1.ReasonRetrying, err)
}

// unmovable are the errors that say that a VM, or a disk of it, cannot be moved at all as it is.
var unmovable = []xenapi.ErrorCode{
	xenapi.ErrVDICBTEnabled, xenapi.ErrVDIIsEncrypted, xenapi.ErrVDIOnBootModeIncompatibleWithOperation, xenapi.ErrSRDoesNotSupportMigration,
	xenapi.ErrVMIsImmobile, xenapi.ErrVMHasPCIAttached, xenapi.ErrVMHasVGPU, xenapi.ErrVMHasVusbs, xenapi.ErrVMIncompatibleWithThisHost,
}

// explained adds what the user can do to an error.
func explained(err error, hint string) error { return fmt.Errorf("%w (%s)", err, hint) }

// maxAsked is how many hosts are asked why they would not run a VM.
const maxAsked = 4

// noHost says why no host would start the VM. NO_HOSTS_AVAILABLE gives no reason. Most follow from what is known of the hosts;
// those that look fit are asked one by one: that costs calls, but only when something is wrong.
func noHost(ctx context.Context, r *Run, err error) reconcile.Outcome {
	reason := v1alpha1.ReasonNoHostAvailable
	var why []string
	asked := 0
	for _, fit := range r.placements(r.VM.Size) {
		if fit.Reason == v1alpha1.ReasonInsufficientMemory {
			reason = fit.Reason
		}
		if !fit.Fits() || asked == maxAsked {
			why = append(why, fit.text())
			continue
		}
		asked++
		refusal := r.Client.VM.AssertCanBootHere(ctx, r.VM.Ref, fit.Host.Ref)
		switch {
		case refusal == nil:
			why = append(why, fit.text())
		case errors.Is(refusal, xenapi.ErrHostNotEnoughFreeMemory):
			reason = v1alpha1.ReasonInsufficientMemory
			why = append(why, fit.Host.Name+": "+memoryText(refusal))
		case xenapi.CodeOf(refusal) != "":
			why = append(why, fit.Host.Name+": "+string(xenapi.CodeOf(refusal)))
		}
	}
	return reconcile.Retry(reason, explained(err, strings.Join(why, "; ")))
}

// memoryText gives the figures of HOST_NOT_ENOUGH_FREE_MEMORY, which are bytes: needed, available.
func memoryText(err error) string {
	var refusal *xenapi.Error
	if !errors.As(err, &refusal) {
		return ""
	}
	needed, errNeeded := strconv.ParseInt(refusal.Param(0), 10, 64)
	available, errAvailable := strconv.ParseInt(refusal.Param(1), 10, 64)
	if errNeeded != nil || errAvailable != nil {
		return "not enough free memory"
	}
	return fmt.Sprintf("needed %s of memory, available %s", bytesText(needed), bytesText(available))
}

// asksGuest reports whether a step depends on the guest's cooperation.
func asksGuest(step string) bool { return step == stepShutDown || step == stepReboot }

// isGone reports whether an object is not there (any more).
func isGone(err error) bool { return isAny(err, xenapi.ErrHandleInvalid, xenapi.ErrUUIDInvalid) }

// isAny reports whether the error has one of the codes.
func isAny(err error, codes ...xenapi.ErrorCode) bool {
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// bytesText writes a number of bytes like people do: 20Gi.
func bytesText(bytes int64) string { return resource.NewQuantity(bytes, resource.BinarySI).String() }
