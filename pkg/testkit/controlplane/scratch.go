package controlplane

import (
	"os"
	"path/filepath"
	"syscall"
)

const (
	scratchPrefix = "kubexen-controlplane-"
	scratchLock   = "in-use"
)

// scratchDir is a temporary directory with a short path that says by a lock whether its owner still lives.
type scratchDir struct {
	path string
	lock int // the lock lives as long as this descriptor
}

// newScratchDir makes one, and removes those of processes that were killed and could not do it themselves: their lock is free.
func newScratchDir() (scratchDir, error) {
	others, err := filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*", scratchLock))
	if err != nil {
		return scratchDir{}, err
	}
	for _, path := range others {
		if !held(path) {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	path, err := os.MkdirTemp("", scratchPrefix)
	if err != nil {
		return scratchDir{}, err
	}
	// Locked first and given its name then, so that nobody finds it unlocked.
	unnamed := filepath.Join(path, "new")
	lock, err := syscall.Open(unnamed, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return scratchDir{}, os.NewSyscallError("open", err)
	}
	if err := syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return scratchDir{}, os.NewSyscallError("flock", err)
	}
	return scratchDir{path: path, lock: lock}, os.Rename(unnamed, filepath.Join(path, scratchLock))
}

func (s scratchDir) remove() {
	if s.path == "" {
		return
	}
	_ = os.RemoveAll(s.path)
	_ = syscall.Close(s.lock)
}
