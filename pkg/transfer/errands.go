package transfer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/pkg/contain"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const (
	// errandTimeout bounds what is asked of a store beside a transfer.
	errandTimeout = 30 * time.Second
	// errandPatience is how long a pass waits for the answer itself: long enough for a store in good health, so that there is
	// no second pass, and short enough that many stores which do not answer leave the passes over other objects their time.
	errandPatience = 500 * time.Millisecond
	// mostErrands is how many are under way at a time.
	mostErrands = 100
	// errandKeeps is how long an answer holds that nobody came for.
	errandKeeps = time.Minute
)

// Errands are short questions to stores, and short orders, one a transfer's id. They run beside the passes: a store that accepts
// connections and never answers would otherwise hold the few that there are, and with them all other objects.
type Errands[T any] struct {
	wake  func(xencache.Key)
	clock clock.PassiveClock
	log   logr.Logger

	mu  sync.Mutex
	all map[ID]*errand[T]
}

// errand is one question.
type errand[T any] struct {
	over   chan struct{}
	answer T
	err    error
	endAt  time.Time // zero while it is under way
	left   bool      // by the pass that waited for it
}

// NewErrands returns an empty set. wake queues the owner of one that was not waited for.
func NewErrands[T any](wake func(xencache.Key), passive clock.PassiveClock, log logr.Logger) *Errands[T] {
	return &Errands[T]{wake: wake, clock: passive, log: log, all: map[ID]*errand[T]{}}
}

// Ask runs do, and returns what came of it. Where that takes long it returns early, and so does each pass until do has ended;
// then the owner is woken, and the next Ask returns the answer.
func (e *Errands[T]) Ask(ctx context.Context, id ID, do func(context.Context) (T, error)) (answer T, answered bool, err error) {
	current := e.begin(ctx, id, do)
	if current == nil {
		return answer, false, nil
	}
	timer := time.NewTimer(errandPatience)
	defer timer.Stop()
	select {
	case <-current.over:
	case <-timer.C:
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if current.endAt.IsZero() {
		current.left = true
		return answer, false, ctx.Err()
	}
	if e.all[id] == current {
		delete(e.all, id)
	}

	return current.answer, true, current.err
}

// begin begins an errand unless it is under way; nil if too many are.
func (e *Errands[T]) begin(ctx context.Context, id ID, do func(context.Context) (T, error)) *errand[T] {
	e.mu.Lock()
	defer e.mu.Unlock()
	for other, old := range e.all { // nobody came for the answer: the object is gone, or asks something else by now
		if !old.endAt.IsZero() && e.clock.Since(old.endAt) > errandKeeps {
			delete(e.all, other)
		}
	}
	if current := e.all[id]; current != nil {
		return current
	}
	if len(e.all) >= mostErrands {
		return nil
	}
	current := &errand[T]{over: make(chan struct{})}
	e.all[id] = current
	go e.run(context.WithoutCancel(ctx), id, current, do) // the pass may end first

	return current
}

func (e *Errands[T]) run(ctx context.Context, id ID, current *errand[T], do func(context.Context) (T, error)) {
	ctx, cancel := context.WithTimeoutCause(ctx, errandTimeout, fmt.Errorf("no answer within %s", errandTimeout))
	defer cancel()
	var answer T
	err := contain.Call(func() (err error) {
		answer, err = do(ctx)
		return err
	})
	err = defect(e.log, id, "asking the store", err)
	e.mu.Lock()
	current.answer, current.err, current.endAt = answer, err, e.clock.Now()
	left := current.left
	e.mu.Unlock()
	close(current.over)
	if left {
		e.wake(id.Owner)
	}
}
