package blockstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

var (
	// ErrNotFound says that the store has no disk of that name.
	ErrNotFound = errors.New("no such disk")
	// ErrExists says that a disk of that name exists already.
	ErrExists = errors.New("disk exists")
	// ErrShrink says that a disk would become smaller: disks only grow.
	ErrShrink = errors.New("disk cannot shrink")
	// ErrOutOfRange says that a read or write reaches behind the disk's end.
	ErrOutOfRange = errors.New("behind the end of the disk")
)

// copyUnit is how many bytes are moved under the locks at once.
const copyUnit = 1 << 20

// Store is the disks of one pool, named by the uuid of their VDI. It is safe for concurrent use.
type Store struct {
	dir string

	// coalescing lets one Coalesce at a time change chains: what it merges is looked up before it is merged.
	coalescing sync.Mutex

	// mu guards the disks and the shape of the chains. Whoever moves bytes holds it shared, for at most copyUnit bytes;
	// whoever changes chains holds it alone.
	mu    sync.RWMutex
	disks map[string]*disk
	next  int
}

type disk struct {
	size int64
	top  *layer

	// writing guards the top layer's map and file, which nobody but this disk's users touch; it is taken after Store.mu.
	writing sync.RWMutex
}

// Open makes an empty store that keeps its files in dir, which is created when missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the disks' directory: %w", err)
	}
	stale, err := filepath.Glob(filepath.Join(dir, layerName("*")))
	if err != nil {
		return nil, fmt.Errorf("list the disks' directory: %w", err)
	}
	for _, path := range stale {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("clear the disks' directory: %w", err)
		}
	}
	return &Store{dir: dir, disks: map[string]*disk{}}, nil
}

func layerName(number string) string { return "layer-" + number + ".raw" }

// newLayer needs the lock.
func (s *Store) newLayer(parent *layer) *layer {
	s.next++
	if parent != nil {
		parent.users++
	}
	return &layer{path: filepath.Join(s.dir, layerName(fmt.Sprintf("%06d", s.next))), parent: parent, users: 1}
}

// release needs the lock. It drops one user of a layer, and the layers below that nobody uses any more.
func (s *Store) release(l *layer) error {
	var failed error
	for l != nil {
		l.users--
		if l.users > 0 {
			break
		}
		failed = errors.Join(failed, l.remove())
		l = l.parent
	}
	return failed
}

// Create adds an empty disk of size bytes.
func (s *Store) Create(id string, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disks[id] != nil {
		return fmt.Errorf("create disk %s: %w", id, ErrExists)
	}
	s.disks[id] = &disk{size: size, top: s.newLayer(nil)}
	return nil
}

// Ensure adds an empty disk of size bytes unless a disk of that name exists. It is for VDIs whose record was loaded and
// whose bytes nobody has asked for yet.
func (s *Store) Ensure(id string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disks[id] == nil {
		s.disks[id] = &disk{size: size, top: s.newLayer(nil)}
	}
}

// Clone adds a disk with the bytes of another without copying them. Both get a new top layer over the common one. A source
// that nobody has written to since it was cloned last has nothing to freeze: the new disk stands where it stands, so an
// image may be cloned as often as one likes (vhd-util snapshot takes the parent of an empty VHD, and sm drops the VHD that
// nothing stands on then: FileSR.py, _snapshot).
func (s *Store) Clone(id, newID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	source, err := s.free(id, newID)
	if err != nil {
		return fmt.Errorf("clone disk: %w", err)
	}
	frozen := source.top
	if frozen.parent != nil && frozen.blocks.count == 0 {
		s.disks[newID] = &disk{size: source.size, top: s.newLayer(frozen.parent)}
		return nil
	}
	frozen.users-- // the source writes to its new top from now on, which newLayer counts
	source.top = s.newLayer(frozen)
	s.disks[newID] = &disk{size: source.size, top: s.newLayer(frozen)}
	return nil
}

