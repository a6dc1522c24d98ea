package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xeninstances,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xeninstances/status,verbs=get;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xeninstances/finalizers,verbs=update
// +kubebuilder:rbac:groups=kubexen.io,resources=xenpools;xenflavors;xenimages;xenclusterimages;xensnapshots,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create;delete

const (
	kindInstance = "XenInstance"
	// unreachableGrace is how long a pool may be out of sight before its instances say that nobody knows.
	unreachableGrace = 60 * time.Second
	// catchUpTimeout bounds the wait for the pool's events after a call whose outcome is unknown.
	catchUpTimeout = 30 * time.Second
)

// instanceReconciler keeps the VMs of XenInstances.
type instanceReconciler struct {
	runtime      *reconcile.Runtime
	pools        *pool.Registry
	installation string
	executor     *instance.Executor
	stores       transfer.Stores
	backups      *backups
	runner       transfer.Runner
	scratch      transfer.Scratch
	turns        *copyTurns
	admitted     admissions
}

// instanceScope is one pass over one instance.
type instanceScope struct {
	*reconcile.Scope[*v1alpha1.XenInstance]
	r      *instanceReconciler
	pool   *pool.Handle
	inputs *instance.Inputs
	facts  *instance.Facts
	plan   instance.Plan
}

func setupInstance(s *shared) error {
	if err := indexInstances(s.manager); err != nil {
		return err
	}
	r := &instanceReconciler{
		runtime: s.runtime(), pools: s.pools, installation: s.options.Installation, executor: instance.NewExecutor(s.clock),
		runner: s.runner, scratch: s.scratch, turns: newCopyTurns(s.scratch.Most, s.clock), stores: s.stores, backups: newBackups(s),
		admitted: admissions{of: map[xencache.Key]admission{}},
	}
	mapped := func(field string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(r.instancesBy(field))
	}
	return ctrl.NewControllerManagedBy(s.manager).
		Named("xeninstance").
		For(&v1alpha1.XenInstance{}, builder.WithPredicates(askedAnew())).
		Watches(&v1alpha1.XenPool{}, mapped(poolField), builder.WithPredicates(poolTurned())).
		Watches(&v1alpha1.XenInstance{}, handler.EnqueueRequestsFromMapFunc(r.waitingForQuota), builder.WithPredicates(freesQuota())).
		Watches(&v1alpha1.XenFlavor{}, handler.EnqueueRequestsFromMapFunc(r.waitingForQuota), builder.WithPredicates(askedAnew())).
		Watches(&v1alpha1.XenFlavor{}, mapped(flavorField), builder.WithPredicates(askedAnew())).
		Watches(&v1alpha1.XenImage{}, mapped(imageField)).
		Watches(&v1alpha1.XenClusterImage{}, mapped(imageField)).
		Watches(&v1alpha1.XenImage{}, mapped(rescueImageField)).
		Watches(&v1alpha1.XenSnapshot{}, mapped(snapshotField)).
		Watches(&v1alpha1.XenClusterImage{}, mapped(rescueImageField)).
		WatchesRawSource(s.pools.Source(kindInstance)).
		WithOptions(controller.Options{MaxConcurrentReconciles: orDefault(s.options.Concurrency, DefaultConcurrency)}).
		Complete(r)
}

// Reconcile brings one VM one step nearer to its spec.
func (r *instanceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	scope, err := r.open(ctx, req)
	if scope == nil || err != nil {
		return ctrl.Result{}, err
	}
	if left := scope.outOfSight(); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	defer func() { err = errors.Join(err, scope.Close(ctx)) }()
	if !scope.reachPool(ctx) {
		return scope.Result(), nil
	}
	if err := scope.converge(ctx); err != nil {
		scope.Outcome = reconcile.Retry(v1alpha1.ReasonRetrying, err)
	}
	return scope.Result(), nil
}

// converge observes, plans, acts and reports.
func (s *instanceScope) converge(ctx context.Context) error {
	if err := s.observe(ctx); err != nil {
		return err
	}
	s.plan = s.takeTurn(instance.Decide(s.facts, s.r.runtime.Clock.Now()))
	s.forgetAdmission()
	return s.act(ctx)
}

// open begins a pass.
func (r *instanceReconciler) open(ctx context.Context, req ctrl.Request) (*instanceScope, error) {
	inner, err := reconcile.Open(ctx, r.runtime, req, &v1alpha1.XenInstance{}, reconcile.Options[*v1alpha1.XenInstance]{
		Finalizer: v1alpha1.FinalizerInstance,
	})
	if inner == nil || err != nil {
		if err == nil {
			key := xencache.Key{Kind: kindInstance, Namespace: req.Namespace, Name: req.Name}
			r.executor.Forget(key)
			r.turns.giveBack(key)
			r.admitted.forget(key)
		}
		return nil, err
	}
	return &instanceScope{Scope: inner, r: r}, nil
}

