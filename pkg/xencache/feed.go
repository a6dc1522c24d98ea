package xencache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Source is where events come from: a XenAPI client.
type Source interface {
	// EventFrom returns what happened in the classes since token; it waits up to timeout if that is nothing.
	EventFrom(ctx context.Context, classes []string, token string, timeout time.Duration) (xenapi.EventBatch, error)
}

// ErrNewSession says that the client logged in anew while events were followed. Who answers now may be another
// coordinator, or another pool altogether: look who it is, then follow again.
var ErrNewSession = errors.New("the session with the pool was renewed")

const (
	// idle is how long one event.from waits; each answer, also an empty one, proves that the pool lives.
	idle = 30 * time.Second
	// confirm is how long it waits while the pool's counts differ from ours: the difference may be a change that
	// happened while the answer was made.
	confirm = 200 * time.Millisecond
	// confirmations is how many answers in a row must show the same difference before a class is read anew.
	confirmations = 2
)

// feed follows one connection.
type feed struct {
	cache  *Cache
	source Source
	serial uint64
	token  string
	// differing counts the answers in a row in which a class had another number of objects than we hold, and
	// accepted is the difference that reading the class anew did not remove.
	differing map[string]int
	accepted  map[string]int64
}

// Follow keeps the cache in step with the pool until the connection fails or ctx ends. Each call begins with
// reading everything: after a restart of the pool's toolstack an old token may mean anything. synced is called when
// that is done.
func (c *Cache) Follow(ctx context.Context, source Source, synced func()) error {
	f := &feed{cache: c, source: source, differing: map[string]int{}, accepted: map[string]int64{}}
	if err := f.readAll(ctx, "connected"); err != nil {
		return err
	}
	synced()
	for {
		if err := f.step(ctx); err != nil {
			return err
		}
	}
}

// step takes over one answer.
func (f *feed) step(ctx context.Context) error {
	wait := idle
	if len(f.differing) > 0 {
		wait = confirm
	}
	answer, err := f.from(ctx, classes, f.token, wait)
	if err != nil {
		return err
	}
	if generation(answer.Token) < generation(f.token) {
		return f.readAll(ctx, "token went back")
	}
	if f.cache.takeDoubt() {
		return f.readAll(ctx, "events missing")
	}
	f.token = answer.Token
	f.cache.update(answer.Token, func(b *batch) {
		for _, e := range answer.Events {
			b.apply(e)
			eventsSeen.WithLabelValues(f.cache.options.Pool, e.Class).Inc()
		}
	})
	return f.resyncDiffering(ctx, answer.ValidRefCounts)
}

// from asks the source, and refuses an answer of another session than the first.
func (f *feed) from(ctx context.Context, classes []string, token string, wait time.Duration) (xenapi.EventBatch, error) {
	answer, err := f.source.EventFrom(ctx, classes, token, wait)
	if errors.Is(err, xenapi.ErrEventsLost) {
		return answer, ErrNewSession
	}
	if err != nil {
		return answer, fmt.Errorf("follow the pool's events: %w", err)
	}
	if f.serial == 0 {
		f.serial = answer.Serial
	}
	if answer.Serial != f.serial {
		return answer, ErrNewSession
	}
	return answer, nil
}

// readAll reads every class anew.
func (f *feed) readAll(ctx context.Context, cause string) error {
	if err := f.read(ctx, cause, "", classes...); err != nil {
		return err
	}
	f.cache.complete(f.token)
	return nil
}

// read makes what the pool says the whole truth about some classes. They are read one after the other while the pool goes on
// changing; what has changed since token, or since the first answer without one, is read at the end, and all is taken over in one
// piece: else a VM of one moment would be seen with the disks of another.
func (f *feed) read(ctx context.Context, cause, token string, some ...string) error {
	answers := make([]xenapi.EventBatch, len(some))
	for i, class := range some {
		answer, err := f.from(ctx, []string{class}, "", 0)
		if err != nil {
			return err
		}
		if answers[i] = answer; token == "" {
			token = answer.Token
		}
	}
	since, err := f.from(ctx, classes, token, 0)
	if err != nil {
		return err
	}
	if generation(since.Token) < generation(token) {
		return f.readAll(ctx, "token went back")
	}
	f.token = since.Token
	f.cache.update(since.Token, func(b *batch) {
		for i, class := range some {
			b.replace(class, answers[i].Events)
			delete(f.differing, class)
			resyncs.WithLabelValues(f.cache.options.Pool, cause).Inc()
		}
		for _, e := range since.Events {
			b.apply(e)
		}
	})
	return nil
}

// resyncDiffering compares the numbers of objects, and reads anew the classes that go on to differ: a pool forgets
// old deletions, and an old token then misses them without a word.
func (f *feed) resyncDiffering(ctx context.Context, counts map[string]int64) error {
	held := f.cache.counts()
	for class, count := range counts {
		of, followed := held[class]
		if !followed {
			continue
		}
		if count-int64(of) == f.accepted[class] {
			delete(f.differing, class)
			continue
		}
		f.differing[class]++
		if f.differing[class] < confirmations {
			continue
		}
		if err := f.read(ctx, "counts differ", f.token, class); err != nil {
			return err
		}
		f.accepted[class] = count - int64(f.cache.counts()[class])
	}
	return nil
}

// update applies a batch under the lock and then tells whom it concerns.
func (c *Cache) update(token string, fill func(*batch)) {
	c.mu.Lock()
	b := c.newBatch()
	fill(b)
	change := b.change()
	c.lastSeen = c.options.Clock.Now()
	if token != "" {
		c.token = token
	}
	if b.changed && !c.wroteAt.IsZero() {
		eventLag.WithLabelValues(c.options.Pool).Observe(c.lastSeen.Sub(c.wroteAt).Seconds())
		c.wroteAt = time.Time{}
	}
	if b.changed || token != "" {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	c.mu.Unlock()
	if len(change.Keys) > 0 || change.Pool || change.Counts {
		c.options.Notify(change)
	}
}

// complete notes that everything has been read once, and wakes whoever waits for a task that is no more.
func (c *Cache) complete(token string) {
	c.mu.Lock()
	c.synced = true
	c.token = token
	lost := c.watch.takeLostTasks(func(ref xenapi.TaskRef) bool { return c.state.tasks.rows[ref] != nil })
	for class, count := range c.state.counts() {
		objects.WithLabelValues(c.options.Pool, class).Set(float64(count))
	}
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.options.Notify(Change{Keys: lost, TasksEnded: lost, Pool: true, Counts: true})
}

// counts returns how many objects of each followed class are held.
func (c *Cache) counts() map[string]int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.state.counts()
}
