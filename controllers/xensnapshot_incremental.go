package controllers

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/snapshot"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// snapshotBaseField is the field index by which snapshots are found for what they are the difference to.
const snapshotBaseField = "spec.destination.incrementalFrom.snapshotRef.name"

// baseName is the snapshot to which one is uploaded as the difference, "" for a whole one.
func baseName(object *v1alpha1.XenSnapshot) string {
	if d := object.Spec.Destination; d != nil && d.IncrementalFrom != nil {
		return d.IncrementalFrom.SnapshotRef.Name
	}
	return ""
}

// base finds the snapshot to which this one is uploaded as the difference; nil without one.
func (s *snapshotScope) base(ctx context.Context) (*v1alpha1.XenSnapshot, reconcile.Outcome, error) {
	name := baseName(s.Object)
	if name == "" {
		return nil, reconcile.Done(), nil
	}
	var base v1alpha1.XenSnapshot
	err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: name}, &base)
	if apierrors.IsNotFound(err) {
		return nil, reconcile.Wait(v1alpha1.ReasonSnapshotNotFound, fmt.Sprintf(
			"there is no XenSnapshot %q, to which this one is the difference; make another XenSnapshot without incrementalFrom", name)), nil
	}
	if err != nil {
		return nil, reconcile.Outcome{}, fmt.Errorf("read XenSnapshot %s: %w", name, err)
	}
	if why, passing := s.unfitBase(&base); why != "" {
		message := fmt.Sprintf("XenSnapshot %q cannot be the base of this one: it %s", name, why)
		if passing {
			return nil, reconcile.Wait(v1alpha1.ReasonSnapshotNotReady, message), nil
		}
		return nil, s.failed(reconcile.Terminal(v1alpha1.ReasonSnapshotNotReady, message+"; make another XenSnapshot without incrementalFrom")), nil
	}
	return &base, reconcile.Done(), nil
}

// baseCaptured waits for the snapshot to which this one is to be the difference: taken before it, this one would lie upon nothing.
func (s *snapshotScope) baseCaptured(ctx context.Context) (reconcile.Outcome, error) {
	name := baseName(s.Object)
	if name == "" {
		return reconcile.Done(), nil
	}
	var base v1alpha1.XenSnapshot
	err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: name}, &base)
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Wait(v1alpha1.ReasonSnapshotNotFound, fmt.Sprintf(
			"there is no XenSnapshot %q, to which this one is the difference; it is taken when that one is. Make it, or make another XenSnapshot without incrementalFrom", name)), nil
	case err != nil:
		return reconcile.Outcome{}, fmt.Errorf("read XenSnapshot %s: %w", name, err)
	case snapshot.IsCaptured(&base.Status):
		return reconcile.Done(), nil
	}
	return reconcile.Wait(v1alpha1.ReasonSnapshotNotReady, fmt.Sprintf(
		"XenSnapshot %q is not captured yet; this one is the difference to it, and is taken after it", name)), nil
}

// unfitBase says why a snapshot cannot be the base of this one, and whether that is expected to pass.
func (s *snapshotScope) unfitBase(base *v1alpha1.XenSnapshot) (why string, passing bool) {
	status, mine := &base.Status, &s.Object.Status
	_, reachable := transfer.PathBetween(s.Object, base)
	switch {
	case base.Spec.InstanceRef.Name != s.Object.Spec.InstanceRef.Name || status.InstanceUUID != "" && status.InstanceUUID != mine.InstanceUUID:
		return "is of another VM", false
	case base.Spec.Destination == nil:
		return "has no destination", false
	case !reachable:
		return "goes to another store", false
	case base.Spec.Destination.DesiredFormat() != v1alpha1.DiskFormatVHD:
		return "is uploaded as " + string(base.Spec.Destination.DesiredFormat()) + ", and a difference lies upon a VHD", false
	case !snapshot.IsUploaded(status) && status.FinishedAt != nil:
		return "was not uploaded", false
	case !snapshot.IsUploaded(status):
		return "is not uploaded yet", true
	case status.TakenAt == nil || mine.TakenAt == nil || mine.TakenAt.Before(status.TakenAt): // pools tell seconds: the same one is in order
		return "was taken later", false
	}
	for _, disk := range status.Disks {
		there := false
		s.pool.Cache.View(func(v xencache.View) {
			_, vdi := v.VDIByUUID(disk.VDIUUID)
			there = vdi != nil
		})
		if !there {
			return fmt.Sprintf("is no longer on pool %s, where the difference is computed; a base needs keepLocal: Always", s.pool.Name), false
		}
	}
	return "", false
}

// differenceTo describes what is uploaded: the snapshot, as the difference to a base if there is one.
func (s *snapshotScope) differenceTo(base *v1alpha1.XenSnapshot) transfer.Manifest {
	manifest := snapshot.ManifestOf(s.snapshot, s.facts.Local, s.pool.Installation, s.Object.Status.InstanceUUID)
	if base == nil {
		return manifest
	}
	way, _ := transfer.PathBetween(s.Object, base) // it is reachable
	return manifest.DifferenceTo(base, way)
}

// differenceOfIt names a snapshot that needs this one: it is still to be uploaded as the difference, or it was and the copy
// of this one is about to be deleted.
func (s *snapshotScope) differenceOfIt(ctx context.Context) (string, error) {
	var users v1alpha1.XenSnapshotList
	err := s.r.runtime.Client.List(ctx, &users, client.InNamespace(s.Object.Namespace), client.MatchingFields{snapshotBaseField: s.Object.Name})
	if err != nil {
		return "", fmt.Errorf("list the snapshots that are the difference to %s: %w", s.Object.Name, err)
	}
	losesCopy := s.Deleting() && s.Object.Spec.DeletionPolicy == v1alpha1.SnapshotDelete
	for i := range users.Items {
		user := &users.Items[i]
		switch {
		case !user.DeletionTimestamp.IsZero():
		case user.Status.FinishedAt == nil:
			return "XenSnapshot " + user.Name + " is still to be uploaded as the difference to this one", nil
		case losesCopy && snapshot.IsUploaded(&user.Status):
			return "XenSnapshot " + user.Name + " was uploaded as the difference to this one, whose copy would be deleted (deletionPolicy)", nil
		}
	}
	return "", nil
}

// snapshotsRelatedTo finds the base of a snapshot, and those that it is the base of: they wait for one another.
func (r *snapshotReconciler) snapshotsRelatedTo(ctx context.Context, object client.Object) []ctrl.Request {
	requests := r.list(ctx, func(*v1alpha1.XenSnapshot) bool { return true },
		client.InNamespace(object.GetNamespace()), client.MatchingFields{snapshotBaseField: object.GetName()})
	if base := baseName(object.(*v1alpha1.XenSnapshot)); base != "" {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKey{Namespace: object.GetNamespace(), Name: base}})
	}
	return requests
}

// indexBases lets snapshots be found by what they are the difference to.
func indexBases(mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.XenSnapshot{}, snapshotBaseField, func(obj client.Object) []string {
		if name := baseName(obj.(*v1alpha1.XenSnapshot)); name != "" {
			return []string{name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index snapshots by %s: %w", snapshotBaseField, err)
	}
	return nil
}
