package controllers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/shrink"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// Options are what the flags of the manager set. The zero value of each works.
type Options struct {
	// Installation is the id in the marks on the pools; required.
	Installation string
	// Namespace is where the lease of the leader election is.
	Namespace string
	// LeaderElection lets one of several replicas work.
	LeaderElection bool
	// LeaderElectionID names the lease; "kubexen" if empty.
	LeaderElectionID string
	// LeaseDuration, RenewDeadline and RetryPeriod are those of the lease; zero: 12 s, 8 s and 0.75 s, so that another replica
	// acts within 15 s when one dies without a word, and within 2 s when one stops.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	// MetricsAddress and HealthAddress are host:port; "" or "0" is off.
	MetricsAddress, HealthAddress string
	// Concurrency is how many instances are worked on at a time; 0 means DefaultConcurrency.
	Concurrency int
	// QPS and Burst limit the requests to the API server; 0 means DefaultQPS and DefaultBurst.
	QPS   float32
	Burst int
	// ConsoleURL is where users reach the console gateway; without it no console gets a URL.
	ConsoleURL string
	// ShutdownTimeout is how long a stopping manager waits for what is under way; 0 means 15 s.
	ShutdownTimeout time.Duration
	// ScratchDir is where disks are kept while they are made smaller, os.TempDir() if empty; ScratchLimit is how many bytes of it
	// may be used (0: what is free), MaxShrinks how many disks are made smaller at a time (0 means 1).
	ScratchDir   string
	ScratchLimit int64
	MaxShrinks   int
	// Endpoints decides where the operator connects on a tenant's word; nil: to public addresses alone.
	Endpoints *egress.Guard
	// Logger takes the logs.
	Logger logr.Logger
	// Clock is the real one if nil.
	Clock clock.WithTicker
	// WrapXenAPI wraps the transports to the pools: for measuring, for tests that fence or delay.
	WrapXenAPI func(http.RoundTripper) http.RoundTripper
}

// What Options mean that are not given.
const (
	DefaultConcurrency = 20
	// DefaultQPS lets 25 instances be made in a second, with six requests each and some room; the API server's own priority and
	// fairness protect it from more than it can take.
	DefaultQPS   = 200
	DefaultBurst = 2 * DefaultQPS
)

const (
	defaultShutdown = 15 * time.Second
	// poolConcurrency is how many XenPools are worked on at a time. A pass may wait for a call to its pool.
	poolConcurrency = 8
	// fieldOwner owns what we apply.
	fieldOwner client.FieldOwner = "kubexen"
	// reporter is who our Events are from.
	reporter = "kubexen"
)

// poolField is the field index by which instances are found for their pool.
const poolField = "spec.poolRef.name"

// shared is what all controllers work with.
type shared struct {
	options Options
	manager manager.Manager
	pools   *pool.Registry
	stores  transfer.Stores
	runner  transfer.Runner
	scratch transfer.Scratch
	clock   clock.WithTicker
}

// runtime returns what the passes of one controller share.
func (s *shared) runtime() *reconcile.Runtime {
	return &reconcile.Runtime{
		Client:     s.manager.GetClient(),
		Live:       s.manager.GetAPIReader(),
		Clock:      s.clock,
		Recorder:   s.manager.GetEventRecorder(reporter),
		FieldOwner: fieldOwner,
	}
}

// NewScheme returns the scheme with the kinds that the manager reads and writes.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// NewManager returns a manager with all controllers, ready to start. Several in one process do not disturb each other.
func NewManager(restConfig *rest.Config, options Options) (manager.Manager, error) {
	if options.Installation == "" {
		return nil, fmt.Errorf("an installation id is needed: it is the owner in the marks on the pools")
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Endpoints == nil {
		options.Endpoints = &egress.Guard{}
	}
	restConfig = rest.CopyConfig(restConfig)
	restConfig.QPS, restConfig.Burst = orDefault(options.QPS, DefaultQPS), orDefault(options.Burst, DefaultBurst)
	mgr, err := manager.New(restConfig, managerOptions(options))
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	s := &shared{
		options: options, manager: mgr, clock: options.Clock,
		pools: pool.NewRegistry(pool.RegistryOptions{
			Installation: options.Installation, WrapTransport: options.WrapXenAPI,
			Logger: options.Logger.WithName("xenapi"), Clock: options.Clock,
		}),
	}
	if err := s.addTransfers(); err != nil {
		return nil, err
	}
	if err := s.register(); err != nil {
		return nil, err
	}
	return mgr, nil
}

func managerOptions(options Options) manager.Options {
	return manager.Options{
		Scheme:  NewScheme(),
		Logger:  options.Logger,
		Metrics: metricsserver.Options{BindAddress: offIfEmpty(options.MetricsAddress)},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
		},
		Client: client.Options{Cache: &client.CacheOptions{
			// A pass that follows our own write must see it: acting on what was before is how things are made twice.
			EnableReadYourWritesConsistency: ptr.To(true),
		}},
		Controller: config.Controller{
			// The names serve metrics; several managers in one process share them.
			SkipNameValidation: ptr.To(true),
			RecoverPanic:       ptr.To(true),
		},
		HealthProbeBindAddress:        offIfEmpty(options.HealthAddress),
		LeaderElection:                options.LeaderElection,
		LeaderElectionID:              orDefault(options.LeaderElectionID, "kubexen"),
		LeaderElectionNamespace:       options.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 ptr.To(orDefault(options.LeaseDuration, 12*time.Second)),
		RenewDeadline:                 ptr.To(orDefault(options.RenewDeadline, 8*time.Second)),
		RetryPeriod:                   ptr.To(orDefault(options.RetryPeriod, 750*time.Millisecond)),
		GracefulShutdownTimeout:       ptr.To(orDefault(options.ShutdownTimeout, defaultShutdown)),
	}
}

