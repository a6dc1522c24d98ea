package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/snapshot"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xensnapshots,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups=kubexen.io,resources=xensnapshots/status,verbs=get;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xensnapshots/finalizers,verbs=update
// +kubebuilder:rbac:groups=kubexen.io,resources=xeninstances;xenpools,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get

const (
	kindSnapshot = "XenSnapshot"
	// barrier is how long the effect of a call may take to come back as an event.
	barrier = 10 * time.Second
	// remotePatience is how long a deletion tries to remove the copy from a store that does not answer.
	remotePatience = 5 * time.Minute
)

// snapshotInstanceField is the field index by which snapshots are found for their instance.
const snapshotInstanceField = "spec.instanceRef.name"

// snapshotReconciler takes snapshots, and sees to their copies.
type snapshotReconciler struct {
	runtime      *reconcile.Runtime
	pools        *pool.Registry
	installation string
	flights      *pool.Flights
	runner       transfer.Runner
	stores       transfer.Stores
	namespace    string // the operator's own
	// asked and removed are what passes want of stores.
	asked   *transfer.Errands[transfer.Found]
	removed *transfer.Errands[struct{}]
}

// snapshotScope is one pass over one snapshot.
type snapshotScope struct {
	*reconcile.Scope[*v1alpha1.XenSnapshot]
	r        *snapshotReconciler
	pool     *pool.Handle
	snapshot snapshot.Snapshot
	source   string // uuid of the instance's VM
	observed bool   // the instance's VM is not to be touched
	facts    snapshot.Facts
	// recorded says that the stored status tells of the complete upload: only then does the snapshot leave the pool.
	recorded bool
	// begins is an attempt to upload that begins as soon as the stored status tells of it: whoever deletes the object then knows
	// that there may be something in the store.
	begins *transfer.Upload
}

func setupSnapshot(s *shared) error {
	if err := indexSnapshots(s.manager); err != nil {
		return err
	}
	r := &snapshotReconciler{
		runtime: s.runtime(), pools: s.pools, installation: s.options.Installation, flights: pool.NewFlights(s.clock),
		runner: s.runner, stores: s.stores, namespace: s.options.Namespace,
		asked:   transfer.NewErrands[transfer.Found](s.pools.Wake, s.clock, s.transferLog()),
		removed: transfer.NewErrands[struct{}](s.pools.Wake, s.clock, s.transferLog()),
	}
	return ctrl.NewControllerManagedBy(s.manager).
		Named("xensnapshot").
		For(&v1alpha1.XenSnapshot{}, builder.WithPredicates(askedAnew())).
		Watches(&v1alpha1.XenPool{}, handler.EnqueueRequestsFromMapFunc(r.snapshotsOfPool), builder.WithPredicates(poolTurned())).
		Watches(&v1alpha1.XenInstance{}, handler.EnqueueRequestsFromMapFunc(r.snapshotsOfInstance)).
		Watches(&v1alpha1.XenSnapshot{}, handler.EnqueueRequestsFromMapFunc(r.snapshotsRelatedTo)).
		Watches(&v1alpha1.XenInstance{}, handler.EnqueueRequestsFromMapFunc(r.snapshotsInUse)).
		Watches(&v1alpha1.XenImage{}, handler.EnqueueRequestsFromMapFunc(r.snapshotsInUse)).
		Watches(&v1alpha1.XenClusterImage{}, handler.EnqueueRequestsFromMapFunc(r.snapshotsInUse)).
		WatchesRawSource(s.pools.Source(kindSnapshot)).
		WithOptions(controller.Options{MaxConcurrentReconciles: poolConcurrency}).
		Complete(r)
}

// Reconcile takes the snapshot once, and then sees to its copy.
func (r *snapshotReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	inner, err := reconcile.Open(ctx, r.runtime, req, &v1alpha1.XenSnapshot{}, reconcile.Options[*v1alpha1.XenSnapshot]{
		Finalizer: v1alpha1.FinalizerSnapshot,
	})
	if inner == nil || err != nil {
		return ctrl.Result{}, err
	}
	s := r.scope(inner)
	defer func() {
		if err = errors.Join(err, s.Close(ctx)); err == nil && s.begins != nil {
			r.runner.Start(s.id(), transfer.Request{Upload: s.begins})
		}
	}()
	if s.Outcome, err = s.converge(ctx); err != nil {
		s.Outcome = reconcile.Retry(v1alpha1.ReasonRetrying, err)
	}
	snapshot.Report(&s.Object.Status, &s.Object.Spec, s.Outcome)
	return s.Result(), nil
}