func (s *instanceScope) key() xencache.Key { return instanceKey(s.Object) }

func instanceKey(object *v1alpha1.XenInstance) xencache.Key {
	return xencache.Key{Kind: kindInstance, Namespace: object.Namespace, Name: object.Name}
}

// outOfSight is how long the status of an instance is still left as it is although its pool cannot be seen: a short
// absence is nobody's concern. It is 0 if there is something to say.
func (s *instanceScope) outOfSight() time.Duration {
	_, err := s.r.pools.Get(s.Object.Spec.PoolRef.Name)
	var unavailable *pool.Unavailable
	if !errors.As(err, &unavailable) || s.Deleting() || s.Object.Status.UUID == "" || unavailable.Since.IsZero() {
		return 0
	}
	return max(0, unreachableGrace-s.r.runtime.Clock.Since(unavailable.Since))
}

// reachPool finds the pool. Without it nothing is known of the VM, and that is said. An object that is to go and whose
// user gave a reason to do without the pool is let go.
func (s *instanceScope) reachPool(ctx context.Context) bool {
	handle, err := s.r.pools.Get(s.Object.Spec.PoolRef.Name)
	if err == nil {
		s.pool = handle
		return true
	}
	if s.Deleting() && s.forceDelete(ctx, err) {
		return false
	}
	if s.poolIsMissing(ctx) {
		if s.Deleting() && s.nothingMade() {
			s.letGo(ctx)
			return false
		}
		s.Outcome = reconcile.Wait(v1alpha1.ReasonPoolNotFound, s.withoutPool(fmt.Sprintf(
			"there is no XenPool %q; make it, or make the instance anew with another poolRef", s.Object.Spec.PoolRef.Name)))
		return false
	}
	var unavailable *pool.Unavailable
	if !errors.As(err, &unavailable) {
		s.Outcome = reconcile.Retry(v1alpha1.ReasonPoolNotReady, err)
		return false
	}
	s.Outcome = reconcile.Wait(unavailable.Reason, s.withoutPool(unavailable.Message))
	if s.Object.Status.UUID != "" {
		s.Outcome = s.Outcome.ReadyUnknown()
	}
	return false
}

// poolIsMissing reports whether there is no XenPool of the name.
func (s *instanceScope) poolIsMissing(ctx context.Context) bool {
	return apierrors.IsNotFound(s.r.runtime.Client.Get(ctx, client.ObjectKey{Name: s.Object.Spec.PoolRef.Name}, &v1alpha1.XenPool{}))
}

// nothingMade reports whether nothing was ever begun on the pool for the object.
func (s *instanceScope) nothingMade() bool {
	return vmUUID(s.Object) == "" && s.Object.Status.Operation == nil
}

// withoutPool adds to a message what a user can do who wants the object gone.
func (s *instanceScope) withoutPool(message string) string {
	if !s.Deleting() {
		return message
	}
	return fmt.Sprintf("%s; the annotation %s=<reason> lets this object go without the pool", message, v1alpha1.AnnotationForceDelete)
}

// forceDelete lets the object go without its pool, if its user said why.
func (s *instanceScope) forceDelete(ctx context.Context, why error) bool {
	reason := s.Object.Annotations[v1alpha1.AnnotationForceDelete]
	if reason == "" {
		return false
	}
	s.Event(corev1.EventTypeWarning, v1alpha1.ReasonForceDeleted,
		"let go without the pool (%v), VM %s may be left there; reason given: %s", why, s.Object.Status.UUID, reason)
	s.letGo(ctx)
	return true
}

// observe gathers what the pass knows: from Kubernetes, then from the pool's objects in memory.
func (s *instanceScope) observe(ctx context.Context) error {
	inputs, err := s.gather(ctx)
	if err != nil {
		return err
	}
	s.gatherCopy(inputs)
	s.inputs = inputs
	s.watchVM()
	s.facts = instance.Observe(s.pool.Cache, inputs, s.r.executor)
	if err := errors.Join(s.checkBeforeRescue(ctx), s.checkBeforeResize(ctx), s.checkBeforeGrowing(ctx)); err != nil {
		return err
	}
	return s.checkBeforeMaking(ctx)
}

// watchVM has the pass repeated when a VM changes that carries no mark of ours.
func (s *instanceScope) watchVM() {
	uuid := s.Object.Annotations[v1alpha1.AnnotationVMUUID]
	if existing := s.Object.Spec.Source.Existing; existing != nil {
		uuid = existing.UUID
	}
	if uuid != "" {
		s.pool.WakeOn(uuid, s.key())
	}
}

