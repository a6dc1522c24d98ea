package controllers

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/image"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// importAll brings the image to all its pools, or takes it away from all.
func (r *imageReconciler[T]) importAll(ctx context.Context, scope *reconcile.Scope[T], img image.Image, status *v1alpha1.XenImageStatus) reconcile.Outcome {
	outcome := reconcile.Done()
	if scope.Deleting() {
		for _, p := range img.Spec.Pools {
			outcome = outcome.Join(r.removeFrom(ctx, scope, p, img))
		}
		if !outcome.IsDone() {
			return outcome
		}
		return reconcile.Retry(v1alpha1.ReasonRetrying, scope.ReleaseFinalizer(ctx, v1alpha1.FinalizerImage))
	}
	if _, isNew := scope.RequestedAt(); isNew {
		r.forgetAttempts(img, status)
	}
	var shown []v1alpha1.ImagePoolStatus
	for _, p := range img.Spec.Pools {
		s := image.PoolStatus(status, p.Name)
		onPool := r.importTo(ctx, scope, p, img, &s, status)
		s.Ready, s.Message = onPool.IsDone(), ""
		if !s.Ready {
			s.Message = image.Limited(onPool.Message())
		}
		shown = append(shown, s)
		outcome = outcome.Join(onPool)
	}
	status.Pools, status.Progress = shown, image.Progress(shown)
	return outcome
}

// forgetAttempts lets what failed be tried anew.
func (r *imageReconciler[T]) forgetAttempts(img image.Image, status *v1alpha1.XenImageStatus) {
	for i := range status.Pools {
		for j := range status.Pools[i].Copies {
			c := &status.Pools[i].Copies[j]
			id := importID(img, status.Pools[i].Name, c.StorageRepository)
			if state, known := r.runner.State(id); known && state.Phase == transfer.Failed && r.runner.Stop(id) {
				c.Attempts, c.NextRetryTime = 0, ""
			}
		}
	}
}

func importID(img image.Image, poolName, sr string) transfer.ID {
	return transfer.ID{Owner: img.Key, Part: poolName + "/" + sr}
}

// copiesOn are the storage repositories that the image is to be on.
func copiesOn(p v1alpha1.ImagePool) []string {
	if len(p.StorageRepositories) == 0 {
		return []string{image.DefaultCopy}
	}
	return p.StorageRepositories
}

// importTo brings the image to the storage repositories of one pool, one after the other.
func (r *imageReconciler[T]) importTo(ctx context.Context, scope *reconcile.Scope[T], p v1alpha1.ImagePool, img image.Image, shown *v1alpha1.ImagePoolStatus, status *v1alpha1.XenImageStatus) reconcile.Outcome {
	handle, err := r.pools.Get(p.Name)
	if err != nil {
		return r.unreachable(ctx, p.Name, err)
	}
	if poolGoes(handle) {
		shown.Copies, shown.TemplateUUID, shown.VDIUUID = nil, "", ""
		if removed := r.removeFrom(ctx, scope, p, img); !removed.IsDone() {
			return removed
		}
		return leaving(p.Name)
	}
	grant, err := r.grantOn(ctx, handle, img)
	if err != nil {
		return denied(err)
	}
	var copies []v1alpha1.ImageCopy
	outcome := reconcile.Done()
	for _, name := range copiesOn(p) {
		c := image.CopyStatus(*shown, name)
		sr, err := srOf(handle, grant, name)
		if err != nil {
			outcome = outcome.Join(denied(err))
			copies = append(copies, c)
			continue
		}
		var facts image.CopyFacts
		onSR := r.importCopy(ctx, scope, handle, img, sr, &c, &facts, status)
		c.Ready, c.TemplateUUID, c.VDIUUID = onSR.IsDone(), "", ""
		if facts.Root != nil {
			c.VDIUUID = facts.Root.UUID
			status.VirtualSize = resource.NewQuantity(facts.Root.VirtualSize, resource.BinarySI)
		}
		if c.Ready {
			c.TemplateUUID, c.Percent = facts.Template.UUID, 100
		}
		if len(copies) == 0 {
			shown.TemplateUUID, shown.VDIUUID, shown.StorageRepository = c.TemplateUUID, c.VDIUUID, sr.NameLabel
		}
		copies = append(copies, c)
		outcome = outcome.Join(onSR)
	}
	shown.Copies = copies
	return outcome
}

