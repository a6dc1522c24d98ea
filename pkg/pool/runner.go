package pool

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Settings are what a connection is made with. Other settings make another connection.
type Settings struct {
	Endpoints          []string
	Username, Password string
	CABundle           []byte
	FingerprintsSHA256 []string
	InsecureSkipVerify bool
	// SecretVersion is the resourceVersion of the Secret with the credentials, as status shows it.
	SecretVersion string
}

const (
	// connectTimeout bounds one attempt to log in and look who answers.
	connectTimeout = 45 * time.Second
	// silence is how long a pool may say nothing before it counts as unreachable; it answers at least every 30 s.
	silence = 50 * time.Second
	// retirement is how long a replaced client lives on for the calls that are under way.
	retirement = 30 * time.Second
	// logoutTimeout bounds the farewell.
	logoutTimeout = 3 * time.Second
)

// State is what a runner knows of its connection, for the status.
type State struct {
	// UUID of the pool that answers, "" before the first answer.
	UUID string
	// Coordinator is the host:port that answers.
	Coordinator string
	// Usable says that the pool answers, is the right one, and its objects are all known.
	Usable bool
	// UnusableSince is since when it is not usable; zero while it is.
	UnusableSince time.Time
	// Problem is why it is not usable, or what is wrong although it is; nil if nothing is.
	Problem *Problem
	// AcceptedSecret is the SecretVersion that the pool accepted last, and AcceptedAt when.
	AcceptedSecret string
	AcceptedAt     time.Time
}

// runner keeps the connection to one pool. Its goroutines are the only ones that wait for that pool to log us in or
// to tell of changes.
type runner struct {
	registry *Registry
	name     string
	cache    *xencache.Cache
	slots    *slots
	cancel   context.CancelFunc
	done     chan struct{}
	poke     chan struct{}
	// writing lets one goroutine at a time claim the writer mark.
	writing sync.Mutex

	mu       sync.Mutex
	pool     *v1alpha1.XenPool
	settings Settings
	asked    int // counts what makes another attempt worth while at once
	live     *connection
	state    State
}

// connection is a client and who follows the pool's events with it.
type connection struct {
	settings Settings
	client   *xenapi.Client
	cancel   context.CancelFunc
	done     chan struct{}
	// dead is why another connection must be made, nil while this one may serve. Guarded by the runner.
	dead *Problem
}

// apply takes over what the XenPool and its Secrets say. retry asks for an attempt at once although nothing changed.
func (r *runner) apply(pool *v1alpha1.XenPool, settings Settings, retry bool) {
	r.mu.Lock()
	repinned := pin(r.pool) != pin(pool)
	r.pool = pool
	if r.live != nil && r.live.dead == nil {
		r.live.dead = checkIdentity(pin(pool), r.state.UUID)
	}
	r.slots.setLimit(pool.Spec.TaskLimit())
	if repinned || retry || !reflect.DeepEqual(r.settings, settings) {
		r.settings = settings
		r.asked++
		r.pokeLocked()
	}
	r.mu.Unlock()
}

// pin is the uuid that the pool must have, "" for any.
func pin(pool *v1alpha1.XenPool) string {
	switch {
	case pool == nil:
		return ""
	case pool.Spec.UUID != "":
		return pool.Spec.UUID
	default:
		return pool.Status.UUID
	}
}

func (r *runner) pokeLocked() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// run makes connections until ctx ends: one whenever there is none or the settings have changed, with a pause after
// each failure that grows with the kind of failure.
func (r *runner) run(ctx context.Context) {
	defer close(r.done)
	defer r.replace(ctx, nil)
	var pause backoff
	tried := 0
	for ctx.Err() == nil {
		settings, asked, current := r.wanted(ctx, &pause)
		if asked != tried {
			pause, tried = backoff{}, asked
		}
		if current || !pause.due(r.registry.clock.Now()) {
			r.sleep(ctx, pause, current)
			continue
		}
		pause = r.attempt(ctx, settings, pause)
	}
}

// wanted returns the settings that a connection should have, and whether the present one has them. A connection that
// has given itself up is put away first.
func (r *runner) wanted(ctx context.Context, pause *backoff) (settings Settings, asked int, current bool) {
	r.mu.Lock()
	live := r.live
	var dead *Problem
	if live != nil {
		dead = live.dead
	}
	settings, asked = r.settings, r.asked
	r.mu.Unlock()
	if dead != nil {
		r.replace(ctx, nil)
		pause.failed(*dead, r.registry.clock.Now())
		r.setProblem(dead)
		return settings, asked, false
	}
	return settings, asked, live != nil && reflect.DeepEqual(live.settings, settings)
}

// attempt tries once to connect, and returns how long to pause before another try is worth while.
func (r *runner) attempt(ctx context.Context, settings Settings, pause backoff) backoff {
	problem := r.connect(ctx, settings)
	if problem == nil {
		return backoff{}
	}
	pause.failed(*problem, r.registry.clock.Now())
	problem.RetryAt = pause.until
	r.setProblem(problem)
	return pause
}

// sleep waits until there is something to do.
func (r *runner) sleep(ctx context.Context, pause backoff, current bool) {
	var due <-chan time.Time
	if !current {
		timer := r.registry.clock.NewTimer(pause.remaining(r.registry.clock.Now()))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-r.poke:
	case <-due:
	}
}