// act takes the plan's next step and says what the pass ended in.
func (s *instanceScope) act(ctx context.Context) error {
	if s.Paused != "" {
		s.Outcome = s.whilePaused()
		s.plan.Steps, s.plan.Operation, s.plan.Released = nil, "", false
		s.report()
		return nil
	}
	if s.plan.Released {
		var landed bool
		if s.Outcome, landed = s.r.executor.Finish(ctx, s.run(ctx), s.plan); landed {
			s.announceEnd()
			s.letGo(ctx)
		}
		return nil
	}
	if len(s.plan.Steps) > 0 {
		reconcile.ObservePlan(kindInstance, s.plan.Steps[0].Name)
	}
	s.Outcome = s.r.executor.Do(ctx, s.run(ctx), s.plan)
	if s.Deleting() && s.Outcome.Kind() == reconcile.KindWait {
		s.Outcome = s.Outcome.Because(v1alpha1.ReasonDeleting, s.Outcome.Message())
	}
	s.report()
	return s.bind(ctx)
}

// whilePaused is what a pass ends in that may not act: an instance is ready only if nothing would be done.
func (s *instanceScope) whilePaused() reconcile.Outcome {
	switch {
	case len(s.plan.Steps) > 0 || s.Deleting():
		return reconcile.Wait(v1alpha1.ReasonPaused, s.Paused)
	case !s.plan.Outcome.IsDone():
		return s.plan.Outcome
	}
	return reconcile.Done().Because(v1alpha1.ReasonPaused, s.Paused)
}

// run is what the acts of this pass work with.
func (s *instanceScope) run(ctx context.Context) *instance.Run {
	return &instance.Run{
		Facts: s.facts, Client: s.pool.Client, Now: s.r.runtime.Clock.Now(), Seed: s.seed,
		RescueSeed: s.rescueSeed, DropRescueSecret: s.dropRescueSecret,
		Tasks:       poolTasks{s.pool, s.key()},
		Copier:      s.copier(),
		Restorer:    s.restorer(),
		Sync:        s.catchUp,
		ClaimWriter: s.pool.ClaimWriter,
		StepTaken: func(step string, err error, took time.Duration) {
			if logger := ctrl.LoggerFrom(ctx); err != nil {
				logger.Info("step failed", "operation", s.plan.Operation, "step", step, "error", err.Error())
			} else {
				logger.V(1).Info("step taken", "operation", s.plan.Operation, "step", step, "took", took.String())
			}
			outcome := reconcile.Done()
			if err != nil {
				outcome = reconcile.Retry(v1alpha1.ReasonRetrying, err)
			}
			reconcile.ObserveStep(kindInstance, step, outcome, took)
		},
	}
}

// catchUp waits until the pool's objects in memory are as new as this moment; anew reads all of them again.
func (s *instanceScope) catchUp(ctx context.Context, anew bool) error {
	if anew {
		s.pool.Cache.Doubt()
	}
	return s.pool.CatchUp(ctx, catchUpTimeout)
}

// report writes the status that follows from facts, plan and outcome.
func (s *instanceScope) report() {
	report := instance.Report{
		Plan: s.plan, Outcome: s.Outcome, Now: s.r.runtime.Clock.Now(),
		Leads:   s.r.executor.Leads(s.key()),
		Percent: s.r.executor.Percent(s.key(), poolTasks{s.pool, s.key()}),
	}
	if percent := s.facts.CopyPercent(); percent != nil {
		report.Percent = percent
	}
	if percent := s.facts.RestorePercent(); percent != nil {
		report.Percent = percent
	}
	if bootstrap := s.Object.Spec.Bootstrap; bootstrap != nil && bootstrap.GeneratePassword && s.facts.VM != nil {
		report.PasswordSecret = passwordSecretName(s.Object.Name)
	}
	before, prior := rescuedReason(s.Object), s.Object.Status
	s.Object.Status = instance.Status(s.facts, report)
	s.announceRescue(before)
	s.announceResize(&prior, &s.Object.Status)
}

// bind writes the VM's uuid into the annotation that survives the loss of the status, once the VM carries our marks.
func (s *instanceScope) bind(ctx context.Context) error {
	if !s.facts.Bound() || s.Object.Annotations[v1alpha1.AnnotationVMUUID] == s.facts.VM.UUID {
		return nil
	}
	return s.Annotate(ctx, v1alpha1.AnnotationVMUUID, s.facts.VM.UUID)
}