// grantOn is what the image's owner may use of a pool: all of it for images that the administrator offers.
func (r *imageReconciler[T]) grantOn(ctx context.Context, handle *pool.Handle, img image.Image) (pool.Grant, error) {
	if img.Key.Namespace == "" {
		return pool.Everything(handle.Pool), nil
	}
	labels, err := namespaceLabels(ctx, r.runtime.Client, img.Key.Namespace)
	return handle.Grant(img.Key.Namespace, labels), err
}

func srOf(handle *pool.Handle, grant pool.Grant, name string) (pool.Named[xenapi.SRRef], error) {
	if name == image.DefaultCopy {
		return handle.DefaultStorageRepository(grant)
	}
	return handle.StorageRepository(grant, name)
}

// importCopy imports the disk and then makes the template around it, step by step.
func (r *imageReconciler[T]) importCopy(ctx context.Context, scope *reconcile.Scope[T], handle *pool.Handle, img image.Image, sr pool.Named[xenapi.SRRef], shown *v1alpha1.ImageCopy, facts *image.CopyFacts, status *v1alpha1.XenImageStatus) reconcile.Outcome {
	observe := func() {
		handle.Cache.View(func(v xencache.View) { *facts = image.ObserveCopy(v, handle.Installation, img, sr.Ref) })
	}
	observe()
	if facts.Root == nil {
		return r.bringDisk(ctx, scope, handle, img, sr, shown, facts, status)
	}
	if why := r.discardUnfinished(ctx, scope, handle, img, shown, facts); why != nil {
		return *why
	}
	image.Demands(status, img.Spec, facts.Root)
	for {
		step, outcome := image.PlanCopy(img, *facts, handle.Installation)
		if step == nil {
			return outcome
		}
		if why := r.held(scope, handle); why != nil {
			return *why
		}
		if taken := r.take(ctx, handle, img, facts.Facts, step); !taken.IsDone() {
			return taken
		}
		err := handle.Cache.Wait(ctx, barrier, func(v xencache.View) bool {
			now := image.ObserveCopy(v, handle.Installation, img, sr.Ref)
			return now.Root == nil || step.Holds(img, now.Facts, handle.Installation)
		})
		if err != nil {
			return reconcile.Retry(v1alpha1.ReasonRetrying, errors.Join(err, handle.CatchUp(ctx, catchUpTimeout)))
		}
		if observe(); facts.Root == nil {
			return outcome.After(barrier)
		}
	}
}

// bringDisk brings the disk to the storage repository: of a snapshot that is on the pool, or from a file.
func (r *imageReconciler[T]) bringDisk(ctx context.Context, scope *reconcile.Scope[T], handle *pool.Handle, img image.Image, sr pool.Named[xenapi.SRRef], shown *v1alpha1.ImageCopy, facts *image.CopyFacts, status *v1alpha1.XenImageStatus) reconcile.Outcome {
	from := originOf(img)
	if img.Spec.Source.Snapshot != nil {
		var outcome reconcile.Outcome
		if from, outcome = r.ofSnapshot(ctx, scope, handle, img, sr, shown); from == nil {
			return outcome
		}
	}
	if why := r.held(scope, handle); why != nil {
		return *why
	}
	return r.transferCopy(ctx, handle, img, from, sr, shown, facts, status)
}

// discardUnfinished removes disks of attempts whose end was not heard of, once there is a complete one.
func (r *imageReconciler[T]) discardUnfinished(ctx context.Context, scope *reconcile.Scope[T], handle *pool.Handle, img image.Image, shown *v1alpha1.ImageCopy, facts *image.CopyFacts) *reconcile.Outcome {
	state, known := r.runner.State(importID(img, handle.Name, shown.StorageRepository))
	if len(facts.Unfinished) == 0 || known && (state.Phase == transfer.Waiting || state.Phase == transfer.Running) {
		return nil
	}
	if why := r.held(scope, handle); why != nil {
		return why
	}
	for _, unfinished := range facts.Unfinished {
		if err := image.Discard(ctx, handle, img, unfinished); err != nil {
			outcome := reconcile.Retry(v1alpha1.ReasonRetrying, err)
			return &outcome
		}
	}
	return nil
}

