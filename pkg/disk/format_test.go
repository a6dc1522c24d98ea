package disk_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kubexen/kubexen/pkg/disk"
)

var epoch = time.Unix(1_700_000_000, 0)

func compressed(t testing.TB, content []byte, c disk.Compression) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := disk.NewCompressor(&b, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSniff(t *testing.T) {
	base, _ := chain(t)
	boot := append(bytes.Repeat([]byte{0xfa, 0xeb}, 255), 0x55, 0xaa)
	tests := map[string]struct {
		content []byte
		stated  disk.Format
		want    disk.Format
		refused string
	}{
		"VHD":                     {content: base, want: disk.VHD},
		"VHD as stated":           {content: base, stated: disk.VHD, want: disk.VHD},
		"VHD stated to be raw":    {content: base, stated: disk.Raw, refused: "wanted that of Raw, found that of VHD"},
		"VHD stated to be qcow2":  {content: base, stated: disk.QCOW2, refused: "found that of VHD"},
		"qcow2":                   {content: smallQCOW2(t), want: disk.QCOW2},
		"qcow2 stated to be raw":  {content: smallQCOW2(t), stated: disk.Raw, refused: "found that of QCOW2"},
		"XVA":                     {content: archive(t, make(memory, 512)), want: disk.XVA},
		"XVA stated to be a tar":  {content: archive(t, make(memory, 512)), stated: disk.NovaTarball, refused: "found that of XVA"},
		"a boot sector":           {content: boot, want: disk.Raw},
		"zeros":                   {content: make([]byte, 4096), want: disk.Raw},
		"raw stated to be qcow2":  {content: boot, stated: disk.QCOW2, refused: "found that of Raw"},
		"a fixed VHD":             {content: boot, stated: disk.VHD, want: disk.VHD},
		"three bytes":             {content: []byte("abc"), want: disk.Raw},
		"an empty file":           {content: []byte{}, refused: "an empty file"},
		"a login page":            {content: []byte("<!DOCTYPE html><title>Sign in"), refused: "a page in place of a disk"},
		"VMDK":                    {content: []byte("KDMV and so on"), refused: "found VMDK"},
		"an HTTP answer":          {content: []byte("HTTP/1.1 500 Internal Server Error"), stated: disk.Raw, refused: "an HTTP answer"},
		"a compression we lack":   {content: []byte("\xfd7zXZ\x00 and so on"), refused: "found xz"},
		"a VHD stated to be none": {content: base, want: disk.VHD},
	}
	for name, test := range tests {
		for _, c := range []disk.Compression{disk.None, disk.Gzip, disk.Zstd} {
			t.Run(name+" "+string(c), func(t *testing.T) {
				sniffed, err := disk.Sniff(bytes.NewReader(compressed(t, test.content, c)), test.stated, 100*mib)
				if test.refused != "" {
					wantFormatError(t, err)
					if !strings.Contains(err.Error(), test.refused) {
						t.Errorf("got %q, want it to say %q", err, test.refused)
					}
					return
				}
				if err != nil || sniffed.Format != test.want || sniffed.Compression != c {
					t.Fatalf("got %+v: %v", sniffed, err)
				}
				got, err := io.ReadAll(sniffed)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "content", got, test.content)
			})
		}
	}
}

func TestBombs(t *testing.T) {
	for _, c := range []disk.Compression{disk.Gzip, disk.Zstd} {
		t.Run(string(c), func(t *testing.T) {
			bomb := compressed(t, make([]byte, 64*mib), c)
			r, err := disk.NewDecompressor(bytes.NewReader(bomb), c, mib)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			n, err := io.Copy(io.Discard, r)
			wantFormatError(t, err)
			if n > mib {
				t.Errorf("%d bytes came out", n)
			}
		})
	}
}

// A frame may ask for a larger window than a transfer may hold.
func TestZstdWindowIsBounded(t *testing.T) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(32*mib))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, rand.NewChaCha8([32]byte{}), 20*mib); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := disk.NewDecompressor(bytes.NewReader(b.Bytes()), disk.Zstd, 100*mib)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	wantFormatError(t, err)
}