// announceEnd says in an Event what has become of the VM.
func (s *instanceScope) announceEnd() {
	reason, text := v1alpha1.ReasonDestroyed, "nothing is left of the VM on the pool"
	switch {
	case s.facts.VM == nil:
	case s.Object.Spec.DesiredDeletionPolicy() == v1alpha1.DeletionTrash:
		reason, text = v1alpha1.ReasonTrashed, "VM "+s.facts.VM.UUID+" is in the pool's trash"
	default:
		reason, text = v1alpha1.ReasonOrphaned, "VM "+s.facts.VM.UUID+" was left on the pool without our marks"
	}
	s.Event(corev1.EventTypeNormal, reason, "%s", text)
}

// letGo removes what we made in Kubernetes and then the finalizer. Garbage collection would come to the Secret too, but it
// may be far behind.
func (s *instanceScope) letGo(ctx context.Context) {
	if err := errors.Join(s.deletePasswordSecret(ctx), s.deleteRescueSecret(ctx), s.endRestores(ctx)); err != nil {
		s.Outcome = reconcile.Retry(v1alpha1.ReasonRetrying, err)
		return
	}
	if err := s.ReleaseFinalizer(ctx, v1alpha1.FinalizerInstance); err != nil {
		s.Outcome = reconcile.Retry(v1alpha1.ReasonRetrying, fmt.Errorf("let go of %s: %w", s.key(), err))
		return
	}
	s.r.executor.Forget(s.key())
	s.r.backups.forget(s.Object.UID, s.key())
	if s.pool != nil {
		s.pool.Forget(s.key())
	}
}

// poolTasks are the pool's tasks as far as one instance has to do with them.
type poolTasks struct {
	handle *pool.Handle
	key    xencache.Key
}

// Reserve implements instance.Tasks.
func (t poolTasks) Reserve() bool { return t.handle.ReserveTask(t.key) }

// Release implements instance.Tasks.
func (t poolTasks) Release() { t.handle.ReleaseTask(t.key) }

// Follow implements instance.Tasks.
func (t poolTasks) Follow(task xenapi.TaskRef) { t.handle.FollowTask(task, t.key) }

// State implements instance.Tasks.
func (t poolTasks) State(task xenapi.TaskRef) instance.TaskState {
	return instance.ObserveTask(t.handle.Cache, task)
}

// Field indexes by which instances are found for what they depend on.
const (
	flavorField = "spec.flavorRef.name"
	imageField  = "spec.source.imageRef.name"

	rescueImageField = "spec.rescue.imageRef.name"
	snapshotField    = "spec.source.snapshotRef.name"

	quotaField = "status.waitsForQuota"
	waiting    = "true" // of quotaField
)

// indexInstances lets instances be found by what they depend on.
func indexInstances(mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.XenInstance{}, quotaField, func(obj client.Object) []string {
		if waitsForQuota(obj.(*v1alpha1.XenInstance)) {
			return []string{waiting}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index instances by %s: %w", quotaField, err)
	}
	fields := map[string]func(*v1alpha1.XenInstanceSpec) string{
		rescueImageField: func(s *v1alpha1.XenInstanceSpec) string {
			if !s.WantsRescue() || s.Rescue.ImageRef == nil {
				return ""
			}
			return s.Rescue.ImageRef.Name
		},
		snapshotField: func(s *v1alpha1.XenInstanceSpec) string {
			if s.Source.SnapshotRef == nil {
				return ""
			}
			return s.Source.SnapshotRef.Name
		},
		flavorField: func(s *v1alpha1.XenInstanceSpec) string {
			if s.FlavorRef == nil {
				return ""
			}
			return s.FlavorRef.Name
		},
		imageField: func(s *v1alpha1.XenInstanceSpec) string {
			if s.Source.ImageRef == nil {
				return ""
			}
			return s.Source.ImageRef.Name
		},
	}
	for field, value := range fields {
		err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.XenInstance{}, field, func(obj client.Object) []string {
			if name := value(&obj.(*v1alpha1.XenInstance).Spec); name != "" {
				return []string{name}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("index instances by %s: %w", field, err)
		}
	}
	return nil
}

// instancesBy maps an object to the instances that name it in a field.
func (r *instanceReconciler) instancesBy(field string) handler.MapFunc {
	return func(ctx context.Context, obj client.Object) []ctrl.Request {
		var list v1alpha1.XenInstanceList
		options := []client.ListOption{client.MatchingFields{field: obj.GetName()}}
		if obj.GetNamespace() != "" {
			options = append(options, client.InNamespace(obj.GetNamespace()))
		}
		if err := r.runtime.Client.List(ctx, &list, options...); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "list the instances that name an object", "field", field, "name", obj.GetName())
			return nil
		}
		requests := make([]ctrl.Request, len(list.Items))
		for i := range list.Items {
			requests[i].NamespacedName = types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}
		}
		return requests
	}
}

// ignoreGone turns "not found" into nil.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
