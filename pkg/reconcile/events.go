package reconcile

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// action is the verb of our Events in the events.k8s.io API.
const action = "Reconcile"

// queuedEvent is an Event that waits for the status to be stored.
type queuedEvent struct{ kind, reason, note string }

// Event queues an Event about the object. It is emitted once the status is stored, so that nobody reads of a
// change that a crash then undid.
func (s *Scope[T]) Event(kind, reason, format string, args ...any) {
	s.events = append(s.events, queuedEvent{kind, reason, format1(format, args)})
}

// report emits what changed with this pass: queued events, and one for a new reason of Ready.
func (s *Scope[T]) report() {
	before := meta.FindStatusCondition(s.original.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
	after := meta.FindStatusCondition(s.Object.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
	if before == nil || before.Status != after.Status || before.Reason != after.Reason {
		kind := corev1.EventTypeNormal
		if s.Outcome.kind == KindRetry || s.Outcome.kind == KindTerminal {
			kind = corev1.EventTypeWarning
		}
		s.events = append(s.events, queuedEvent{kind, after.Reason, orElse(after.Message, readyNote)})
		countOutcome(kindOf(s.Object), s.Outcome.kind, after.Reason)
	}
	s.emit()
}

// readyNote is the text of an Event whose condition needs none.
const readyNote = "as asked"

// emit hands the queued events to the recorder.
func (s *Scope[T]) emit() {
	if s.runtime.Recorder != nil {
		for _, e := range s.events {
			s.runtime.Recorder.Eventf(s.Object, nil, e.kind, e.reason, action, "%s", e.note)
		}
	}
	s.events = nil
}
