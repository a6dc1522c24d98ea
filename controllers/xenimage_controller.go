package controllers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/image"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xenimages;xenclusterimages,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenimages/status;xenclusterimages/status,verbs=get;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenimages/finalizers;xenclusterimages/finalizers,verbs=update
// +kubebuilder:rbac:groups=kubexen.io,resources=xensnapshots,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch

// imageReconciler keeps the images of one of the two kinds: they have one spec and one code.
type imageReconciler[T reconcile.Object] struct {
	runtime *reconcile.Runtime
	pools   *pool.Registry
	runner  transfer.Runner
	flights *pool.Flights
	// namespace is the operator's own, where the snapshots of cluster-wide images are.
	namespace string
	kind      string
	empty     func() T
	list      func() client.ObjectList
	parts     func(client.Object) (*v1alpha1.XenImageSpec, *v1alpha1.XenImageStatus)
}

func setupImages(s *shared) error {
	return errors.Join(
		setupImage(s, "XenImage", func() *v1alpha1.XenImage { return &v1alpha1.XenImage{} }, func() client.ObjectList { return &v1alpha1.XenImageList{} }),
		setupImage(s, "XenClusterImage", func() *v1alpha1.XenClusterImage { return &v1alpha1.XenClusterImage{} }, func() client.ObjectList { return &v1alpha1.XenClusterImageList{} }),
	)
}

func setupImage[T reconcile.Object](s *shared, kind string, empty func() T, list func() client.ObjectList) error {
	r := &imageReconciler[T]{runtime: s.runtime(), pools: s.pools, runner: s.runner, flights: pool.NewFlights(s.clock), namespace: s.options.Namespace, kind: kind, empty: empty, list: list, parts: imageParts}
	return ctrl.NewControllerManagedBy(s.manager).
		Named(strings.ToLower(kind)).
		For(empty(), builder.WithPredicates(askedAnew())).
		Watches(&v1alpha1.XenPool{}, handler.EnqueueRequestsFromMapFunc(r.imagesOfPool), builder.WithPredicates(poolTurned())).
		Watches(&v1alpha1.XenSnapshot{}, handler.EnqueueRequestsFromMapFunc(r.imagesOfSnapshot)).
		WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.imagesOfNamespace)).
		WatchesRawSource(s.pools.Source(kind)).
		WithOptions(controller.Options{MaxConcurrentReconciles: poolConcurrency}).
		Complete(r)
}

// imageParts returns what the two kinds have in common.
func imageParts(obj client.Object) (*v1alpha1.XenImageSpec, *v1alpha1.XenImageStatus) {
	switch i := obj.(type) {
	case *v1alpha1.XenImage:
		return &i.Spec, &i.Status
	case *v1alpha1.XenClusterImage:
		return &i.Spec, &i.Status
	}
	return nil, nil
}

// Reconcile implements reconcile.Reconciler.
func (r *imageReconciler[T]) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	scope, err := reconcile.Open(ctx, r.runtime, req, r.empty(), reconcile.Options[T]{Finalizer: v1alpha1.FinalizerImage})
	if scope == nil || err != nil {
		return ctrl.Result{}, err
	}
	defer func() { err = errors.Join(err, scope.Close(ctx)) }()
	spec, status := r.parts(scope.Object)
	img := image.Image{
		Key: xencache.Key{Kind: r.kind, Namespace: req.Namespace, Name: req.Name}, UID: string(scope.Object.GetUID()), Spec: spec,
	}
	status.Source = image.SourceText(spec)
	if spec.Source.Existing == nil {
		scope.Outcome = r.importAll(ctx, scope, img, status)
		return scope.Result(), nil
	}
	poolName := spec.Pools[0].Name
	var facts *image.Facts
	scope.Outcome, facts = r.pass(ctx, scope, poolName, img)
	image.Report(status, poolName, facts, scope.Outcome)
	return scope.Result(), nil
}

// stepTimeout bounds the calls of one pass.
const stepTimeout = time.Minute

