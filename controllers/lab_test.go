package controllers_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// lab is a manager at work on the control plane that the tests of this package share.
type lab struct {
	*testkit.Environment
	t      *testing.T
	prefix string
}

// newLab starts a manager. It ends, and every XenPool with it, at the end of the test.
func newLab(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) *lab {
	t.Helper()
	l := &lab{Environment: testkit.Start(t), t: t, prefix: strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))}
	log := &lockedBuffer{}
	mgr, err := controllers.NewManager(l.Config, controllers.Options{Installation: "ours", Logger: zapr.NewLogger(jsonTo(log)), WrapXenAPI: wrap})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended with %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testkit.SystemNamespace}}
	if err := l.Client.Create(t.Context(), system); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return l
}

// lockedBuffer keeps the log of a manager.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// create makes an object and removes it at the end of the test, while the manager still runs.
func (l *lab) create(obj client.Object) {
	l.t.Helper()
	if err := l.Client.Create(l.t.Context(), obj); err != nil {
		l.t.Fatalf("create %s: %v", obj.GetName(), err)
	}
	l.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
		defer cancel()
		if err := client.IgnoreNotFound(l.Client.Delete(ctx, obj)); err != nil {
			l.t.Errorf("delete %s: %v", obj.GetName(), err)
		}
		for {
			err := l.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj)
			if apierrors.IsNotFound(err) {
				return
			}
			if ctx.Err() != nil {
				l.t.Errorf("%s does not go: %s", obj.GetName(), testkit.Manifest(obj))
				return
			}
		}
	})
}

// pool makes a XenPool of a simulated pool, with its Secret.
func (l *lab) pool(suffix string, simulator *testkit.Simulator, change func(*v1alpha1.XenPool, *corev1.Secret)) *v1alpha1.XenPool {
	l.t.Helper()
	name := l.prefix + suffix
	secret := testkit.PoolSecret(name, simulator.User, simulator.Password, simulator.CACert())
	xenPool := testkit.Pool(name, simulator.Endpoint).TrustingSecret(name).Object()
	if change != nil {
		change(xenPool, secret)
	}
	l.create(secret)
	l.create(xenPool)
	return xenPool
}

// simulator starts a simulated pool.
func (l *lab) simulator() *testkit.Simulator {
	return testkit.StartSimulator(l.t, xensim.Options{})
}

// waitPool waits until the XenPool shows a condition, and checks that kstatus reads what its conditions say.
func (l *lab) waitPool(p *v1alpha1.XenPool, kind string, status metav1.ConditionStatus, reason string) {
	l.t.Helper()
	l.WaitFor(l.t, p, fmt.Sprintf("%s is %s for %s", kind, status, reason), func() error {
		if err := testkit.Condition(p, kind, status, reason); err != nil {
			return err
		}
		return testkit.CheckKstatus(p)
	})
}

// update changes an object as a user would, however often somebody else changes it meanwhile.
func update[T client.Object](l *lab, obj T, change func(T)) {
	l.t.Helper()
	testkit.Eventually(l.t, "the change is stored", func(ctx context.Context) error {
		if err := l.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		change(obj)
		return l.Client.Update(ctx, obj)
	})
}

// secretOf reads the Secret of a XenPool.
func (l *lab) secretOf(p *v1alpha1.XenPool) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: testkit.SystemNamespace, Name: p.Spec.CredentialsSecretRef.Name}}
}

// within fails the test if something takes longer.
func (l *lab) within(d time.Duration, what string, do func()) {
	l.t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > d {
		l.t.Errorf("%s took %s, more than %s", what, took, d)
	}
}
