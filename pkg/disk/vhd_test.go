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
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/kubexen/kubexen/pkg/disk"
)

// sizes are disks' sizes around the borders of a block.
var sizes = []int64{512, 1 * mib, 2 * mib, 2*mib + 512, 7*mib - 512, 23 * mib}

func TestDynamicVHDIsReadByQEMU(t *testing.T) {
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			raw := sparse(t, rand.New(rand.NewPCG(1, uint64(size))), size)
			image, err := disk.NewVHDImage(disk.NewRaw(raw, size), disk.VHDOptions{Created: time.Unix(1_700_000_000, 0)})
			if err != nil {
				t.Fatal(err)
			}
			path := store(t, image, "disk.vhd")
			qemuImg(t, "convert", "-f", "vpc", "-O", "raw", path, path+".raw")
			back, length := open(t, path+".raw")
			same(t, "what QEMU reads", contentOf(t, back, length), contentOf(t, raw, size))
		})
	}
}

func TestVHDsOfQEMU(t *testing.T) {
	tests := map[string]struct{ options string }{
		"dynamic": {"subformat=dynamic,force_size=on"},
		"fixed":   {"subformat=fixed,force_size=on"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			const size = 23 * mib
			raw := sparse(t, rand.New(rand.NewPCG(2, 3)), size)
			path := raw.Name() + ".vhd"
			qemuImg(t, "convert", "-f", "raw", "-O", "vpc", "-o", test.options, raw.Name(), path)
			file, length := open(t, path)
			for _, stated := range []disk.Format{"", disk.VHD} {
				d, err := disk.Open(file, length, stated)
				if err != nil {
					t.Fatal(err)
				}
				if d.Size() != size {
					t.Fatalf("size %d, want %d", d.Size(), size)
				}
				same(t, "content", contentOf(t, d, size), contentOf(t, raw, size))
			}
		})
	}
}

func TestFixedVHDIsReadByQEMU(t *testing.T) {
	const size = 3*mib + 512
	raw := sparse(t, rand.New(rand.NewPCG(4, 5)), size)
	image, err := disk.NewFixedVHDImage(disk.NewRaw(raw, size), disk.VHDOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := store(t, image, "disk.vhd")
	qemuImg(t, "compare", "-f", "vpc", "-F", "raw", path, raw.Name())
}

// A disk passes through a VHD unchanged by every way of reading it.
func TestVHDRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		size := 512 * rapid.Int64Range(1, 9000).Draw(r, "sectors")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		raw := make(memory, size)
		scribble(t, random, raw, size, random.IntN(6))
		image, err := disk.NewVHDImage(extents{raw}, disk.VHDOptions{})
		if err != nil {
			r.Fatal(err)
		}
		var stored bytes.Buffer
		checked, err := disk.NewChecked(image, disk.VHD, -1)
		if err != nil {
			r.Fatal(err)
		}
		if _, err := io.Copy(&stored, checked); err != nil {
			r.Fatal(err)
		}
		if int64(stored.Len()) != image.Len() || checked.Len() != image.Len() || checked.VirtualSize() != size {
			r.Fatalf("%d bytes, announced %d and %d, virtual size %d of %d", stored.Len(), image.Len(), checked.Len(), checked.VirtualSize(), size)
		}
		d, err := disk.OpenVHD(bytes.NewReader(stored.Bytes()), int64(stored.Len()), nil)
		if err != nil {
			r.Fatal(err)
		}
		same(t, "read anywhere", contentOf(t, d, size), raw)
		stream, err := disk.NewVHDStream(iotest.HalfReader(bytes.NewReader(stored.Bytes())))
		if err != nil {
			r.Fatal(err)
		}
		flat, err := io.ReadAll(disk.NewRawStreamImage(stream))
		if err != nil {
			r.Fatal(err)
		}
		same(t, "read as it passes", flat, raw)
	})
}

// extents is a disk in memory that knows its zeros by sectors.
type extents struct{ memory }

func (e extents) Size() int64 { return int64(len(e.memory)) }

