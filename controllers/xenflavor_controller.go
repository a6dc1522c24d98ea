package controllers

import (
	"context"
	"errors"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xenflavors,verbs=get;list;watch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenflavors/status,verbs=get;patch

// flavorReconciler says that a flavor can be used. What could be wrong with one is refused at admission, and nothing
// stands behind it: instances copy its sizes.
type flavorReconciler struct {
	runtime *reconcile.Runtime
}

func setupFlavor(s *shared) error {
	return ctrl.NewControllerManagedBy(s.manager).
		Named("xenflavor").
		For(&v1alpha1.XenFlavor{}, builder.WithPredicates(askedAnew())).
		Complete(&flavorReconciler{runtime: s.runtime()})
}

// Reconcile implements reconcile.Reconciler.
func (r *flavorReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	scope, err := reconcile.Open(ctx, r.runtime, req, &v1alpha1.XenFlavor{}, reconcile.Options[*v1alpha1.XenFlavor]{})
	if scope == nil || err != nil {
		return ctrl.Result{}, err
	}
	defer func() { err = errors.Join(err, scope.Close(ctx)) }()
	return scope.Result(), nil
}