func (r *snapshotReconciler) scope(inner *reconcile.Scope[*v1alpha1.XenSnapshot]) *snapshotScope {
	object := inner.Object
	known := object.Status.UUID
	if known == "" {
		known = object.Annotations[v1alpha1.AnnotationSnapshotUUID]
	}
	return &snapshotScope{Scope: inner, r: r, recorded: snapshot.IsUploaded(&object.Status), snapshot: snapshot.Snapshot{
		Key: xencache.Key{Kind: kindSnapshot, Namespace: object.Namespace, Name: object.Name},
		UID: string(object.UID), Spec: &object.Spec, KnownUUID: known,
	}}
}

func (s *snapshotScope) id() transfer.ID { return transfer.ID{Owner: s.snapshot.Key} }

func (s *snapshotScope) now() time.Time { return s.r.runtime.Clock.Now() }

// converge does what is due: removal, the end of a finished one, the capture, the copy.
func (s *snapshotScope) converge(ctx context.Context) (reconcile.Outcome, error) {
	status := &s.Object.Status
	s.heedRequest()
	onlyLocal := s.Object.Spec.Destination == nil && s.succeeded()
	if !s.Deleting() && status.FinishedAt != nil && !status.Local && !onlyLocal {
		return s.rest(ctx), nil // nothing of it is on any pool, nor should it be
	}
	if outcome, err := s.reachPool(ctx); err != nil || !outcome.IsDone() || s.pool == nil {
		return s.unreached(ctx, outcome), err
	}
	s.observe()
	switch {
	case s.Deleting():
		return s.remove(ctx)
	case s.Paused != "" && status.FinishedAt == nil:
		return reconcile.Wait(v1alpha1.ReasonPaused, s.Paused), nil
	case s.Paused != "":
		return s.rest(ctx), nil
	case status.FinishedAt == nil:
		if outcome, err := s.advance(ctx); err != nil || !outcome.IsDone() {
			return outcome, err
		}
	}
	return s.settle(ctx)
}

// unreached is the outcome of a pass that does not come to the pool. What has failed says why, whatever its pool does.
func (s *snapshotScope) unreached(ctx context.Context, outcome reconcile.Outcome) reconcile.Outcome {
	if s.Deleting() || s.Object.Status.FinishedAt == nil || s.succeeded() {
		return outcome
	}
	return s.rest(ctx).After(cmp.Or(outcome.Deadline(), poolRecheck))
}

// heedRequest lets what failed begin anew when its user asks for that.
func (s *snapshotScope) heedRequest() {
	status := &s.Object.Status
	token, isNew := s.RequestedAt()
	if !isNew || token == "" || status.FinishedAt == nil || s.succeeded() {
		return
	}
	status.FinishedAt = nil
	if status.Upload != nil {
		s.r.runner.Stop(s.id())
		status.Upload.Attempts, status.Upload.NextRetryTime = 0, ""
	}
}

func (s *snapshotScope) observe() {
	s.pool.Cache.View(func(v xencache.View) {
		s.facts = snapshot.Observe(v, s.pool.Installation, s.snapshot, s.source)
	})
	s.Object.Status.Local = s.facts.Local != nil
}

// advance captures and uploads. Done means that all that was asked for is done.
func (s *snapshotScope) advance(ctx context.Context) (reconcile.Outcome, error) {
	status, spec := &s.Object.Status, &s.Object.Spec
	deadline := snapshot.Deadline(spec, s.Object.CreationTimestamp)
	if !deadline.IsZero() && !s.now().Before(deadline) {
		return s.late(ctx, deadline), nil
	}
	outcome, err := s.captureAndUpload(ctx)
	if err == nil && !deadline.IsZero() && !outcome.IsDone() {
		outcome = outcome.After(deadline.Sub(s.now()))
	}
	if err == nil && outcome.IsDone() {
		s.finished()
		if spec.Destination != nil {
			reconcile.SetCondition(&status.Conditions, v1alpha1.ConditionUploaded, metav1.ConditionTrue, v1alpha1.ReasonUploaded, "")
		}
	}
	return outcome, err
}

