package blockstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
)

// BlockSize is the unit of allocation in bytes: 64 KiB, the granularity at which XenServer tracks changed blocks.
const BlockSize = 64 << 10

// pageBlocks is how many blocks one page of a blockMap covers.
const pageBlocks = 64 * 64

// blockMap is a sparse set of block numbers. An empty one costs nothing, a full 50 GiB disk about 100 KiB.
type blockMap struct {
	pages map[int64]*[64]uint64
	count int64
}

func (m *blockMap) has(block int64) bool {
	page := m.pages[block/pageBlocks]
	return page != nil && page[block%pageBlocks/64]&(1<<(block%64)) != 0
}

func (m *blockMap) add(block int64) {
	if m.pages == nil {
		m.pages = map[int64]*[64]uint64{}
	}
	page := m.pages[block/pageBlocks]
	if page == nil {
		page = new([64]uint64)
		m.pages[block/pageBlocks] = page
	}
	word, bit := &page[block%pageBlocks/64], uint64(1)<<(block%64)
	if *word&bit == 0 {
		*word |= bit
		m.count++
	}
}

// merge adds every block of other.
func (m *blockMap) merge(other *blockMap) {
	for number, page := range other.pages {
		if m.pages == nil {
			m.pages = map[int64]*[64]uint64{}
		}
		mine := m.pages[number]
		if mine == nil {
			mine = new([64]uint64)
			m.pages[number] = mine
		}
		for i, word := range page {
			m.count += int64(bits.OnesCount64(word &^ mine[i]))
			mine[i] |= word
		}
	}
}

// layer is one file of a chain. Its parent is guarded by Store.mu. So are the map and the file, which only Coalesce changes
// once the layer is not the top of a disk any more, without changing what is read through it; those of a top layer are
// guarded by disk.writing as well.
type layer struct {
	path   string
	parent *layer
	blocks blockMap
	// users counts the layers that stand on this one, and the disk that writes to it.
	users int
}

// holder is the nearest layer of the chain that has the block, nil when it was never written.
func (l *layer) holder(block int64) *layer {
	for ; l != nil; l = l.parent {
		if l.blocks.has(block) {
			return l
		}
	}
	return nil
}

func (l *layer) standsOn(lower *layer) bool {
	for ; l != nil; l = l.parent {
		if l == lower {
			return true
		}
	}
	return false
}

func (l *layer) depth() int {
	depth := 0
	for ; l != nil; l = l.parent {
		depth++
	}
	return depth
}

// readAt fills p from the layer's file. What lies behind the file's end was never written: zeros.
func (l *layer) readAt(p []byte, offset int64) error {
	file, err := os.Open(l.path)
	if err != nil {
		return fmt.Errorf("open disk layer: %w", err)
	}
	defer func() { _ = file.Close() }()
	n, err := file.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read disk layer: %w", err)
	}
	clear(p[n:])
	return nil
}

func (l *layer) writeAt(p []byte, offset int64) error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open disk layer: %w", err)
	}
	_, err = file.WriteAt(p, offset)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write disk layer: %w", err)
	}
	return nil
}

func (l *layer) remove() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove disk layer: %w", err)
	}
	return nil
}
