package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xenpools,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenpools/status,verbs=get;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenpools/finalizers,verbs=update
// +kubebuilder:rbac:groups=kubexen.io,resources=xeninstances;xenimages;xenclusterimages,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// poolReconciler keeps the connections to pools as the XenPools ask, and their status true.
type poolReconciler struct {
	runtime      *reconcile.Runtime
	pools        *pool.Registry
	installation string
	secrets      *poolSecrets
	ages         pool.Ages
}

func setupPool(s *shared) error {
	r := &poolReconciler{
		runtime: s.runtime(), pools: s.pools, installation: s.options.Installation,
		secrets: newPoolSecrets(s.manager.GetClient(), s.manager.GetAPIReader()),
	}
	return ctrl.NewControllerManagedBy(s.manager).
		Named("xenpool").
		For(&v1alpha1.XenPool{}, builder.WithPredicates(askedAnew())).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.poolsOfSecret)).
		Watches(&v1alpha1.XenInstance{}, handler.EnqueueRequestsFromMapFunc(poolOfInstance), builder.WithPredicates(gone())).
		WatchesRawSource(s.pools.Source("XenPool")).
		WithOptions(controller.Options{MaxConcurrentReconciles: poolConcurrency}).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *poolReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	scope, err := reconcile.Open(ctx, r.runtime, req, &v1alpha1.XenPool{},
		reconcile.Options[*v1alpha1.XenPool]{Finalizer: v1alpha1.FinalizerPool})
	if scope == nil {
		r.forget(req.Name, err)
	}
	if scope == nil || err != nil {
		return ctrl.Result{}, err
	}
	defer func() { err = errors.Join(err, scope.Close(ctx)) }()
	facts, err := r.observe(ctx, scope)
	if err != nil {
		return ctrl.Result{}, err
	}
	if facts.Deleting && facts.Users == 0 && facts.Images == 0 {
		r.forget(req.Name, nil)
		return ctrl.Result{}, scope.ReleaseFinalizer(ctx, v1alpha1.FinalizerPool)
	}
	scope.Outcome = pool.Judge(scope.Object, facts).Join(r.sweep(ctx, scope, facts))
	pool.Report(scope.Object, facts)
	return scope.Result(), nil
}

// forget ends the connection of a XenPool that is gone.
func (r *poolReconciler) forget(name string, err error) {
	if err == nil {
		r.pools.Remove(name)
		r.secrets.forget(name)
		r.ages.Forget(name)
	}
}

// observe passes on what the XenPool asks, and gathers what is known. It waits for no pool.
func (r *poolReconciler) observe(ctx context.Context, scope *reconcile.Scope[*v1alpha1.XenPool]) (pool.Facts, error) {
	xenPool := scope.Object
	facts := pool.Facts{Installation: r.installation, Deleting: scope.Deleting()}
	var instances v1alpha1.XenInstanceList
	if err := r.runtime.Client.List(ctx, &instances, client.MatchingFields{poolField: xenPool.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return facts, fmt.Errorf("list the instances of pool %s: %w", xenPool.Name, err)
	}
	facts.Users = len(instances.Items)
	settings, problem, err := r.secrets.settings(ctx, xenPool)
	if err != nil {
		return facts, err
	}
	facts.Secrets, facts.SecretVersion = problem, settings.SecretVersion
	if problem == nil {
		_, again := scope.RequestedAt()
		r.pools.Apply(xenPool, settings, again)
	}
	facts.Connection, _ = r.pools.State(xenPool.Name)
	if cache := r.pools.Cache(xenPool.Name); cache != nil && cache.Synced() {
		cache.View(func(v xencache.View) {
			inventory := pool.TakeInventory(v, r.installation)
			facts.Inventory = &inventory
		})
		exists := r.exists(ctx, instances.Items)
		facts.Orphans = pool.Orphans(facts.Inventory.Marked, exists)
		if facts.Deleting && facts.Connection.Usable {
			facts.Images = len(pool.MadeForImages(facts.Inventory.Marked, exists))
		}
	}
	return facts, nil
}

// exists tells whether the owner that a mark names lives: as a rule one of the pool's instances, which are at hand. In
// doubt it does.
func (r *poolReconciler) exists(ctx context.Context, instances []v1alpha1.XenInstance) func(xencache.Key) bool {
	living := make(map[xencache.Key]struct{}, len(instances))
	for i := range instances {
		living[xencache.Key{Kind: kindInstance, Namespace: instances[i].Namespace, Name: instances[i].Name}] = struct{}{}
	}
	return func(key xencache.Key) bool {
		if _, lives := living[key]; lives {
			return true
		}
		var owner client.Object
		switch key.Kind {
		case kindInstance:
			owner = &v1alpha1.XenInstance{}
		case "XenImage":
			owner = &v1alpha1.XenImage{}
		case "XenClusterImage":
			owner = &v1alpha1.XenClusterImage{}
		case kindSnapshot:
			owner = &v1alpha1.XenSnapshot{}
		default:
			return true
		}
		err := r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, owner, client.UnsafeDisableDeepCopy)
		return client.IgnoreNotFound(err) != nil || err == nil
	}
}

