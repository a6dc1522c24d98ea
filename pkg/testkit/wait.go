package testkit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

const (
	// Patience is how long a test waits for a condition: far longer than it takes on a slow machine that does other
	// things, because only a failing test ever waits that long.
	Patience  = 60 * time.Second
	pollEvery = 25 * time.Millisecond
)

// Eventually waits until a condition holds, and ends the test with the condition's last complaint when it never does.
func Eventually(t testing.TB, what string, holds func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := until(ctx, what, holds); err != nil {
		t.Fatal(err)
	}
}

// until asks again and again until the condition has no complaint.
func until(ctx context.Context, what string, holds func(ctx context.Context) error) error {
	var complaint error
	err := wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
		now := holds(ctx)
		if now == nil || ctx.Err() == nil || complaint == nil { // the last complaint is not that time is over
			complaint = now
		}
		return now == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait until %s: %w", what, errors.Join(err, complaint))
	}
	return nil
}

// WaitFor waits until an object, read again each time into the given one, meets a condition. A failure shows the object.
func (e *Environment) WaitFor(t testing.TB, object client.Object, what string, holds func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := e.waitFor(ctx, object, what, holds); err != nil {
		t.Fatal(err)
	}
}

func (e *Environment) waitFor(ctx context.Context, object client.Object, what string, holds func() error) error {
	key := client.ObjectKeyFromObject(object)
	err := until(ctx, what, func(ctx context.Context) error {
		if err := e.Client.Get(ctx, key, object); err != nil {
			return err
		}
		return holds()
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, Manifest(object))
	}
	return nil
}

// WaitReady waits until an object is as asked: Ready, of its present generation, and read so by kstatus.
func (e *Environment) WaitReady(t testing.TB, object Object) {
	t.Helper()
	e.WaitFor(t, object.(client.Object), object.GetName()+" is Ready", func() error { return Ready(object) })
}

// WaitStalled waits until an object says, with the given reason, that it needs a change from outside.
func (e *Environment) WaitStalled(t testing.TB, object Object, reason string) {
	t.Helper()
	e.WaitFor(t, object.(client.Object), object.GetName()+" is Stalled with reason "+reason, func() error {
		return errors.Join(Condition(object, v1alpha1.ConditionStalled, metav1.ConditionTrue, reason), CheckKstatus(object))
	})
}

// WaitGone waits until an object does not exist any more.
func (e *Environment) WaitGone(t testing.TB, object client.Object) {
	t.Helper()
	key := client.ObjectKeyFromObject(object)
	Eventually(t, key.String()+" is gone", func(ctx context.Context) error {
		switch err := e.Client.Get(ctx, key, object); {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		default:
			return fmt.Errorf("it is still there:\n%s", Manifest(object))
		}
	})
}

// Ready complains when an object is not as asked.
func Ready(object Object) error {
	if observed, generation := object.GetCommonStatus().ObservedGeneration, object.GetGeneration(); observed != generation {
		return fmt.Errorf("observed generation %d, generation %d", observed, generation)
	}
	return errors.Join(Condition(object, v1alpha1.ConditionReady, metav1.ConditionTrue, ""), CheckKstatus(object))
}

// Condition complains when a condition has another status, or another reason if one is given.
func Condition(object Object, conditionType string, status metav1.ConditionStatus, reason string) error {
	found := meta.FindStatusCondition(object.GetCommonStatus().Conditions, conditionType)
	if found == nil {
		return fmt.Errorf("condition %s is not there", conditionType)
	}
	if found.Status != status || (reason != "" && found.Reason != reason) {
		return fmt.Errorf("condition %s is %s (%s: %s), want %s %s", conditionType, found.Status, found.Reason, found.Message, status, reason)
	}
	return nil
}

// Manifest shows an object as kubectl would, without the fields' owners.
func Manifest(object client.Object) string {
	shown, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Sprintf("%T", object)
	}
	shown.SetManagedFields(nil)
	text, err := yaml.Marshal(shown)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
