package xencache

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// ErrNotSeen says that what a writer wrote did not appear in the cache in time. It may still come.
var ErrNotSeen = errors.New("the pool has not shown the change yet")

// Change tells whom a batch of events concerns.
type Change struct {
	// Keys are the owners, by mark or by watch, of what changed.
	Keys []Key
	// TasksEnded are those of them that waited for a task which has ended or is gone.
	TasksEnded []Key
	// Pool is set when the pool itself changed: its record, hosts, storage repositories, networks.
	Pool bool
	// Counts is set when VMs or disks came, went or changed their marks.
	Counts bool
}

// Options are what a Cache needs to know.
type Options struct {
	// Pool names the pool in metrics.
	Pool string
	// Installation is ours: marks of others wake nobody.
	Installation string
	// Notify is told of every change, outside all locks. It must not block.
	Notify func(Change)
	// Clock measures waiting and age; nil is the real one.
	Clock clock.WithTicker
}

// Cache holds the objects of one pool. It outlives connections: what it knew before a reconnection is compared
// with what it learns, so that only what changed wakes anybody.
type Cache struct {
	options Options

	mu       sync.RWMutex
	state    *state
	changed  chan struct{} // closed, and replaced, with each batch
	token    string
	synced   bool
	lastSeen time.Time
	wroteAt  time.Time // of the earliest write that no change has followed yet
	doubted  bool      // events are missing: read everything anew

	watch watches
}

// New returns an empty cache.
func New(options Options) *Cache {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Notify == nil {
		options.Notify = func(Change) {}
	}
	return &Cache{options: options, state: newState(), changed: make(chan struct{}), watch: newWatches()}
}

// View reads the pool's objects as of one moment. It holds a lock: do no I/O inside, and do not nest.
func (c *Cache) View(read func(View)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	read(View{c.state})
}

// Synced reports whether the cache has seen the whole pool at least once.
func (c *Cache) Synced() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.synced
}

// LastSeen is when the pool last answered, be it that nothing happened.
func (c *Cache) LastSeen() time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.lastSeen
}

// Wrote notes that a write was answered just now: how long its effect takes to be seen here is the events' lag.
func (c *Cache) Wrote() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wroteAt.IsZero() {
		c.wroteAt = c.options.Clock.Now()
	}
}

// Wait is the read-your-writes barrier: it returns nil as soon as holds does, ErrNotSeen after d.
func (c *Cache) Wait(ctx context.Context, d time.Duration, holds func(View) bool) error {
	var timeout clock.Timer
	for {
		c.mu.RLock()
		done, changed := holds(View{c.state}), c.changed
		c.mu.RUnlock()
		if done {
			return nil
		}
		if timeout == nil {
			timeout = c.options.Clock.NewTimer(d)
			defer timeout.Stop()
		}
		select {
		case <-changed:
		case <-timeout.C():
			return ErrNotSeen
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// CatchUp waits until the cache has seen everything that happened up to now. It costs a call and a round of events:
// use it after an unknown outcome only, Wait otherwise. inject is the pool's event.inject.
func (c *Cache) CatchUp(ctx context.Context, d time.Duration, inject func(ctx context.Context, class, ref string) (string, error)) error {
	var pool xenapi.PoolRef
	c.View(func(v View) { pool, _ = v.Pool() })
	token, err := inject(ctx, "pool", string(pool))
	if err != nil {
		return err
	}
	return c.Wait(ctx, d, func(View) bool { return generation(c.token) >= generation(token) })
}

// Doubt has everything read anew with the next answer: somebody knows of a change that no event has told. CatchUp brings
// that answer about, and waits for it.
func (c *Cache) Doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubted = true
}

// takeDoubt reports, once, whether the cache is to be read anew.
func (c *Cache) takeDoubt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	doubted := c.doubted
	c.doubted = false
	return doubted
}

// WakeOnTask queues key once the task has ended or is gone.
func (c *Cache) WakeOnTask(task xenapi.TaskRef, key Key) {
	c.mu.RLock()
	row := c.state.tasks.rows[task]
	c.watch.addTask(task, key)
	c.mu.RUnlock()
	if row == nil || !taskEnded(row) {
		return
	}
	if _, waiting := c.watch.takeTask(task); waiting {
		c.options.Notify(Change{Keys: []Key{key}, TasksEnded: []Key{key}})
	}
}

// WakeOn queues key with every change of the VM or disk with the uuid, which need not carry a mark nor be there yet,
// until Forget or until another uuid takes its place.
func (c *Cache) WakeOn(uuid string, key Key) { c.watch.add(uuid, key) }

// Forget ends what WakeOn began for key.
func (c *Cache) Forget(key Key) { c.watch.forget(key) }

// taskEnded reports whether a task has come to its end, good or bad.
func taskEnded(task *xenapi.Task) bool {
	return task.Status != xenapi.TaskStatusPending && task.Status != xenapi.TaskStatusCancelling
}

// generation is the part of an event token that counts the database's changes; its digits are padded, so that
// tokens compare as text.
func generation(token string) string {
	for i := range len(token) {
		if token[i] == ',' {
			return token[:i]
		}
	}
	return token
}
