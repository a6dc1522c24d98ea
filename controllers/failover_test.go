package controllers_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	"k8s.io/client-go/rest"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// runReplica runs a manager that works only while it holds the lease. The lease is short, so that its loss is soon seen.
func runReplica(leaseName string) testkit.RunManager {
	return func(ctx context.Context, config *rest.Config, o testkit.ManagerOptions) error {
		m, err := controllers.NewManager(config, controllers.Options{
			Installation: o.Installation, WrapXenAPI: o.WrapXenAPI, Logger: zapr.NewLogger(jsonTo(o.Log)),
			Namespace: testkit.SystemNamespace, LeaderElection: true, LeaderElectionID: leaseName,
			LeaseDuration: 6 * time.Second, RenewDeadline: 5 * time.Second, RetryPeriod: 200 * time.Millisecond,
		})
		if err != nil {
			return err
		}
		return m.Start(ctx)
	}
}

// standBy starts another manager behind a fence of its own.
func standBy(t *testing.T, config *rest.Config, run testkit.RunManager) *testkit.Fence {
	t.Helper()
	fence := testkit.NewFence()
	config = rest.CopyConfig(config)
	config.Wrap(fence.WrapKubernetes)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, config, testkit.ManagerOptions{
			Installation: testkit.Installation, Log: io.Discard,
			WrapXenAPI: func(next http.RoundTripper) http.RoundTripper { return fence.WrapXenAPI(next) },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the other manager ended with an error: %v", err)
		}
	})
	return fence
}

// TestFailover: the replica that leads dies in the middle of making a VM, without a word. The other does nothing before,
// takes over when the lease is over, and finishes: one VM, and nothing left over.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, dieAfter := range map[string]int{"at the clone": 3, "while the VM is built": 9, "at the start": 17} {
		t.Run(name, func(t *testing.T) {
			run := runReplica("testfailover")
			w := testkit.NewWorld(t, testkit.Start(t), run, withAgents)
			first := w.StartManager()
			addFlavors(t, w)
			w.WaitReady(t, testkit.Pool(testkit.PoolName).Object())
			w.WaitAtRest(t)
			second := standBy(t, w.Config, run)
			disks := len(w.Simulator.Records("VDI"))

			first.Arm(dieAfter)
			instance := web(w).Object()
			create(t, w, instance)
			testkit.Eventually(t, "the first replica dies", func(context.Context) error {
				select {
				case <-first.Killed():
					return nil
				default:
					return errors.New("it lives")
				}
			})
			if acted := second.Actions(); len(acted) > 0 {
				t.Errorf("two replicas acted at a time: %v", acted)
			}
			w.KillManager()
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			wantOneVM(t, w, instance, disks)
		})
	}
}