// pass observes the image on its pool and takes the next step.
func (r *imageReconciler[T]) pass(ctx context.Context, scope *reconcile.Scope[T], poolName string, img image.Image) (reconcile.Outcome, *image.Facts) {
	handle, err := r.pools.Get(poolName)
	if err != nil {
		return r.withoutPool(ctx, scope, img, err), nil
	}
	existing := img.Spec.Source.Existing
	handle.WakeOn(existing.TemplateUUID+existing.VDIUUID, img.Key) // one of the two is set
	var facts image.Facts
	handle.Cache.View(func(v xencache.View) { facts = image.Observe(v, handle.Installation, img) })
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if scope.Deleting() {
		return r.remove(ctx, scope, handle, img, facts), &facts
	}
	if poolGoes(handle) {
		if why := r.held(scope, handle); why != nil && facts.Template != nil {
			return *why, &facts
		}
		if _, err := image.Remove(ctx, handle, img, facts); err != nil {
			return denied(err), &facts
		}
		return leaving(handle.Name), &facts
	}
	if err := r.granted(ctx, handle, img, facts); err != nil {
		return denied(err), &facts
	}
	step, outcome := image.Plan(img, facts, handle.Installation)
	if step == nil {
		reconcile.ObservePlan(r.kind, "")
		return outcome, &facts
	}
	reconcile.ObservePlan(r.kind, step.Name)
	if why := r.held(scope, handle); why != nil {
		return *why, &facts
	}
	if taken := r.take(ctx, handle, img, facts, step); !taken.IsDone() {
		return outcome.Join(taken), &facts
	}
	// The next pass must not plan before the effect is seen: a second clone would be made.
	err = handle.Cache.Wait(ctx, barrier, func(v xencache.View) bool {
		now := image.Observe(v, handle.Installation, img)
		return now.Root == nil || step.Holds(img, now, handle.Installation)
	})
	if err != nil {
		return reconcile.Retry(v1alpha1.ReasonRetrying, errors.Join(err, handle.CatchUp(ctx, catchUpTimeout))), &facts
	}
	return outcome.After(time.Millisecond), &facts
}

// take does one step. Its effect comes back as an event and wakes the key.
func (r *imageReconciler[T]) take(ctx context.Context, handle *pool.Handle, img image.Image, facts image.Facts, step *image.Step) reconcile.Outcome {
	if err := handle.ClaimWriter(ctx); err != nil {
		return denied(err)
	}
	start := r.runtime.Clock.Now()
	err := step.Do(ctx, handle, img, facts)
	if xenapi.OutcomeUnknown(err) {
		err = errors.Join(err, handle.CatchUp(ctx, stepTimeout))
	}
	outcome := reconcile.Retry(v1alpha1.ReasonRetrying, err)
	reconcile.ObserveStep(r.kind, step.Name, outcome, r.runtime.Clock.Since(start))
	return outcome
}

// held says why nothing may be done now, nil if it may.
func (r *imageReconciler[T]) held(scope *reconcile.Scope[T], handle *pool.Handle) *reconcile.Outcome {
	reason, message, held := handle.Held()
	if scope.Paused != "" {
		reason, message, held = v1alpha1.ReasonPaused, scope.Paused, true
	}
	if !held {
		return nil
	}
	outcome := reconcile.Wait(reason, message)
	return &outcome
}

// granted checks what a namespace may make images of. Images that the administrator offers need no grant.
func (r *imageReconciler[T]) granted(ctx context.Context, handle *pool.Handle, img image.Image, facts image.Facts) error {
	if img.Key.Namespace == "" {
		return nil
	}
	labels, err := namespaceLabels(ctx, r.runtime.Client, img.Key.Namespace)
	if err != nil {
		return err
	}
	grant := handle.Grant(img.Key.Namespace, labels)
	if uuid := img.Spec.Source.Existing.TemplateUUID; uuid != "" {
		_, err := handle.Template(grant, uuid)
		return err
	}
	if err := grant.RawDisks(); err != nil || facts.SR == nil {
		return err
	}
	_, err = handle.StorageRepository(grant, facts.SR.UUID)
	return err
}

