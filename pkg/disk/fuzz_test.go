package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/kubexen/kubexen/pkg/disk"
)

// wantJudged fails if reading from memory ends in an error that does not say which bytes are wrong.
func wantJudged(t *testing.T, err error) {
	t.Helper()
	var fault *disk.FormatError
	if err != nil && !errors.As(err, &fault) {
		t.Fatalf("an error that does not tell where the bytes are wrong: %T: %v", err, err)
	}
	if fault != nil && errors.Is(err, io.EOF) {
		t.Fatalf("an error that looks like a good end: %v", err)
	}
}

// Seeds are small, so that a change hits something that matters.

// tinyVHD has two blocks of 64 KiB, of which the second one has data in its first and third sector.
func tinyVHD(kind disk.VHDType) []byte {
	footer := disk.VHDFooter{Type: kind, VirtualSize: 128 << 10, HeaderOffset: 512, UUID: disk.UUID{1}}.Bytes()
	header := disk.VHDHeader{TableOffset: 1536, Entries: 2, BlockSize: 64 << 10}.Bytes()
	table := bytes.Repeat([]byte{0xff}, 512)
	copy(table[4:], []byte{0, 0, 0, 4})
	block := make([]byte, 512+64<<10)
	block[0] = 0xa0
	copy(block[512:], "first sector")
	copy(block[3*512:], "third sector")
	return bytes.Join([][]byte{footer, header, table, block, footer}, nil)
}

// tinyQCOW2 is a disk of 64 KiB in small clusters.
func tinyQCOW2(f *testing.F, options ...string) []byte {
	raw := f.TempDir() + "/disk.raw"
	content := append(make([]byte, 60<<10), bytes.Repeat([]byte("content "), 512)...)
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		f.Fatal(err)
	}
	qemuImg(f, append(append([]string{"convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512"}, options...), raw, raw+".qcow2")...)
	image, err := os.ReadFile(raw + ".qcow2")
	if err != nil {
		f.Fatal(err)
	}
	return image
}

func FuzzVHDStream(f *testing.F) {
	f.Add(tinyVHD(disk.VHDDynamic))
	f.Add(tinyVHD(disk.VHDDifferencing))
	f.Fuzz(func(t *testing.T, content []byte) {
		stream, err := disk.NewVHDStream(bytes.NewReader(content))
		if err != nil {
			wantJudged(t, err)
			return
		}
		total := int64(0)
		for {
			chunk, err := stream.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					wantJudged(t, err)
				}
				return
			}
			if chunk.Offset < 0 || chunk.Offset+int64(len(chunk.Data)) > stream.Size() {
				t.Fatalf("%d bytes at %d of a disk of %d", len(chunk.Data), chunk.Offset, stream.Size())
			}
			if total += int64(len(chunk.Data)); total > int64(len(content)) {
				t.Fatalf("%d bytes of data from %d", total, len(content))
			}
		}
	})
}

func FuzzChecked(f *testing.F) {
	f.Add(tinyVHD(disk.VHDDynamic), byte(0))
	f.Add(archive(f, make(memory, 1536)), byte(1))
	f.Add(tinyQCOW2(f), byte(2))
	f.Add([]byte("HTTP/1.1 500"), byte(3))
	formats := []disk.Format{disk.VHD, disk.XVA, disk.QCOW2, disk.Raw}
	f.Fuzz(func(t *testing.T, content []byte, format byte) {
		checked, err := disk.NewChecked(bytes.NewReader(content), formats[format%4], -1)
		if err == nil {
			var passed []byte
			if passed, err = io.ReadAll(checked); err == nil && !bytes.Equal(passed, content) {
				t.Fatal("what passed is not what came")
			}
		}
		wantJudged(t, err)
	})
}