// register adds the controllers, the connections and the checks to the manager.
func (s *shared) register() error {
	err := s.manager.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.XenInstance{}, poolField,
		func(obj client.Object) []string { return []string{obj.(*v1alpha1.XenInstance).Spec.PoolRef.Name} })
	if err != nil {
		return fmt.Errorf("index instances by pool: %w", err)
	}
	if err := s.manager.Add(s.pools); err != nil {
		return fmt.Errorf("add the connections: %w", err)
	}
	if err := s.manager.Add(&instanceCensus{reader: s.manager.GetCache(), clock: s.clock}); err != nil {
		return fmt.Errorf("add the census of instances: %w", err)
	}
	for kind, setup := range map[string]func(*shared) error{
		"XenPool":     setupPool,
		"XenFlavor":   setupFlavor,
		"XenImage":    setupImages,
		"XenInstance": setupInstance,
		"XenSnapshot": setupSnapshot,
		"XenConsole":  setupConsole,
	} {
		if err := setup(s); err != nil {
			return fmt.Errorf("set up the controller of %s: %w", kind, err)
		}
	}
	return s.addChecks()
}

// addTransfers lets the manager run transfers between pools and stores. They end when it does.
func (s *shared) addTransfers() error {
	s.stores = &transfer.SecretStores{
		Secrets: s.manager.GetAPIReader(), Namespace: s.options.Namespace, Installation: s.options.Installation, Guard: s.options.Endpoints,
		Clock: s.clock,
	}
	s.scratch = transfer.Scratch{
		Space: shrink.NewSpace(orDefault(s.options.ScratchDir, os.TempDir()), s.options.ScratchLimit), Most: orDefault(s.options.MaxShrinks, 1),
	}
	local := transfer.NewLocal(s.pools, s.stores, s.pools.Wake, s.clock, s.scratch, s.transferLog())
	s.runner = local
	if err := s.manager.Add(manager.RunnableFunc(local.Run)); err != nil {
		return fmt.Errorf("add the transfers: %w", err)
	}
	return nil
}

// transferLog takes what is to be told of transfers.
func (s *shared) transferLog() logr.Logger { return s.options.Logger.WithName("transfers") }

// addChecks serves liveness, and readiness once the kinds are known, also on a replica that does not lead.
func (s *shared) addChecks() error {
	var ready atomic.Bool
	err := s.manager.Add(everyReplica(func(ctx context.Context) error {
		ready.Store(s.manager.GetCache().WaitForCacheSync(ctx))
		return nil
	}))
	if err != nil {
		return fmt.Errorf("add the readiness watch: %w", err)
	}
	if err := s.manager.AddHealthzCheck("alive", func(*http.Request) error { return nil }); err != nil {
		return fmt.Errorf("add the liveness check: %w", err)
	}
	err = s.manager.AddReadyzCheck("synced", func(*http.Request) error {
		if !ready.Load() {
			return fmt.Errorf("the objects of the API server are not all known yet")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add the readiness check: %w", err)
	}
	return nil
}

// everyReplica is a runnable that does not wait to be leader.
type everyReplica func(context.Context) error

// Start implements manager.Runnable.
func (f everyReplica) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (everyReplica) NeedLeaderElection() bool { return false }

// namespaceLabels reads the labels by which grants select a namespace.
func namespaceLabels(ctx context.Context, reader client.Reader, name string) (map[string]string, error) {
	var namespace metav1.PartialObjectMetadata
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := reader.Get(ctx, client.ObjectKey{Name: name}, &namespace); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	return namespace.Labels, nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func offIfEmpty(address string) string { return orDefault(address, "0") }
