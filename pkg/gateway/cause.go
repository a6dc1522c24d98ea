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
	// CauseRevoked is a console whose URL was ended or replaced.
	CauseRevoked Cause = "Revoked"
	// CauseChanged is a console of another type or mode than when the session began.
	CauseChanged Cause = "Changed"
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
	// CauseTooManyGuesses is one more of them from where many came.
	CauseTooManyGuesses Cause = "TooManyGuesses"
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

// causeOr is the cause in an error, or another where it has none.
func causeOr(err error, other Cause) Cause {
	var ended *Ended
	if errors.As(err, &ended) {
		return ended.Cause
	}
	return other
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
		return "This URL opens no more: it was replaced by a newer one, or its instance was stopped."
	case CauseChanged:
		return "What this console may do was changed. Connect again."
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
		return "This URL opens no console. It may have expired or been replaced, or its console deleted: kubectl get xenconsole shows the present one."
	case CauseTooManyGuesses:
		return "Too many URLs that open nothing were tried from here. One that opens still does."
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
	case CauseBadToken, CauseTooManyGuesses:
		return 4401
	default:
		return 4403
	}
}

// admits decides whether a token's digest opens a console now.
func admits(c Console, digest string, now time.Time) Cause {
	if cause := over(c, true, now); cause != "" {
		return cause
	}
	switch {
	case !c.OpenedBy(digest), c.IssuedFor != c.Target.VMUUID:
		return CauseRevoked
	case !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt):
		return CauseExpired
	}
	return ""
}

// verdict decides whether a session that came in at started, when its console was as in was, may go on, and until when that answer
// holds. The token is not looked at again: its time is the time to connect.
func verdict(was, c Console, found bool, started, now time.Time) (Cause, time.Time) {
	if cause := over(c, found, now); cause != "" {
		return cause, time.Time{}
	}
	switch {
	case c.Series == "", c.Series != was.Series, c.Target.VMUUID != was.Target.VMUUID:
		return CauseRevoked, time.Time{}
	case c.ViewOnly != was.ViewOnly, c.Text != was.Text:
		return CauseChanged, time.Time{}
	case c.MaxSession > 0 && now.Sub(started) >= c.MaxSession:
		return CauseSessionTooLong, time.Time{}
	}
	until := c.NotAfter
	if end := started.Add(c.MaxSession); c.MaxSession > 0 && (until.IsZero() || end.Before(until)) {
		until = end
	}
	return "", until
}

// over is what ends newcomers and living sessions alike.
func over(c Console, found bool, now time.Time) Cause {
	switch {
	case !found || c.Deleting:
		return CauseDeleted
	case !c.Running:
		return CauseStopped
	case !c.NotAfter.IsZero() && !now.Before(c.NotAfter):
		return CauseNotAfter
	}
	return ""
}
