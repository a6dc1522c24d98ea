package shrink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/pkg/disk"
)

// tool runs a program that nobody here wrote, and returns what it says.
func tool(t testing.TB, input string, name string, args ...string) string {
	t.Helper()
	path, err := find(name)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, args...)
	command.Stdin = strings.NewReader(input)
	command.Env = append(os.Environ(), "LC_ALL=C")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// blank makes a disk of a number of MiB whose first MiB, where boot loaders live, is noise.
func blank(t testing.TB, mebibytes int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	boot := noise(1, mebibyte)
	copy(boot[mbrEntries:], make([]byte, sectorSize-mbrEntries))
	clear(boot[sectorSize : 34*sectorSize])
	if err := errors.Join(os.WriteFile(path, boot, 0o600), os.Truncate(path, mebibytes*mebibyte)); err != nil {
		t.Fatal(err)
	}
	return path
}

func noise(seed uint64, n int) []byte {
	source := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed)))
	data := make([]byte, n)
	_, _ = source.Read(data)
	return data
}

// put writes noise to a place on the disk.
func put(t testing.TB, path string, offset int64, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteAt(data, offset)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes a directory with files of all sorts, of about that many MiB.
func tree(t testing.TB, mebibytes int) string {
	t.Helper()
	root := t.TempDir()
	write := func(name string, data []byte) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range mebibytes {
		write(fmt.Sprintf("data/%d/large", i), noise(uint64(i), mebibyte))
	}
	for i := range 60 {
		write(fmt.Sprintf("many/%d/%d", i%7, i), noise(uint64(i), i*43))
	}
	write("etc/hostname", []byte("web\n"))
	holes := filepath.Join(root, "holes")
	write("holes", []byte("begin"))
	if err := errors.Join(os.Truncate(holes, 40*mebibyte), os.Symlink("../etc/hostname", filepath.Join(root, "many", "link"))); err != nil {
		t.Fatal(err)
	}
	return root
}

// mkfs makes a file system with a tree's files in a range of the disk.
func mkfs(t testing.TB, path, kind, tree string, start, length int64, more ...string) {
	t.Helper()
	args := append([]string{"-q", "-F", "-t", kind, "-d", tree, "-E", fmt.Sprintf("offset=%d", start)}, more...)
	tool(t, "", "mke2fs", append(args, path, fmt.Sprintf("%dK", length/kibibyte))...)
}

// carve copies a range of a disk into a file of its own.
func carve(t testing.TB, path string, start, end int64) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "part")
	transplant(t, path, start, end, out, 0)
	return out
}

// transplant copies the data in a range of a file to a place in another one, which has zeros where this has some.
func transplant(t testing.TB, path string, start, end int64, to string, at int64) {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	content := disk.NewRaw(from, end)
	for offset := start; ; {
		e, err := content.NextData(offset)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			_, err = io.Copy(io.NewOffsetWriter(out, e.Offset-start+at), io.NewSectionReader(from, e.Offset, e.Length))
		}
		if err != nil {
			t.Fatal(err)
		}
		offset = e.End()
	}
	if stat, err := out.Stat(); err != nil || stat.Size() < at+end-start {
		if err := out.Truncate(at + end - start); err != nil {
			t.Fatal(err)
		}
	}
}

func slice(t testing.TB, path string, start, end int64) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data := make([]byte, end-start)
	if _, err := file.ReadAt(data, start); err != nil {
		t.Fatal(err)
	}
	return data
}

// sameFiles complains unless a file system is whole and holds what a tree holds.
func sameFiles(t testing.TB, image, tree string) {
	t.Helper()
	tool(t, "", "e2fsck", "-fn", image)
	out := t.TempDir()
	tool(t, "", "debugfs", "-R", "rdump / "+out, image)
	files := 0
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, _ := filepath.Rel(tree, path)
		if entry.Type()&fs.ModeSymlink != 0 {
			want, _ := os.Readlink(path)
			if got, err := os.Readlink(filepath.Join(out, relative)); err != nil || got != want {
				return fmt.Errorf("%s points to %q (%w), not %q", relative, got, err, want)
			}
			return nil
		}
		files++
		want, _ := os.ReadFile(path)
		if got, err := os.ReadFile(filepath.Join(out, relative)); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s differs (%w)", relative, err)
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files compared: %v", files, err)
	}
}

// shrunk makes a disk smaller and writes the result beside it.
func shrunk(t testing.TB, path string, size int64) string {
	t.Helper()
	out, _, err := shrinkFile(t, path, size)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shrinkFile is Read from file to file, through the formats' own readers.
func shrinkFile(t testing.TB, path string, size int64) (string, *Result, error) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	scratch, err := NewSpace(t.TempDir(), 0).Reserve(size)
	if err != nil {
		t.Fatal(err)
	}
	defer scratch.Close()
	result, err := Read(context.Background(), Request{Source: disk.NewStream(disk.NewRaw(file, stat.Size())), Size: size, Scratch: scratch})
	if err != nil {
		return "", nil, err
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "new"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stream := result.Passing
	if result.Disk != nil {
		stream = disk.NewStream(result.Disk)
	}
	if err := errors.Join(disk.Apply(out, stream), out.Truncate(size)); err != nil {
		return "", nil, err
	}
	return out.Name(), result, nil
}

// script is a file of lines.
func script(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// inSteps is a stream that says some zeros and leaves others out.
type inSteps struct {
	content  []byte
	step, at int
}

func (s *inSteps) Size() int64 { return int64(len(s.content)) }

func (s *inSteps) Next() (disk.Chunk, error) {
	for s.at < len(s.content) {
		chunk := disk.Chunk{Offset: int64(s.at), Data: s.content[s.at:min(s.at+s.step, len(s.content))]}
		s.at += len(chunk.Data)
		if !isZero(chunk.Data) || s.at/s.step%3 == 0 {
			return chunk, nil
		}
	}
	return disk.Chunk{}, io.EOF
}
