package reconcile

import (
	"errors"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

func TestConditionsAndKstatusOfEachOutcome(t *testing.T) {
	const yes, no, unknown = metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
	for name, tc := range map[string]struct {
		outcome                     Outcome
		ready, reconciling, stalled metav1.ConditionStatus
		reason                      string
		kstatus                     status.Status
	}{
		"done":                     {Done(), yes, no, no, v1alpha1.ReasonSucceeded, status.CurrentStatus},
		"done, for a reason":       {Done().Because("Halted", "as asked"), yes, no, no, "Halted", status.CurrentStatus},
		"waiting":                  {Wait("Creating", "clone"), no, yes, no, "Creating", status.InProgressStatus},
		"waiting for who knows":    {Wait("", ""), no, yes, no, v1alpha1.ReasonProgressing, status.InProgressStatus},
		"the pool is out of sight": {Wait("PoolUnreachable", "").ReadyUnknown(), unknown, yes, no, "PoolUnreachable", status.InProgressStatus},
		"failed, tried again":      {Retry("", errors.New("boom")), no, yes, no, v1alpha1.ReasonRetrying, status.InProgressStatus},
		"stalled":                  {Terminal("NetworkNotFound", "no network lan9"), no, no, yes, "NetworkNotFound", status.FailedStatus},
		"unknown is never ready":   {Done().ReadyUnknown(), yes, no, no, v1alpha1.ReasonSucceeded, status.CurrentStatus},
	} {
		t.Run(name, func(t *testing.T) {
			flavor := &v1alpha1.XenFlavor{ObjectMeta: metav1.ObjectMeta{Name: "small", Generation: 3}}
			flavor.Status.ObservedGeneration = 3
			setSummary(&flavor.Status.Conditions, tc.outcome)
			got := map[string]metav1.ConditionStatus{}
			for _, c := range flavor.Status.Conditions {
				got[c.Type] = c.Status
			}
			if got[v1alpha1.ConditionReady] != tc.ready || got[v1alpha1.ConditionReconciling] != tc.reconciling || got[v1alpha1.ConditionStalled] != tc.stalled {
				t.Errorf("conditions are %v", got)
			}
			if ready := meta.FindStatusCondition(flavor.Status.Conditions, v1alpha1.ConditionReady); ready.Reason != tc.reason {
				t.Errorf("Ready has reason %s, want %s", ready.Reason, tc.reason)
			}
			if read := kstatusOf(t, flavor); read != tc.kstatus {
				t.Errorf("kstatus reads %s, want %s", read, tc.kstatus)
			}
		})
	}
}

func kstatusOf(t *testing.T, obj *v1alpha1.XenFlavor) status.Status {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: content})
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

func TestATransitionTimeChangesOnlyWithTheStatus(t *testing.T) {
	var conditions []metav1.Condition
	first, second := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	setSummary(&conditions, Wait("Creating", "clone"))
	stampConditions(conditions, first, 1)
	setSummary(&conditions, Wait("Starting", "start"))
	stampConditions(conditions, second, 2)
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	if !ready.LastTransitionTime.Equal(&first) || ready.Reason != "Starting" || ready.ObservedGeneration != 2 {
		t.Errorf("after a new reason Ready is %+v", ready)
	}
	setSummary(&conditions, Done())
	stampConditions(conditions, second, 2)
	if !ready.LastTransitionTime.Equal(&second) {
		t.Errorf("after a new status Ready is %+v", ready)
	}
}

func TestBackoffGrowsUntilSomethingElseHappens(t *testing.T) {
	var backoff Backoff
	req := ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "team-a", Name: "web"}}
	failed := Retry("Failed", errors.New("boom"))
	previous := time.Duration(0)
	for range 6 {
		pause := backoff.Result(req, failed).RequeueAfter
		if pause <= previous {
			t.Fatalf("after %s comes a pause of %s", previous, pause)
		}
		previous = pause
	}
	for range 100 {
		if pause := backoff.Result(req, failed).RequeueAfter; pause > backoffMost*6/5 {
			t.Fatalf("the pause grew to %s", pause)
		}
	}
	if pause := backoff.Result(req, failed.After(time.Millisecond)).RequeueAfter; pause != time.Millisecond {
		t.Errorf("a deadline of 1ms became %s behind the backoff", pause)
	}
	if got := backoff.Result(req, Done()); got.RequeueAfter != 0 {
		t.Errorf("done asks to come back after %s", got.RequeueAfter)
	}
	if pause := backoff.Result(req, failed).RequeueAfter; pause > 2*backoffFirst {
		t.Errorf("after success the first pause is %s", pause)
	}
}
