package controllers

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// neededBy names an object that is being made of the snapshot on the pool, "" if there is none. Once it is made the
// snapshot may go: what was cloned from it is independent of it.
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
			return "XenInstance " + user.Name, nil
		}
	}
	return "", nil
}

// guarded holds the snapshot on the pool as long as something is being made of it.
func (s *snapshotScope) guarded(ctx context.Context) (reconcile.Outcome, error) {
	user, err := s.neededBy(ctx)
	if user == "" || err != nil {
		return reconcile.Done(), err
	}
	return reconcile.Wait(v1alpha1.ReasonSnapshotInUse, fmt.Sprintf(
		"%s is being made of this snapshot, which goes when that is done; delete %s if it is not wanted", user, user)), nil
}

// snapshotsInUse finds the snapshot that an instance is being made of.
func snapshotsInUse(_ context.Context, object client.Object) []ctrl.Request {
	ref := object.(*v1alpha1.XenInstance).Spec.Source.SnapshotRef
	if ref == nil {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Namespace: object.GetNamespace(), Name: ref.Name}}}
}

// beganWith reports whether an instance is on the pool that has the snapshot: another can make nothing of it.
func (s *snapshotScope) beganWith(user *v1alpha1.XenInstance) bool {
	return s.Object.Status.PoolRef != nil && user.Spec.PoolRef.Name == s.Object.Status.PoolRef.Name
}