// sweepTimeout bounds what one pass does on a pool.
const sweepTimeout = 30 * time.Second

// sweep destroys what its retention is over, where the pool may be written to.
func (r *poolReconciler) sweep(ctx context.Context, scope *reconcile.Scope[*v1alpha1.XenPool], facts pool.Facts) reconcile.Outcome {
	handle, err := r.pools.Get(scope.Object.Name)
	if err != nil || facts.Inventory == nil || scope.Paused != "" {
		return reconcile.Done()
	}
	if _, _, held := handle.Held(); held {
		return reconcile.Done()
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return r.sweepTrash(ctx, handle, facts.Inventory.Trash).
		Join(r.ages.Sweep(ctx, handle, facts.Orphans, r.runtime.Clock.Now()))
}

const (
	// trashBatch is how many VMs one pass destroys at most: a pass is short, and the next follows at once.
	trashBatch = 5
	// trashRetry is how long to leave alone what could not be destroyed. It stays in the trash, where its date shows.
	trashRetry = 10 * time.Minute
)

// sweepTrash destroys the VMs whose retention is over.
func (r *poolReconciler) sweepTrash(ctx context.Context, handle *pool.Handle, trash []pool.Trashed) reconcile.Outcome {
	now := r.runtime.Clock.Now()
	expired, next := pool.Expired(trash, handle.Pool.Spec.TrashRetention(), now)
	outcome := reconcile.Done()
	if !next.IsZero() {
		outcome = outcome.After(next.Sub(now))
	}
	for _, vm := range expired[:min(len(expired), trashBatch)] {
		err := handle.ClaimWriter(ctx)
		if err == nil {
			_, err = instance.DestroyTrashed(ctx, handle.Client, handle.Cache, handle.Installation, vm.Ref)
		}
		if err != nil {
			ctrl.LoggerFrom(ctx).Info("a VM in the trash could not be destroyed", "uuid", vm.UUID, "owner", vm.Owner.String(), "error", err.Error())
			return outcome.After(trashRetry)
		}
	}
	return outcome
}

// poolsOfSecret finds the pools that a Secret concerns.
func (r *poolReconciler) poolsOfSecret(ctx context.Context, secret client.Object) []ctrl.Request {
	var pools v1alpha1.XenPoolList
	if err := r.runtime.Client.List(ctx, &pools); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list pools")
		return nil
	}
	var requests []ctrl.Request
	for i := range pools.Items {
		for _, ref := range secretsOf(&pools.Items[i]) {
			if ref.Namespace == secret.GetNamespace() && ref.Name == secret.GetName() {
				requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKey{Name: pools.Items[i].Name}})
			}
		}
	}
	return requests
}

// poolOfInstance finds the pool of an instance.
func poolOfInstance(_ context.Context, obj client.Object) []ctrl.Request {
	instance, ok := obj.(*v1alpha1.XenInstance)
	if !ok {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Name: instance.Spec.PoolRef.Name}}}
}