// transferCopy brings the disk on its way, or says how far it is.
func (r *imageReconciler[T]) transferCopy(ctx context.Context, handle *pool.Handle, img image.Image, from *origin, sr pool.Named[xenapi.SRRef], shown *v1alpha1.ImageCopy, facts *image.CopyFacts, status *v1alpha1.XenImageStatus) reconcile.Outcome {
	id := importID(img, handle.Name, shown.StorageRepository)
	state, known := r.runner.State(id)
	if known && state.Phase == transfer.Succeeded {
		status.Checksum, status.Format = state.Checksum, state.Format
		if !handle.Cache.Synced() || r.runtime.Clock.Since(state.EndedAt) > barrier { // somebody removed the disk since
			r.runner.Stop(id)
			known = false
		}
	}
	if err := handle.ClaimWriter(ctx); err != nil {
		return denied(err)
	}
	start, outcome := image.NextImport(shown, state, known, r.runtime.Clock.Now())
	if !start && (!known || state.Phase != transfer.Failed) {
		return outcome
	}
	// A disk that is left of an attempt that ended in another life, or that the pool would not let go of.
	for _, unfinished := range facts.Unfinished {
		switch err := image.Discard(ctx, handle, img, unfinished); {
		case err != nil && start:
			return reconcile.Retry(v1alpha1.ReasonRetrying, err)
		case err != nil:
			outcome = outcome.After(barrier) // the pool may have it plugged into a host for a moment still
		}
	}
	if !start {
		return outcome
	}
	r.runner.Start(id, transfer.Request{Import: &transfer.Import{
		Pool: handle.Name, SR: sr.UUID, Name: image.DiskName(img), Marks: image.ImportMarks(handle.Installation, img), Done: image.DoneMarks(),
		Place:  transfer.Place{Namespace: img.Key.Namespace, Source: from.source},
		Format: from.format, Checksum: from.checksum,
	}})
	return outcome
}

// poolGoes reports whether a XenPool is being deleted: what images have there goes before it, or nobody would find it again.
func poolGoes(handle *pool.Handle) bool { return !handle.Pool.DeletionTimestamp.IsZero() }

func leaving(poolName string) reconcile.Outcome {
	return reconcile.Terminal(v1alpha1.ReasonPoolNotFound, "XenPool "+poolName+" is being deleted, and what was made there of the image with it")
}

// unreachable says what it means that a pool cannot be used.
func (r *imageReconciler[T]) unreachable(ctx context.Context, name string, err error) reconcile.Outcome {
	found := r.runtime.Client.Get(ctx, client.ObjectKey{Name: name}, &v1alpha1.XenPool{})
	if found != nil && client.IgnoreNotFound(found) == nil {
		return reconcile.Terminal(v1alpha1.ReasonPoolNotFound, "there is no XenPool "+name)
	}
	return awaitPool(err)
}

// removeFrom ends the imports to a pool, and removes what was made there. Done means that nothing is left.
func (r *imageReconciler[T]) removeFrom(ctx context.Context, scope *reconcile.Scope[T], p v1alpha1.ImagePool, img image.Image) reconcile.Outcome {
	for _, name := range copiesOn(p) {
		if !r.runner.Stop(importID(img, p.Name, name)) {
			return reconcile.Wait(v1alpha1.ReasonDeleting, "the import to pool "+p.Name+" is being ended")
		}
	}
	handle, err := r.pools.Get(p.Name)
	if err != nil {
		outcome := r.unreachable(ctx, p.Name, err)
		if _, forced := scope.Object.GetAnnotations()[v1alpha1.AnnotationForceDelete]; forced || outcome.Kind() == reconcile.KindTerminal {
			return reconcile.Done()
		}
		return outcome
	}
	for _, name := range copiesOn(p) {
		if err := transfer.EndTasks(ctx, handle, importID(img, p.Name, name)); err != nil {
			return reconcile.Retry(v1alpha1.ReasonRetrying, err)
		}
	}
	if r.cloneUnderWay(ctx, handle, img) {
		return reconcile.Wait(v1alpha1.ReasonDeleting, "waiting until the clone of the snapshot is made, to remove it").After(barrier)
	}
	var made image.Made
	handle.Cache.View(func(v xencache.View) { made = image.ObserveMade(v, handle.Installation, img) })
	if made.None() {
		return reconcile.Done()
	}
	if why := r.held(scope, handle); why != nil {
		return *why
	}
	if made.Busy != "" {
		return reconcile.Wait(v1alpha1.ReasonDeleting, fmt.Sprintf("waiting until %s of its template is over", made.Busy)).After(barrier)
	}
	if err := image.RemoveMade(ctx, handle, img, made); err != nil {
		return denied(err)
	}
	err = handle.Cache.Wait(ctx, barrier, func(v xencache.View) bool { return image.ObserveMade(v, handle.Installation, img).None() })
	if err != nil {
		return reconcile.Wait(v1alpha1.ReasonDeleting, "the image on pool "+p.Name+" is being destroyed").After(barrier)
	}
	return reconcile.Done()
}