func TestBrokenCompression(t *testing.T) {
	for _, c := range []disk.Compression{disk.Gzip, disk.Zstd} {
		whole := compressed(t, bytes.Repeat([]byte("some content "), 10_000), c)
		flipped := bytes.Clone(whole)
		flipped[len(flipped)-3] ^= 0xff
		for name, content := range map[string][]byte{"cut": whole[:len(whole)/2], "flipped": flipped, "empty": nil, "other": []byte("not compressed")} {
			t.Run(string(c)+" "+name, func(t *testing.T) {
				r, err := disk.NewDecompressor(bytes.NewReader(content), c, mib)
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				if name == "empty" && c == disk.Zstd {
					if err != nil {
						t.Errorf("no frame at all is no content: %v", err)
					}
					return
				}
				wantFormatError(t, err)
			})
		}
	}
}

func TestDigest(t *testing.T) {
	d := disk.NewDigest512()
	if _, err := io.Copy(d, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	if d.SHA256() != fmt.Sprintf("%x", sha256.Sum256([]byte("content"))) || d.SHA512() != fmt.Sprintf("%x", sha512.Sum512([]byte("content"))) || d.Len() != 7 {
		t.Errorf("got %d bytes, %s, %s", d.Len(), d.SHA256(), d.SHA512())
	}
	if disk.NewDigest().SHA512() != "" {
		t.Error("a digest that was not asked for")
	}
}

func TestCheckedRaw(t *testing.T) {
	content := bytes.Repeat([]byte("disk"), 256)
	tests := map[string]struct {
		content []byte
		length  int64
		whole   bool
	}{
		"whole":          {content, 1024, true},
		"of any length":  {content, -1, true},
		"cut":            {content[:1000], 1024, false},
		"longer":         {append(bytes.Clone(content), 0), 1024, false},
		"an HTTP answer": {append([]byte("HTTP/1.1 500"), content[12:]...), 1024, false},
		"nothing":        {nil, 1024, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			checked, err := disk.NewChecked(bytes.NewReader(test.content), disk.Raw, test.length)
			if err == nil {
				_, err = io.Copy(io.Discard, checked)
			}
			if test.whole {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantFormatError(t, err)
		})
	}
}

// A network's error is not the image's.
func TestCheckedTellsNetworksFromBytes(t *testing.T) {
	base, _ := chain(t)
	network := errors.New("connection reset")
	for _, at := range []int64{0, 100, 2000, 3 * mib} {
		broken := io.MultiReader(bytes.NewReader(base[:at]), failing{network})
		checked, err := disk.NewChecked(broken, disk.VHD, -1)
		if err == nil {
			_, err = io.Copy(io.Discard, checked)
		}
		if fault := new(disk.FormatError); !errors.Is(err, network) || errors.As(err, &fault) {
			t.Errorf("broken at %d: %T: %v", at, err, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestRawStreamLeavesZerosOut(t *testing.T) {
	content := make(memory, 5*mib+512)
	content[3*mib] = 1
	stream := disk.NewRawStream(bytes.NewReader(content), int64(len(content)))
	sent, target := 0, make(memory, len(content))
	for {
		chunk, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sent += len(chunk.Data)
		_, _ = target.WriteAt(chunk.Data, chunk.Offset)
	}
	same(t, "content", target, content)
	if sent > 256<<10 {
		t.Errorf("%d bytes of data", sent)
	}
	for _, size := range []int64{int64(len(content)) - 512, int64(len(content)) + 512} {
		wantFormatError(t, disk.Apply(make(memory, size), disk.NewRawStream(bytes.NewReader(content), size)))
	}
}

// However large the disk, a transfer holds a few blocks and the table.
func TestMemoryOfALargeDisk(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/disk.raw")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const size = 2040 << 30
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("data"), size/2); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	image, err := disk.NewVHDImage(disk.NewRaw(file, size), disk.VHDOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checked, err := disk.NewChecked(image, disk.VHD, -1)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := disk.NewVHDStream(checked)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if all := (after.TotalAlloc - before.TotalAlloc) / mib; all > 64 {
		t.Errorf("writing, checking and reading a VHD of 2040 GiB allocated %d MiB in all", all)
	}
}
