package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
	"github.com/kubexen/kubexen/pkg/xensim"
)

const (
	benchNamespace = "bench"
	benchTemplate  = "Debian Bookworm 12"
	benchNetwork   = "Pool-wide network associated with eth0"
	// settled is how long nothing may happen until a workflow counts as over.
	settled = 500 * time.Millisecond
	// patience is how long one object may take.
	patience = time.Minute
)

// operator is a control plane, a simulated pool, and a manager in this process between them, whose calls and writes are
// counted.
type operator struct {
	plane  *controlplane.ControlPlane
	client client.Client
	pool   *xensim.Pool
	fence  *testkit.Fence

	endpoint string
	cancel   context.CancelFunc
	ended    chan error
}

// startWorld brings up everything but a manager.
func startWorld(ctx context.Context, options xensim.Options) (_ *operator, err error) {
	log.SetLogger(logr.Discard())
	o := &operator{fence: testkit.NewFence()}
	defer func() {
		if err != nil {
			o.stop()
		}
	}()
	if o.plane, err = controlplane.Start(ctx, controlplane.Options{}); err != nil {
		return nil, err
	}
	if o.client, err = client.New(o.plane.Config, client.Options{Scheme: testkit.NewScheme()}); err != nil {
		return nil, err
	}
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	if err := testkit.InstallCRDs(ctx, o.client, filepath.Join(root, "config", "crd", "bases")); err != nil {
		return nil, err
	}
	options.User, options.Password = "root", "bench"
	if o.pool, err = xensim.New(options); err != nil {
		return nil, err
	}
	if o.endpoint, err = o.pool.Start("127.0.0.1:0"); err != nil {
		return nil, err
	}
	return o, o.createObjects(ctx)
}

func (o *operator) createObjects(ctx context.Context) error {
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testkit.SystemNamespace}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: benchNamespace}},
		testkit.PoolSecret(testkit.PoolName, "root", "bench", o.pool.CACert()),
		testkit.Pool(testkit.PoolName, o.endpoint).TrustingSecret(testkit.PoolName).Object(),
		testkit.Flavor("small", 1, "256Mi"),
	}
	for _, object := range objects {
		if err := o.client.Create(ctx, object); err != nil {
			return fmt.Errorf("make %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// startManager runs a manager in this process.
func (o *operator) startManager(ctx context.Context) error {
	ctx, o.cancel = context.WithCancel(ctx)
	o.ended = make(chan error, 1)
	endpoints, err := egress.New([]string{"127.0.0.0/8"}) // where the stores are
	if err != nil {
		return err
	}
	config := rest.CopyConfig(o.plane.Config)
	config.Wrap(o.fence.WrapKubernetes)
	manager, err := controllers.NewManager(config, controllers.Options{
		Installation: "bench", WrapXenAPI: func(next http.RoundTripper) http.RoundTripper { return next }, Logger: logr.Discard(),
		ConsoleURL: "https://consoles.example.org", Endpoints: endpoints,
	})
	if err != nil {
		return err
	}
	go func() { o.ended <- manager.Start(ctx) }()
	return o.wait(ctx, testkit.Pool(testkit.PoolName).Object(), ready)
}

func (o *operator) stop() {
	if o.cancel != nil {
		o.cancel()
		if err := <-o.ended; err != nil {
			fmt.Fprintln(os.Stderr, "the manager ended with an error:", err)
		}
	}
	if o.pool != nil {
		o.pool.Close()
	}
	if o.plane != nil {
		o.plane.Stop()
	}
}

// object is one of our kinds.
type object interface {
	client.Object
	testkit.Object
}

func ready(o object) error { return testkit.Ready(o) }

// wait reads an object again and again until it is as wanted.
func (o *operator) wait(ctx context.Context, what object, holds func(object) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := client.ObjectKeyFromObject(what)
	return every(ctx, 10*time.Millisecond, func() error {
		if err := o.client.Get(ctx, key, what); err != nil {
			return err
		}
		return holds(what)
	})
}

// waitGone waits until an object is not there.
func (o *operator) waitGone(ctx context.Context, what client.Object) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := client.ObjectKeyFromObject(what)
	return every(ctx, 10*time.Millisecond, func() error {
		err := o.client.Get(ctx, key, what)
		if err == nil {
			return errors.New(what.GetName() + " is still there")
		}
		return client.IgnoreNotFound(err)
	})
}

// waitSettled waits until neither a call nor a write has been made for a while.
func (o *operator) waitSettled(ctx context.Context) error {
	last, since := -1, time.Now()
	return every(ctx, 20*time.Millisecond, func() error {
		if now := o.calls() + o.writes(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < settled {
			return errors.New("it is not at rest")
		}
		return nil
	})
}

// calls is how many XenAPI calls the pool has counted: all but logging in and out, waiting for events, and HTTP handlers.
func (o *operator) calls() int {
	count := 0
	for method, made := range o.pool.CallCounts().Calls {
		if method != "event.from" && !strings.HasPrefix(method, "session.") && !strings.Contains(method, " ") {
			count += made
		}
	}
	return count
}

// writes is how many writes of objects of ours and of Secrets the manager has made.
func (o *operator) writes() int { return len(o.fence.Actions()) }

// every asks again and again until there is no complaint.
func every(ctx context.Context, interval time.Duration, holds func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		complaint := holds()
		if complaint == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), complaint)
		case <-tick.C:
		}
	}
}

// residentMiB is the memory that a process holds.
func residentMiB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("the process has no resident memory")
}

// benchInstance is one VM with one disk and one interface.
func benchInstance(name string) *testkit.InstanceBuilder {
	return testkit.Instance(benchNamespace, name, testkit.PoolName).FromTemplate(benchTemplate).OfFlavor("small").
		Network("lan", benchNetwork).DeletedBy(v1alpha1.DeletionDelete)
}
