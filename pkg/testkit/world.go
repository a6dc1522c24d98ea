package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xensim"
)

const (
	// PoolName is what the pool of a World is called.
	PoolName = "lab"
	// Installation is the id under which the managers of a World mark what they make.
	Installation = "testkit"
	// stopPatience is how long a manager may take to return once its context is done.
	stopPatience = 30 * time.Second
	// quiet is how long a manager must do nothing to be called at rest.
	quiet = 400 * time.Millisecond
)

// ManagerOptions are what a World asks of a manager that it runs.
type ManagerOptions struct {
	Installation string
	// WrapXenAPI goes around every transport to a pool.
	WrapXenAPI func(http.RoundTripper) http.RoundTripper
	// Log takes the manager's whole log.
	Log io.Writer
}

// RunManager runs a manager in this process until the context is done. Every client of it is made from the config.
type RunManager func(ctx context.Context, config *rest.Config, options ManagerOptions) error

// World is a simulated pool with other people's machines on it, a cluster that knows the pool, and a manager between
// them that can be killed and started again.
type World struct {
	*Environment
	Simulator *Simulator
	// Namespace is the test's own.
	Namespace string

	t         testing.TB
	run       RunManager
	log       lockedBuffer // of all managers that ran
	strangers strangers
	copies    *onlyCopies
	secrets   []string
	// oldTasks were there before us, or when a manager was killed. A finished task whose reference died with its manager
	// cannot be told from anybody else's; the pool collects it. A pending one is counted all the same.
	oldTasks map[string]map[string]any

	manager *runningManager
}

// NewWorld makes a world in which no manager runs yet.
func NewWorld(t testing.TB, environment *Environment, run RunManager, options xensim.Options) *World {
	t.Helper()
	w := &World{Environment: environment, t: t, run: run}
	w.Simulator = StartSimulator(t, options)
	w.strangers, w.copies = addStrangers(t, w.Simulator), &onlyCopies{pool: w.Simulator}
	w.oldTasks = w.Simulator.Records("task")
	w.Namespace = environment.Namespace(t)
	w.NeverShow(w.Simulator.Password)
	w.wipe() // what other tests left would be this manager's to care for
	w.createPool()
	t.Cleanup(func() {
		w.Close()
		if err := w.copies.check(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// Close stops the manager and removes all objects of ours from the cluster, for the next world. The test's end does it
// too.
func (w *World) Close() {
	w.StopManager()
	w.wipe()
}

// NeverShow adds a text that may not appear in a status, an Event, a log, or on the pool.
func (w *World) NeverShow(secret string) { w.secrets = append(w.secrets, secret) }

func (w *World) createPool() {
	ctx := w.t.Context()
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SystemNamespace}}
	if err := w.Client.Create(ctx, system); err != nil && !apierrors.IsAlreadyExists(err) {
		w.t.Fatal(err)
	}
	secret, pool := PoolSecret(PoolName, w.Simulator.User, w.Simulator.Password, w.Simulator.CACert()), Pool(PoolName, w.Simulator.Endpoint)
	if len(w.Simulator.CACert()) > 0 { // plain HTTP has none
		pool.TrustingSecret(PoolName)
	}
	if err := w.Client.Delete(ctx, secret.DeepCopy()); client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	for _, object := range []client.Object{secret, pool.Object()} {
		if err := w.Client.Create(ctx, object); err != nil {
			w.t.Fatalf("make %s: %v", object.GetName(), err)
		}
	}
}

// runningManager is one life of a manager.
type runningManager struct {
	fence  *Fence
	cancel context.CancelFunc
	ended  chan error
}

// StartManager starts a manager and returns its fence.
func (w *World) StartManager() *Fence {
	w.t.Helper()
	if w.manager != nil {
		w.t.Fatal("a manager runs already")
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &runningManager{fence: NewFence(), cancel: cancel, ended: make(chan error, 1)}
	config := rest.CopyConfig(w.Config)
	config.Wrap(m.fence.WrapKubernetes)
	toPool := func(next http.RoundTripper) http.RoundTripper { return m.fence.WrapXenAPI(w.copies.wrap(next)) }
	go func() {
		m.ended <- w.run(ctx, config, ManagerOptions{Installation: Installation, WrapXenAPI: toPool, Log: &w.log})
	}()
	w.manager = m
	return m.fence
}

// StopManager ends the manager well, if one runs.
func (w *World) StopManager() { w.endManager(false) }

// KillManager ends the manager as a SIGKILL would: from this moment nothing leaves it.
func (w *World) KillManager() {
	w.endManager(true)
	w.oldTasks = w.Simulator.Records("task")
}

func (w *World) endManager(kill bool) {
	w.t.Helper()
	m := w.manager
	if m == nil {
		return
	}
	if kill {
		m.fence.Kill()
	}
	m.cancel()
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case err := <-m.ended:
		if err != nil && !m.fence.isDown() {
			w.t.Errorf("the manager ended with an error: %v", err)
		}
	case <-timer.C:
		w.t.Errorf("the manager did not return %s after its context was done", stopPatience)
	}
	m.fence.Kill() // whatever it left running acts on nothing
	w.manager = nil
}

// until waits until a condition holds. It returns errKilled when the manager's fence fell before.
func (w *World) until(what string, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), Patience, fmt.Errorf("%s are over", Patience))
	defer cancel()
	killed := make(<-chan struct{})
	if w.manager != nil {
		killed = w.manager.fence.Killed()
	}
	dead := false
	err := until(ctx, what, func(ctx context.Context) error {
		select {
		case <-killed:
			dead = true
			cancel()
			return errKilled
		default:
			return holds(ctx)
		}
	})
	if dead {
		return errKilled
	}
	return err
}

