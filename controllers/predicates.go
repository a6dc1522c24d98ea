package controllers

import (
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// askedAnew lets through what a user changed: spec, annotations, deletion, and a status that somebody has wiped or set back. Our own
// status writes wake nobody.
func askedAnew() predicate.Predicate {
	return predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return observed(e.ObjectNew) < observed(e.ObjectOld)
	}})
}

// observed is the generation that an object's status is about.
func observed(object client.Object) int64 {
	if ours, ok := object.(reconcile.Object); ok {
		return ours.GetCommonStatus().ObservedGeneration
	}
	return 0
}

// poolRecheck is when to look again at a pool that could not be used: one that was silent for a moment may speak again before its
// XenPool has said anything of it.
const poolRecheck = 10 * time.Second

// awaitPool is the outcome of a pass that found its pool unusable.
func awaitPool(err error) reconcile.Outcome {
	var unavailable *pool.Unavailable
	if errors.As(err, &unavailable) {
		return reconcile.Wait(v1alpha1.ReasonPoolNotReady, unavailable.Error()).After(poolRecheck)
	}
	return reconcile.Retry(v1alpha1.ReasonRetrying, err)
}

// poolTurned lets through what matters to those who live on a pool: its spec, its annotations, and whether it can be
// used.
func poolTurned() predicate.Predicate {
	return predicate.Or(askedAnew(), predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return usable(e.ObjectOld) != usable(e.ObjectNew)
	}})
}

// usable sums up of a XenPool's status what others act on. They go by the spec and the annotations that its own controller has
// taken over, which may come after they have heard of the change, and which its status tells.
func usable(obj client.Object) string {
	xenPool, ok := obj.(*v1alpha1.XenPool)
	if !ok {
		return ""
	}
	sum := fmt.Sprint(xenPool.Status.ObservedGeneration, " ")
	for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionReachable, v1alpha1.ConditionPaused} {
		if c := meta.FindStatusCondition(xenPool.Status.Conditions, kind); c != nil {
			sum += string(c.Status) + "/" + c.Reason + " "
		}
	}
	return sum
}

// gone lets deletions through alone.
func gone() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}
