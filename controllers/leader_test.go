package controllers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// replica is one manager of several.
type replica struct {
	cancel context.CancelFunc
	ended  chan error
}

func (l *lab) replica() *replica {
	l.t.Helper()
	mgr, err := controllers.NewManager(l.Config, controllers.Options{
		Installation: "ours", Namespace: testkit.SystemNamespace, LeaderElection: true, LeaderElectionID: l.prefix,
		Logger: zapr.NewLogger(jsonTo(&lockedBuffer{})),
		// Far longer than the test: a lease that is not released is seen.
		LeaseDuration: 5 * time.Minute, RenewDeadline: 4 * time.Minute, RetryPeriod: 200 * time.Millisecond,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &replica{cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- mgr.Start(ctx) }()
	l.t.Cleanup(r.stop)
	return r
}

func (r *replica) stop() {
	r.cancel()
	<-r.ended
	r.ended <- nil // so that stopping twice is no waiting for ever
}

func TestOneReplicaWorksAndAnotherTakesOverAtOnce(t *testing.T) {
	t.Parallel()
	l := &lab{Environment: testkit.Start(t), t: t, prefix: "testleader"}
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testkit.SystemNamespace}}
	_ = l.Client.Create(t.Context(), system) // another test may have made it
	first := l.replica()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: testkit.SystemNamespace, Name: l.prefix}}
	l.WaitFor(t, lease, "the first replica leads", func() error {
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
			return errors.New("nobody leads")
		}
		return nil
	})
	l.replica()
	simulator := l.simulator()
	p := l.pool("", simulator, nil)
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	logins := func() int { return simulator.CallCounts().Calls["session.login_with_password"] }
	if n := logins(); n != 1 {
		t.Errorf("two replicas logged in %d times", n)
	}
	l.within(10*time.Second, "the second replica to take over", func() {
		first.stop()
		testkit.Eventually(t, "the second replica is connected", func(context.Context) error {
			if logins() != 2 {
				return errors.New("no second login yet")
			}
			return nil
		})
	})
	simulator.Insert("network", map[string]any{"name_label": "seen by the second"})
	l.WaitFor(t, p, "the second replica reports", func() error {
		for _, n := range p.Status.Networks {
			if n.Name == "seen by the second" {
				return nil
			}
		}
		return errors.New("not there")
	})
}
