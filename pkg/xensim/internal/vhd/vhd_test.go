package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/vhd"
)

const mib = 1 << 20

// memory is a disk of which only the written parts take room.
type memory struct {
	size  int64
	parts map[int64][]byte
}

func (m memory) ReadAt(p []byte, offset int64) (int, error) {
	n := min(int64(len(p)), m.size-offset)
	clear(p[:n])
	for start, part := range m.parts {
		if from, to := max(start, offset), min(start+int64(len(part)), offset+n); from < to {
			copy(p[from-offset:to-offset], part[from-start:])
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (m memory) extents() []vhd.Extent {
	var extents []vhd.Extent
	for offset := int64(0); offset < m.size; {
		part, ok := m.parts[offset]
		if ok {
			extents = append(extents, vhd.Extent{Offset: offset, Length: int64(len(part))})
			offset += int64(len(part))
			continue
		}
		next := m.size
		for start := range m.parts {
			if start > offset {
				next = min(next, start)
			}
		}
		offset = next
	}
	return extents
}

func noise(seed uint64, n int) []byte {
	source := rand.NewChaCha8([32]byte{byte(seed)})
	p := make([]byte, n)
	_, _ = source.Read(p)
	return p
}

func disks() map[string]memory {
	return map[string]memory{
		"empty":                   {size: 8 * mib},
		"one block":               {size: 2 * mib, parts: map[int64][]byte{0: noise(1, 2*mib)}},
		"a part of a block":       {size: 10 * mib, parts: map[int64][]byte{4*mib + 65536: noise(2, 65536)}},
		"across blocks":           {size: 10 * mib, parts: map[int64][]byte{3 * mib: noise(3, 4*mib)}},
		"last bytes":              {size: 7*mib + 512, parts: map[int64][]byte{7 * mib: noise(4, 512)}},
		"50 GiB, sparse":          {size: 50 << 30, parts: map[int64][]byte{0: noise(5, 65536), 50<<30 - 65536: noise(6, 65536)}},
		"no whole CHS cylinder":   {size: 64*mib + 4096, parts: map[int64][]byte{mib: noise(7, mib)}},
		"larger than CHS reaches": {size: 200 << 30, parts: map[int64][]byte{150 << 30: noise(8, 65536)}},
	}
}

func image(disk memory) vhd.Image {
	return vhd.Image{Size: disk.size, ID: [16]byte{1, 2, 3}, Created: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC), Extents: disk.extents()}
}

func encode(t testing.TB, m vhd.Image, disk io.ReaderAt) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := m.Write(&out, disk); err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != m.Len() {
		t.Fatalf("wrote %d bytes, announced %d", out.Len(), m.Len())
	}
	return out.Bytes()
}

// decode applies a VHD to a sparse file and returns the reader for its particulars.
func decode(source io.Reader, length int64, path string) (*vhd.Reader, error) {
	r, err := vhd.NewReader(source, length)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if err := file.Truncate(r.Size); err != nil {
		return nil, err
	}
	for {
		offset, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return nil, err
		}
		if _, err := file.WriteAt(data, offset); err != nil {
			return nil, err
		}
	}
}

// sameBytes compares a file with a disk where either has something.
func sameBytes(t *testing.T, path string, disk memory) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != disk.size {
		t.Errorf("%d bytes, want %d", info.Size(), disk.size)
	}
	for start, part := range disk.parts {
		got := make([]byte, len(part))
		if _, err := file.ReadAt(got, start); err != nil || !bytes.Equal(got, part) {
			t.Errorf("bytes at %d differ (%v)", start, err)
		}
	}
	if disk.size > 1<<30 {
		return // the rest is a hole on both sides; what matters has been compared
	}
	got, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, disk.size)
	if _, err := disk.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("bytes differ")
	}
}

func run(t *testing.T, debianPackage, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed to hold this against another implementation: apt-get install %s", name, debianPackage)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestQemuReadsWhatWeWrite(t *testing.T) {
	for name, disk := range disks() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.vhd")
			if err := os.WriteFile(path, encode(t, image(disk), disk), 0o600); err != nil {
				t.Fatal(err)
			}
			raw := filepath.Join(dir, "disk.raw")
			run(t, "qemu-utils", "qemu-img", "convert", "-f", "vpc", "-O", "raw", path, raw)
			sameBytes(t, raw, disk)
			run(t, "qemu-utils", "qemu-img", "compare", "-f", "vpc", "-F", "raw", path, raw)
		})
	}
}

