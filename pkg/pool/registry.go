package pool

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const (
	// kindPool is the kind whose keys are woken when a pool as a whole changes.
	kindPool = "XenPool"
	// poolDebounce gathers changes of hosts, storage repositories and networks, countsDebounce those of the numbers of
	// VMs, which move with everything that anybody does there.
	poolDebounce   = 200 * time.Millisecond
	countsDebounce = 5 * time.Second
)

// RegistryOptions are what a Registry needs to know.
type RegistryOptions struct {
	// Installation is the id in our marks.
	Installation string
	// WrapTransport wraps the transports of the clients; nil does not.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// Logger takes what is worth knowing about connections.
	Logger logr.Logger
	// Clock is the real one if nil.
	Clock clock.WithTicker
}

// Registry holds the connections of all pools. It is a manager.Runnable: connections end when Start does.
type Registry struct {
	options RegistryOptions
	clock   clock.WithTicker
	ctx     context.Context //nolint:containedctx // the life of the connections, which outlive the pass that asks for them
	cancel  context.CancelFunc
	leaving sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	runners map[string]*runner
	claims  map[string]claim
	queues  map[string][]workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// NewRegistry returns a registry without pools.
func NewRegistry(options RegistryOptions) *Registry {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Registry{
		options: options, clock: options.Clock, ctx: ctx, cancel: cancel,
		runners: map[string]*runner{}, claims: map[string]claim{},
		queues: map[string][]workqueue.TypedRateLimitingInterface[reconcile.Request]{},
	}
}

// Start waits for the end and then logs out everywhere. Nothing is sent to any pool after it has returned.
func (g *Registry) Start(ctx context.Context) error {
	<-ctx.Done()
	g.mu.Lock()
	g.closed = true
	runners := slices.Collect(maps.Values(g.runners))
	g.mu.Unlock()
	g.cancel()
	for _, r := range runners {
		<-r.done
	}
	g.leaving.Wait()
	return nil
}

// NeedLeaderElection says that only the leader connects.
func (g *Registry) NeedLeaderElection() bool { return true }

// Apply makes sure that the pool is being connected to as the XenPool and its Secrets say. It does not wait. retry asks
// for an attempt at once.
func (g *Registry) Apply(pool *v1alpha1.XenPool, settings Settings, retry bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	r := g.runners[pool.Name]
	if r == nil {
		r = g.newRunner(pool.Name)
		g.runners[pool.Name] = r
		ctx, cancel := context.WithCancel(g.ctx)
		r.cancel = cancel
		r.apply(pool.DeepCopy(), settings, true)
		go r.run(ctx)
		return
	}
	r.apply(pool.DeepCopy(), settings, retry)
}

func (g *Registry) newRunner(name string) *runner {
	r := &runner{
		registry: g, name: name, slots: newSlots(),
		done: make(chan struct{}), poke: make(chan struct{}, 1),
		state: State{
			UnusableSince: g.clock.Now(),
			Problem:       &Problem{Reason: v1alpha1.ReasonConnecting, Message: "the first answer of the pool is awaited"},
		},
	}
	r.cache = xencache.New(xencache.Options{
		Pool: name, Installation: g.options.Installation, Notify: r.notify, Clock: g.clock,
	})
	return r
}

// Remove ends the connection to a pool. It returns when nothing more is sent.
func (g *Registry) Remove(name string) {
	g.mu.Lock()
	r := g.runners[name]
	delete(g.runners, name)
	for uuid, c := range g.claims {
		if c.pool == name {
			delete(g.claims, uuid)
		}
	}
	g.mu.Unlock()
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
	connected.DeleteLabelValues(name)
	r.cache.ForgetMetrics()
	g.retryDuplicates()
}

// retryDuplicates lets those try again that found their pool taken.
func (g *Registry) retryDuplicates() {
	g.mu.Lock()
	runners := slices.Collect(maps.Values(g.runners))
	g.mu.Unlock()
	for _, r := range runners {
		r.mu.Lock()
		if p := r.state.Problem; p != nil && p.Reason == v1alpha1.ReasonDuplicatePool {
			r.asked++
			r.pokeLocked()
		}
		r.mu.Unlock()
	}
}

// State returns what is known of a pool's connection, and whether there is one at all.
func (g *Registry) State(name string) (State, bool) {
	r := g.runner(name)
	if r == nil {
		return State{}, false
	}
	state, _, _ := r.snapshot()
	return state, true
}

// Cache returns the objects of a pool as last known, also of one that cannot be used now; nil if there is none.
func (g *Registry) Cache(name string) *xencache.Cache {
	if r := g.runner(name); r != nil {
		return r.cache
	}
	return nil
}

// Get returns a pool that can be used now. The error is an *Unavailable.
func (g *Registry) Get(name string) (*Handle, error) {
	r := g.runner(name)
	if r == nil {
		return nil, &Unavailable{Pool: name, Reason: v1alpha1.ReasonPoolNotReady, Message: "no connection has been made yet"}
	}
	state, client, pool := r.snapshot()
	if !state.Usable || client == nil {
		problem := state.Problem
		if problem == nil {
			problem = &Problem{Reason: v1alpha1.ReasonConnecting, Message: "the connection is being made"}
		}
		return nil, &Unavailable{Pool: name, Reason: problem.Reason, Message: problem.Message, Since: state.UnusableSince}
	}
	h := &Handle{
		Name: name, UUID: state.UUID, Installation: g.options.Installation,
		Client: client, Cache: r.cache, Pool: pool, runner: r,
	}
	if _, mark := h.writerMark(); readWriter(mark, h.Installation, pool.Spec.TakeoverFrom) == writerForeign {
		denial := foreignWriter(name, mark, h.Installation)
		return nil, &Unavailable{Pool: name, Reason: denial.Reason, Message: denial.Message}
	}
	return h, nil
}

func (g *Registry) runner(name string) *runner {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runners[name]
}

// Source makes a controller's queue known as the one for keys of kind: what changes on a pool, and what ends there,
// is queued for its owner.
func (g *Registry) Source(kind string) source.Source { return keySource{g, kind} }

// keySource brings what happens on the pools to one controller.
type keySource struct {
	registry *Registry
	kind     string
}

// Start implements source.Source.
func (s keySource) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	s.registry.queues[s.kind] = append(s.registry.queues[s.kind], queue)
	return nil
}

