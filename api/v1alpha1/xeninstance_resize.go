package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Resize is how a changed size comes about: another flavor, or another size of the root disk. Going back is the old
// flavorRef again.
// +kubebuilder:validation:XValidation:rule="!has(self.confirmTimeoutSeconds) || (has(self.confirmation) && self.confirmation == 'Manual')",message="confirmTimeoutSeconds needs confirmation Manual: nothing else waits for you"
// +kubebuilder:validation:XValidation:rule="!has(self.onTimeout) || has(self.confirmTimeoutSeconds)",message="onTimeout needs confirmTimeoutSeconds"
type Resize struct {
	// strategy is when what a running guest cannot be given is changed: OnNextBoot (when the VM is off next, or
	// restartToken changes) or Restart (now: the VM is shut down as powerOff says, and started again). What can be changed
	// while the guest runs is changed at once with either. Default: OnNextBoot.
	// +optional
	Strategy ResizeStrategy `json:"strategy,omitempty"`

	// confirmation is Automatic (a resize is over when the VM has its new size) or Manual (it then waits for confirm, and
	// until that a restore point of the root disk is kept if the disk is going to change). Default: Automatic.
	// +optional
	Confirmation ResizeConfirmation `json:"confirmation,omitempty"`

	// confirm is the id of the resize that you agree to, from status.resize.id; its restore point is destroyed then. The id
	// of any other resize does nothing.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Confirm string `json:"confirm,omitempty"`

	// confirmTimeoutSeconds is how long a resize waits for confirm once the VM has its new size, 1 to 31536000 (a year);
	// then onTimeout says what happens. It needs confirmation Manual. Default: without an end.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=31536000
	ConfirmTimeoutSeconds *int32 `json:"confirmTimeoutSeconds,omitempty"`

	// onTimeout is Confirm or Revert. Revert gives the VM its old CPUs and memory back, as strategy says; it never puts
	// the root disk back, and it holds until flavorRef or the root disk's size is changed. Default: Confirm.
	// +optional
	OnTimeout ResizeTimeoutPolicy `json:"onTimeout,omitempty"`

	// discardTo is the id of the restore point that the root disk goes back to when the resize is reverted, from
	// status.resize.restorePoint.id: what was written to the disk since is lost. The id of any other restore point does
	// nothing. Default: a revert keeps the disk as it is.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	DiscardTo string `json:"discardTo,omitempty"`
}

// ResizeStrategy is when a size is changed that a running guest cannot be given.
// +kubebuilder:validation:Enum=OnNextBoot;Restart
type ResizeStrategy string

const (
	// ResizeOnNextBoot waits until the VM is off.
	ResizeOnNextBoot ResizeStrategy = "OnNextBoot"
	// ResizeRestart turns the VM off and on.
	ResizeRestart ResizeStrategy = "Restart"
)

// ResizeConfirmation is whether a resize waits for its user.
// +kubebuilder:validation:Enum=Automatic;Manual
type ResizeConfirmation string

const (
	// ResizeAutomatic ends a resize when the VM has its new size.
	ResizeAutomatic ResizeConfirmation = "Automatic"
	// ResizeManual waits for resize.confirm then.
	ResizeManual ResizeConfirmation = "Manual"
)

// ResizeTimeoutPolicy is what happens when nobody confirms a resize in time.
// +kubebuilder:validation:Enum=Confirm;Revert
type ResizeTimeoutPolicy string

const (
	// ResizeTimeoutConfirm takes the silence for consent.
	ResizeTimeoutConfirm ResizeTimeoutPolicy = "Confirm"
	// ResizeTimeoutRevert gives the VM its old CPUs and memory back; the disk stays.
	ResizeTimeoutRevert ResizeTimeoutPolicy = "Revert"
)

// ResizeStage is how far a resize is.
// +kubebuilder:validation:Enum=Applying;AwaitingConfirmation;Confirming;Reverting
type ResizeStage string

const (
	// ResizeApplying means the VM is on its way to its new size.
	ResizeApplying ResizeStage = "Applying"
	// ResizeAwaitingConfirmation means the VM has its new size and waits for resize.confirm.
	ResizeAwaitingConfirmation ResizeStage = "AwaitingConfirmation"
	// ResizeConfirming means the restore point is being destroyed.
	ResizeConfirming ResizeStage = "Confirming"
	// ResizeReverting means the VM is on its way back to its old size.
	ResizeReverting ResizeStage = "Reverting"
)

// ResizeStatus is a resize that is under way or waits for its user.
type ResizeStatus struct {
	// id tells one resize from the next; resize.confirm must name it.
	// +required
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id"`

	// from is the flavor that the VM had before; empty if none was asked for.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	From string `json:"from,omitempty"`

	// to is the flavor that it gets; the same as from if only the root disk changes.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	To string `json:"to,omitempty"`

	// stage is Applying, AwaitingConfirmation, Confirming or Reverting.
	// +optional
	Stage ResizeStage `json:"stage,omitempty"`

	// startedAt is when the resize was begun.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`

	// confirmBy is when resize.onTimeout is carried out; absent without resize.confirmTimeoutSeconds.
	// +optional
	ConfirmBy *metav1.Time `json:"confirmBy,omitempty"`

	// restorePoint is the root disk as it was before, kept until the resize is confirmed or reverted.
	// +optional
	RestorePoint *RestorePoint `json:"restorePoint,omitempty"`

	// message says what you can do, and what would be lost by it.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// RestorePoint is a root disk as it was at a moment.
type RestorePoint struct {
	// id is the uuid of the disk; resize.discardTo must name it.
	// +required
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id"`

	// takenAt is the moment; what was written to the root disk since then is lost by resize.discardTo.
	// +optional
	TakenAt *metav1.Time `json:"takenAt,omitempty"`

	// size of the disk.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	Size *resource.Quantity `json:"size,omitempty"`

	// storageRepository is the name-label of the storage repository that holds it.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`
}

// ResizeStrategy is when what a running guest cannot be given is changed.
func (s *XenInstanceSpec) ResizeStrategy() ResizeStrategy {
	if s.Resize == nil || s.Resize.Strategy == "" {
		return ResizeOnNextBoot
	}

	return s.Resize.Strategy
}

// ConfirmsResizes reports whether a resize waits for its user.
func (s *XenInstanceSpec) ConfirmsResizes() bool {
	return s.Resize != nil && s.Resize.Confirmation == ResizeManual
}

// ConfirmTimeout is how long a resize waits for its user, 0 without an end.
func (s *XenInstanceSpec) ConfirmTimeout() time.Duration {
	if s.Resize == nil || s.Resize.ConfirmTimeoutSeconds == nil {
		return 0
	}

	return time.Duration(*s.Resize.ConfirmTimeoutSeconds) * time.Second
}

// ResizeTimeoutPolicy is what happens then.
func (s *XenInstanceSpec) ResizeTimeoutPolicy() ResizeTimeoutPolicy {
	if s.Resize == nil || s.Resize.OnTimeout == "" {
		return ResizeTimeoutConfirm
	}

	return s.Resize.OnTimeout
}