func (e extents) NextData(offset int64) (disk.Extent, error) {
	return nextWhere(e.Size(), offset, func(at int64) bool { return !zero(e.memory[at:min(at+512, e.Size())]) })
}

var noSector [512]byte

func zero(b []byte) bool { return bytes.Equal(b, noSector[:len(b)]) }

// nextWhere is the next run of sectors that hold.
func nextWhere(size, offset int64, holds func(int64) bool) (disk.Extent, error) {
	for offset < size && !holds(offset) {
		offset += 512
	}
	end := offset
	for end < size && holds(end) {
		end += 512
	}
	if offset >= size {
		return disk.Extent{}, io.EOF
	}
	return disk.Extent{Offset: offset, Length: min(end, size) - offset}, nil
}

// changed is a disk whose data is what differs from the disk before.
type changed struct {
	memory
	before memory
}

func (c changed) Size() int64 { return int64(len(c.memory)) }

func (c changed) NextData(offset int64) (disk.Extent, error) {
	return nextWhere(c.Size(), offset, func(at int64) bool {
		end := min(at+512, c.Size())
		return at >= int64(len(c.before)) || !bytes.Equal(c.memory[at:end], c.before[at:end])
	})
}

// A chain of differentials is the last disk again, read through its layers and rebuilt.
func TestChainRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		var state, before memory
		var stored [][]byte
		parent := disk.UUID{}
		for depth := range rapid.IntRange(1, 4).Draw(r, "depth") {
			grown := make(memory, max(len(before), 512*rapid.IntRange(1, 9000).Draw(r, "sectors")))
			copy(grown, before)
			state = grown
			scribble(t, random, state, int64(len(state)), random.IntN(4))
			options, source := disk.VHDOptions{UUID: disk.UUID{byte(depth + 1)}}, disk.Disk(extents{state})
			if depth > 0 {
				options.Parent = &disk.VHDParent{UUID: parent, Name: "before.vhd", Modified: time.Unix(1_700_000_000, 0)}
				source = changed{state, before}
			}
			image, err := disk.NewVHDImage(source, options)
			if err != nil {
				r.Fatal(err)
			}
			bytes, err := io.ReadAll(image)
			if err != nil {
				r.Fatal(err)
			}
			stored = append(stored, bytes)
			parent, before = options.UUID, state
		}
		var d disk.Disk
		layers := make([]disk.Layer, 0, len(stored))
		for i, vhd := range stored {
			next, err := disk.OpenVHD(bytes.NewReader(vhd), int64(len(vhd)), d)
			if err != nil {
				r.Fatal(err)
			}
			d = next
			sum := disk.NewDigest()
			_, _ = sum.Write(vhd)
			layers = append(layers, disk.Layer{Name: fmt.Sprint(i), Reader: bytes.NewReader(vhd), SHA256: sum.SHA256()})
		}
		same(t, "read through the layers", contentOf(t, d, d.Size()), state)
		flat, err := io.ReadAll(disk.NewRawImage(d))
		if err != nil {
			r.Fatal(err)
		}
		same(t, "the data and what is between", flat, state)
		want := disk.NewDigest()
		_, _ = want.Write(state)
		target := make(memory, len(state))
		size, sum, err := disk.Rebuild(target, want.SHA256(), layers...)
		if err != nil || size != int64(len(state)) || sum != want.SHA256() {
			r.Fatalf("rebuilt %d bytes, %s: %v", size, sum, err)
		}
		same(t, "rebuilt", target, state)
	})
}

func TestRebuildRefuses(t *testing.T) {
	base, leaf := chain(t)
	tests := map[string]struct {
		want   string
		layers []disk.Layer
	}{
		"no layer":                        {"", nil},
		"a differential without its base": {"", []disk.Layer{{Name: "leaf", Reader: bytes.NewReader(leaf)}}},
		"two bases":                       {"", []disk.Layer{{Name: "base", Reader: bytes.NewReader(base)}, {Name: "base", Reader: bytes.NewReader(base)}}},
		"other stored bytes":              {"", []disk.Layer{{Name: "base", Reader: bytes.NewReader(base), SHA256: "00"}}},
		"other content":                   {"00", []disk.Layer{{Name: "base", Reader: bytes.NewReader(base)}}},
		"a cut layer":                     {"", []disk.Layer{{Name: "base", Reader: bytes.NewReader(base[:len(base)-512])}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file, err := os.Create(t.TempDir() + "/disk")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, _, err := disk.Rebuild(file, test.want, test.layers...); err == nil {
				t.Fatal("it was rebuilt")
			}
		})
	}
}

