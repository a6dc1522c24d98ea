package testkit

import (
	"errors"
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// Object is what every kind of ours is.
type Object interface {
	runtime.Object
	metav1.Object
	GetCommonStatus() *v1alpha1.CommonStatus
	ConditionTypes() []string
}

// Kstatus is what generic tools (Flux, Argo CD through it, kubectl wait's successors) read from an object.
func Kstatus(object runtime.Object) (status.Status, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return "", err
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: content})
	if err != nil {
		return "", err
	}
	return result.Status, nil
}

// CheckKstatus tells what is wrong with an object's status: conditions that are missing or contradict each other, and
// a reading by kstatus that is not what the conditions say. A controller's every outcome must pass.
func CheckKstatus(object Object) error {
	common := object.GetCommonStatus()
	conditions := map[string]metav1.Condition{}
	var problems []error
	complain := func(format string, arguments ...any) {
		problems = append(problems, fmt.Errorf(format, arguments...))
	}
	for _, condition := range common.Conditions {
		if _, twice := conditions[condition.Type]; twice {
			complain("condition %s stands there twice", condition.Type)
		}
		conditions[condition.Type] = condition
		if condition.Reason == "" {
			complain("condition %s has no reason", condition.Type)
		}
		if condition.ObservedGeneration > object.GetGeneration() {
			complain("condition %s is of generation %d, the object is of %d", condition.Type, condition.ObservedGeneration, object.GetGeneration())
		}
	}
	for _, expected := range object.ConditionTypes() {
		if _, there := conditions[expected]; !there {
			complain("condition %s is missing", expected)
		}
	}
	for _, problem := range contradictions(conditions) {
		complain("%s", problem)
	}
	read, err := Kstatus(object)
	if err != nil {
		complain("kstatus: %w", err)
	} else if want := expectedKstatus(object, conditions); read != want {
		complain("kstatus reads %s, the conditions mean %s", read, want)
	}
	return errors.Join(problems...)
}

// contradictions between Ready, Reconciling and Stalled: at most one of them may be true, and when none is, a reader
// is left with nothing to wait for.
func contradictions(conditions map[string]metav1.Condition) []string {
	var found []string
	is := func(conditionType string) bool { return conditions[conditionType].Status == metav1.ConditionTrue }
	ready, reconciling, stalled := is(v1alpha1.ConditionReady), is(v1alpha1.ConditionReconciling), is(v1alpha1.ConditionStalled)
	if ready && reconciling {
		found = append(found, "Ready and Reconciling are both True")
	}
	if ready && stalled {
		found = append(found, "Ready and Stalled are both True")
	}
	if reconciling && stalled {
		found = append(found, "Reconciling and Stalled are both True")
	}
	if !ready && !reconciling && !stalled && !is(v1alpha1.ConditionPaused) {
		found = append(found, "none of Ready, Reconciling, Stalled and Paused is True: nobody is said to do anything")
	}
	return found
}

// expectedKstatus is the reading that our conditions are meant to have.
func expectedKstatus(object Object, conditions map[string]metav1.Condition) status.Status {
	switch {
	case object.GetDeletionTimestamp() != nil:
		return status.TerminatingStatus
	case object.GetCommonStatus().ObservedGeneration != object.GetGeneration():
		return status.InProgressStatus
	case conditions[v1alpha1.ConditionStalled].Status == metav1.ConditionTrue:
		return status.FailedStatus
	case conditions[v1alpha1.ConditionReady].Status == metav1.ConditionTrue:
		return status.CurrentStatus
	default:
		return status.InProgressStatus
	}
}
