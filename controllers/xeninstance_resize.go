package controllers

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// announceResize says in an Event that a resize has begun, waits for its user, or is over, and how.
func (s *instanceScope) announceResize(before, after *v1alpha1.XenInstanceStatus) {
	was, is := before.Resize, after.Resize
	switch {
	case was == nil && is != nil:
		s.Event(corev1.EventTypeNormal, v1alpha1.ReasonResizing, "%s", is.Message)
	case was != nil && is == nil && refusedSize(after) != nil:
		s.Event(corev1.EventTypeWarning, refusedSize(after).Reason, "%s", refusedSize(after).Message)
	case was != nil && is == nil && was.Stage == v1alpha1.ResizeReverting:
		s.Event(corev1.EventTypeNormal, v1alpha1.ReasonReverted, "resize %s from %s to %s was reverted", was.ID, was.From, was.To)
	case was != nil && is == nil:
		s.Event(corev1.EventTypeNormal, v1alpha1.ReasonConfirmed, "resize %s from %s to %s is done", was.ID, was.From, was.To)
	case is == nil || was.Stage == is.Stage:
	case is.Stage == v1alpha1.ResizeAwaitingConfirmation:
		s.Event(corev1.EventTypeNormal, v1alpha1.ReasonAwaitingConfirmation, "%s", is.Message)
	case is.Stage == v1alpha1.ResizeReverting:
		s.Event(corev1.EventTypeNormal, v1alpha1.ReasonReverting, "%s", is.Message)
	}
}

// refusedSize is the condition that says that the size which is asked for was given up, nil if it was not.
func refusedSize(status *v1alpha1.XenInstanceStatus) *metav1.Condition {
	condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFlavorApplied)
	if condition == nil || (condition.Reason != v1alpha1.ReasonRolledBack && condition.Reason != v1alpha1.ReasonShrinkRefused) {
		return nil
	}
	return condition
}