// WaitAtRest waits until the manager has made no action for a while.
func (w *World) WaitAtRest(t testing.TB) {
	t.Helper()
	if err := w.atRest(); err != nil {
		t.Fatal(err)
	}
}

// atRest waits until the manager has made no action for a while. One that has only just been started rests no less than one that
// is done: what is asked of it must be looked at first.
func (w *World) atRest() error {
	last, since := -1, time.Now()
	return w.until("the manager is at rest", func(context.Context) error {
		if made := len(w.manager.fence.Actions()); made != last {
			last, since = made, time.Now()
		}
		if time.Since(since) < quiet {
			return errors.New("it goes on making calls or writes")
		}
		return nil
	})
}

// kinds are ours, those that hold others first.
func kinds() []client.ObjectList {
	return []client.ObjectList{
		&v1alpha1.XenConsoleList{}, &v1alpha1.XenSnapshotList{}, &v1alpha1.XenInstanceList{}, &v1alpha1.XenImageList{}, &v1alpha1.XenClusterImageList{},
		&v1alpha1.XenFlavorList{}, &v1alpha1.XenPoolList{},
	}
}

// objects are all objects of our kinds.
func (w *World) objects(ctx context.Context) ([]client.Object, error) {
	var all []client.Object
	for _, list := range kinds() {
		if err := w.Client.List(ctx, list); err != nil {
			return nil, err
		}
		err := eachItem(list, func(object client.Object) { all = append(all, object) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// wipe removes all our objects without a manager: the next world finds a clean cluster.
func (w *World) wipe() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	objects, err := w.objects(ctx)
	if err != nil {
		w.t.Errorf("clean up: %v", err)
		return
	}
	for _, object := range objects {
		release := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
		if err := w.Client.Patch(ctx, object, release); client.IgnoreNotFound(err) != nil {
			w.t.Errorf("clean up %s: %v", object.GetName(), err)
		}
		if err := w.Client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
			w.t.Errorf("clean up %s: %v", object.GetName(), err)
		}
	}
}

// lockedBuffer takes the logs of a manager's many goroutines.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

// Write adds to the buffer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

// String is everything that was written.
func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}
