package qcow2_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kubexen/kubexen/pkg/xensim/internal/qcow2"
)

const mib = 1 << 20

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatal("qemu-img is needed to hold this against another implementation: apt-get install qemu-utils")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

func TestQemuReadsWhatWeWrite(t *testing.T) {
	for name, c := range map[string]struct {
		size    int64
		extents []qcow2.Extent
	}{
		"empty":             {8 * mib, nil},
		"nothing":           {0, nil},
		"full":              {3*mib + 512, []qcow2.Extent{{Offset: 0, Length: 3*mib + 512}}},
		"parts of clusters": {64 * mib, []qcow2.Extent{{Offset: 100, Length: 5}, {Offset: 200, Length: 100000}, {Offset: 64*mib - 1, Length: 1}}},
		"several tables":    {2 << 30, []qcow2.Extent{{Offset: 0, Length: 1}, {Offset: 512*mib - 1, Length: 2}, {Offset: 2<<30 - 1, Length: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			raw, image := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
			disk, err := os.Create(raw)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = disk.Close() }()
			if err := disk.Truncate(c.size); err != nil {
				t.Fatal(err)
			}
			for _, e := range c.extents {
				part := make([]byte, min(e.Length, mib)) // of long extents the rest stays zero
				_, _ = rand.NewChaCha8([32]byte{1}).Read(part)
				if _, err := disk.WriteAt(part, e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			out, err := os.Create(image)
			if err != nil {
				t.Fatal(err)
			}
			m := qcow2.Image{Size: c.size, Extents: c.extents}
			if err := m.Write(sparse{out}, disk); err != nil {
				t.Fatal(err)
			}
			if err := out.Truncate(m.Len()); err != nil {
				t.Fatal(err)
			}
			if end, err := out.Seek(0, io.SeekCurrent); err != nil || end != m.Len() {
				t.Errorf("wrote %d bytes, announced %d (%v)", end, m.Len(), err)
			}
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			qemuImg(t, "check", "-f", "qcow2", image)
			qemuImg(t, "compare", "-f", "qcow2", "-F", "raw", image, raw)
		})
	}
}

func TestWriteFails(t *testing.T) {
	m := qcow2.Image{Size: mib, Extents: []qcow2.Extent{{Offset: 0, Length: mib}}}
	if err := m.Write(full{}, bytes.NewReader(make([]byte, mib))); err == nil {
		t.Error("writing to a full disk went well")
	}
}

// TestManyReferenceCounts writes more clusters than one block of reference counts covers.
func TestManyReferenceCounts(t *testing.T) {
	m := qcow2.Image{Size: 3 << 30, Extents: []qcow2.Extent{{Offset: 0, Length: 2<<30 + 100*mib}}}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	if err := m.Write(sparse{out}, zeros{}); err != nil {
		t.Fatal(err)
	}
	if err := out.Truncate(m.Len()); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "check", "-f", "qcow2", path)
}

// zeros is a disk without content.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// sparse is a file in which zeros are left out, so that large images cost little.
type sparse struct{ *os.File }

func (s sparse) Write(p []byte) (int, error) {
	if !bytes.Equal(p, make([]byte, len(p))) {
		return s.File.Write(p)
	}
	_, err := s.Seek(int64(len(p)), io.SeekCurrent)
	return len(p), err
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }
