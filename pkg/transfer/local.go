package transfer

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/pkg/contain"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Pools finds the pools that can be used now.
type Pools interface {
	Get(name string) (*pool.Handle, error)
}

// Stores opens the store that a place is in, with the credentials that it names. Its errors are *Failure.
type Stores interface {
	Open(ctx context.Context, place Place) (imagestore.Store, error)
}

// tidyTimeout bounds what is still done for a transfer that was given up: aborting what it began in the store.
const tidyTimeout = 10 * time.Second

// Local runs transfers in this process. All of them end when Run does.
type Local struct {
	pools  Pools
	stores Stores
	wake   func(xencache.Key)
	clock  clock.PassiveClock
	slots  *slots
	log    logr.Logger
	// scratch is where disks are made smaller.
	scratch Scratch

	ctx     context.Context //nolint:containedctx // the life of the transfers, which outlive the pass that begins them
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	transfers map[ID]*job
}

// NewLocal returns a runner that runs nothing yet. wake queues the owner of a transfer; log takes the stacks of our defects.
func NewLocal(pools Pools, stores Stores, wake func(xencache.Key), passive clock.PassiveClock, scratch Scratch, log logr.Logger) *Local {
	ctx, cancel := context.WithCancel(context.Background())
	return &Local{
		pools: pools, stores: stores, wake: wake, clock: passive, slots: newSlots(), log: log, scratch: scratch,
		ctx: ctx, cancel: cancel, transfers: map[ID]*job{},
	}
}

// job is one transfer.
type job struct {
	request Request
	// attempt counts how often the same disk has been made smaller in vain before this, and this.
	attempt int
	meter   *meter
	cancel  context.CancelFunc
	done    chan struct{}
}

// Run waits for the end and then for all transfers; it is what a manager runs.
func (l *Local) Run(ctx context.Context) error {
	<-ctx.Done()
	l.cancel()
	l.running.Wait()
	return nil
}

// Start implements Runner.
func (l *Local) Start(id ID, request Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if current := l.transfers[id]; current != nil && !current.over() {
		return
	}
	if l.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	j := &job{request: request, attempt: 1 + l.transfers[id].failures(request.Shrink), meter: newMeter(l.clock, func() { l.wake(id.Owner) }), cancel: cancel, done: make(chan struct{})}
	l.transfers[id] = j
	l.running.Add(1)
	go func() {
		defer l.running.Done()
		err := contain.Call(func() error { return l.carryOut(ctx, id, j.meter, request) })
		err = defect(l.log, id, request.what(), err)
		cancel()
		close(j.done) // before the end is told: whoever hears of it may start the next attempt
		j.meter.end(err)
	}()
}

// failures is how often a Shrink has failed in a row with this job, which is over; nil has none.
func (j *job) failures(wanted *Shrink) int {
	if j == nil || wanted == nil || j.request.Shrink == nil || j.meter.reported().Phase != Failed ||
		j.request.Shrink.VDI != wanted.VDI || !maps.Equal(j.request.Shrink.Marks, wanted.Marks) {
		return 0
	}
	return j.attempt
}

func (j *job) over() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// State implements Runner.
func (l *Local) State(id ID) (State, bool) {
	l.mu.Lock()
	j := l.transfers[id]
	l.mu.Unlock()
	if j == nil {
		return State{}, false
	}
	state := j.meter.reported()
	state.Shrink, state.Attempt = j.request.Shrink, j.attempt
	return state, true
}

// Stop implements Runner.
func (l *Local) Stop(id ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.transfers[id]
	if j == nil {
		return true
	}
	j.cancel()
	if !j.over() {
		return false
	}
	delete(l.transfers, id)
	return true
}

// carryOut does what a request asks.
func (l *Local) carryOut(ctx context.Context, id ID, m *meter, request Request) error {
	switch {
	case request.Upload != nil:
		return l.upload(ctx, id, m, request.Upload)
	case request.Import != nil:
		return l.fill(ctx, id, m, request.Import)
	case request.Shrink != nil:
		return l.shrink(ctx, id, m, request.Shrink)
	}
	return errors.New("the request asks for nothing")
}

// tidy is a context for undoing what a transfer began, also when its own has ended.
func tidy(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
}

// slots bound how many transfers go through one host of a pool at a time.
type slots struct {
	mu    sync.Mutex
	held  map[string]int
	freed chan struct{}
}

func newSlots() *slots { return &slots{held: map[string]int{}, freed: make(chan struct{})} }

// take waits until a transfer may go through the host.
func (s *slots) take(ctx context.Context, host string, limit int) (release func(), err error) {
	for {
		s.mu.Lock()
		if s.held[host] < limit {
			s.held[host]++
			s.mu.Unlock()
			return func() { s.release(host) }, nil
		}
		freed := s.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *slots) release(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[host]--
	close(s.freed)
	s.freed = make(chan struct{})
}
