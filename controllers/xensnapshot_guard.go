package controllers

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/snapshot"
)

// neededBy says which object needs the snapshot, "" if none does. What was cloned from it is independent of it once it is
// made; a difference to it is once it is uploaded, as long as the copy of this one stays.
func (s *snapshotScope) neededBy(ctx context.Context) (string, error) {
	var instances v1alpha1.XenInstanceList
	err := s.r.runtime.Client.List(ctx, &instances, client.InNamespace(s.Object.Namespace), client.MatchingFields{snapshotField: s.Object.Name})
	if err != nil {
		return "", fmt.Errorf("list the instances that are made of snapshot %s: %w", s.Object.Name, err)
	}
	for i := range instances.Items {
		user := &instances.Items[i]
		made := meta.IsStatusConditionTrue(user.Status.Conditions, v1alpha1.ConditionProvisioned)
		if !made && user.DeletionTimestamp.IsZero() && s.beganWith(user) && usableBy(s.Object, user.CreationTimestamp) {
			return "XenInstance " + user.Name + " is being made of this snapshot", nil
		}
	}
	if user, err := s.imageOfIt(ctx); user != "" || err != nil {
		return user, err
	}
	return s.differenceOfIt(ctx)
}

// imageOfIt names an image that is being made of the snapshot, "" if there is none.
func (s *snapshotScope) imageOfIt(ctx context.Context) (string, error) {
	lists := map[string]client.ObjectList{"XenImage": &v1alpha1.XenImageList{}}
	if s.Object.Namespace == s.r.namespace {
		lists["XenClusterImage"] = &v1alpha1.XenClusterImageList{}
	}
	for kind, list := range lists {
		if err := s.r.runtime.Client.List(ctx, list); err != nil {
			return "", fmt.Errorf("list the images that are made of snapshot %s: %w", s.Object.Name, err)
		}
		for _, user := range imagesIn(list) {
			mine := snapshotNamespace(user.GetNamespace(), s.r.namespace) == s.Object.Namespace
			if mine && user.GetDeletionTimestamp().IsZero() && s.makes(user) && usableBy(s.Object, user.GetCreationTimestamp()) {
				return kind + " " + user.GetName() + " is being made of this snapshot", nil
			}
		}
	}
	return "", nil
}

// makes reports whether an image is to be made of the snapshot and is not complete.
func (s *snapshotScope) makes(image client.Object) bool {
	spec, status := imageParts(image)
	ref := spec.Source.Snapshot
	return ref != nil && ref.Name == s.Object.Name && !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady)
}

// guarded holds the snapshot on the pool as long as something is being made of it.
func (s *snapshotScope) guarded(ctx context.Context) (reconcile.Outcome, error) {
	if s.facts.Local != nil && snapshot.IsGoing(s.facts.Local.VM) {
		return reconcile.Done(), nil // nothing can be made of it any more
	}
	user, err := s.neededBy(ctx)
	if user == "" || err != nil {
		return reconcile.Done(), err
	}
	return reconcile.Wait(v1alpha1.ReasonSnapshotInUse, fmt.Sprintf(
		"%s; it goes when that is done, or the other deleted", user)), nil
}

// snapshotsInUse finds the snapshot that an instance or image is being made of.
func (r *snapshotReconciler) snapshotsInUse(_ context.Context, object client.Object) []ctrl.Request {
	var ref *v1alpha1.SnapshotReference
	switch user := object.(type) {
	case *v1alpha1.XenInstance:
		ref = user.Spec.Source.SnapshotRef
	case *v1alpha1.XenImage:
		ref = user.Spec.Source.Snapshot
	case *v1alpha1.XenClusterImage:
		ref = user.Spec.Source.Snapshot
	}
	if ref == nil {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Namespace: snapshotNamespace(object.GetNamespace(), r.namespace), Name: ref.Name}}}
}

// beganWith reports whether an instance is on the pool that has the snapshot: another can make nothing of it.
func (s *snapshotScope) beganWith(user *v1alpha1.XenInstance) bool {
	return s.Object.Status.PoolRef != nil && user.Spec.PoolRef.Name == s.Object.Status.PoolRef.Name
}
