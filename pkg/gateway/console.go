package gateway

import (
	"context"
	"crypto/subtle"
	"net"
	"time"
)

// Console is what the gateway knows of one XenConsole at one moment: a value, so that a decision about it needs no lock.
type Console struct {
	Namespace, Name, UID string
	// Instance is the name of the XenInstance that is shown.
	Instance string
	// Text is a vt100 console instead of a screen.
	Text bool
	// ViewOnly consoles carry no key, pointer or clipboard to the guest.
	ViewOnly bool
	// Series names the sessions that may live; one that came in under another is over.
	Series string
	// IssuedFor is the VM that the token was issued for.
	IssuedFor string
	// TokenSHA256 is the hex digest of the token that opens it; empty while no URL is issued.
	TokenSHA256 string
	// ExpiresAt ends the time to connect. It cuts nobody.
	ExpiresAt time.Time
	// NotAfter cuts whatever lives; zero is never.
	NotAfter time.Time
	// MaxSession is the longest that one session may last; zero is for ever.
	MaxSession time.Duration
	// MaxSessions is how many may be open at once over all gateways; zero is no limit.
	MaxSessions int
	// OtherSessions counts those that other gateways hold.
	OtherSessions int
	// Running tells whether the guest runs, as its XenInstance says.
	Running bool
	// Deleting consoles let nobody in.
	Deleting bool
	// Target is where the bytes come from.
	Target Target
}

// Target is a running guest's address.
type Target struct {
	// Pool names the XenPool whose session opens the console.
	Pool string
	// Host is the address, without a port, of the host on which the VM runs.
	Host string
	// VMUUID names the VM; it outlives reboots and migrations, which a console's own uuid does not.
	VMUUID string
	// Text asks for the vt100 console.
	Text bool
}

// Key is namespace/name.
func (c Console) Key() string { return c.Namespace + "/" + c.Name }

// OpenedBy reports whether the digest of a token opens the console, in a time that does not depend on where they differ.
func (c Console) OpenedBy(digest string) bool {
	return c.TokenSHA256 != "" && subtle.ConstantTimeCompare([]byte(c.TokenSHA256), []byte(digest)) == 1
}

// Directory knows the consoles.
type Directory interface {
	// ByDigest finds the console that a token's digest opens.
	ByDigest(ctx context.Context, digest string) (Console, bool)
	// Current reads a console again; false when it is gone, or when another object has taken its name.
	Current(ctx context.Context, key, uid string) (Console, bool)
	// Changes delivers a wake-up whenever the console or its instance may have changed, until stop is called. Wake-ups coalesce.
	Changes(key string) (wake <-chan struct{}, stop func())
}

// Dialer opens the stream of a guest's console.
type Dialer interface {
	DialConsole(ctx context.Context, target Target) (net.Conn, error)
}

// Ledger is told of every session: it counts them into the console's status and writes the audit Events.
type Ledger interface {
	// Opened counts a session before it is let in. An error keeps it out, and then it is not counted.
	Opened(ctx context.Context, c Console, from string) error
	// Closed is called when it has ended.
	Closed(c Console, visit Visit)
	// Busy tells whether the pool lets somebody else alone look at the console now.
	Busy(ctx context.Context, c Console, busy bool)
}

// Visit is the record of one session.
type Visit struct {
	From           string
	Client         string
	Started, Ended time.Time
	ToGuest        int64
	FromGuest      int64
	Cause          Cause
}
