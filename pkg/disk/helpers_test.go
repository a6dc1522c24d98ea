package disk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kubexen/kubexen/pkg/disk"
)

const mib = 1 << 20

// qemuImg runs the judge of formats, which is Debian's qemu-utils.
func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %v (of Debian's qemu-utils): %v\n%s", args, err, out)
	}
}

// sparse makes a file of size bytes with random content in some random ranges.
func sparse(t testing.TB, random *rand.Rand, size int64) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	scribble(t, random, file, size, 1+random.IntN(8))
	return file
}

// scribble overwrites n random ranges, some of them with zeros.
func scribble(t testing.TB, random *rand.Rand, file io.WriterAt, size int64, n int) {
	t.Helper()
	for range n {
		content := make([]byte, min(size, 512*(1+random.Int64N(3000))))
		if random.IntN(5) > 0 {
			noise := rand.NewChaCha8([32]byte{byte(random.Uint32())})
			_, _ = noise.Read(content)
		}
		offset := random.Int64N(size-int64(len(content))+1) / 512 * 512
		if _, err := file.WriteAt(content, offset); err != nil {
			t.Fatal(err)
		}
	}
}

// store writes an image to a file and holds its length against what was announced.
func store(t testing.TB, image disk.Image, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	announced := image.Len()
	n, err := io.Copy(file, image)
	if err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
	if n != announced {
		t.Fatalf("%s has %d bytes, but announced %d", name, n, announced)
	}
	return path
}

// open opens a file and tells its length.
func open(t testing.TB, path string) (*os.File, int64) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return file, info.Size()
}

// contentOf reads all of a disk in pieces of an odd size.
func contentOf(t testing.TB, d io.ReaderAt, size int64) []byte {
	t.Helper()
	content := make([]byte, size)
	for at := int64(0); at < size; at += 777_777 {
		part := content[at:min(size, at+777_777)]
		if n, err := d.ReadAt(part, at); n != len(part) {
			t.Fatalf("read %d bytes at %d: %d, %v", len(part), at, n, err)
		}
	}
	return content
}

// same compares two contents and names the first difference.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}

// memory is a target of a rebuilt disk.
type memory []byte

func (m memory) WriteAt(p []byte, offset int64) (int, error) { return copy(m[offset:], p), nil }

func (m memory) ReadAt(p []byte, offset int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, offset)
}

// wantFormatError fails unless err says which bytes are wrong.
func wantFormatError(t testing.TB, err error) *disk.FormatError {
	t.Helper()
	var fault *disk.FormatError
	if !errors.As(err, &fault) {
		t.Fatalf("want a *disk.FormatError, got %T: %v", err, err)
	}
	return fault
}
