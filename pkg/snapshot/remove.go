package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Remove takes the snapshot away from the pool and reports whether nothing is left of it there.
func Remove(ctx context.Context, h *pool.Handle, s Snapshot, f Facts) (gone bool, err error) {
	if f.Local == nil {
		return true, nil
	}
	if err := h.ClaimWriter(ctx); err != nil {
		return false, err
	}
	for _, local := range append(f.Twins, *f.Local) {
		if err := destroy(ctx, h, s, local); err != nil {
			return false, err
		}
	}
	return false, nil
}

// IsGoing reports whether a snapshot VM is being removed. Some of its disks may be gone, so nothing is made of it any more; the
// pool itself refuses to clone it.
func IsGoing(vm *xenapi.VM) bool {
	_, blocked := vm.BlockedOperations[xenapi.VMOperationClone]
	return blocked
}

// destroy destroys a snapshot VM: its disks first, because without the record nobody would find them again. A disk that is no
// snapshot, or that somebody else uses too, is not ours to destroy.
func destroy(ctx context.Context, h *pool.Handle, s Snapshot, local Local) error {
	if err := begin(ctx, h, &local); err != nil {
		return fmt.Errorf("begin to remove snapshot %s: %w", s.Key, err)
	}
	for _, disk := range local.Disks {
		if !disk.Snapshot || disk.Shared {
			continue
		}
		// A transfer that has just ended may hold the disk for a moment (VDI_IN_USE): that passes.
		if err := goneOr(h.Client.VDI.Destroy(ctx, disk.Ref)); err != nil {
			return fmt.Errorf("destroy disk %s of snapshot %s: %w", disk.Name, s.Key, err)
		}
	}
	if !local.Memory.IsNull() {
		if err := goneOr(h.Client.VDI.Destroy(ctx, local.Memory)); err != nil {
			return fmt.Errorf("destroy the memory image of snapshot %s: %w", s.Key, err)
		}
	}
	if err := goneOr(h.Client.VM.Destroy(ctx, local.Ref)); err != nil {
		return fmt.Errorf("destroy snapshot %s: %w", s.Key, err)
	}
	return nil
}

// begin makes a snapshot VM ready to be taken apart.
func begin(ctx context.Context, h *pool.Handle, local *Local) error {
	if !IsGoing(local.VM) {
		err := h.Client.VM.AddToBlockedOperations(ctx, local.Ref, xenapi.VMOperationClone, "this snapshot is being removed")
		if goneOr(err) != nil && !errors.Is(err, xenapi.ErrMapDuplicateKey) {
			return err
		}
	}
	if local.VM.PowerState != xenapi.VMPowerStateSuspended {
		return nil
	}
	// With memory its devices count as attached, so that no disk could be destroyed. The memory goes with that.
	local.Memory = ""
	return goneOr(h.Client.VM.HardShutdown(ctx, local.Ref))
}

// goneOr is an error but for that of an object that is not there any more.
func goneOr(err error) error {
	if errors.Is(err, xenapi.ErrHandleInvalid) {
		return nil
	}
	return err
}
