package shrink

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Space is the directory where disks are kept while they are made smaller, and how much of it may be used.
type Space struct {
	dir   string
	limit int64

	mu sync.Mutex
	// reserved is what is set aside, written is what of that is taken on the disk already.
	reserved, written int64
}

// NewSpace uses up to limit bytes of a directory, which must exist; with 0 all that its file system has free.
func NewSpace(dir string, limit int64) *Space { return &Space{dir: dir, limit: limit} }

// Reserve sets room aside. It fails with a *SpaceError if there is less than needed.
func (s *Space) Reserve(needed int64) (*Scratch, error) {
	free, err := s.onDisk()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	free -= s.reserved - s.written
	if s.limit > 0 {
		free = min(free, s.limit-s.reserved)
	}
	if free < needed {
		return nil, &SpaceError{Dir: s.dir, Needed: needed, Free: max(0, free)}
	}
	s.reserved += needed
	return &Scratch{space: s, room: needed}, nil
}

// Check reports whether Reserve would find the room, as far as that can be told.
func (s *Space) Check(needed int64) error {
	scratch, err := s.Reserve(needed)
	if err == nil {
		scratch.Close()
	}
	return err
}

// onDisk is what the file system has free for us.
func (s *Space) onDisk() (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &stat); err != nil {
		return 0, fmt.Errorf("look at the scratch directory %s: %w", s.dir, err)
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}

// Scratch is room set aside, and the files in it. The files have no name, so nothing is left of them when the process ends,
// however it ends.
type Scratch struct {
	space *Space
	room  int64

	mu    sync.Mutex
	used  int64
	files []*os.File
}

// create makes a sparse file of a size.
func (s *Scratch) create(size int64) (*sparse, error) {
	file, err := os.CreateTemp(s.space.dir, "kubexen-shrink-")
	if err != nil {
		return nil, fmt.Errorf("make a scratch file: %w", err)
	}
	s.files = append(s.files, file)
	if err := errors.Join(os.Remove(file.Name()), file.Truncate(size)); err != nil {
		return nil, fmt.Errorf("make a scratch file of %d bytes: %w", size, err)
	}
	return &sparse{File: file, scratch: s}, nil
}

// Close gives the room back and drops the files.
func (s *Scratch) Close() {
	for _, file := range s.files {
		_ = file.Close() // what was in it is not needed any more
	}
	s.files = nil
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.space.reserved -= s.room
	s.space.written -= min(s.used, s.room)
	s.room, s.used = 0, 0
}

// take counts bytes that are written. Beyond what was set aside it asks for more: how much of a disk is data shows only as it
// is read.
func (s *Scratch) take(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wanted := s.used + n - s.room; wanted > 0 {
		more, err := s.space.Reserve(max(wanted, step))
		var full *SpaceError
		if errors.As(err, &full) {
			full.Needed += s.room
			full.Free += s.room
		}
		if err != nil {
			return err
		}
		s.room += more.room
	}
	s.used += n
	s.space.mu.Lock()
	s.space.written += n
	s.space.mu.Unlock()
	return nil
}

// step is how much more is asked for at a time.
const step = 16 * mebibyte

// full explains an error of writing.
func (s *Scratch) full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &SpaceError{Dir: s.space.dir, Needed: s.used + step, Free: s.used}
	}
	return err
}

// exhausted reports that the file system has no room left, which makes programs fail in many ways.
func (s *Scratch) exhausted() error {
	if free, err := s.space.onDisk(); err == nil && free < mebibyte {
		return &SpaceError{Dir: s.space.dir, Needed: s.used + step, Free: s.used}
	}
	return nil
}

// sparse is a file in which only data takes room.
type sparse struct {
	*os.File
	scratch *Scratch
}

// grain is what is left out when it is all zeros: the block of most file systems.
const grain = 4 * kibibyte

// WriteAt writes the parts of p that are not zeros. The file must not have data there yet.
func (f *sparse) WriteAt(p []byte, offset int64) (int, error) {
	for at := 0; at < len(p); {
		start := at
		for start < len(p) && isZero(p[start:min(start+grain, len(p))]) {
			start += grain
		}
		end := start
		for end < len(p) && !isZero(p[end:min(end+grain, len(p))]) {
			end += grain
		}
		at = end
		if start, end = min(start, len(p)), min(end, len(p)); start == end {
			continue
		}
		if err := f.scratch.take(int64(end - start)); err != nil {
			return start, err
		}
		if _, err := f.File.WriteAt(p[start:end], offset+int64(start)); err != nil {
			return start, f.scratch.full(fmt.Errorf("write to a scratch file: %w", err))
		}
	}
	return len(p), nil
}

// isZero compares words; it runs over every byte that is read.
func isZero(b []byte) bool {
	for len(b) >= 32 {
		if le.Uint64(b)|le.Uint64(b[8:])|le.Uint64(b[16:])|le.Uint64(b[24:]) != 0 {
			return false
		}
		b = b[32:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
