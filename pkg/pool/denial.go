package pool

import (
	"fmt"
	"time"
)

// Denial says why something that a spec asks of a pool is not to be had. Trying again is pointless until the spec,
// the pool's grants or the pool's contents change.
type Denial struct {
	// Reason is one of the constants of the API.
	Reason string
	// Message tells the user what is wanted, what is, and what to do.
	Message string
}

func (d *Denial) Error() string { return d.Message }

func deny(reason, format string, args ...any) *Denial {
	return &Denial{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Unavailable says why a pool cannot be used now. Nothing is wrong with who asked; it is worth waiting.
type Unavailable struct {
	// Pool is the name of the XenPool.
	Pool string
	// Reason is one of the constants of the API.
	Reason string
	// Message tells what is the matter.
	Message string
	// Since is when that began; zero if it is not known.
	Since time.Time
}

func (u *Unavailable) Error() string { return fmt.Sprintf("pool %s: %s", u.Pool, u.Message) }