// late ends the work when its time is over. A capture that is under way cannot be ended: what it makes is to be seen first.
func (s *snapshotScope) late(ctx context.Context, deadline time.Time) reconcile.Outcome {
	if busy, _, err := s.r.flights.Land(ctx, s.pool, s.snapshot.Key); busy && err == nil {
		return reconcile.Wait(v1alpha1.ReasonCapturing, "its time is over; the snapshot that is being taken is waited for").After(barrier)
	}
	s.observe()
	s.r.runner.Stop(s.id())
	return s.failed(reconcile.Terminal(v1alpha1.ReasonDeadlineExceeded, fmt.Sprintf(
		"it was not complete at %s (deadlineSeconds); make it longer and give the annotation %s a new value, or make another XenSnapshot",
		deadline.UTC().Format(time.RFC3339), v1alpha1.AnnotationReconcileRequestedAt)))
}

func (s *snapshotScope) captureAndUpload(ctx context.Context) (reconcile.Outcome, error) {
	if outcome, err := s.capture(ctx); err != nil || !outcome.IsDone() || s.succeeded() {
		return outcome, err
	}
	if s.Object.Spec.Destination == nil {
		return reconcile.Done(), nil
	}
	return s.upload(ctx)
}

// capture takes the snapshot, unless it was taken before.
func (s *snapshotScope) capture(ctx context.Context) (reconcile.Outcome, error) {
	status := &s.Object.Status
	if snapshot.IsCaptured(status) {
		if s.facts.Local == nil {
			return s.lost(ctx), nil
		}
		return reconcile.Done(), nil
	}
	busy, _, err := s.r.flights.Land(ctx, s.pool, s.snapshot.Key)
	switch {
	case err != nil:
		return captureFailed(err), nil
	case busy:
		return reconcile.Wait(v1alpha1.ReasonCapturing, "the snapshot is being taken").After(barrier), nil
	}
	if s.facts.Local == nil {
		if outcome := s.recall(ctx); !outcome.IsDone() || snapshot.IsCaptured(status) {
			return outcome, nil
		}
		if outcome, err := s.baseCaptured(ctx); err != nil || !outcome.IsDone() {
			return outcome, err
		}
		if s.observed {
			return reconcile.Terminal(v1alpha1.ReasonObserved, fmt.Sprintf(
				"XenInstance %s has managementPolicy Observe: nothing of it is touched on the pool, so no snapshot is taken; set it to Manage",
				s.Object.Spec.InstanceRef.Name)).After(time.Minute), nil
		}
	}
	return s.take(ctx)
}

// take goes through the steps, as many as can be taken in this pass.
func (s *snapshotScope) take(ctx context.Context) (reconcile.Outcome, error) {
	for {
		step, outcome := snapshot.Next(s.snapshot, s.facts, s.pool.Installation, s.r.flights.Knows)
		if step == nil {
			if outcome.IsDone() {
				snapshot.Taken(&s.Object.Status, s.facts, s.pool.Name)
				return outcome, s.Annotate(ctx, v1alpha1.AnnotationSnapshotUUID, s.facts.Local.UUID)
			}
			return outcome, nil
		}
		reconcile.ObservePlan(kindSnapshot, step.Name)
		if reason, message, held := s.pool.Held(); held {
			return reconcile.Wait(reason, message), nil
		}
		if err := s.pool.ClaimWriter(ctx); err != nil {
			return denied(err), nil
		}
		if step.Begin != nil {
			return s.begin(ctx, step, outcome)
		}
		if err := s.act(ctx, step); err != nil {
			return captureFailed(err), nil
		}
	}
}

// begin begins a long step; the end of its task wakes the key.
func (s *snapshotScope) begin(ctx context.Context, step *snapshot.Step, outcome reconcile.Outcome) (reconcile.Outcome, error) {
	work := pool.Work{On: string(s.facts.Source.Ref), Alone: s.Object.Spec.Type == v1alpha1.SnapshotTypeMemory}
	begun, err := s.r.flights.Begin(s.pool, s.snapshot.Key, work, func() (xenapi.TaskRef, error) {
		return step.Begin(ctx, s.pool, s.snapshot, s.facts)
	})
	switch {
	case xenapi.OutcomeUnknown(err):
		return outcome.After(barrier), s.pool.CatchUp(ctx, catchUpTimeout)
	case err != nil:
		return captureFailed(err), nil
	case !begun:
		return reconcile.Wait(v1alpha1.ReasonCapturing, "waiting for a free task on the pool, or for another snapshot of the VM").After(snapshot.BusyAgain), nil
	}
	return outcome.After(barrier), nil
}