func TestWeReadWhatQemuWrites(t *testing.T) {
	for _, subformat := range []string{"dynamic", "fixed"} {
		for name, disk := range disks() {
			if subformat == "fixed" && disk.size > 1<<30 {
				continue
			}
			t.Run(subformat+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				raw, made := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vhd")
				if _, err := decode(bytes.NewReader(encode(t, image(disk), disk)), -1, raw); err != nil {
					t.Fatal(err)
				}
				run(t, "qemu-utils", "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on,subformat="+subformat, raw, made)
				file, err := os.Open(made)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = file.Close() }()
				info, err := file.Stat()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := decode(file, info.Size(), filepath.Join(dir, "back.raw")); err != nil {
					t.Fatal(err)
				}
				sameBytes(t, filepath.Join(dir, "back.raw"), disk)
			})
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for name, disk := range disks() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.raw")
			wrote := image(disk)
			r, err := decode(bytes.NewReader(encode(t, wrote, disk)), -1, path)
			if err != nil {
				t.Fatal(err)
			}
			sameBytes(t, path, disk)
			if r.Type != vhd.Dynamic || r.ID != wrote.ID || !r.Created.Equal(wrote.Created) || r.Parent != nil {
				t.Errorf("read type %v, id %v, created %v, parent %v", r.Type, r.ID, r.Created, r.Parent)
			}
		})
	}
}

// layered is a disk of 9 MiB and what was written to it later, in parts of blocks.
func layered() (base, top memory, parent *vhd.Parent) {
	base = memory{size: 9 * mib, parts: map[int64][]byte{0: noise(1, 3*mib), 5 * mib: noise(2, mib)}}
	top = memory{size: 9 * mib, parts: map[int64][]byte{mib: noise(3, 65536), 6*mib - 65536: noise(4, 131072), 9*mib - 65536: noise(5, 65536)}}
	return base, top, &vhd.Parent{ID: image(base).ID, Created: image(base).Created, Name: "base.vhd"}
}

func TestDifferencingHoldsOnlyWhatChanged(t *testing.T) {
	base, top, parent := layered()
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	if _, err := decode(bytes.NewReader(encode(t, image(base), base)), -1, path); err != nil {
		t.Fatal(err)
	}
	difference := image(top)
	difference.ID, difference.Parent = [16]byte{9}, parent
	r, err := decode(bytes.NewReader(encode(t, difference, top)), -1, path)
	if err != nil {
		t.Fatal(err)
	}
	if r.Type != vhd.Differencing || r.Parent == nil || *r.Parent != *parent {
		t.Errorf("read type %v, parent %+v", r.Type, r.Parent)
	}
	sameBytes(t, path, merged(base, top))
}

// merged is one disk as it reads through the other.
func merged(base, top memory) memory {
	whole := make([]byte, base.size)
	_, _ = base.ReadAt(whole, 0)
	for offset, part := range top.parts {
		copy(whole[offset:], part)
	}
	return memory{size: base.size, parts: map[int64][]byte{0: whole}}
}

// mergeWithLibvhdi reads a differencing VHD through its parent; qemu-img knows no such VHDs.
const mergeWithLibvhdi = `
import sys, pyvhdi
base, top = pyvhdi.file(), pyvhdi.file()
base.open(sys.argv[1]); top.open(sys.argv[2])
print(top.parent_filename)
top.set_parent(base)
out = open(sys.argv[3], "wb")
while top.get_offset() < top.media_size:
    out.write(top.read_buffer(min(1 << 20, top.media_size - top.get_offset())))
`

func TestLibvhdiReadsDifferencing(t *testing.T) {
	base, top, parent := layered()
	dir := t.TempDir()
	difference := image(top)
	difference.ID, difference.Parent = [16]byte{9}, parent
	files := map[string][]byte{"base.vhd": encode(t, image(base), base), "top.vhd": encode(t, difference, top)}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := run(t, "python3-libvhdi", "/usr/bin/python3", "-c", mergeWithLibvhdi,
		filepath.Join(dir, "base.vhd"), filepath.Join(dir, "top.vhd"), filepath.Join(dir, "merged.raw"))
	if !bytes.Contains([]byte(out), []byte("base.vhd")) {
		t.Errorf("libvhdi finds the parent %q", out)
	}
	sameBytes(t, filepath.Join(dir, "merged.raw"), merged(base, top))
}