// String is how the source is called in logs.
func (s keySource) String() string { return "pools: what happens to each " + s.kind }

// finishFirst is the priority of a key whose task has ended. With many keys in the queue the pool would else finish tasks faster
// than they are tidied up, and forget those above its limit; how they ended would then be told by reading everything anew.
const finishFirst = 1

// wake queues a key after a while.
func (g *Registry) wake(key xencache.Key, after time.Duration) { g.queue(key, after, 0) }

// queue queues a key after a while, before those of a lower priority.
func (g *Registry) queue(key xencache.Key, after time.Duration, priority int) {
	g.mu.Lock()
	queues := g.queues[key.Kind]
	g.mu.Unlock()
	req := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: key.Namespace, Name: key.Name}}
	for _, queue := range queues {
		if q, ok := queue.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
			q.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: &priority}, req)
			continue
		}
		queue.AddAfter(req, after)
	}
}

func (g *Registry) wakePool(name string, after time.Duration) {
	g.wake(xencache.Key{Kind: kindPool, Name: name}, after)
}

// clientConfig is how a client for the pool is made.
func (g *Registry) clientConfig(r *runner, s Settings) xenapi.Config {
	return xenapi.Config{
		Endpoints: s.Endpoints, Username: s.Username, Password: s.Password,
		CABundle: s.CABundle, FingerprintsSHA256: s.FingerprintsSHA256, InsecureSkipVerify: s.InsecureSkipVerify,
		Originator: "kubexen/" + g.options.Installation,
		Logger:     g.options.Logger.WithValues("pool", r.name),
		OnCall: func(call xenapi.CallInfo) {
			observeCall(call)
			if call.Err == nil && changes(call.Method) {
				r.cache.Wrote()
			}
		},

		WrapTransport: g.options.WrapTransport,
	}
}

// retire closes a replaced client when the calls that use it have had time to end.
func (g *Registry) retire(client *xenapi.Client) {
	g.leaving.Add(1)
	go func() {
		timer := g.clock.NewTimer(retirement)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-g.ctx.Done():
		}
		g.farewell(client)
		g.leaving.Done()
	}()
}

// farewell logs out. It has a deadline of its own: it is called when everything else ends.
func (g *Registry) farewell(client *xenapi.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	if err := client.Close(ctx); err != nil {
		g.options.Logger.V(1).Info("log out of pool", "error", err.Error())
	}
}

// Wake queues a key at once.
func (g *Registry) Wake(key xencache.Key) { g.wake(key, 0) }
