package pool

import (
	"errors"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Problem is what keeps a connection from being, or from being used.
type Problem struct {
	// Reason is one of the constants of the API.
	Reason string
	// Message tells what is, and what to do.
	Message string
	// RetryAt is when it is tried again; zero: when something changes.
	RetryAt time.Time
}

// wrongPool reports whether who answers must not be taken for our pool.
func (p Problem) wrongPool() bool {
	return p.Reason == v1alpha1.ReasonIdentityChanged || p.Reason == v1alpha1.ReasonDuplicatePool
}

// needsConnection reports whether the present client can do nothing about it.
func (p Problem) needsConnection() bool {
	return p.wrongPool() || p.Reason == v1alpha1.ReasonUnauthorized || p.Reason == v1alpha1.ReasonTLSUntrusted
}

// stalled reports whether somebody must change something. An unreachable pool may come back by itself.
func (p Problem) stalled() bool {
	return p.Reason != v1alpha1.ReasonPoolUnreachable && p.Reason != v1alpha1.ReasonConnecting
}

// classify says what an error of the client means for the pool.
func classify(err error) *Problem {
	switch {
	case errors.Is(err, xenapi.ErrSessionAuthenticationFailed):
		return &Problem{Reason: v1alpha1.ReasonUnauthorized,
			Message: "the pool refuses user name or password; correct the Secret (a password that was changed on the pool is tried again by itself)"}
	case errors.Is(err, xenapi.ErrRBACPermissionDenied):
		return &Problem{Reason: v1alpha1.ReasonPermissionDenied,
			Message: fmt.Sprintf("the pool does not allow this account what is needed (%v); give it the role vm-admin or more", err)}
	case errors.Is(err, xenapi.ErrTLSVerification):
		return &Problem{Reason: v1alpha1.ReasonTLSUntrusted,
			Message: fmt.Sprintf("the server's certificate is not accepted: %v; correct spec.tls or the endpoints", err)}
	case errors.Is(err, xenapi.ErrConfig):
		return &Problem{Reason: v1alpha1.ReasonInvalidSpec, Message: err.Error()}
	default:
		return &Problem{Reason: v1alpha1.ReasonPoolUnreachable, Message: fmt.Sprintf("the pool does not answer: %v", err)}
	}
}

// checkIdentity compares the pool that answers with the one that was asked for or seen before.
func checkIdentity(pinned, found string) *Problem {
	if pinned == "" || pinned == found {
		return nil
	}
	return &Problem{Reason: v1alpha1.ReasonIdentityChanged, Message: fmt.Sprintf(
		"behind the endpoints is pool %s, but this XenPool is pool %s; correct the endpoints, or make a new XenPool for the other pool", found, pinned)}
}

func duplicate(uuid, other string) *Problem {
	return &Problem{Reason: v1alpha1.ReasonDuplicatePool, Message: fmt.Sprintf(
		"pool %s is XenPool %s already; delete one of the two", uuid, other)}
}

// pauses are the first and the longest pause after a failure. A password is tried rarely: each refusal costs the pool
// five seconds, and directories lock accounts out.
func pauses(p Problem) (first, most time.Duration) {
	switch p.Reason {
	case v1alpha1.ReasonUnauthorized:
		return time.Minute, 15 * time.Minute
	case v1alpha1.ReasonPoolUnreachable:
		return time.Second, 30 * time.Second
	case v1alpha1.ReasonInvalidSpec:
		return 10 * time.Minute, 10 * time.Minute
	default:
		return 30 * time.Second, 5 * time.Minute
	}
}

// backoff is the circuit breaker of one connection: after a failure nothing is sent until its pause is over.
type backoff struct {
	reason string
	pause  time.Duration
	until  time.Time
}

// failed notes a failure; a failure of another kind begins anew.
func (b *backoff) failed(p Problem, now time.Time) {
	first, most := pauses(p)
	if b.reason != p.Reason {
		b.reason, b.pause = p.Reason, 0
	}
	b.pause = min(max(first, 2*b.pause), most)
	b.until = now.Add(b.pause)
}

func (b *backoff) due(now time.Time) bool { return !now.Before(b.until) }

func (b *backoff) remaining(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }
