package controllers

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/image"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/snapshot"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// origin is the file that an image is imported from.
type origin struct {
	source   *v1alpha1.ImageSource
	format   v1alpha1.DiskFormat
	checksum *v1alpha1.Checksum
}

// originOf is what the spec itself names.
func originOf(img image.Image) *origin {
	return &origin{source: &img.Spec.Source, format: img.Spec.Format, checksum: img.Spec.Checksum}
}

// ofSnapshot makes the image's disk of a snapshot: by a clone where the snapshot is on the pool; elsewhere it returns the
// uploaded file that is to be imported.
func (r *imageReconciler[T]) ofSnapshot(ctx context.Context, scope *reconcile.Scope[T], handle *pool.Handle, img image.Image, sr pool.Named[xenapi.SRRef], shown *v1alpha1.ImageCopy) (*origin, reconcile.Outcome) {
	object, err := r.snapshotOf(ctx, img)
	switch {
	case err != nil:
		return nil, reconcile.Retry(v1alpha1.ReasonRetrying, err)
	case object == nil:
		return nil, reconcile.Wait(v1alpha1.ReasonSnapshotNotFound, fmt.Sprintf(
			"there is no XenSnapshot %q; make it, or make an image of another", img.Spec.Source.Snapshot.Name))
	case !usableBy(object, scope.Object.GetCreationTimestamp()):
		return nil, reconcile.Terminal(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf("XenSnapshot %q is being deleted; make an image of another", object.Name))
	case !snapshot.IsCaptured(&object.Status):
		return nil, reconcile.Wait(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf("XenSnapshot %q is not captured yet", object.Name))
	case object.Status.PoolRef != nil && object.Status.PoolRef.Name == handle.Name && isWhole(object, handle):
		return nil, r.cloneOf(ctx, scope, handle, img, sr, shown, object.Status.UUID)
	}
	return uploadedRoot(object, handle.Name)
}

// snapshotNamespace is where the snapshots are that an image may be made of.
func snapshotNamespace(imageNamespace, operator string) string {
	if imageNamespace == "" {
		return operator
	}
	return imageNamespace
}

func (r *imageReconciler[T]) snapshotOf(ctx context.Context, img image.Image) (*v1alpha1.XenSnapshot, error) {
	var object v1alpha1.XenSnapshot
	err := r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: snapshotNamespace(img.Key.Namespace, r.namespace), Name: img.Spec.Source.Snapshot.Name}, &object)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return &object, err
}

// uploadedRoot finds the uploaded file of a snapshot's root disk.
func uploadedRoot(object *v1alpha1.XenSnapshot, poolName string) (*origin, reconcile.Outcome) {
	if object.Spec.Destination == nil {
		return nil, reconcile.Terminal(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf(
			"XenSnapshot %q is not on pool %s, and has no destination from which it could be imported; take one with a destination", object.Name, poolName))
	}
	if !snapshot.IsUploaded(&object.Status) {
		return nil, reconcile.Wait(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf("XenSnapshot %q is not on pool %s, and not uploaded yet", object.Name, poolName))
	}
	if object.Spec.Destination.IncrementalFrom != nil {
		return nil, reconcile.Terminal(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf(
			"XenSnapshot %q is uploaded as a difference, which is no image; make a XenInstance of it with source.backup, or take one without incrementalFrom", object.Name))
	}
	source, file := transfer.UploadedDisk(object, "root")
	if source == nil {
		return nil, reconcile.Terminal(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf("the upload of XenSnapshot %q has no root disk", object.Name))
	}
	o := &origin{source: source, format: object.Status.Upload.Format}
	if file.SHA256 != "" {
		o.checksum = &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: file.SHA256}
	}
	return o, reconcile.Done()
}

