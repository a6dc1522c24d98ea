package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xencache"
)

const (
	yes     = metav1.ConditionTrue
	no      = metav1.ConditionFalse
	unknown = metav1.ConditionUnknown
)

func TestAPoolConnectsAndShowsItself(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	s := p.Status
	if s.UUID == "" || s.Version == "" || s.HostSummary != "3/3" || len(s.Hosts) != 3 || len(s.StorageRepositories) == 0 || len(s.Networks) == 0 {
		t.Errorf("status is %s", testkit.Manifest(p))
	}
	if err := testkit.Condition(p, v1alpha1.ConditionReachable, yes, v1alpha1.ReasonConnected); err != nil {
		t.Error(err)
	}
	if err := testkit.Condition(p, v1alpha1.ConditionCredentialsValid, yes, v1alpha1.ReasonSucceeded); err != nil {
		t.Error(err)
	}
	for _, call := range simulator.Calls() {
		if !slices.Contains([]string{"session.login_with_password", "pool.get_all_records", "event.from"}, call.Method) {
			t.Errorf("to observe a pool took a call of %s", call.Method)
		}
	}
}

func TestAPoolAtRestCostsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	version := p.ResourceVersion
	simulator.ResetCalls()
	// A request and its echo show that passes happen and write when there is something to write.
	for range 5 {
		network := simulator.FindByName(t, "network", p.Status.Networks[0].Name)
		if err := simulator.Update("network", network, map[string]any{"name_description": time.Now().String()}); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "the event is fetched", func(context.Context) error {
			if len(simulator.Calls()) == 0 {
				return errors.New("no call yet")
			}
			return nil
		})
	}
	if err := l.Client.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
		t.Fatal(err)
	}
	if p.ResourceVersion != version {
		t.Errorf("a change that the status does not show was written: %s", testkit.Manifest(p))
	}
	for _, call := range simulator.Calls() {
		if call.Method != "event.from" {
			t.Errorf("at rest %s was called", call.Method)
		}
	}
}

func TestAChangeOnThePoolIsSeen(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	simulator.Insert("network", map[string]any{"name_label": "fresh"})
	l.within(10*time.Second, "a new network to show", func() {
		l.WaitFor(t, p, "the network shows", func() error {
			if !slices.ContainsFunc(p.Status.Networks, func(n v1alpha1.PoolNetwork) bool { return n.Name == "fresh" }) {
				return errors.New("not there")
			}
			return nil
		})
	})
}

func TestWrongCredentialsAreToldAndRightOnesTriedAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, func(_ *v1alpha1.XenPool, s *corev1.Secret) { s.Data["password"] = []byte("wrong") })
	l.waitPool(p, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonUnauthorized)
	l.waitPool(p, v1alpha1.ConditionCredentialsValid, no, v1alpha1.ReasonUnauthorized)
	l.waitPool(p, v1alpha1.ConditionReachable, yes, v1alpha1.ReasonUnauthorized)
	if logins := simulator.CallCounts().Calls["session.login_with_password"]; logins > 2 {
		t.Errorf("a refused password was tried %d times", logins)
	}
	update(l, l.secretOf(p), func(s *corev1.Secret) { s.Data["password"] = []byte(simulator.Password) })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	l.waitPool(p, v1alpha1.ConditionCredentialsValid, yes, v1alpha1.ReasonSucceeded)
}

