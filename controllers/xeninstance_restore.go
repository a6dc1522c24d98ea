package controllers

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/snapshot"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// gatherSnapshot finds the snapshot on the pool that the VM is made of. It is a template to clone, and needs no grant: it
// is the namespace's own.
func (s *instanceScope) gatherSnapshot(ctx context.Context, in *instance.Inputs, resolver *poolResolver) error {
	ref := s.Object.Spec.Source.SnapshotRef
	var object v1alpha1.XenSnapshot
	err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: ref.Name}, &object)
	if apierrors.IsNotFound(err) {
		in.ImageProblem = &instance.Problem{Reason: v1alpha1.ReasonSnapshotNotFound, Passing: true,
			Message: fmt.Sprintf("there is no XenSnapshot %q; make it, or name another in source.snapshotRef", ref.Name)}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read XenSnapshot %s: %w", ref.Name, err)
	}
	if problem := unusable(&object, s.pool, s.Object.CreationTimestamp); problem != nil {
		in.ImageProblem = problem
		return nil
	}
	in.ImageTemplate, resolver.imageTemplate = object.Status.UUID, object.Status.UUID
	return nil
}

// usableBy reports whether a snapshot may be used by an object that was created at that time: one that is being deleted
// stays until all is made that was asked for before.
func usableBy(object *v1alpha1.XenSnapshot, since metav1.Time) bool {
	return object.DeletionTimestamp.IsZero() || !object.DeletionTimestamp.Before(&since)
}

// unusable says why a pool cannot make anything of a snapshot for an object created at that time, nil if it can.
func unusable(object *v1alpha1.XenSnapshot, handle *pool.Handle, since metav1.Time) *instance.Problem {
	refuse := func(passing bool, format string, args ...any) *instance.Problem {
		return &instance.Problem{Reason: v1alpha1.ReasonSnapshotNotReady, Passing: passing, Message: fmt.Sprintf(
			"XenSnapshot %q ", object.Name) + fmt.Sprintf(format, args...)}
	}
	status := &object.Status
	switch {
	case !usableBy(object, since):
		return refuse(false, "is being deleted; name another")
	case !snapshot.IsCaptured(status):
		return refuse(true, "is not captured yet")
	case status.PoolRef == nil || status.PoolRef.Name != handle.Name:
		return refuse(false, "is not on pool %s%s", handle.Name, uploadHint(status))
	}
	if !wholeOnPool(handle, status.UUID) {
		return refuse(false, "is no longer on pool %s%s", handle.Name, uploadHint(status))
	}
	return nil
}

// wholeOnPool reports whether a snapshot is on a pool with all that was captured: one that is being removed is not.
func wholeOnPool(handle *pool.Handle, uuid string) (whole bool) {
	handle.Cache.View(func(v xencache.View) {
		_, record := v.VMByUUID(uuid)
		whole = record != nil && record.IsASnapshot && !snapshot.IsGoing(record)
	})
	return whole
}

// uploadHint tells of the way that is left when a snapshot is not on the pool.
func uploadHint(status *v1alpha1.XenSnapshotStatus) string {
	if status.Upload == nil || status.Upload.Manifest == "" {
		return "; take one of an instance that is"
	}
	return "; it was uploaded, name its manifest in source.backup: " + status.Upload.Manifest
}

// capturedUsage is what an instance without a flavor takes of its pool: what its VM has.
func (s *instanceScope) capturedUsage(object *v1alpha1.XenInstance, usage *pool.Usage) {
	if object.Spec.FlavorRef != nil {
		return
	}
	if applied := object.Status.Flavor; applied != nil {
		usage.VCPUs = applied.VCPUs
		if applied.Memory != nil {
			usage.Memory = applied.Memory.Value()
		}
	}
	if root := object.Status.RootDisk; root != nil && root.Size != nil {
		usage.Storage = root.Size.Value()
	}
	if object.UID != s.Object.UID || s.inputs == nil {
		return
	}
	if backup := s.inputs.Backup; backup != nil {
		usage.VCPUs, usage.Memory, usage.Storage = int32(backup.Size.MaxVCPUs), backup.Size.Memory, 0
		for _, disk := range backup.Disks {
			usage.Storage += disk.Size
		}
	}
	s.pool.Cache.View(func(v xencache.View) {
		if _, record := v.VMByUUID(s.inputs.ImageTemplate); record != nil {
			usage.VCPUs, usage.Memory = int32(record.VCPUsMax), record.MemoryDynamicMax
		}
	})
}
