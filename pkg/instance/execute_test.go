package instance

import (
	"errors"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// TestAFailedStepRests: a step that is to be left alone after it has failed is not taken again for whatever wakes the instance;
// what the user reads stays, and the attempt is counted once.
func TestAFailedStepRests(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(testTime)
	executor := NewExecutor(clock)
	heavy, other := Step{Name: "Migrate", For: "xs2", RetryAfter: time.Minute}, Step{Name: "Start"}
	if _, rests := executor.rests(testKey, heavy); rests {
		t.Error("nothing has failed yet")
	}
	executor.fail(testKey, heavy.key(), reconcile.Retry(v1alpha1.ReasonRetrying, errors.New("boom")))
	clock.SetTime(testTime.Add(20 * time.Second))
	outcome, rests := executor.rests(testKey, heavy)
	if !rests || outcome.Kind() != reconcile.KindWait || outcome.Message() != "boom" || outcome.Deadline() != 40*time.Second {
		t.Errorf("%v, rests %t", outcome, rests)
	}
	if _, rests := executor.rests(testKey, Step{Name: "Migrate", For: "xs3", RetryAfter: time.Minute}); rests {
		t.Error("the way to another host is another step")
	}
	executor.fail(testKey, heavy.key(), reconcile.Terminal(v1alpha1.ReasonMigrationRefused, "no"))
	if outcome, rests := executor.rests(testKey, heavy); !rests || outcome.Kind() != reconcile.KindTerminal {
		t.Errorf("%v, rests %t", outcome, rests)
	}
	clock.SetTime(testTime.Add(2 * time.Minute))
	if _, rests := executor.rests(testKey, heavy); rests {
		t.Error("it has rested long enough")
	}
	executor.fail(testKey, other.key(), reconcile.Retry(v1alpha1.ReasonRetrying, errors.New("boom")))
	if _, rests := executor.rests(testKey, other); rests {
		t.Error("the queue sees to when it is tried again")
	}
}
