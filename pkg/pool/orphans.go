package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// orphanAge is how long something must have been an orphan before it is swept. Nothing on the wire tells when a disk
// was made, so the time counts from when we saw it; a restart of the manager begins it anew.
const orphanAge = 24 * time.Hour

// Ages remembers since when orphans are.
type Ages struct {
	mu    sync.Mutex
	since map[string]map[string]time.Time // by pool, by uuid
}

// Forget drops what is remembered of a pool.
func (a *Ages) Forget(pool string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.since, pool)
}

// due returns the orphans that may go, and when the next one may (zero: none).
func (a *Ages) due(pool string, orphans []Marked, now time.Time) (due []Marked, next time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, kept := a.since[pool], map[string]time.Time{}
	for _, o := range orphans {
		if !sweepable(o) {
			continue
		}
		since, found := known[o.UUID]
		if !found {
			since = now
		}
		kept[o.UUID] = since
		switch at := since.Add(orphanAge); {
		case !at.After(now):
			due = append(due, o)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	if a.since == nil {
		a.since = map[string]map[string]time.Time{}
	}
	a.since[pool] = kept
	return due, next
}

// sweepable reports whether an orphan may ever be swept: it is of a temporary role, nothing uses it, and its marks are
// its own. Without self it might be somebody's copy.
func sweepable(o Marked) bool {
	return o.Marks.Role.Temporary() && !o.InUse && o.Marks.Self == o.UUID
}

// Sweep destroys the orphans of temporary roles that are old enough, if the policy says so.
func (a *Ages) Sweep(ctx context.Context, h *Handle, orphans []Marked, now time.Time) reconcile.Outcome {
	if h.Pool.Spec.OrphanPolicy != v1alpha1.OrphanDeleteTemporary {
		return reconcile.Done()
	}
	due, next := a.due(h.Name, orphans, now)
	outcome := reconcile.Done()
	if !next.IsZero() {
		outcome = outcome.After(next.Sub(now))
	}
	for _, o := range due {
		if err := destroyOrphan(ctx, h, o); err != nil {
			// What cannot be swept stays in the report; the pool is none the worse for it.
			logr.FromContextOrDiscard(ctx).Info("an orphan could not be swept", "uuid", o.UUID, "role", o.Marks.Role, "error", err.Error())
			return outcome.After(orphanRetry)
		}
	}
	return outcome
}

// orphanRetry is how long to leave an orphan alone that would not go.
const orphanRetry = time.Hour

func destroyOrphan(ctx context.Context, h *Handle, o Marked) error {
	if err := h.ClaimWriter(ctx); err != nil {
		return err
	}
	var err error
	switch o.Class {
	case "VM":
		err = h.Client.VM.Destroy(ctx, xenapi.VMRef(o.Ref))
	case "VDI":
		err = h.Client.VDI.Destroy(ctx, xenapi.VDIRef(o.Ref))
	}
	if err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
		return fmt.Errorf("destroy orphan %s %s: %w", o.Class, o.UUID, err)
	}
	return nil
}
