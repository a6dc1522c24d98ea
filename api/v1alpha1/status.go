package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CommonStatus is what every kind's status has, inlined.
type CommonStatus struct {
	// observedGeneration is the metadata.generation that this status describes; −1 until the operator saw the object.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// lastHandledReconcileAt echoes the annotation kubexen.io/reconcile-requested-at as of the last pass.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	LastHandledReconcileAt string `json:"lastHandledReconcileAt,omitempty"`

	// conditions are the contract: Ready, Reconciling, Stalled and Paused stand on every kind, always.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetCommonStatus returns the part of the status that every kind has.
func (p *XenPool) GetCommonStatus() *CommonStatus { return &p.Status.CommonStatus }

// GetCommonStatus returns the part of the status that every kind has.
func (f *XenFlavor) GetCommonStatus() *CommonStatus { return &f.Status.CommonStatus }

// GetCommonStatus returns the part of the status that every kind has.
func (i *XenImage) GetCommonStatus() *CommonStatus { return &i.Status.CommonStatus }

// GetCommonStatus returns the part of the status that every kind has.
func (i *XenClusterImage) GetCommonStatus() *CommonStatus { return &i.Status.CommonStatus }

// GetCommonStatus returns the part of the status that every kind has.
func (i *XenInstance) GetCommonStatus() *CommonStatus { return &i.Status.CommonStatus }

// ConditionTypes are the conditions that a XenPool always has.
func (*XenPool) ConditionTypes() []string {
	return []string{
		ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused,
		ConditionReachable, ConditionCredentialsValid,
	}
}

// ConditionTypes are the conditions that a XenFlavor always has.
func (*XenFlavor) ConditionTypes() []string {
	return []string{ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused}
}

// ConditionTypes are the conditions that a XenImage always has.
func (*XenImage) ConditionTypes() []string {
	return []string{ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused}
}

// ConditionTypes are the conditions that a XenClusterImage always has.
func (*XenClusterImage) ConditionTypes() []string {
	return []string{ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused}
}

// ConditionTypes are the conditions that a XenInstance always has.
func (*XenInstance) ConditionTypes() []string {
	return []string{
		ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused,
		ConditionProvisioned, ConditionFlavorApplied, ConditionPowerStateSynced, ConditionRescued, ConditionGuestReady,
	}
}