func TestAMissingSecretIsNamed(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, func(p *v1alpha1.XenPool, _ *corev1.Secret) { p.Spec.CredentialsSecretRef.Name = "nowhere" })
	l.waitPool(p, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonSecretNotFound)
	l.waitPool(p, v1alpha1.ConditionCredentialsValid, no, v1alpha1.ReasonSecretNotFound)
	l.create(testkit.PoolSecret("nowhere", simulator.User, simulator.Password, nil))
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestANewPasswordIsTakenAndARefusedOneLeavesTheSessionAlive(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	secret := l.secretOf(p)
	update(l, secret, func(s *corev1.Secret) { s.Data["password"] = []byte("wrong") })
	l.waitPool(p, v1alpha1.ConditionCredentialsValid, no, v1alpha1.ReasonUnauthorized)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonUnauthorized)
	simulator.Insert("network", map[string]any{"name_label": "seen by the living session"})
	l.WaitFor(t, p, "the living session shows a new network", func() error {
		if !slices.ContainsFunc(p.Status.Networks, func(n v1alpha1.PoolNetwork) bool { return n.Name == "seen by the living session" }) {
			return errors.New("not there")
		}
		return nil
	})
	update(l, secret, func(s *corev1.Secret) { s.Data["password"] = []byte(simulator.Password) })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	l.WaitFor(t, p, "the status names the accepted Secret", func() error {
		if p.Status.Credentials == nil || p.Status.Credentials.SecretResourceVersion != secret.ResourceVersion {
			return fmt.Errorf("it names %+v, not %s", p.Status.Credentials, secret.ResourceVersion)
		}
		return nil
	})
}

func TestAnotherAuthorityIsTakenWithoutARestart(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator, other := l.simulator(), l.simulator()
	p := l.pool("", simulator, func(_ *v1alpha1.XenPool, s *corev1.Secret) { s.Data["ca.crt"] = other.CACert() })
	l.waitPool(p, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonTLSUntrusted)
	update(l, l.secretOf(p), func(s *corev1.Secret) {
		s.Data["ca.crt"] = append(append([]byte{}, other.CACert()...), simulator.CACert()...)
	})
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestADeadPoolKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	// Given pools whose address takes connections and then says nothing, more than are worked on at a time.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	simulator := l.simulator()
	for i := range 10 {
		l.pool(fmt.Sprintf("-dead%d", i), simulator, func(p *v1alpha1.XenPool, _ *corev1.Secret) {
			p.Spec.Endpoints = []string{"https://" + silent.Addr().String()}
		})
	}
	l.within(20*time.Second, "a living pool beside dead ones", func() {
		p := l.pool("-alive", simulator, nil)
		l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	})
}

// cut is a line to pools that a test can cut.
type cut struct{ off atomic.Bool }

