package xva_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

const mib = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sample is an archive that a real xapi made.
func sample(t testing.TB) []byte {
	t.Helper()
	file, err := os.Open("testdata/sample.xva.gz")
	must(t, err)
	defer func() { _ = file.Close() }()
	plain, err := gzip.NewReader(file)
	must(t, err)
	content, err := io.ReadAll(plain)
	must(t, err)
	return content
}

// read puts an archive's disks together.
func read(source io.Reader) (xva.Metadata, map[string][]byte, error) {
	r, err := xva.NewReader(source)
	if err != nil {
		return xva.Metadata{}, nil, err
	}
	defer r.Close()
	disks := map[string][]byte{}
	for {
		chunk, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Metadata, disks, nil
		}
		if err != nil {
			return r.Metadata, disks, err
		}
		disk := disks[chunk.Disk]
		if end := int(chunk.Offset) + len(chunk.Content); len(disk) < end {
			disk = append(disk, make([]byte, end-len(disk))...)
		}
		copy(disk[chunk.Offset:], chunk.Content)
		disks[chunk.Disk] = disk
	}
}

func TestSampleIsRead(t *testing.T) {
	metadata, disks, err := read(bytes.NewReader(sample(t)))
	must(t, err)
	var classes []string
	for _, o := range metadata.Objects {
		classes = append(classes, o.Class+" "+o.ID)
	}
	if want := []string{"VM Ref:5", "VBD Ref:6", "VDI Ref:7", "SR Ref:8"}; !slices.Equal(classes, want) {
		t.Errorf("objects %v, want %v", classes, want)
	}
	if name, _ := metadata.Objects[0].Record.Get("name_label"); name != "http-vm" {
		t.Errorf("the VM's name is %v", name)
	}
	if len(disks) != 1 || len(disks["Ref:7"]) != 4*mib {
		t.Errorf("%d disks, Ref:7 of %d bytes", len(disks), len(disks["Ref:7"]))
	}
}

// TestWeWriteWhatARealOneWrites takes the sample apart and writes it again: every byte is the same.
func TestWeWriteWhatARealOneWrites(t *testing.T) {
	original := sample(t)
	metadata, disks, err := read(bytes.NewReader(original))
	must(t, err)
	first, err := tar.NewReader(bytes.NewReader(original)).Next()
	must(t, err)

	var out bytes.Buffer
	w := xva.NewWriter(&out)
	must(t, w.WriteMetadata(metadata, first.ModTime))
	must(t, w.WriteDisk(t.Context(), "Ref:7", bytes.NewReader(disks["Ref:7"]), 4*mib, []xva.Extent{{Offset: 0, Length: 4 * mib}}))
	must(t, w.Close())
	if !bytes.Equal(out.Bytes(), original) {
		at := 0
		for at < min(out.Len(), len(original)) && out.Bytes()[at] == original[at] {
			at++
		}
		t.Errorf("%d bytes, want %d; they differ from %d on", out.Len(), len(original), at)
	}
}

// small is an archive with two sparse disks.
func small(t testing.TB) (archive []byte, disks map[string][]byte) {
	t.Helper()
	disks = map[string][]byte{"Ref:1": make([]byte, 6*mib+100), "Ref:2": make([]byte, mib)}
	copy(disks["Ref:1"][3*mib+5:], "three")
	var out bytes.Buffer
	w := xva.NewWriter(&out)
	version := wire.Struct{{Name: "hostname", Value: "host"}}
	must(t, w.WriteMetadata(xva.Metadata{Version: version, Objects: []xva.Object{{Class: "VM", ID: "Ref:0", Record: version}}}, time.Unix(0, 0)))
	extents := []xva.Extent{{Offset: 1 * mib, Length: 65536}, {Offset: 3 * mib, Length: 65536}, {Offset: 3*mib + 131072, Length: 65536}}
	must(t, w.WriteDisk(t.Context(), "Ref:1", bytes.NewReader(disks["Ref:1"]), 6*mib+100, extents))
	must(t, w.WriteDisk(t.Context(), "Ref:2", bytes.NewReader(disks["Ref:2"]), mib, nil))
	must(t, w.Close())
	return out.Bytes(), disks
}

func members(t *testing.T, archive []byte) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		must(t, err)
		names = append(names, header.Name)
	}
}

func TestZerosAreLeftOut(t *testing.T) {
	archive, disks := small(t)
	want := []string{
		"ova.xml",
		"Ref:1/00000000", "Ref:1/00000000.xxhash",
		"Ref:1/00000003", "Ref:1/00000003.xxhash",
		"Ref:1/00000006", "Ref:1/00000006.xxhash",
		"Ref:2/00000000", "Ref:2/00000000.xxhash",
	}
	if got := members(t, archive); !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	_, got, err := read(bytes.NewReader(archive))
	must(t, err)
	for name, disk := range disks {
		if !bytes.Equal(got[name], disk) {
			t.Errorf("disk %s differs: %d bytes, want %d", name, len(got[name]), len(disk))
		}
	}
}

