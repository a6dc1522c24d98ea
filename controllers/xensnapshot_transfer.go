package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/snapshot"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// reachPool finds the pool that has the snapshot, or is to have it. Without one, s.pool stays nil.
func (s *snapshotScope) reachPool(ctx context.Context) (reconcile.Outcome, error) {
	instance, err := s.findInstance(ctx)
	if err != nil {
		return reconcile.Outcome{}, err
	}
	name := ""
	if instance != nil {
		// The annotation with a VM's uuid is whoever's writes the instance: only what its controller found is its VM.
		name, s.source = instance.Spec.PoolRef.Name, instance.Status.UUID
		s.observed = instance.Spec.ManagementPolicy == v1alpha1.ManagementObserve
	}
	if ref := s.Object.Status.PoolRef; ref != nil {
		name = ref.Name
	} else if marked := s.poolWithMark(ctx); marked != "" {
		name = marked
	}
	if name == "" {
		return s.withoutInstance(ctx)
	}
	handle, err := s.r.pools.Get(name)
	if err == nil {
		s.pool = handle
		return reconcile.Done(), nil
	}
	if s.Deleting() {
		gone := apierrors.IsNotFound(s.r.runtime.Client.Get(ctx, client.ObjectKey{Name: name}, &v1alpha1.XenPool{}))
		if forced, err := s.forcedFrom(ctx, name+" is not ready"); forced || err != nil {
			return reconcile.Wait(v1alpha1.ReasonDeleting, ""), err
		}
		if nothingThere := s.Object.Status.FinishedAt != nil && !s.Object.Status.Local; gone || nothingThere {
			return s.letGo(ctx)
		}
	}
	return awaitPool(err), nil
}

// poolWithMark looks for the snapshot on all pools: status and instance may both be lost.
func (s *snapshotScope) poolWithMark(ctx context.Context) string {
	var all v1alpha1.XenPoolList
	if err := s.r.runtime.Client.List(ctx, &all); err != nil {
		return ""
	}
	for i := range all.Items {
		cache := s.r.pools.Cache(all.Items[i].Name)
		if cache == nil {
			continue
		}
		var facts snapshot.Facts
		cache.View(func(v xencache.View) { facts = snapshot.Observe(v, s.r.installation, s.snapshot, "") })
		if facts.Local != nil {
			return all.Items[i].Name
		}
	}
	return ""
}

// withoutInstance says what becomes of a snapshot of which nothing is known and whose instance is not there. A store may
// remember it.
func (s *snapshotScope) withoutInstance(ctx context.Context) (reconcile.Outcome, error) {
	if s.Deleting() {
		return s.letGo(ctx)
	}
	if !snapshot.IsCaptured(&s.Object.Status) {
		if outcome := s.recall(ctx); !outcome.IsDone() {
			return outcome, nil
		}
	}
	if snapshot.IsCaptured(&s.Object.Status) {
		s.finished()
		return s.rest(ctx), nil
	}
	return reconcile.Wait(v1alpha1.ReasonInstanceNotFound, fmt.Sprintf(
		"there is no XenInstance %q; the snapshot is taken when there is", s.Object.Spec.InstanceRef.Name)), nil
}

// place is where the files go.
func (s *snapshotScope) place() transfer.Place {
	return transfer.Place{
		Namespace: s.Object.Namespace, Destination: s.Object.Spec.Destination.DeepCopy(),
		Instance: s.Object.Spec.InstanceRef.Name, Snapshot: s.Object.Name,
	}
}

func (s *snapshotScope) emptyUpload() *v1alpha1.SnapshotUpload {
	return &v1alpha1.SnapshotUpload{
		Location: snapshot.Location(s.Object.Spec.Destination, s.Object.Namespace, s.Object.Spec.InstanceRef.Name, s.Object.Name),
		Format:   s.Object.Spec.Destination.DesiredFormat(),
	}
}

// upload brings the copy on its way, or says how far it is.
func (s *snapshotScope) upload(ctx context.Context) (reconcile.Outcome, error) {
	status, spec := &s.Object.Status, &s.Object.Spec
	if status.Upload == nil {
		status.Upload = s.emptyUpload()
	}
	state, known := s.r.runner.State(s.id())
	var base *v1alpha1.XenSnapshot
	if !known || state.Phase == transfer.Failed {
		var outcome reconcile.Outcome
		var err error
		if base, outcome, err = s.base(ctx); err != nil || !outcome.IsDone() {
			return outcome, err
		}
	}
	next := snapshot.NextUpload(spec, status.Upload, state, known, s.now())
	if next.Over {
		s.finished()
	}
	if next.Start {
		s.begins = &transfer.Upload{
			Pool: s.pool.Name, Place: s.place(), Format: spec.Destination.DesiredFormat(), Compression: spec.Destination.DesiredCompression(),
			Manifest: s.differenceTo(base), Have: status.Upload.Files,
		}
	}
	return next.Outcome, nil
}

