package xapi

import (
	"context"
	"sync"
	"time"
)

// Clock is the pool's time. It runs Scale times as fast as the wall clock, so that what takes a minute on a real pool
// need not take one in a test.
type Clock struct {
	Scale float64

	start time.Time // of the wall clock and of the pool alike
	mu    sync.Mutex
	ahead time.Duration
}

// NewClock starts a clock at the present moment.
func NewClock(scale float64) *Clock {
	if scale <= 0 {
		scale = 1
	}
	return &Clock{Scale: scale, start: time.Now()}
}

// Now is the pool's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := time.Duration(float64(time.Since(c.start)) * c.Scale)
	return c.start.Add(passed + c.ahead).UTC()
}

// Advance moves the pool's time forward at once, for what depends on ages: sessions, tasks.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// Real is how long a duration of the pool's time takes on the wall clock.
func (c *Clock) Real(d time.Duration) time.Duration { return time.Duration(float64(d) / c.Scale) }

// Sleep waits until a duration of the pool's time has passed, or the context is done.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(c.Real(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
