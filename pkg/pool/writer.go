package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// writer is what the writer mark of a pool means to us. Two installations that write to one pool would undo each
// other's work, each seeing the other's as drift.
type writer int

const (
	// writerFree: nobody has written yet.
	writerFree writer = iota
	// writerOurs: we may write.
	writerOurs
	// writerYielding: another has written, and the administrator says that we replace it.
	writerYielding
	// writerForeign: another writes; hands off.
	writerForeign
)

func readWriter(mark, installation, takeoverFrom string) writer {
	switch mark {
	case "":
		return writerFree
	case installation:
		return writerOurs
	case takeoverFrom:
		return writerYielding
	default:
		return writerForeign
	}
}

// foreignWriter says what to do about another installation's mark.
func foreignWriter(pool, mark, installation string) *Denial {
	return deny(v1alpha1.ReasonAnotherWriter,
		"installation %q writes to pool %s, we are %q; stop it, then set spec.takeoverFrom: %s", mark, pool, installation, mark)
}

// writerSeen is how long a freshly written mark may take to appear in the cache.
const writerSeen = 10 * time.Second

// ClaimWriter makes sure, before the first write, that the pool carries our writer mark. It costs nothing once it
// does. Nothing is claimed without need: an installation that only observes writes nothing at all.
func (h *Handle) ClaimWriter(ctx context.Context) error {
	h.runner.writing.Lock()
	defer h.runner.writing.Unlock()
	ref, mark := h.writerMark()
	switch readWriter(mark, h.Installation, h.Pool.Spec.TakeoverFrom) {
	case writerOurs:
		return nil
	case writerForeign:
		return foreignWriter(h.Name, mark, h.Installation)
	case writerFree:
	case writerYielding:
		if err := h.Client.Pool.RemoveFromOtherConfig(ctx, ref, xencache.MarkWriter); err != nil {
			return fmt.Errorf("take over the writer mark of pool %s from %s: %w", h.Name, mark, err)
		}
	}
	err := h.Client.Pool.AddToOtherConfig(ctx, ref, xencache.MarkWriter, h.Installation)
	if err != nil && !errors.Is(err, xenapi.ErrMapDuplicateKey) {
		return fmt.Errorf("set the writer mark of pool %s: %w", h.Name, err)
	}
	// A duplicate key means that someone was quicker; the cache will show who.
	if err := h.Cache.Wait(ctx, writerSeen, func(v xencache.View) bool { return markOf(v) != "" && markOf(v) != mark }); err != nil {
		return fmt.Errorf("read back the writer mark of pool %s: %w", h.Name, err)
	}
	if _, now := h.writerMark(); now != h.Installation {
		return foreignWriter(h.Name, now, h.Installation)
	}
	return nil
}

func (h *Handle) writerMark() (ref xenapi.PoolRef, mark string) {
	h.Cache.View(func(v xencache.View) {
		ref, _ = v.Pool()
		mark = markOf(v)
	})
	return ref, mark
}

func markOf(v xencache.View) string {
	if _, record := v.Pool(); record != nil {
		return record.OtherConfig[xencache.MarkWriter]
	}
	return ""
}
