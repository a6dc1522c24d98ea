package gateway

import (
	"context"
	"sync"
	"time"
)

const (
	// lateFor is how long what is not known may be on its way: who is shown a new URL may be faster than our watch of the API server.
	lateFor = time.Second
	// lateMost is how many are awaited at a time, so that guesses cost little.
	lateMost = 100
)

// arrivals lets askers wait a moment for what has just been made. Its zero value is ready.
type arrivals struct {
	mu      sync.Mutex
	news    chan struct{} // closed with the next news
	waiting int
}

// tell says that there is something new.
func (a *arrivals) tell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.news != nil {
		close(a.news)
		a.news = nil
	}
}

// await asks known, and with all news again for a while. It reports what known said last.
func (a *arrivals) await(ctx context.Context, known func() bool) bool {
	if known() {
		return true
	}
	if !a.enter() {
		return false
	}
	defer a.leave()
	timer := time.NewTimer(lateFor)
	defer timer.Stop()
	for {
		news := a.next() // before the question, so that nothing is missed
		if known() {
			return true
		}
		select {
		case <-news:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (a *arrivals) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == lateMost {
		return false
	}
	a.waiting++
	return true
}

func (a *arrivals) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
}

func (a *arrivals) next() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.news == nil {
		a.news = make(chan struct{})
	}
	return a.news
}
