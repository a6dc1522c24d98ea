package reconcile

import (
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// The first and the longest pause between two attempts that failed, before jitter.
const (
	backoffFirst = time.Second
	backoffMost  = 2 * time.Minute
)

// Backoff remembers how often in a row each key had to retry. The queue's own limiter cannot do it: an error
// returned to controller-runtime swallows the deadlines of the pass.
type Backoff struct {
	mu       sync.Mutex
	attempts map[ctrl.Request]int
}

// Result turns the outcome of a pass for req into what controller-runtime understands.
func (b *Backoff) Result(req ctrl.Request, o Outcome) ctrl.Result {
	after := o.after
	if o.kind == KindRetry {
		after = earliest(after, b.next(req))
	} else {
		b.Forget(req)
	}
	return ctrl.Result{RequeueAfter: after}
}

// Forget starts the attempts of req anew: it succeeded, or the user asked for another go.
func (b *Backoff) Forget(req ctrl.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.attempts, req)
}

// next counts an attempt and returns the pause after it: doubling, capped, with a fifth of jitter so that keys
// that failed together do not come back together.
func (b *Backoff) next(req ctrl.Request) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.attempts == nil {
		b.attempts = map[ctrl.Request]int{}
	}
	n := b.attempts[req]
	b.attempts[req] = n + 1
	pause := backoffMost
	if n < 7 {
		pause = min(backoffFirst<<n, backoffMost)
	}
	return pause + rand.N(pause/5) //nolint:gosec // jitter needs no secrecy
}

// setSummary writes Ready, Reconciling and Stalled from the outcome: the only place where they are decided.
func setSummary(conditions *[]metav1.Condition, o Outcome) {
	ready, reconciling, stalled := metav1.ConditionFalse, metav1.ConditionFalse, metav1.ConditionFalse
	reason := o.reason
	switch o.kind {
	case KindDone:
		ready = metav1.ConditionTrue
		reason = orElse(reason, v1alpha1.ReasonSucceeded)
	case KindWait:
		reconciling = metav1.ConditionTrue
		reason = orElse(reason, v1alpha1.ReasonProgressing)
	case KindRetry:
		reconciling = metav1.ConditionTrue
		reason = orElse(reason, v1alpha1.ReasonRetrying)
	case KindTerminal:
		stalled = metav1.ConditionTrue
		reason = orElse(reason, v1alpha1.ReasonInvalidSpec)
	}
	if o.readyUnknown && o.kind != KindDone {
		ready = metav1.ConditionUnknown
	}
	message := o.Message()
	SetCondition(conditions, v1alpha1.ConditionReady, ready, reason, message)
	setUnusual(conditions, v1alpha1.ConditionReconciling, reconciling, reason, message, v1alpha1.ReasonIdle)
	setUnusual(conditions, v1alpha1.ConditionStalled, stalled, reason, message, v1alpha1.ReasonNotStalled)
}

// setUnusual writes a condition whose normal state is False: then it has nothing to say but its usual reason.
func setUnusual(conditions *[]metav1.Condition, kind string, status metav1.ConditionStatus, reason, message, usual string) {
	if status == metav1.ConditionFalse {
		reason, message = usual, ""
	}
	SetCondition(conditions, kind, status, reason, message)
}

// orElse returns text, or fallback where text is empty.
func orElse(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}
