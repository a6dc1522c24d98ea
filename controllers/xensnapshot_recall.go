package controllers

import (
	"context"
	"errors"
	"fmt"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/snapshot"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// recall looks whether the snapshot was taken before, although the status does not say so: the object was restored, or
// applied anew. What a store has of it is taken over.
func (s *snapshotScope) recall(ctx context.Context) reconcile.Outcome {
	annotated := s.Object.Annotations[v1alpha1.AnnotationSnapshotUUID]
	if s.Object.Spec.Destination != nil {
		found, err := s.ask(ctx)
		switch {
		case errors.Is(err, errNotAnswered):
			return reconcile.Wait(v1alpha1.ReasonCapturing, "waiting for the destination to tell whether it has an earlier upload of this snapshot").After(barrier)
		case err == nil && s.isOurs(found):
			s.Object.Status.Upload = s.emptyUpload()
			snapshot.Recalled(&s.Object.Status, found)
			return reconcile.Done()
		case err != nil && !transfer.IsNotFound(err):
			// Whether it was taken before is not known, and what is taken now could not be uploaded either.
			return reconcile.Retry(reasonOf(err), fmt.Errorf("ask the destination for an earlier upload before a snapshot is taken: %w", err))
		}
	}
	if annotated != "" {
		return s.failed(reconcile.Terminal(v1alpha1.ReasonRestoredWithoutRecord, fmt.Sprintf(
			"this object was restored: its snapshot %s is neither on the pool nor at the destination, and it is not taken again; make another XenSnapshot", annotated)))
	}
	return reconcile.Done()
}

// lost says what it means that a snapshot which was captured is no longer on its pool: that its upload is complete, although
// the status was not stored in time, or that somebody deleted it.
func (s *snapshotScope) lost(ctx context.Context) reconcile.Outcome {
	status := &s.Object.Status
	if s.Object.Spec.Destination != nil {
		if state, known := s.r.runner.State(s.id()); known && state.Phase != transfer.Failed {
			return reconcile.Done() // it tells itself how it ends
		}
		found, err := s.ask(ctx)
		switch {
		case errors.Is(err, errNotAnswered):
			return reconcile.Wait(v1alpha1.ReasonProgressing, fmt.Sprintf(
				"snapshot %s is no longer on pool %s; waiting for the destination to tell whether its copy is complete", status.UUID, s.pool.Name)).After(barrier)
		case err == nil && s.isOurs(found) && found.Manifest.SnapshotUUID == status.UUID:
			if status.Upload == nil {
				status.Upload = s.emptyUpload()
			}
			snapshot.Recalled(status, found)
			return reconcile.Done()
		case err != nil && !transfer.IsNotFound(err):
			return reconcile.Retry(v1alpha1.ReasonStoreUnavailable, fmt.Errorf(
				"snapshot %s is no longer on pool %s, and whether its copy is complete is not known: %w", status.UUID, s.pool.Name, err))
		}
	}
	return s.failed(reconcile.Terminal(v1alpha1.ReasonExternallyDeleted, fmt.Sprintf(
		"snapshot %s is no longer on pool %s, and was not uploaded; make another XenSnapshot", status.UUID, s.pool.Name)))
}

// reasonOf is why a store cannot be asked.
func reasonOf(err error) string {
	var failure *transfer.Failure
	if errors.As(err, &failure) {
		return failure.Reason
	}
	return v1alpha1.ReasonStoreUnavailable
}

// isOurs reports whether a store has the complete upload of this very object.
func (s *snapshotScope) isOurs(found transfer.Found) bool {
	m := &found.Manifest
	return found.Complete && m.Snapshot == s.Object.Namespace+"/"+s.Object.Name && m.Installation == s.r.installation
}

// errNotAnswered says that a store is still being asked.
var errNotAnswered = errors.New("the store has not answered yet")

// ask reads what the destination remembers of the snapshot.
func (s *snapshotScope) ask(ctx context.Context) (transfer.Found, error) {
	place := s.place()
	found, answered, err := s.r.asked.Ask(ctx, s.id(), func(ctx context.Context) (transfer.Found, error) {
		store, err := s.r.stores.Open(ctx, place)
		if err != nil {
			return transfer.Found{}, err
		}
		return transfer.Recall(ctx, store)
	})
	if err == nil && !answered {
		err = errNotAnswered
	}
	return found, err
}
