package reconcile

import (
	"errors"
	"fmt"
	"time"
)

// Kind orders outcomes by how much they ask for: joining two keeps the greater one.
type Kind int

// The four ways in which a pass can end.
const (
	// KindDone says that everything is as asked, or waits for the user and not for us.
	KindDone Kind = iota
	// KindWait says that work of ours is in flight or that something else must happen first; an event wakes the key.
	KindWait
	// KindRetry says that an attempt failed in a way that may pass; it is tried again with backoff.
	KindRetry
	// KindTerminal says that trying again is pointless until the spec, a Secret or a dependency changes.
	KindTerminal
)

// String names the kind as metrics and logs show it.
func (k Kind) String() string {
	switch k {
	case KindDone:
		return "Done"
	case KindWait:
		return "Wait"
	case KindRetry:
		return "Retry"
	case KindTerminal:
		return "Terminal"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Outcome is what a pass, or one step of it, ended in. The zero value is Done. It is a value: every method
// returns a new one.
type Outcome struct {
	kind         Kind
	reason       string
	message      string
	err          error
	after        time.Duration
	readyUnknown bool
}

// Done says that nothing is left to do.
func Done() Outcome { return Outcome{} }

// Wait says what is awaited. Without After the key sleeps until an event wakes it.
func Wait(reason, message string) Outcome {
	return Outcome{kind: KindWait, reason: reason, message: message}
}

// Retry says that err kept us from going on and that it may pass. A nil err is Done, so that
// `return Retry(reason, act(ctx))` reads as it should.
func Retry(reason string, err error) Outcome {
	if err == nil {
		return Done()
	}
	return Outcome{kind: KindRetry, reason: reason, err: err}
}

// Terminal says why we stop until something that we watch changes.
func Terminal(reason, message string) Outcome {
	return Outcome{kind: KindTerminal, reason: reason, message: message}
}

// After adds a deadline at which the key is looked at again whatever happens. Of several the earliest is kept.
// A queue keeps one entry a key, so every pass states all of its deadlines anew.
func (o Outcome) After(d time.Duration) Outcome {
	if d <= 0 {
		// A deadline that has passed is due now, which is not the same as having none.
		d = time.Nanosecond
	}
	o.after = earliest(o.after, d)
	return o
}

// Because gives the outcome a reason and message of its own. On Done it is why Ready is True although the
// object may not look it: Halted as asked, awaiting the user's confirmation.
func (o Outcome) Because(reason, message string) Outcome {
	o.reason, o.message = reason, message
	return o
}

// ReadyUnknown makes Ready Unknown instead of False: we cannot see whether the object is as asked.
func (o Outcome) ReadyUnknown() Outcome {
	o.readyUnknown = true
	return o
}

// Join puts two outcomes together: the one that asks for more decides reason and message (the first of equals),
// errors are joined, the earliest deadline is kept.
func (o Outcome) Join(other Outcome) Outcome {
	joined, lesser := o, other
	if other.kind > o.kind || (other.kind == o.kind && o.reason == "") {
		joined, lesser = other, o
	}
	joined.after = earliest(joined.after, lesser.after)
	joined.readyUnknown = joined.readyUnknown || lesser.readyUnknown
	if joined.kind == KindRetry {
		joined.err = errors.Join(o.err, other.err)
	}
	return joined
}

// Kind says which of the four it is.
func (o Outcome) Kind() Kind { return o.kind }

// IsDone reports whether nothing is left to do.
func (o Outcome) IsDone() bool { return o.kind == KindDone }

// Reason is the CamelCase reason, or "" where the default of the kind serves.
func (o Outcome) Reason() string { return o.reason }

// Message is for the user: what is wanted, what is, what to do.
func (o Outcome) Message() string {
	if o.message == "" && o.err != nil {
		return o.err.Error()
	}
	return o.message
}

// Err is the error of a Retry, nil otherwise.
func (o Outcome) Err() error { return o.err }

// Deadline is the earliest of the deadlines added by After, 0 without one.
func (o Outcome) Deadline() time.Duration { return o.after }

// String is for logs and failing tests.
func (o Outcome) String() string {
	text := o.kind.String()
	if o.reason != "" {
		text += " " + o.reason
	}
	if m := o.Message(); m != "" {
		text += ": " + m
	}
	if o.after > 0 {
		text += fmt.Sprintf(" (again after %s)", o.after)
	}
	return text
}

// earliest returns the smaller of two durations of which 0 means none.
func earliest(a, b time.Duration) time.Duration {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	default:
		return min(a, b)
	}
}