// probe reads a disk at its beginning, its end, and where it says that data is.
func probe(t *testing.T, d disk.Disk) {
	buffer := make([]byte, 4096)
	read := func(offset int64) bool {
		n, err := d.ReadAt(buffer, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			wantJudged(t, err)
			return false
		}
		return n > 0
	}
	read(0)
	read(max(d.Size()-1, 0))
	at := int64(0)
	for range 64 {
		e, err := d.NextData(at)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			wantJudged(t, err)
			return
		}
		if e.Offset < at || e.Length <= 0 || e.End() > d.Size() {
			t.Fatalf("data of %d bytes at %d after %d, of a disk of %d", e.Length, e.Offset, at, d.Size())
		}
		read(e.Offset)
		at = e.End()
	}
}

func FuzzOpen(f *testing.F) {
	base := tinyVHD(disk.VHDDynamic)
	f.Add(base)
	f.Add(tinyVHD(disk.VHDDifferencing))
	f.Add(tinyQCOW2(f))
	f.Add(tinyQCOW2(f, "-c"))
	f.Add([]byte("a raw disk"))
	parent, err := disk.OpenVHD(bytes.NewReader(base), int64(len(base)), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := disk.Open(bytes.NewReader(content), int64(len(content)), "")
		if err == nil {
			probe(t, d)
		} else {
			wantJudged(t, err)
		}
		child, err := disk.OpenVHD(bytes.NewReader(content), int64(len(content)), parent)
		if err == nil {
			probe(t, child)
		} else {
			wantJudged(t, err)
		}
	})
}

// FuzzVHDTable seals what it made up, so that it is not the checksums that refuse it.
func FuzzVHDTable(f *testing.F) {
	f.Add(uint64(5*mib), uint32(3), uint32(2*mib), uint64(2048), []byte{0, 0, 0, 5})
	f.Add(uint64(1)<<62, uint32(1)<<31, uint32(512), uint64(512), []byte{})
	f.Fuzz(func(t *testing.T, size uint64, entries, blockSize uint32, table uint64, blocks []byte) {
		footer := disk.VHDFooter{Type: disk.VHDDynamic, VirtualSize: int64(size), HeaderOffset: 512}.Bytes()
		header := disk.VHDHeader{TableOffset: int64(table), Entries: entries, BlockSize: int64(blockSize)}.Bytes()
		content := bytes.Join([][]byte{footer, header, make([]byte, 512), blocks, make([]byte, 2*mib), footer}, nil)
		wantJudged(t, drain(content))
		d, err := disk.OpenVHD(bytes.NewReader(content), int64(len(content)), nil)
		if err != nil {
			wantJudged(t, err)
			return
		}
		probe(t, d)
	})
}

func FuzzXVA(f *testing.F) {
	f.Add(archive(f, make(memory, 1536)))
	for _, xva := range hostileXVAs(f) {
		f.Add(xva[:min(len(xva), 4096)])
	}
	f.Fuzz(func(t *testing.T, content []byte) { wantJudged(t, readXVA(content)) })
}

func FuzzOVA(f *testing.F) {
	f.Add(ova(512, 1024))
	f.Add([]byte("<value><struct><member><name>objects</name><value><array/></value></member></struct></value>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var b bytes.Buffer
		w, err := disk.NewXVAWriter(&b, text)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		wantJudged(t, readXVA(b.Bytes()))
	})
}

func FuzzTarball(f *testing.F) {
	var b bytes.Buffer
	for _, vhd := range [][]byte{tinyVHD(disk.VHDDifferencing), tinyVHD(disk.VHDDynamic)} {
		checked, err := disk.NewChecked(bytes.NewReader(vhd), disk.Raw, int64(len(vhd)))
		if err != nil {
			f.Fatal(err)
		}
		if err := disk.WriteNovaTarball(&b, epoch, checked); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, content []byte) {
		wantJudged(t, readTarball(content))
		sniffed, err := disk.Sniff(bytes.NewReader(content), "", mib)
		if err == nil {
			_, err = io.Copy(io.Discard, sniffed)
		}
		wantJudged(t, err)
	})
}
