package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/kubexen/kubexen/pkg/disk"
)

func TestQCOW2ToVHD(t *testing.T) {
	tests := map[string]struct {
		options  string
		compress bool
	}{
		"version 3":            {options: "compat=1.1"},
		"version 2":            {options: "compat=0.10"},
		"small clusters":       {options: "cluster_size=4096"},
		"large clusters":       {options: "cluster_size=2097152"},
		"deflated":             {compress: true, options: "compat=1.1"},
		"zstd":                 {compress: true, options: "compat=1.1,compression_type=zstd"},
		"deflated, 4 KiB each": {compress: true, options: "cluster_size=4096"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			const size = 19*mib + 512
			raw := sparse(t, rand.New(rand.NewPCG(8, uint64(len(name)))), size)
			path := raw.Name() + ".qcow2"
			args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", test.options}
			if test.compress {
				args = append(args, "-c")
			}
			qemuImg(t, append(args, raw.Name(), path)...)
			file, length := open(t, path)
			d, err := disk.Open(file, length, "")
			if err != nil {
				t.Fatal(err)
			}
			if d.Size() != size {
				t.Fatalf("size %d, want %d", d.Size(), size)
			}
			same(t, "content", contentOf(t, d, size), contentOf(t, raw, size))
			image, err := disk.NewVHDImage(d, disk.VHDOptions{})
			if err != nil {
				t.Fatal(err)
			}
			vhd := store(t, image, "disk.vhd")
			qemuImg(t, "compare", "-f", "vpc", "-F", "raw", vhd, raw.Name())
		})
	}
}

// An empty disk of 50 GiB costs its tables.
func TestSparseQCOW2IsNotRead(t *testing.T) {
	path := t.TempDir() + "/disk.qcow2"
	qemuImg(t, "create", "-f", "qcow2", path, "50G")
	file, length := open(t, path)
	counted := &countingReader{ReaderAt: file}
	d, err := disk.Open(counted, length, disk.QCOW2)
	if err != nil {
		t.Fatal(err)
	}
	image, err := disk.NewVHDImage(d, disk.VHDOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, image)
	if err != nil || n != image.Len() {
		t.Fatalf("%d bytes of %d: %v", n, image.Len(), err)
	}
	if n > 256<<10 || counted.n > 256<<10 {
		t.Errorf("%d bytes were read and %d written", counted.n, n)
	}
}

type countingReader struct {
	io.ReaderAt
	n int
}

func (c *countingReader) ReadAt(p []byte, offset int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, offset)
	c.n += n
	return n, err
}

// smallQCOW2 is an image of 3 MiB with some data.
func smallQCOW2(t testing.TB) []byte {
	t.Helper()
	raw := sparse(t, rand.New(rand.NewPCG(9, 10)), 3*mib)
	path := raw.Name() + ".qcow2"
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "cluster_size=4096", raw.Name(), path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestHostileQCOW2(t *testing.T) {
	put32 := func(at int, value uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], value); return b }
	}
	put64 := func(at int, value uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], value); return b }
	}
	tests := map[string]func([]byte) []byte{
		"empty":                       func([]byte) []byte { return nil },
		"cut in the header":           func(b []byte) []byte { return b[:50] },
		"cut in the first table":      func(b []byte) []byte { return b[:8200] },
		"cut in the content":          func(b []byte) []byte { return b[:len(b)*2/3] },
		"magic":                       put32(0, 1),
		"version":                     put32(4, 9),
		"a backing file":              put64(8, 512),
		"cluster bits":                put32(20, 60),
		"a size that overflows":       put64(24, 1<<63-1),
		"no size":                     put64(24, 0),
		"encryption":                  put32(32, 1),
		"a huge first table":          put32(36, 1<<31),
		"a short first table":         put32(36, 1),
		"a first table at the end":    put64(40, 1<<40),
		"an external data file":       put64(72, 1<<2),
		"a compression of the future": func(b []byte) []byte { return put64(72, 1<<3)(put32(104, 0xff000000)(b)) },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			image := damage(smallQCOW2(t))
			d, err := disk.Open(bytes.NewReader(image), int64(len(image)), disk.QCOW2)
			if err == nil {
				_, err = io.Copy(io.Discard, disk.NewRawImage(d))
			}
			wantFormatError(t, err)
		})
	}
}

// A network that fails is no fault of the image: it may be tried again.
func TestQCOW2TellsNetworksFromBytes(t *testing.T) {
	image := smallQCOW2(t)
	network := errors.New("connection reset")
	failing := &failingReader{ReaderAt: bytes.NewReader(image), err: network}
	d, err := disk.OpenQCOW2(failing, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	failing.fail = true
	_, err = io.Copy(io.Discard, disk.NewRawImage(d))
	if fault := new(disk.FormatError); !errors.Is(err, network) || errors.As(err, &fault) {
		t.Errorf("got %T: %v", err, err)
	}
	failing.fail = false
	if _, err := io.Copy(io.Discard, disk.NewRawImage(d)); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

type failingReader struct {
	io.ReaderAt
	fail bool
	err  error
}

func (f *failingReader) ReadAt(p []byte, offset int64) (int, error) {
	if f.fail {
		return 0, fmt.Errorf("read: %w", f.err)
	}
	return f.ReaderAt.ReadAt(p, offset)
}
