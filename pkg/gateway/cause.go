package gateway

import (
	"context"
	"errors"
	"time"

	"github.com/coder/websocket"
)

// Cause says why a session was refused or ended. The same word is the metric's label, the Event's reason and what the page is told.
type Cause string

// The causes.
const (
	// CauseClosed is the user going away.
	CauseClosed Cause = "Closed"
	// CauseExpired is a token whose time to connect is over.
	CauseExpired Cause = "Expired"
	// CauseNotAfter is the end that the console's notAfter sets.
	CauseNotAfter Cause = "NotAfter"
	// CauseSessionTooLong is the end that maxSessionSeconds sets.
	CauseSessionTooLong Cause = "MaxSessionSeconds"
	// CauseDeleted is a console that is gone.
	CauseDeleted Cause = "Deleted"
	// CauseRevoked is a console that has another token now.
	CauseRevoked Cause = "Revoked"
	// CauseStopped is a guest that does not run.
	CauseStopped Cause = "InstanceNotRunning"
	// CauseTooMany is a console with maxSessions open.
	CauseTooMany Cause = "TooManySessions"
	// CauseBusy is a pool that lets one session look at a time, and one does.
	CauseBusy Cause = "ConsoleBusy"
	// CauseUnavailable is a pool or host that cannot be reached.
	CauseUnavailable Cause = "Unavailable"
	// CauseDraining is a gateway that shuts down; another one serves.
	CauseDraining Cause = "Draining"
	// CauseIdle is a peer that no longer answers.
	CauseIdle Cause = "PeerGone"
	// CauseProtocol is a peer that does not speak the protocol.
	CauseProtocol Cause = "ProtocolError"
	// CauseBadToken is a token that opens nothing.
	CauseBadToken Cause = "BadToken"
)

// Ended is the error of a session that was refused or cut.
type Ended struct {
	Cause Cause
	Err   error
}

func (e *Ended) Error() string {
	if e.Err == nil {
		return string(e.Cause)
	}
	return string(e.Cause) + ": " + e.Err.Error()
}

// Unwrap gives the error beneath.
func (e *Ended) Unwrap() error { return e.Err }

// causeOf finds the cause in an error, or in the context that ended what failed.
func causeOf(ctx context.Context, err error) Cause {
	var ended *Ended
	if errors.As(context.Cause(ctx), &ended) || errors.As(err, &ended) {
		return ended.Cause
	}
	return CauseClosed
}

// message is what a person is told. It names no token.
func (c Cause) message() string {
	switch c {
	case CauseExpired:
		return "This URL has expired. Ask for a new one: kubectl get xenconsole shows it."
	case CauseNotAfter:
		return "The time of this console is over."
	case CauseSessionTooLong:
		return "This session has reached its longest time. Connect again while the URL is valid."
	case CauseDeleted:
		return "This console has been deleted."
	case CauseRevoked:
		return "This URL has been replaced by a newer one."
	case CauseStopped:
		return "The instance is not running."
	case CauseTooMany:
		return "As many sessions as this console allows are open already."
	case CauseBusy:
		return "Somebody else looks at this console, and the pool allows one at a time."
	case CauseUnavailable:
		return "The host of this instance cannot be reached."
	case CauseDraining:
		return "This gateway restarts. The page connects again by itself."
	case CauseIdle:
		return "The connection has gone silent."
	case CauseProtocol:
		return "The client did not speak as expected."
	case CauseBadToken:
		return "This URL opens no console. It may have been replaced, or its console deleted."
	default:
		return "The session has ended."
	}
}

// closeStatus is the WebSocket close code: 1001 where trying again makes sense, 4000 and up where it does not.
func (c Cause) closeStatus() websocket.StatusCode {
	switch c {
	case CauseDraining:
		return websocket.StatusServiceRestart
	case CauseClosed:
		return websocket.StatusNormalClosure
	case CauseProtocol:
		return websocket.StatusPolicyViolation
	case CauseBadToken:
		return 4401
	default:
		return 4403
	}
}

// verdict decides, at now, whether a session that came in with digest may go on, and until when that answer holds.
// It is the one place where a console's fields are turned into a refusal; connecting tells a newcomer from a session that lives.
func verdict(c Console, found bool, digest string, started, now time.Time, connecting bool) (Cause, time.Time) {
	switch {
	case !found || c.Deleting:
		return CauseDeleted, time.Time{}
	case !c.Running:
		return CauseStopped, time.Time{}
	case !c.OpenedBy(digest):
		return CauseRevoked, time.Time{}
	case !c.NotAfter.IsZero() && !now.Before(c.NotAfter):
		return CauseNotAfter, time.Time{}
	case connecting && !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt):
		return CauseExpired, time.Time{}
	case c.MaxSession > 0 && now.Sub(started) >= c.MaxSession:
		return CauseSessionTooLong, time.Time{}
	}
	until := c.NotAfter
	if end := started.Add(c.MaxSession); c.MaxSession > 0 && (until.IsZero() || end.Before(until)) {
		until = end
	}
	return "", until
}