// letGo lets an object go of which nothing is on a pool, as far as anybody knows, or whose pool is gone. What it left in a store
// is removed all the same.
func (s *snapshotScope) letGo(ctx context.Context) (reconcile.Outcome, error) {
	if !s.r.runner.Stop(s.id()) {
		return reconcile.Wait(v1alpha1.ReasonDeleting, "the transfer is being ended"), nil
	}
	if s.Paused != "" {
		return reconcile.Wait(v1alpha1.ReasonPaused, s.Paused), nil
	}
	if outcome, err := s.guarded(ctx); err != nil || !outcome.IsDone() {
		return outcome, err
	}
	if outcome := s.removeRemote(ctx); !outcome.IsDone() {
		return outcome, nil
	}
	return reconcile.Wait(v1alpha1.ReasonDeleting, ""), s.ReleaseFinalizer(ctx, v1alpha1.FinalizerSnapshot)
}

// remove ends the transfer, removes what is to go, and lets the object go.
func (s *snapshotScope) remove(ctx context.Context) (reconcile.Outcome, error) {
	if !s.r.runner.Stop(s.id()) {
		return reconcile.Wait(v1alpha1.ReasonDeleting, "the transfer is being ended"), nil
	}
	if busy, _, err := s.r.flights.Land(ctx, s.pool, s.snapshot.Key); busy || err != nil {
		return reconcile.Wait(v1alpha1.ReasonDeleting, "waiting until the snapshot is taken, to remove it").After(barrier), nil //nolint:nilerr // a capture that failed leaves nothing
	}
	if s.pool.Cache != nil && s.facts.Local != nil {
		if reason, message, held := s.pool.Held(); held {
			return reconcile.Wait(reason, message), nil
		}
	}
	if s.Paused != "" {
		return reconcile.Wait(v1alpha1.ReasonPaused, s.Paused), nil
	}
	if outcome, err := s.guarded(ctx); err != nil || !outcome.IsDone() {
		return outcome, err
	}
	if err := transfer.EndTasks(ctx, s.pool, s.id()); err != nil {
		return reconcile.Retry(v1alpha1.ReasonDeleting, err), nil
	}
	if outcome, err := s.removeLocal(ctx); err != nil || !outcome.IsDone() {
		return outcome.Because(v1alpha1.ReasonDeleting, outcome.Message()), err
	}
	if outcome := s.removeRemote(ctx); !outcome.IsDone() {
		return outcome, nil
	}
	s.pool.Forget(s.snapshot.Key)
	return reconcile.Wait(v1alpha1.ReasonDeleting, ""), s.ReleaseFinalizer(ctx, v1alpha1.FinalizerSnapshot)
}

// removeLocal takes the snapshot off the pool, and waits until that is seen.
func (s *snapshotScope) removeLocal(ctx context.Context) (reconcile.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	gone, err := snapshot.Remove(ctx, s.pool, s.snapshot, s.facts)
	if err != nil {
		return denied(err), nil
	}
	if gone {
		return reconcile.Done(), nil
	}
	err = s.pool.Cache.Wait(ctx, barrier, func(v xencache.View) bool {
		return snapshot.Observe(v, s.pool.Installation, s.snapshot, "").Local == nil
	})
	if err != nil {
		return reconcile.Wait(v1alpha1.ReasonProgressing, "the snapshot on the pool is being destroyed").After(barrier), nil
	}
	s.observe()
	return reconcile.Done(), nil
}

// removeRemote removes the copy if the policy says so, and always what an upload that was not completed left. A store that
// does not answer does not hold the deletion up for ever.
func (s *snapshotScope) removeRemote(ctx context.Context) reconcile.Outcome {
	upload := s.Object.Status.Upload
	complete := snapshot.IsUploaded(&s.Object.Status)
	if upload == nil || upload.Attempts == 0 && !complete || complete && s.Object.Spec.DeletionPolicy != v1alpha1.SnapshotDelete {
		return reconcile.Done()
	}
	place, disks, uuid := s.place(), slices.Clone(s.Object.Status.Disks), s.Object.Status.UUID
	_, answered, err := s.r.removed.Ask(ctx, s.id(), func(ctx context.Context) (nothing struct{}, err error) {
		store, err := s.r.stores.Open(ctx, place)
		if err != nil {
			return nothing, err
		}
		return nothing, transfer.RemoveUpload(ctx, store, place.Destination, disks, uuid)
	})
	switch {
	case err == nil && !answered:
		return reconcile.Wait(v1alpha1.ReasonDeleting, "the copy at "+upload.Location+" is being removed").After(barrier)
	case err == nil:
		return reconcile.Done()
	}
	if s.now().Sub(s.Object.DeletionTimestamp.Time) < remotePatience {
		return reconcile.Retry(v1alpha1.ReasonDeleting, fmt.Errorf("remove the copy at %s: %w", upload.Location, err))
	}
	s.Event(corev1.EventTypeWarning, v1alpha1.ReasonStoreUnavailable, "the copy at %s could not be removed and is left: %v", upload.Location, err)
	return reconcile.Done()
}