// chain is a full VHD of 5 MiB and a differential with one changed sector.
func chain(t testing.TB) (base, leaf []byte) {
	t.Helper()
	before := make(memory, 5*mib)
	scribble(t, rand.New(rand.NewPCG(6, 7)), before, int64(len(before)), 3)
	after := bytes.Clone(before)
	after[4*mib] ^= 1
	full, err := disk.NewVHDImage(extents{before}, disk.VHDOptions{UUID: disk.UUID{1}})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := disk.NewVHDImage(changed{after, before}, disk.VHDOptions{UUID: disk.UUID{2}, Parent: &disk.VHDParent{UUID: disk.UUID{1}, Name: "0.vhd"}})
	if err != nil {
		t.Fatal(err)
	}
	if base, err = io.ReadAll(full); err != nil {
		t.Fatal(err)
	}
	if leaf, err = io.ReadAll(diff); err != nil {
		t.Fatal(err)
	}
	return base, leaf
}

func TestVHDParentIsNamed(t *testing.T) {
	_, leaf := chain(t)
	head, err := disk.ReadVHDHead(bytes.NewReader(leaf))
	if err != nil {
		t.Fatal(err)
	}
	if head.Footer.Type != disk.VHDDifferencing || head.Header.ParentUUID != (disk.UUID{1}) || head.Header.ParentName != "0.vhd" || head.Blocks != 1 {
		t.Errorf("type %s, parent %s %q, %d blocks", head.Footer.Type, head.Header.ParentUUID, head.Header.ParentName, head.Blocks)
	}
	if head.ImageSize() != int64(len(leaf)) {
		t.Errorf("length %d, announced %d", len(leaf), head.ImageSize())
	}
}

// hostile are ways to damage the VHD of 5 MiB.
var hostile = map[string]func(vhd []byte) []byte{
	"empty":                    func([]byte) []byte { return nil },
	"an HTTP error":            func([]byte) []byte { return []byte("HTTP/1.1 500 Internal Server Error\r\n\r\n") },
	"no cookie":                func(b []byte) []byte { b[0] ^= 1; return b },
	"footer's checksum":        func(b []byte) []byte { b[100] ^= 1; return b },
	"header's checksum":        func(b []byte) []byte { b[700] ^= 1; return b },
	"a size that overflows":    func(b []byte) []byte { return resealed(b, 48, 0x7fffffffffffffff) },
	"a header beyond the end":  func(b []byte) []byte { return resealed(b, 16, 0x7ffffffffffffe00) },
	"cut in the head":          func(b []byte) []byte { return b[:900] },
	"cut in the table":         func(b []byte) []byte { return b[:2050] },
	"cut in a block":           func(b []byte) []byte { return b[:mib] },
	"cut before the footer":    func(b []byte) []byte { return b[:len(b)-512] },
	"cut in the footer":        func(b []byte) []byte { return b[:len(b)-1] },
	"another closing footer":   func(b []byte) []byte { b[len(b)-400] ^= 1; return b },
	"an error's text inside":   func(b []byte) []byte { return append(b[:3*mib], "HTTP/1.1 500 Internal Error\r\n"...) },
	"more bytes":               func(b []byte) []byte { return append(b, make([]byte, 512)...) },
	"two blocks at one place":  func(b []byte) []byte { copy(b[2052:2056], b[2048:2052]); return b },
	"a block in the table":     func(b []byte) []byte { binary.BigEndian.PutUint32(b[2048:], 4); return b },
	"a block beyond the end":   func(b []byte) []byte { binary.BigEndian.PutUint32(b[2048:], 0xfffffff0); return b },
	"a table beyond the limit": func(b []byte) []byte { return reheaded(b, 28, 0xffffffff) },
	"no table":                 func(b []byte) []byte { return reheaded(b, 28, 0) },
	"blocks of 3 bytes":        func(b []byte) []byte { return reheaded(b, 32, 3) },
	"blocks of 2 GiB":          func(b []byte) []byte { return reheaded(b, 32, 1<<31) },
}