func TestCompressedArchivesAreRead(t *testing.T) {
	archive, disks := small(t)
	var zipped, zstandard bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, err := g.Write(archive)
	must(t, errors.Join(err, g.Close()))
	z, err := zstd.NewWriter(&zstandard)
	must(t, err)
	_, err = z.Write(archive)
	must(t, errors.Join(err, z.Close()))
	for name, compressed := range map[string]*bytes.Buffer{"gzip": &zipped, "zstd": &zstandard} {
		_, got, err := read(compressed)
		if err != nil || !bytes.Equal(got["Ref:1"], disks["Ref:1"]) {
			t.Errorf("%s: %v, %d bytes", name, err, len(got["Ref:1"]))
		}
	}
}

// archiveOf writes members with the standard library's writer: older archives, and broken ones.
func archiveOf(t testing.TB, members ...[2]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		must(t, w.WriteHeader(&tar.Header{Name: m[0], Mode: 0o400, Size: int64(len(m[1]))}))
		_, err := io.WriteString(w, m[1])
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func ova() [2]string { return [2]string{"ova.xml", string(xva.Metadata{}.Encode())} }

func TestOldChecksumsAndEmptyChunks(t *testing.T) {
	none, text := fmt.Sprintf("%x", sha1.Sum(nil)), fmt.Sprintf("%x", sha1.Sum([]byte("text")))
	archive := archiveOf(t, ova(),
		[2]string{"Ref:1/00000001"}, [2]string{"Ref:1/00000001.checksum", none},
		[2]string{"Ref:1/00000001", "text"}, [2]string{"Ref:1/00000001.checksum", text})
	_, disks, err := read(bytes.NewReader(archive))
	must(t, err)
	if got := string(disks["Ref:1"][mib:]); got != "text" {
		t.Errorf("read %q", got)
	}
}

func TestBrokenArchives(t *testing.T) {
	whole, _ := small(t)
	for name, archive := range map[string][]byte{
		"empty":          nil,
		"garbage":        bytes.Repeat([]byte("garbage"), 1000),
		"no ova.xml":     archiveOf(t, [2]string{"Ref:1/00000000", "text"}),
		"cut in ova.xml": whole[:700],
		"cut in a chunk": whole[:len(whole)/2],
		"no checksum":    archiveOf(t, ova(), [2]string{"Ref:1/00000000", "text"}),
	} {
		if _, _, err := read(bytes.NewReader(archive)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v, want an unexpected end", name, err)
		}
	}
	for name, archive := range map[string][]byte{
		"no XML":     archiveOf(t, [2]string{"ova.xml", "text"}),
		"no objects": archiveOf(t, [2]string{"ova.xml", "<value><struct></struct></value>"}),
	} {
		if _, _, err := read(bytes.NewReader(archive)); !errors.Is(err, xva.ErrFormat) {
			t.Errorf("%s: %v, want a format error", name, err)
		}
	}
	wrong := archiveOf(t, ova(), [2]string{"Ref:1/00000000", "text"}, [2]string{"Ref:1/00000000.xxhash", "0123456789ABCDEF"})
	if _, _, err := read(bytes.NewReader(wrong)); !errors.Is(err, xva.ErrChecksum) {
		t.Errorf("wrong checksum: %v", err)
	}
	var unexpected *xva.UnexpectedMemberError
	stray := archiveOf(t, ova(), [2]string{"Ref:1/00000000", "text"}, [2]string{"Ref:1/00000001", "text"})
	if _, _, err := read(bytes.NewReader(stray)); !errors.As(err, &unexpected) || unexpected.Actual != "Ref:1/00000001" {
		t.Errorf("a chunk in place of a checksum: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	text := fmt.Sprintf("%x", sha1.Sum([]byte("text")))
	f.Add(archiveOf(f, ova(), [2]string{"Ref:1/00000001", "text"}, [2]string{"Ref:1/00000001.checksum", text}))
	f.Add(sample(f)[:17000])
	f.Add([]byte{0x28, 0xB5, 0x2F, 0xFD, 0, 0})
	f.Add([]byte{0x1F, 0x8B, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := xva.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		for range b {
			chunk, err := r.Next()
			if err != nil {
				return
			}
			if chunk.Offset < 0 || len(chunk.Content) == 0 {
				t.Fatalf("%d bytes at %d", len(chunk.Content), chunk.Offset)
			}
		}
	})
}
