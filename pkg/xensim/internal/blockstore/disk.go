package blockstore

import (
	"fmt"
	"io"
	"sync"
)

// Disk is one disk of a store as readers and writers of bytes want it. It stays valid while the disk is resized, cloned or
// coalesced; after Destroy every use of it fails with ErrNotFound.
type Disk struct {
	store *Store
	id    string
}

var (
	_ io.ReaderAt = (*Disk)(nil)
	_ io.WriterAt = (*Disk)(nil)
)

// Disk finds a disk by name.
func (s *Store) Disk(id string) (*Disk, error) {
	if _, _, err := s.lookUp(id); err != nil {
		return nil, err
	}
	return &Disk{store: s, id: id}, nil
}

func (s *Store) lookUp(id string) (found *disk, size int64, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found = s.disks[id]
	if found == nil {
		return nil, 0, fmt.Errorf("disk %s: %w", id, ErrNotFound)
	}
	return found, found.size, nil
}

// Size is the virtual size in bytes, 0 once the disk is destroyed.
func (d *Disk) Size() int64 {
	size, _ := d.store.Size(d.id)
	return size
}

// ReadAt implements io.ReaderAt. Blocks that were never written are zeros and cost no read.
func (d *Disk) ReadAt(p []byte, offset int64) (int, error) {
	found, size, err := d.store.lookUp(d.id)
	if err != nil {
		return 0, fmt.Errorf("read disk: %w", err)
	}
	if offset < 0 {
		return 0, fmt.Errorf("read disk %s at %d: %w", d.id, offset, ErrOutOfRange)
	}
	if offset >= size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), size-offset)
	if err := d.store.readDisk(found, p[:n], offset); err != nil {
		return 0, fmt.Errorf("read disk %s: %w", d.id, err)
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteAt implements io.WriterAt. Zeros over a block that was never written are not stored.
func (d *Disk) WriteAt(p []byte, offset int64) (int, error) {
	found, size, err := d.store.lookUp(d.id)
	if err != nil {
		return 0, fmt.Errorf("write disk: %w", err)
	}
	if offset < 0 || offset+int64(len(p)) > size {
		return 0, fmt.Errorf("write %d bytes at %d to disk %s of %d bytes: %w", len(p), offset, d.id, size, ErrOutOfRange)
	}
	if err := d.store.writeDisk(found, p, offset); err != nil {
		return 0, fmt.Errorf("write disk %s: %w", d.id, err)
	}
	return len(p), nil
}

// Extents lists what has ever been written to the disk or to what it stands on, in order; all else reads as zeros.
func (d *Disk) Extents() []Extent {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	found := d.store.disks[d.id]
	if found == nil {
		return nil
	}
	return found.extents()
}

// extents needs the store's lock.
func (d *disk) extents() []Extent {
	d.writing.RLock()
	defer d.writing.RUnlock()
	return extentsOf(d.size, layersOf(d.top))
}

// ChangedSince lists what may differ from base: what was written to the layers that the two do not share.
func (d *Disk) ChangedSince(base *Disk) []Extent {
	d.store.mu.Lock() // alone: two disks' own locks at once could wait for each other
	defer d.store.mu.Unlock()
	mine, other := d.store.disks[d.id], d.store.disks[base.id]
	if mine == nil {
		return nil
	}
	switch other {
	case mine:
		return nil
	case nil:
		return mine.extents()
	}
	users := map[*layer]int{}
	for l := mine.top; l != nil; l = l.parent {
		users[l]++
	}
	for l := other.top; l != nil; l = l.parent {
		users[l]++
	}
	var different []*layer
	for l, count := range users {
		if count == 1 {
			different = append(different, l)
		}
	}
	return extentsOf(mine.size, different)
}

// readDisk fills p, which lies within the disk.
func (s *Store) readDisk(d *disk, p []byte, offset int64) error {
	for len(p) > 0 {
		n := min(len(p), copyUnit)
		err := s.withDisk(d.writing.RLocker(), func() error { return readChain(d.top, p[:n], offset) })
		if err != nil {
			return err
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// withDisk runs f while the chains stand still, under the disk's own lock as well.
func (s *Store) withDisk(own sync.Locker, f func() error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	own.Lock()
	defer own.Unlock()
	return f()
}

// readChain needs the locks. Neighbouring blocks of one layer are read at once.
func readChain(top *layer, p []byte, offset int64) error {
	for len(p) > 0 {
		holder := top.holder(offset / BlockSize)
		n := min(BlockSize-offset%BlockSize, int64(len(p)))
		for n < int64(len(p)) && top.holder((offset+n)/BlockSize) == holder {
			n = min(n+BlockSize, int64(len(p)))
		}
		if holder == nil {
			clear(p[:n])
		} else if err := holder.readAt(p[:n], offset); err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	return nil
}

// writeDisk stores p, which lies within the disk, block by block in its top layer.
func (s *Store) writeDisk(d *disk, p []byte, offset int64) error {
	for len(p) > 0 {
		n := min(int64(len(p)), copyUnit-offset%BlockSize)
		err := s.withDisk(&d.writing, func() error { return writeTop(d.top, p[:n], offset) })
		if err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	return nil
}

// writeTop needs the locks. Blocks that are to be stored and lie next to each other are written at once; a block that is
// written in part for the first time is completed from the layers below.
func writeTop(top *layer, p []byte, offset int64) error {
	for len(p) > 0 {
		run := int64(0)
		for run < int64(len(p)) {
			block, n := blockPart(p[run:], offset+run)
			if top.holder(block) == nil && allZero(p[run:run+n]) {
				break
			}
			if n < BlockSize && !top.blocks.has(block) {
				if err := completeBlock(top, block); err != nil {
					return err
				}
			}
			run += n
		}
		if run > 0 {
			if err := top.writeAt(p[:run], offset); err != nil {
				return err
			}
			for block := offset / BlockSize; block <= (offset+run-1)/BlockSize; block++ {
				top.blocks.add(block)
			}
		} else {
			_, run = blockPart(p, offset)
		}
		p, offset = p[run:], offset+run
	}
	return nil
}

// blockPart is the number of the block at offset and how many bytes of p fall into it.
func blockPart(p []byte, offset int64) (block, n int64) {
	return offset / BlockSize, min(BlockSize-offset%BlockSize, int64(len(p)))
}

// completeBlock copies a block up from the layer that holds it, so that a part of it can be written.
func completeBlock(top *layer, block int64) error {
	holder := top.holder(block)
	if holder == nil {
		return nil // the file has a hole there, which reads as the zeros that are wanted
	}
	buffer := make([]byte, BlockSize)
	if err := holder.readAt(buffer, block*BlockSize); err != nil {
		return err
	}
	return top.writeAt(buffer, block*BlockSize)
}