// resealed changes eight bytes of both footers and makes their checksums right again.
func resealed(b []byte, at int, value uint64) []byte {
	for _, footer := range [][]byte{b[:512], b[len(b)-512:]} {
		binary.BigEndian.PutUint64(footer[at:], value)
		reseal(footer, 64)
	}
	return b
}

// reheaded does so with four bytes of the header.
func reheaded(b []byte, at int, value uint32) []byte {
	binary.BigEndian.PutUint32(b[512+at:], value)
	reseal(b[512:1536], 36)
	return b
}

func reseal(b []byte, at int) {
	clear(b[at : at+4])
	total := uint32(0)
	for _, c := range b {
		total += uint32(c)
	}
	binary.BigEndian.PutUint32(b[at:], ^total)
}

func TestHostileVHD(t *testing.T) {
	for name, damage := range hostile {
		t.Run(name, func(t *testing.T) {
			base, _ := chain(t)
			bytesOf := damage(base)
			checked, err := disk.NewChecked(bytes.NewReader(bytesOf), disk.VHD, -1)
			if err == nil {
				_, err = io.Copy(io.Discard, checked)
			}
			fault := wantFormatError(t, err)
			if fault.Want == "" || fault.Got == "" || fault.Offset < 0 {
				t.Errorf("it does not say what is wrong: %+v", fault)
			}
			if name == "more bytes" {
				return // the footer's place is not announced to those who only read
			}
			wantFormatError(t, drain(bytesOf))
		})
	}
}

// drain reads a VHD as it passes.
func drain(vhd []byte) error {
	stream, err := disk.NewVHDStream(bytes.NewReader(vhd))
	if err != nil {
		return err
	}
	for {
		if _, err := stream.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Blocks in any order are read as they pass, into their places; only a raw stream needs them in the disk's order.
func TestVHDBlocksOutOfOrder(t *testing.T) {
	raw := make(memory, 5*mib)
	for i := range raw {
		raw[i] = byte(i>>20) + 1
	}
	image, err := disk.NewVHDImage(extents{raw}, disk.VHDOptions{})
	if err != nil {
		t.Fatal(err)
	}
	vhd, err := io.ReadAll(image)
	if err != nil {
		t.Fatal(err)
	}
	const block = 2*mib + 512
	first, second := 2048+512, 2048+512+block
	swapped := bytes.Clone(vhd[first : first+block])
	copy(vhd[first:], vhd[second:second+block])
	copy(vhd[second:], swapped)
	entry := bytes.Clone(vhd[2048:2052])
	copy(vhd[2048:], vhd[2052:2056])
	copy(vhd[2052:], entry)

	target := make(memory, len(raw))
	if _, _, err := disk.Rebuild(target, "", disk.Layer{Reader: bytes.NewReader(vhd)}); err != nil {
		t.Fatal(err)
	}
	same(t, "rebuilt", target, raw)
	stream, err := disk.NewVHDStream(bytes.NewReader(vhd))
	if err != nil {
		t.Fatal(err)
	}
	if stream.InOrder() {
		t.Error("the blocks are taken for ordered ones")
	}
	_, err = io.Copy(io.Discard, disk.NewRawStreamImage(stream))
	wantFormatError(t, err)
}

func TestVHDRefusesSizes(t *testing.T) {
	for _, size := range []int64{0, 511, 513, disk.VHDMaxSize + 512} {
		if _, err := disk.NewVHDImage(disk.NewRaw(bytes.NewReader(nil), size), disk.VHDOptions{}); err == nil {
			t.Errorf("a VHD of %d bytes was begun", size)
		}
	}
}