func TestTooLarge(t *testing.T) {
	m := vhd.Image{Size: vhd.MaxSize + 1}
	if err := m.Write(io.Discard, memory{}); err == nil {
		t.Error("a VHD of more than 2040 GiB was written")
	}
}

func TestTruncatedAndBroken(t *testing.T) {
	disk := disks()["across blocks"]
	whole := encode(t, image(disk), disk)
	for _, n := range []int{0, 100, 512, 1535, 1536, 2048, len(whole) / 2, len(whole) - 512, len(whole) - 1} {
		_, err := decode(bytes.NewReader(whole[:n]), -1, filepath.Join(t.TempDir(), "disk.raw"))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v, want an unexpected end", n, len(whole), err)
		}
	}
	breakages := map[string]func(b []byte){
		"no VHD":             func(b []byte) { copy(b, "QFI\xfb") },
		"footer's checksum":  func(b []byte) { b[60]++ },
		"header's checksum":  func(b []byte) { b[540]++ },
		"blocks in one room": func(b []byte) { binary.BigEndian.PutUint32(b[1536+8:], binary.BigEndian.Uint32(b[1536+4:])) },
		"block in the table": func(b []byte) { binary.BigEndian.PutUint32(b[1536:], 1) },
	}
	for name, broken := range breakages {
		b := bytes.Clone(whole)
		broken(b)
		if _, err := decode(bytes.NewReader(b), -1, filepath.Join(t.TempDir(), "disk.raw")); !errors.Is(err, vhd.ErrFormat) {
			t.Errorf("%s: %v, want a format error", name, err)
		}
	}
}

// tiny is a VHD with one block of 4 KiB: small enough for a fuzzer to play with.
func tiny(t testing.TB) []byte {
	empty := encode(t, image(memory{size: 4096}), memory{size: 4096})
	metadata, closing := empty[:2048], empty[2048:]
	binary.BigEndian.PutUint32(metadata[512+32:], 4096)
	binary.BigEndian.PutUint32(metadata[1536:], 4)
	binary.BigEndian.PutUint32(metadata[512+36:], 0)
	var sum uint32
	for _, c := range metadata[512:1536] {
		sum += uint32(c)
	}
	binary.BigEndian.PutUint32(metadata[512+36:], ^sum)
	block := append(bytes.Repeat([]byte{0xA5}, 512), noise(1, 4096)...)
	return slices.Concat(metadata, block, closing)
}

func FuzzReader(f *testing.F) {
	base, top, parent := layered()
	difference := image(top)
	difference.Parent = parent
	f.Add(tiny(f))
	f.Add(encode(f, image(memory{size: base.size}), base))
	f.Add(encode(f, difference, top)[:8192])
	f.Add(bytes.Repeat([]byte{7}, 2048))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := vhd.NewReader(bytes.NewReader(b), int64(len(b)))
		returned := 0
		for err == nil {
			var offset int64
			var data []byte
			offset, data, err = r.Next()
			if err == nil && (offset < 0 || len(data) == 0 || offset+int64(len(data)) > r.Size) {
				t.Fatalf("%d bytes at %d of a disk of %d", len(data), offset, r.Size)
			}
			if returned += len(data); returned > len(b) {
				t.Fatalf("more bytes out (%d) than in (%d)", returned, len(b))
			}
		}
	})
}

func TestSmallBlocksAreRead(t *testing.T) {
	r, err := vhd.NewReader(bytes.NewReader(tiny(t)), -1)
	if err != nil {
		t.Fatal(err)
	}
	// The bitmap 10100101 holds the sectors 0, 2, 5 and 7.
	for _, want := range []int64{0, 2, 5, 7} {
		offset, data, err := r.Next()
		if err != nil || offset != want*512 || len(data) != 512 {
			t.Errorf("got %d bytes at %d (%v), want sector %d", len(data), offset, err, want)
		}
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}