// denied turns an error into what it means: a denial holds until something changes, all else is tried again.
func denied(err error) reconcile.Outcome {
	var denial *pool.Denial
	if errors.As(err, &denial) {
		return reconcile.Terminal(denial.Reason, denial.Message)
	}
	return reconcile.Retry(v1alpha1.ReasonRetrying, err)
}

// remove takes away what we made, and then lets the object go.
func (r *imageReconciler[T]) remove(ctx context.Context, scope *reconcile.Scope[T], handle *pool.Handle, img image.Image, facts image.Facts) reconcile.Outcome {
	if why := r.held(scope, handle); why != nil && facts.Template != nil {
		return *why
	}
	gone, err := image.Remove(ctx, handle, img, facts)
	if err != nil {
		return denied(err)
	}
	if !gone {
		return reconcile.Wait(v1alpha1.ReasonDeleting, "the template on the pool is being destroyed").After(stepTimeout)
	}
	handle.Forget(img.Key)
	return reconcile.Retry(v1alpha1.ReasonRetrying, scope.ReleaseFinalizer(ctx, v1alpha1.FinalizerImage))
}

// withoutPool says what it means that the pool cannot be used. An image that goes does not wait for a pool that is gone
// for good, nor for one on which it made nothing.
func (r *imageReconciler[T]) withoutPool(ctx context.Context, scope *reconcile.Scope[T], img image.Image, err error) reconcile.Outcome {
	var xenPool v1alpha1.XenPool
	found := r.runtime.Client.Get(ctx, client.ObjectKey{Name: img.Spec.Pools[0].Name}, &xenPool)
	_, forced := scope.Object.GetAnnotations()[v1alpha1.AnnotationForceDelete]
	madeNothing := img.Spec.Source.Existing.VDIUUID == ""
	if scope.Deleting() && (madeNothing || forced || found != nil && client.IgnoreNotFound(found) == nil) {
		return reconcile.Retry(v1alpha1.ReasonRetrying, scope.ReleaseFinalizer(ctx, v1alpha1.FinalizerImage))
	}
	if found != nil && client.IgnoreNotFound(found) == nil {
		return reconcile.Terminal(v1alpha1.ReasonPoolNotFound, "there is no XenPool "+img.Spec.Pools[0].Name)
	}
	return awaitPool(err)
}

// imagesOfPool finds the images on a pool.
func (r *imageReconciler[T]) imagesOfPool(ctx context.Context, xenPool client.Object) []ctrl.Request {
	return r.imagesWhere(ctx, func(_ client.Object, spec *v1alpha1.XenImageSpec) bool {
		return slices.ContainsFunc(spec.Pools, func(p v1alpha1.ImagePool) bool { return p.Name == xenPool.GetName() })
	})
}

// imagesOfNamespace finds the images whose grants may change with the labels of their namespace.
func (r *imageReconciler[T]) imagesOfNamespace(ctx context.Context, namespace client.Object) []ctrl.Request {
	return r.imagesWhere(ctx, func(obj client.Object, _ *v1alpha1.XenImageSpec) bool {
		return obj.GetNamespace() == namespace.GetName()
	})
}

func (r *imageReconciler[T]) imagesWhere(ctx context.Context, concerned func(client.Object, *v1alpha1.XenImageSpec) bool) []ctrl.Request {
	all := r.list()
	if err := r.runtime.Client.List(ctx, all); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list images", "kind", r.kind)
		return nil
	}
	var requests []ctrl.Request
	for _, obj := range imagesIn(all) {
		if spec, _ := r.parts(obj); concerned(obj, spec) {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(obj)})
		}
	}
	return requests
}

func imagesIn(list client.ObjectList) []client.Object {
	var objects []client.Object
	switch l := list.(type) {
	case *v1alpha1.XenImageList:
		for i := range l.Items {
			objects = append(objects, &l.Items[i])
		}
	case *v1alpha1.XenClusterImageList:
		for i := range l.Items {
			objects = append(objects, &l.Items[i])
		}
	}
	return objects
}