// cloneOf takes the steps of cloning a snapshot, as many as can be taken in this pass. It is never done: that the disk is
// the image's is seen next.
func (r *imageReconciler[T]) cloneOf(ctx context.Context, scope *reconcile.Scope[T], handle *pool.Handle, img image.Image, sr pool.Named[xenapi.SRRef], shown *v1alpha1.ImageCopy, uuid string) reconcile.Outcome {
	busy, percent, err := r.flights.Land(ctx, handle, img.Key)
	if busy {
		shown.Percent = percent
		return reconcile.Wait(v1alpha1.ReasonCreating, "the snapshot is being cloned").After(barrier)
	}
	if err != nil {
		return reconcile.Retry(v1alpha1.ReasonRetrying, fmt.Errorf("clone the snapshot: %w", err))
	}
	observe := func() (f image.CloneFacts) {
		handle.Cache.View(func(v xencache.View) { f = image.ObserveClone(v, handle.Installation, img, sr.Ref, uuid) })
		return f
	}
	for {
		facts := observe()
		step, outcome := image.NextClone(img, facts, handle.Installation, r.flights.Knows)
		if step == nil {
			if outcome.IsDone() {
				outcome = reconcile.Wait(v1alpha1.ReasonCreating, "the template around the disk is being made").After(barrier)
			}
			return outcome
		}
		if why := r.held(scope, handle); why != nil {
			return *why
		}
		if taken := r.takeClone(ctx, handle, img, facts, step); !taken.IsDone() || step.Begin != nil {
			return outcome.Join(taken)
		}
		err := handle.Cache.Wait(ctx, barrier, func(v xencache.View) bool {
			now := image.ObserveClone(v, handle.Installation, img, sr.Ref, uuid)
			return now.Template == nil || step.Holds(img, now, handle.Installation)
		})
		if err != nil {
			return reconcile.Retry(v1alpha1.ReasonRetrying, errors.Join(err, handle.CatchUp(ctx, catchUpTimeout)))
		}
	}
}

// takeClone does one step of a clone.
func (r *imageReconciler[T]) takeClone(ctx context.Context, handle *pool.Handle, img image.Image, facts image.CloneFacts, step *image.CloneStep) reconcile.Outcome {
	if err := handle.ClaimWriter(ctx); err != nil {
		return denied(err)
	}
	if step.Begin == nil {
		return reconcile.Retry(v1alpha1.ReasonRetrying, step.Do(ctx, handle, img, facts))
	}
	_, err := r.flights.Begin(handle, img.Key, pool.Work{}, func() (xenapi.TaskRef, error) { return step.Begin(ctx, handle, img, facts) })
	if xenapi.OutcomeUnknown(err) {
		err = errors.Join(err, handle.CatchUp(ctx, catchUpTimeout))
	}
	return reconcile.Retry(v1alpha1.ReasonRetrying, err)
}

// cloneUnderWay reports whether a clone for the image may still be under way on a pool: before it has ended it cannot be
// removed.
func (r *imageReconciler[T]) cloneUnderWay(ctx context.Context, handle *pool.Handle, img image.Image) bool {
	if img.Spec.Source.Snapshot == nil {
		return false
	}
	if busy, _, _ := r.flights.Land(ctx, handle, img.Key); busy { // one that failed has left nothing
		return true
	}
	object, err := r.snapshotOf(ctx, img)
	if err != nil || object == nil {
		return err != nil
	}
	var facts image.CloneFacts
	handle.Cache.View(func(v xencache.View) { facts = image.ObserveClone(v, handle.Installation, img, "", object.Status.UUID) })
	return len(facts.Cloning) > 0
}

// imagesOfSnapshot finds the images that are made of a snapshot.
func (r *imageReconciler[T]) imagesOfSnapshot(ctx context.Context, object client.Object) []ctrl.Request {
	return r.imagesWhere(ctx, func(image client.Object, spec *v1alpha1.XenImageSpec) bool {
		return snapshotNamespace(image.GetNamespace(), r.namespace) == object.GetNamespace() && spec.Source.Snapshot != nil && spec.Source.Snapshot.Name == object.GetName()
	})
}
