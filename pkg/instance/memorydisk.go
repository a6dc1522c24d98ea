package instance

import (
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/diskfs/go-diskfs/backend"
)

// memoryDisk is a disk in memory, in the form that the file system library wants.
type memoryDisk struct {
	data   []byte
	offset int64
}

var _ backend.Storage = (*memoryDisk)(nil)

// ReadAt reads from a place.
func (m *memoryDisk) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes at a place; the disk does not grow.
func (m *memoryDisk) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(m.data)) {
		return 0, io.ErrShortWrite
	}
	return copy(m.data[off:], p), nil
}

// Read reads on from where the last one ended.
func (m *memoryDisk) Read(p []byte) (int, error) {
	n, err := m.ReadAt(p, m.offset)
	m.offset += int64(n)
	return n, err
}

// Seek sets where Read goes on.
func (m *memoryDisk) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		m.offset = offset
	case io.SeekCurrent:
		m.offset += offset
	case io.SeekEnd:
		m.offset = int64(len(m.data)) + offset
	}
	return m.offset, nil
}

// Close has nothing to do.
func (m *memoryDisk) Close() error { return nil }

// Path says that no file is behind it.
func (m *memoryDisk) Path() string { return "" }

// Sys says that no file is behind it.
func (m *memoryDisk) Sys() (*os.File, error) { return nil, backend.ErrNotSuitable }

// Writable is the disk itself.
func (m *memoryDisk) Writable() (backend.WritableFile, error) { return m, nil }

// Stat describes the disk.
func (m *memoryDisk) Stat() (fs.FileInfo, error) { return memoryInfo{size: int64(len(m.data))}, nil }

// memoryInfo describes a memoryDisk.
type memoryInfo struct{ size int64 }

// Name is what it is.
func (memoryInfo) Name() string { return "config drive" }

// Size is the number of bytes.
func (i memoryInfo) Size() int64 { return i.size }

// Mode is that of a regular file.
func (memoryInfo) Mode() fs.FileMode { return 0o600 }

// ModTime is not known.
func (memoryInfo) ModTime() time.Time { return time.Time{} }

// IsDir is false.
func (memoryInfo) IsDir() bool { return false }

// Sys has nothing to add.
func (memoryInfo) Sys() any { return nil }