func (c *cut) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		if c.off.Load() {
			return nil, errors.New("the line is cut")
		}
		return next.RoundTrip(req)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestAPoolGoesOutOfReachAndComesBack(t *testing.T) {
	t.Parallel()
	line := &cut{}
	l := newLab(t, line.wrap)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	uuid := p.Status.UUID
	line.off.Store(true)
	simulator.RestartToolstack(0)
	l.waitPool(p, v1alpha1.ConditionReachable, no, v1alpha1.ReasonPoolUnreachable)
	l.waitPool(p, v1alpha1.ConditionReconciling, yes, v1alpha1.ReasonPoolUnreachable)
	if p.Status.UUID != uuid || len(p.Status.Hosts) != 3 {
		t.Errorf("out of reach the status forgot what it knew: %s", testkit.Manifest(p))
	}
	line.off.Store(false)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestAnotherPoolBehindTheAddressIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	first, second := l.simulator(), l.simulator()
	if err := second.Update("pool", second.PoolRef(), map[string]any{"uuid": "00000000-0000-0000-0000-000000000002"}); err != nil {
		t.Fatal(err)
	}
	p := l.pool("", first, func(_ *v1alpha1.XenPool, s *corev1.Secret) {
		s.Data["ca.crt"] = append(append([]byte{}, first.CACert()...), second.CACert()...)
		s.Data["password"] = []byte(first.Password)
	})
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	uuid := p.Status.UUID
	update(l, l.secretOf(p), func(s *corev1.Secret) { s.Data["password"] = []byte(second.Password) })
	update(l, p, func(p *v1alpha1.XenPool) { p.Spec.Endpoints = []string{second.Endpoint} })
	l.waitPool(p, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonIdentityChanged)
	if p.Status.UUID != uuid {
		t.Errorf("the uuid went from %s to %s", uuid, p.Status.UUID)
	}
	update(l, l.secretOf(p), func(s *corev1.Secret) { s.Data["password"] = []byte(first.Password) })
	update(l, p, func(p *v1alpha1.XenPool) { p.Spec.Endpoints = []string{first.Endpoint} })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestAPinnedPoolMustBeTheOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, func(p *v1alpha1.XenPool, _ *corev1.Secret) {
		p.Spec.UUID = "00000000-0000-0000-0000-000000000001"
	})
	l.waitPool(p, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonIdentityChanged)
	if p.Status.UUID != "" {
		t.Errorf("the wrong pool's uuid %s was kept", p.Status.UUID)
	}
	update(l, p, func(p *v1alpha1.XenPool) { p.Spec.UUID = "" })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestOnePoolIsNotTakenTwice(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	first := l.pool("-first", simulator, nil)
	l.waitPool(first, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	second := l.pool("-second", simulator, nil)
	l.waitPool(second, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonDuplicatePool)
	if err := l.Client.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	l.waitPool(second, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestAnotherWriterIsLeftAloneUntilTakenOver(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	if err := simulator.Update("pool", simulator.PoolRef(), map[string]any{
		"other_config": map[string]string{xencache.MarkWriter: "theirs"},
	}); err != nil {
		t.Fatal(err)
	}
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionStalled, yes, v1alpha1.ReasonAnotherWriter)
	update(l, p, func(p *v1alpha1.XenPool) { p.Spec.TakeoverFrom = "theirs" })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
}

func TestTheCoordinatorIsFollowed(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	before := p.Status.Coordinator
	for _, host := range p.Status.Hosts {
		if !strings.Contains(before, host.Address) {
			if err := simulator.SetCoordinator(host.Name); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	l.WaitFor(t, p, "another coordinator answers", func() error {
		if p.Status.Coordinator == before {
			return fmt.Errorf("still %s", before)
		}
		return testkit.Condition(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	})
}

func TestAPoolInUseIsNotDeleted(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	user := testkit.Instance(l.Namespace(t), "web", p.Name).FromTemplate("whatever").OfFlavor("none").Object()
	user.Annotations = map[string]string{v1alpha1.AnnotationPaused: ""}
	l.create(user)
	if err := l.Client.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	l.WaitFor(t, p, "it says that it is in use", func() error {
		return testkit.Condition(p, v1alpha1.ConditionReady, no, v1alpha1.ReasonPoolInUse)
	})
	if err := l.Client.Delete(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	l.WaitGone(t, p)
}

func TestOrphansAreToldByName(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	owner := xencache.Key{Kind: "XenInstance", Namespace: "gone", Name: "web"}
	config := xencache.Marks{Installation: "ours", Ref: owner, Role: xencache.RoleDataDisk}.OtherConfig()
	simulator.Insert("VDI", map[string]any{"name_label": "left behind", "other_config": config})
	theirs := map[string]string{xencache.MarkInstallation: "theirs", xencache.MarkRef: owner.String()}
	simulator.Insert("VDI", map[string]any{"name_label": "not ours", "other_config": theirs})
	l.WaitFor(t, p, "the orphan is told", func() error {
		if p.Status.OrphanCount != 1 || p.Status.Orphans[0].Name != "left behind" || p.Status.Orphans[0].Owner != owner.String() {
			return fmt.Errorf("orphans: %+v", p.Status.Orphans)
		}
		return nil
	})
}

func TestMaintenanceAndPauseAreShown(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator := l.simulator()
	p := l.pool("", simulator, func(p *v1alpha1.XenPool, _ *corev1.Secret) { p.Spec.Maintenance = true })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonMaintenance)
	update(l, p, func(p *v1alpha1.XenPool) {
		p.Spec.Maintenance = false
		p.Annotations = map[string]string{v1alpha1.AnnotationPaused: "", v1alpha1.AnnotationReconcileRequestedAt: "now"}
	})
	l.waitPool(p, v1alpha1.ConditionPaused, yes, v1alpha1.ReasonPaused)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	if p.Status.LastHandledReconcileAt != "now" {
		t.Errorf("the request was not echoed: %q", p.Status.LastHandledReconcileAt)
	}
	update(l, p, func(p *v1alpha1.XenPool) { p.Annotations = nil })
	l.waitPool(p, v1alpha1.ConditionPaused, no, v1alpha1.ReasonNotPaused)
}