// free needs the lock. It finds the source of a new disk and makes sure that the new name is not taken.
func (s *Store) free(id, newID string) (*disk, error) {
	source := s.disks[id]
	if source == nil {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if s.disks[newID] != nil {
		return nil, fmt.Errorf("%s: %w", newID, ErrExists)
	}
	return source, nil
}

// Copy adds a disk with the bytes of another and nothing in common with it. Nobody should write to the source meanwhile:
// a real one refuses to copy a disk that is plugged read-write. Progress, which may be nil, is told the bytes copied of
// those to copy. A copy that fails or is cancelled leaves nothing behind.
func (s *Store) Copy(ctx context.Context, id, newID string, progress func(done, total int64)) error {
	s.mu.Lock()
	source, err := s.free(id, newID)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("copy disk: %w", err)
	}
	target := &disk{size: source.size, top: s.newLayer(nil)}
	s.disks[newID] = target
	extents := source.extents()
	s.mu.Unlock()

	if err := s.copyExtents(ctx, source, target, extents, progress); err != nil {
		return fmt.Errorf("copy disk %s: %w", id, errors.Join(err, s.Destroy(newID)))
	}
	return nil
}

func (s *Store) copyExtents(ctx context.Context, from, to *disk, extents []Extent, progress func(done, total int64)) error {
	var done, total int64
	for _, extent := range extents {
		total += extent.Length
	}
	buffer := make([]byte, copyUnit)
	for _, extent := range extents {
		for offset, end := extent.Offset, extent.Offset+extent.Length; offset < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := buffer[:min(int64(len(buffer)), end-offset)]
			if err := s.readDisk(from, part, offset); err != nil {
				return err
			}
			if err := s.writeDisk(to, part, offset); err != nil {
				return err
			}
			offset += int64(len(part))
			done += int64(len(part))
			if progress != nil {
				progress(done, total)
			}
		}
	}
	return nil
}

// Resize makes a disk larger. What is new reads as zeros.
func (s *Store) Resize(id string, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.disks[id]
	if found == nil {
		return fmt.Errorf("resize disk %s: %w", id, ErrNotFound)
	}
	if size < found.size {
		return fmt.Errorf("resize disk %s from %d to %d bytes: %w", id, found.size, size, ErrShrink)
	}
	found.size = size
	return nil
}

// Destroy removes a disk, and the layers that nothing else stands on.
func (s *Store) Destroy(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.disks[id]
	if found == nil {
		return fmt.Errorf("destroy disk %s: %w", id, ErrNotFound)
	}
	delete(s.disks, id)
	return s.release(found.top)
}

// Size is the virtual size in bytes, and whether there is such a disk.
func (s *Store) Size(id string) (int64, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if found := s.disks[id]; found != nil {
		return found.size, true
	}
	return 0, false
}

// ChainDepth is how many layers a disk stands on, its own included; 0 for a disk that does not exist. Storage drivers stop
// at 30 (sm, vhdutil.py).
func (s *Store) ChainDepth(id string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if found := s.disks[id]; found != nil {
		return found.top.depth()
	}
	return 0
}

// PhysicalUtilisation is how many bytes the disk's own layer takes. What it shares with others is not counted, as a VHD
// storage repository does not count a parent.
func (s *Store) PhysicalUtilisation(id string) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if found := s.disks[id]; found != nil {
		found.writing.RLock()
		defer found.writing.RUnlock()
		return found.top.blocks.count * BlockSize
	}
	return 0
}

// TotalUtilisation is how many bytes all layers of all disks take, each once.
func (s *Store) TotalUtilisation() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var total int64
	seen := map[*layer]bool{}
	for _, found := range s.disks {
		found.writing.RLock()
		for l := found.top; l != nil && !seen[l]; l = l.parent {
			seen[l] = true
			total += l.blocks.count * BlockSize
		}
		found.writing.RUnlock()
	}
	return total
}

// Close removes all files of the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for id, found := range s.disks {
		delete(s.disks, id)
		failed = errors.Join(failed, s.release(found.top))
	}
	return failed
}
