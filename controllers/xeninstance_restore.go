package controllers

import (
	"context"
	"fmt"
	"slices"

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
	if in.ImageProblem = unusable(&object, s.pool, s.Object.CreationTimestamp); in.ImageProblem == nil {
		in.ImageTemplate, resolver.imageTemplate = object.Status.UUID, object.Status.UUID
	}
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
	if !isWhole(object, handle) {
		return refuse(false, "is no longer on pool %s, or not all of it%s", handle.Name, uploadHint(status))
	}
	return nil
}

// isWhole reports whether a pool has the snapshot with all its disks. One that is being removed loses disk after disk.
func isWhole(object *v1alpha1.XenSnapshot, handle *pool.Handle) bool {
	whole := false
	handle.Cache.View(func(v xencache.View) {
		ref, record := v.VMByUUID(object.Status.UUID)
		if record == nil || !record.IsASnapshot || snapshot.IsGoing(record) {
			return
		}
		marks := xencache.VMMarks(record)
		mine := xencache.Key{Kind: kindSnapshot, Namespace: object.Namespace, Name: object.Name}
		if marks.Installation != handle.Installation || marks.Ref != mine || marks.Self != record.UUID {
			return
		}
		has := map[string]bool{}
		for _, vbd := range v.VBDsOf(ref) {
			if vdi := v.VDI(v.VBD(vbd).VDI); vdi != nil {
				has[vdi.UUID] = true
			}
		}
		whole = !slices.ContainsFunc(object.Status.Disks, func(disk v1alpha1.SnapshotDisk) bool { return !has[disk.VDIUUID] })
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
