package blockstore

import (
	"context"
	"fmt"
)

// Coalesce shortens a disk's chain: every layer that only one other stands on is merged into that one, as the garbage
// collector of a VHD storage repository does, one disk at a time. It reports how many layers went.
func (s *Store) Coalesce(ctx context.Context, id string) (int, error) {
	s.coalescing.Lock()
	defer s.coalescing.Unlock()
	merged := 0
	for {
		upper, lower, err := s.mergeable(id)
		if err != nil || upper == nil {
			return merged, err
		}
		if err := s.pullUp(ctx, upper, lower); err != nil {
			return merged, fmt.Errorf("coalesce disk %s: %w", id, err)
		}
		merged++
	}
}

// ShorterWithout names a disk whose chain can be coalesced once another disk is gone, "" if there is none: the two stand on
// a layer that then has one user left.
func (s *Store) ShorterWithout(id string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	going := s.disks[id]
	if going == nil {
		return ""
	}
	common := going.top
	for common != nil && common.users == 1 {
		common = common.parent
	}
	if common == nil || common.users != 2 {
		return ""
	}
	staying := ""
	for other, found := range s.disks {
		if other != id && found.top.standsOn(common) && (staying == "" || other < staying) {
			staying = other
		}
	}
	return staying
}

// mergeable finds the lowest pair of a disk's chain that can become one layer.
func (s *Store) mergeable(id string) (upper, lower *layer, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := s.disks[id]
	if found == nil {
		return nil, nil, fmt.Errorf("coalesce disk %s: %w", id, ErrNotFound)
	}
	for l := found.top; l.parent != nil; l = l.parent {
		if l.parent.users == 1 {
			upper, lower = l, l.parent
		}
	}
	return upper, lower, nil
}

// pullUp copies the blocks that upper lacks out of lower, a few at a time, and then takes lower out of the chain. What is
// read through upper is the same all the while.
func (s *Store) pullUp(ctx context.Context, upper, lower *layer) error {
	s.mu.RLock()
	extents := extentsOf(maxSize, []*layer{lower})
	s.mu.RUnlock()
	for _, extent := range extents {
		for offset := extent.Offset; offset < extent.Offset+extent.Length; offset += BlockSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.pullBlock(upper, offset/BlockSize); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if upper.users == 0 || lower.users != 1 {
		return nil // cloned or destroyed meanwhile: the copied blocks do no harm
	}
	upper.parent, lower.users = lower.parent, 0
	return lower.remove()
}

// maxSize bounds nothing: a layer's blocks all count, however large the disk was when they were written.
const maxSize = 1<<63 - 1

func (s *Store) pullBlock(upper *layer, block int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if upper.users == 0 || upper.blocks.has(block) {
		return nil
	}
	if err := completeBlock(upper, block); err != nil {
		return err
	}
	upper.blocks.add(block)
	return nil
}
