package imagestore

import (
	"fmt"
	"time"

	"k8s.io/utils/clock"
)

// A store must move so much in so much time in which it is waited for. Each transfer holds one of the few slots of its host: one
// that trickles would keep all others waiting. It is 14 KiB a second, less than any line on which disks are moved on purpose (an
// image of 1 GiB takes most of a day), and the time is long enough for a store that is just being restarted.
const (
	leastBytes  = 8 * mebibyte
	leastWithin = 10 * time.Minute
)

// errSlow is why a transfer is given up whose bytes trickle.
var errSlow = fmt.Errorf("too slow: less than %d MiB within %s (%w)", leastBytes/mebibyte, leastWithin, errStalled)

// pace measures how fast the other side is while it is waited for. One goroutine uses it.
type pace struct {
	clock   clock.PassiveClock
	since   time.Time // when the waiting began, zero while it rests
	awaited time.Duration
	moved   int64
}

func newPace(passive clock.PassiveClock) *pace { return &pace{clock: passive} }

// await says that the other side is waited for from now on, to take n bytes.
func (p *pace) await(n int) {
	p.since = p.clock.Now()
	p.moved += int64(n)
}

// rest says that it is not waited for any more. Its error tells that it is too slow.
func (p *pace) rest() error {
	if p.since.IsZero() {
		return nil
	}
	p.awaited += p.clock.Since(p.since)
	p.since = time.Time{}
	switch {
	case p.awaited < leastWithin:
		return nil
	case p.moved < leastBytes:
		return errSlow
	}
	p.awaited, p.moved = 0, 0

	return nil
}