// act takes a short step and waits until its effect is seen.
func (s *snapshotScope) act(ctx context.Context, step *snapshot.Step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := step.Do(ctx, s.pool, s.snapshot, s.facts)
	if err != nil && !xenapi.OutcomeUnknown(err) {
		return err
	}
	holds := func(v xencache.View) bool {
		f := snapshot.Observe(v, s.pool.Installation, s.snapshot, s.source)
		return f.Local == nil || step.Holds(s.snapshot, f, s.pool.Installation)
	}
	if err := errors.Join(err, s.pool.Cache.Wait(ctx, barrier, holds)); err != nil {
		return errors.Join(err, s.pool.CatchUp(ctx, catchUpTimeout))
	}
	s.observe()
	if s.facts.Local == nil {
		return errors.New("the snapshot is gone")
	}
	return nil
}

// captureFailed says what an error of the pool means for a snapshot.
func captureFailed(err error) reconcile.Outcome {
	switch {
	case errors.Is(err, xenapi.ErrSRBackendSnapshotChainTooLong):
		return reconcile.Wait(v1alpha1.ReasonChainTooLong, fmt.Sprintf(
			"too many snapshots stand behind a disk of the VM, so the storage takes no more (%v); delete old ones: the storage then shortens the chain by and by, and this one is taken",
			err)).After(time.Minute)
	case errors.Is(err, xenapi.ErrLicenceRestriction), errors.Is(err, xenapi.ErrRBACPermissionDenied):
		return reconcile.Terminal(v1alpha1.ReasonPermissionDenied, err.Error()).After(15 * time.Minute)
	case errors.Is(err, xenapi.ErrOperationBlocked):
		return reconcile.Terminal(v1alpha1.ReasonOperationBlocked, err.Error()).After(time.Minute)
	case errors.Is(err, xenapi.ErrSRFull), errors.Is(err, xenapi.ErrSRBackendNoSpace):
		return reconcile.Retry(v1alpha1.ReasonInsufficientStorage, err)
	}
	return reconcile.Retry(v1alpha1.ReasonRetrying, err)
}

// finished latches the end: from now on nothing is captured nor uploaded again.
func (s *snapshotScope) finished() {
	if s.Object.Status.FinishedAt == nil {
		now := metav1.NewTime(s.now())
		s.Object.Status.FinishedAt = &now
	}
}

// failed ends the work for good.
func (s *snapshotScope) failed(outcome reconcile.Outcome) reconcile.Outcome {
	s.finished()
	return outcome
}

// succeeded reports whether everything that was asked for is done.
func (s *snapshotScope) succeeded() bool {
	status := &s.Object.Status
	if s.Object.Spec.Destination == nil {
		return snapshot.IsCaptured(status)
	}
	return snapshot.IsUploaded(status)
}

// settle does what is left when the work has ended: the local copy goes where it is not wanted any more.
func (s *snapshotScope) settle(ctx context.Context) (reconcile.Outcome, error) {
	keep := s.Object.Spec.Destination == nil || s.Object.Spec.KeepLocal == v1alpha1.KeepAlways || !s.succeeded()
	if !keep && s.facts.Local != nil {
		if !s.recorded {
			return reconcile.Wait(v1alpha1.ReasonUploaded, "the copy is complete; the snapshot is now removed from the pool").After(time.Millisecond), nil
		}
		if reason, message, held := s.pool.Held(); held {
			return reconcile.Wait(reason, message), nil
		}
		if outcome, err := s.guarded(ctx); err != nil || !outcome.IsDone() {
			return s.rest(ctx), err // it stays until then
		}
		if outcome, err := s.removeLocal(ctx); err != nil || !outcome.IsDone() {
			return outcome, err
		}
	}
	if s.Object.Spec.Destination == nil && s.facts.Local == nil && s.succeeded() {
		return reconcile.Terminal(v1alpha1.ReasonExternallyDeleted, fmt.Sprintf(
			"snapshot %s is no longer on pool %s; somebody deleted it there", s.Object.Status.UUID, s.pool.Name)), nil
	}
	return s.rest(ctx), nil
}

