package reconcile

import (
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// messageLimit keeps a condition readable, and far under the 32,768 bytes that the API server takes.
const messageLimit = 2000

// SetCondition sets one condition. The transition time and the observed generation are filled in when the scope
// closes, so that functions which compute a status need neither a clock nor the object.
func SetCondition(conditions *[]metav1.Condition, kind string, status metav1.ConditionStatus, reason, message string) {
	message = shorten(message)
	if found := meta.FindStatusCondition(*conditions, kind); found != nil {
		if found.Status != status {
			found.LastTransitionTime = metav1.Time{}
		}
		found.Status, found.Reason, found.Message = status, reason, message
		return
	}
	*conditions = append(*conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message})
}

// stampConditions fills in what SetCondition left open.
func stampConditions(conditions []metav1.Condition, now metav1.Time, generation int64) {
	for i := range conditions {
		if conditions[i].LastTransitionTime.IsZero() {
			conditions[i].LastTransitionTime = now
		}
		conditions[i].ObservedGeneration = generation
	}
}

// shorten cuts a message at a rune boundary.
func shorten(message string) string {
	if len(message) <= messageLimit {
		return message
	}
	cut := messageLimit
	for cut > 0 && !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + "…"
}