// connect logs in with the settings and, if the right pool answers, puts the new connection in the place of the old.
func (r *runner) connect(ctx context.Context, settings Settings) *Problem {
	attempt, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	client, err := xenapi.Connect(attempt, r.registry.clientConfig(r, settings))
	if err != nil {
		return classify(err)
	}
	if problem := r.identify(attempt, client); problem != nil {
		r.registry.farewell(client)
		if problem.wrongPool() {
			r.replace(ctx, nil)
		}
		return problem
	}
	following, stop := context.WithCancel(ctx)
	next := &connection{settings: settings, client: client, cancel: stop, done: make(chan struct{})}
	r.replace(ctx, next)
	r.mu.Lock()
	if r.state.AcceptedSecret != settings.SecretVersion {
		r.state.AcceptedSecret, r.state.AcceptedAt = settings.SecretVersion, r.registry.clock.Now()
	}
	r.mu.Unlock()
	go r.follow(following, next)
	return nil
}

// identify looks who answers: the pool must be the pinned one, and no other XenPool's.
func (r *runner) identify(ctx context.Context, client *xenapi.Client) *Problem {
	pools, err := client.Pool.GetAllRecords(ctx)
	if err != nil {
		return classify(err)
	}
	for _, record := range pools {
		r.mu.Lock()
		pool := r.pool
		r.mu.Unlock()
		if problem := checkIdentity(pin(pool), record.UUID); problem != nil {
			return problem
		}
		if other := r.registry.claim(record.UUID, pool); other != "" {
			return duplicate(record.UUID, other)
		}
		r.mu.Lock()
		r.state.UUID, r.state.Coordinator = record.UUID, client.Coordinator()
		r.mu.Unlock()
		return nil
	}
	return &Problem{Reason: v1alpha1.ReasonPoolUnreachable, Message: "the server answers but knows no pool"}
}

// replace ends the present connection and puts next, which may be nil, in its place.
func (r *runner) replace(ctx context.Context, next *connection) {
	r.mu.Lock()
	old := r.live
	r.live = next
	r.mu.Unlock()
	if old == nil {
		return
	}
	old.cancel()
	<-old.done
	if next == nil || ctx.Err() != nil {
		r.setUnusable()
		r.registry.farewell(old.client)
		return
	}
	r.registry.retire(old.client)
}

// follow keeps the cache in step for as long as the connection is the present one. It never gives a client up that
// still may come back: only refused credentials and a wrong pool need another connection.
func (r *runner) follow(ctx context.Context, c *connection) {
	defer close(c.done)
	var pause backoff
	for {
		problem := r.identify(ctx, c.client)
		if problem == nil {
			err := r.cache.Follow(ctx, c.client, func() { pause = backoff{}; r.setUsable(c) })
			if errors.Is(err, xencache.ErrNewSession) {
				continue
			}
			problem = classify(err)
		}
		if ctx.Err() != nil {
			return
		}
		r.setUnusable()
		r.setProblem(problem)
		if problem.needsConnection() {
			r.kill(c, problem)
			return
		}
		pause.failed(*problem, r.registry.clock.Now())
		timer := r.registry.clock.NewTimer(pause.remaining(r.registry.clock.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}

// kill gives up a connection, so that run makes another.
func (r *runner) kill(c *connection, why *Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c != nil && c.dead == nil {
		c.dead = why
	}
	r.pokeLocked()
}

// setUsable is called when all of the pool is known. Its other members are, too, from then on: one of them may be the
// next coordinator.
func (r *runner) setUsable(c *connection) {
	var members []string
	r.cache.View(func(v xencache.View) {
		for _, host := range v.Hosts() {
			members = append(members, host.Address)
		}
	})
	c.client.AddMembers(members...)
	r.mu.Lock()
	r.state.Usable, r.state.UnusableSince = true, time.Time{}
	if p := r.state.Problem; reflect.DeepEqual(c.settings, r.settings) || p != nil && !p.stalled() {
		r.state.Problem = nil
	}
	r.state.Coordinator = c.client.Coordinator()
	r.mu.Unlock()
	connected.WithLabelValues(r.name).Set(1)
	r.registry.wakePool(r.name, 0)
}

func (r *runner) setUnusable() {
	r.mu.Lock()
	if r.state.Usable {
		r.state.Usable, r.state.UnusableSince = false, r.registry.clock.Now()
	}
	r.mu.Unlock()
	connected.WithLabelValues(r.name).Set(0)
}

func (r *runner) setProblem(problem *Problem) {
	r.mu.Lock()
	r.state.Problem = problem
	r.mu.Unlock()
	r.registry.wakePool(r.name, 0)
}

// snapshot returns the state as of now, and the present client.
func (r *runner) snapshot() (State, *xenapi.Client, *v1alpha1.XenPool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.state
	if r.live == nil {
		state.Usable = false
		return state, nil, r.pool
	}
	if last := r.cache.LastSeen(); state.Usable && r.registry.clock.Since(last) > silence {
		state.Usable, state.UnusableSince = false, last
		state.Problem = &Problem{Reason: v1alpha1.ReasonPoolUnreachable, Message: "the pool has been silent since " + last.UTC().Format(time.RFC3339)}
	}
	return state, r.live.client, r.pool
}

// notify passes a change of the pool's objects on.
func (r *runner) notify(change xencache.Change) {
	for _, key := range change.TasksEnded {
		r.registry.queue(key, 0, finishFirst)
		r.wake(r.slots.release(key))
	}
	r.wake(change.Keys)
	switch {
	case change.Pool:
		r.registry.wakePool(r.name, poolDebounce)
	case change.Counts:
		r.registry.wakePool(r.name, countsDebounce)
	}
}

func (r *runner) wake(keys []xencache.Key) {
	for _, key := range keys {
		r.registry.wake(key, 0)
	}
}