// rest is the outcome of a snapshot whose work has ended. Its time to live runs.
func (s *snapshotScope) rest(ctx context.Context) reconcile.Outcome {
	outcome := reconcile.Done().Because(v1alpha1.ReasonCaptured, "")
	switch {
	case s.succeeded() && s.Object.Spec.Destination != nil:
		outcome = reconcile.Done().Because(v1alpha1.ReasonUploaded, "")
	case !s.succeeded():
		reason, message := s.lastStall()
		outcome = reconcile.Terminal(reason, message)
	}
	ttl := s.Object.Spec.TTLSecondsAfterFinished
	if ttl == nil || s.Object.Status.FinishedAt == nil || s.Paused != "" {
		return outcome
	}
	left := s.Object.Status.FinishedAt.Add(time.Duration(*ttl) * time.Second).Sub(s.now())
	if left > 0 {
		return outcome.After(left)
	}
	uid := s.Object.UID
	err := s.r.runtime.Client.Delete(ctx, s.Object, client.Preconditions{UID: &uid})
	return outcome.Join(reconcile.Retry(v1alpha1.ReasonRetrying, client.IgnoreNotFound(err)))
}

// lastStall is why the snapshot failed, as the conditions remember it.
func (s *snapshotScope) lastStall() (reason, message string) {
	for _, condition := range s.Object.Status.Conditions {
		if condition.Type == v1alpha1.ConditionStalled && condition.Status == metav1.ConditionTrue {
			return condition.Reason, condition.Message
		}
	}
	return v1alpha1.ReasonBackoffLimitExceeded, "it failed; see its Events"
}

// indexSnapshots lets snapshots be found by their instance.
func indexSnapshots(mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.XenSnapshot{}, snapshotInstanceField, func(obj client.Object) []string {
		return []string{obj.(*v1alpha1.XenSnapshot).Spec.InstanceRef.Name}
	})
	if err != nil {
		return fmt.Errorf("index snapshots by %s: %w", snapshotInstanceField, err)
	}
	return indexBases(mgr)
}

// snapshotsOfInstance finds the snapshots that may wait for an instance.
func (r *snapshotReconciler) snapshotsOfInstance(ctx context.Context, instance client.Object) []ctrl.Request {
	return r.list(ctx, func(s *v1alpha1.XenSnapshot) bool { return s.Status.FinishedAt == nil },
		client.InNamespace(instance.GetNamespace()), client.MatchingFields{snapshotInstanceField: instance.GetName()})
}

// snapshotsOfPool finds those that are at work or have something on a pool.
func (r *snapshotReconciler) snapshotsOfPool(ctx context.Context, xenPool client.Object) []ctrl.Request {
	return r.list(ctx, func(s *v1alpha1.XenSnapshot) bool {
		return s.Status.FinishedAt == nil || s.Status.PoolRef != nil && s.Status.PoolRef.Name == xenPool.GetName()
	})
}

func (r *snapshotReconciler) list(ctx context.Context, concerned func(*v1alpha1.XenSnapshot) bool, options ...client.ListOption) []ctrl.Request {
	var all v1alpha1.XenSnapshotList
	if err := r.runtime.Client.List(ctx, &all, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list snapshots")
		return nil
	}
	var requests []ctrl.Request
	for i := range all.Items {
		if concerned(&all.Items[i]) {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
		}
	}
	return requests
}

// forcedFrom lets the object go without the pool, if its user said why.
func (s *snapshotScope) forcedFrom(ctx context.Context, why string) (bool, error) {
	reason := s.Object.Annotations[v1alpha1.AnnotationForceDelete]
	if reason == "" {
		return false, nil
	}
	s.Event(corev1.EventTypeWarning, v1alpha1.ReasonForceDeleted, "let go without the pool (%s), snapshot %s may be left there; reason given: %s",
		why, s.snapshot.KnownUUID, reason)
	return true, s.ReleaseFinalizer(ctx, v1alpha1.FinalizerSnapshot)
}

// findInstance reads the instance, nil if there is none.
func (s *snapshotScope) findInstance(ctx context.Context) (*v1alpha1.XenInstance, error) {
	var instance v1alpha1.XenInstance
	err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: s.Object.Spec.InstanceRef.Name}, &instance)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return &instance, err
}
