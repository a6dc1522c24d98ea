package blockstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
)

func open(t testing.TB) *blockstore.Store {
	t.Helper()
	store, err := blockstore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, store *blockstore.Store, id string, offset int64, text string) {
	t.Helper()
	disk, err := store.Disk(id)
	must(t, err)
	_, err = disk.WriteAt([]byte(text), offset)
	must(t, err)
}

func read(t testing.TB, store *blockstore.Store, id string, offset int64, n int) string {
	t.Helper()
	disk, err := store.Disk(id)
	must(t, err)
	p := make([]byte, n)
	_, err = disk.ReadAt(p, offset)
	must(t, err)
	return string(p)
}

func TestCloneSharesUntilWritten(t *testing.T) {
	store := open(t)
	must(t, store.Create("disk", 50<<30))
	write(t, store, "disk", 40<<30, "before")
	must(t, store.Clone("disk", "snapshot"))

	write(t, store, "disk", 40<<30, "after!")

	if got := read(t, store, "snapshot", 40<<30, 6); got != "before" {
		t.Errorf("the snapshot reads %q", got)
	}
	if got := read(t, store, "disk", 40<<30, 6); got != "after!" {
		t.Errorf("the disk reads %q", got)
	}
	if got := store.ChainDepth("disk"); got != 2 {
		t.Errorf("chain depth %d, want 2", got)
	}
	if got := store.PhysicalUtilisation("snapshot"); got != 0 {
		t.Errorf("the snapshot takes %d bytes of its own", got)
	}
	disk, err := store.Disk("disk")
	must(t, err)
	snapshot, err := store.Disk("snapshot")
	must(t, err)
	want := []blockstore.Extent{{Offset: 40 << 30, Length: blockstore.BlockSize}}
	if got := disk.ChangedSince(snapshot); !slices.Equal(got, want) {
		t.Errorf("changed since the snapshot: %v, want %v", got, want)
	}
	if got := disk.Extents(); !slices.Equal(got, want) {
		t.Errorf("extents: %v, want %v", got, want)
	}
}

func TestAnUnwrittenDiskIsClonedWithoutALayer(t *testing.T) {
	store := open(t)
	must(t, store.Create("image", 1<<20))
	write(t, store, "image", 0, "base")
	for i := range 5 {
		must(t, store.Clone("image", fmt.Sprint("instance", i)))
	}
	write(t, store, "image", 0, "next")
	must(t, store.Clone("image", "later"))
	for name, want := range map[string]struct {
		text  string
		depth int
	}{"instance0": {"base", 2}, "instance4": {"base", 2}, "image": {"next", 3}, "later": {"next", 3}} {
		if got, depth := read(t, store, name, 0, 4), store.ChainDepth(name); got != want.text || depth != want.depth {
			t.Errorf("%s reads %q and stands on %d layers, want %q and %d", name, got, depth, want.text, want.depth)
		}
	}
}

func TestWhatCanBeCoalescedWithoutADisk(t *testing.T) {
	store := open(t)
	must(t, store.Create("image", 1<<20))
	write(t, store, "image", 0, "base")
	must(t, store.Clone("image", "a"))
	must(t, store.Clone("image", "b"))
	if got := store.ShorterWithout("b"); got != "" {
		t.Errorf("with two others left, %q would be coalesced", got)
	}
	must(t, store.Destroy("b"))
	if got := store.ShorterWithout("image"); got != "a" {
		t.Errorf("with one other left, %q would be coalesced", got)
	}
	must(t, store.Destroy("a"))
	if got := store.ShorterWithout("image"); got != "" {
		t.Errorf("with none left, %q would be coalesced", got)
	}
}

func TestLayersGoWithTheirLastUser(t *testing.T) {
	dir := t.TempDir()
	store, err := blockstore.Open(dir)
	must(t, err)
	must(t, store.Create("disk", 1<<20))
	write(t, store, "disk", 0, "base")
	must(t, store.Clone("disk", "snapshot"))
	must(t, store.Clone("snapshot", "instance"))

	must(t, store.Destroy("snapshot"))
	must(t, store.Destroy("disk"))
	if got := read(t, store, "instance", 0, 4); got != "base" {
		t.Errorf("the instance reads %q after its image is gone", got)
	}
	must(t, store.Destroy("instance"))

	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	if len(left) != 0 || store.TotalUtilisation() != 0 {
		t.Errorf("files left: %v, %d bytes", left, store.TotalUtilisation())
	}
}

func TestCoalesceShortensTheChain(t *testing.T) {
	store := open(t)
	must(t, store.Create("disk", 1<<20))
	for i := range 5 {
		write(t, store, "disk", int64(i)*blockstore.BlockSize, fmt.Sprint(i))
		must(t, store.Clone("disk", fmt.Sprint("snapshot", i)))
	}
	for i := range 5 {
		must(t, store.Destroy(fmt.Sprint("snapshot", i)))
	}
	if got := store.ChainDepth("disk"); got != 6 {
		t.Fatalf("chain depth %d before, want 6", got)
	}
	merged, err := store.Coalesce(t.Context(), "disk")
	must(t, err)
	if depth := store.ChainDepth("disk"); merged != 5 || depth != 1 {
		t.Errorf("merged %d, chain depth %d after; want 5 and 1", merged, depth)
	}
	for i := range 5 {
		if got := read(t, store, "disk", int64(i)*blockstore.BlockSize, 1); got != fmt.Sprint(i) {
			t.Errorf("block %d reads %q", i, got)
		}
	}
}

func TestCancelledCopyLeavesNothing(t *testing.T) {
	store := open(t)
	must(t, store.Create("disk", 8<<20))
	write(t, store, "disk", 0, string(bytes.Repeat([]byte{1}, 8<<20)))
	ctx, cancel := context.WithCancel(t.Context())
	err := store.Copy(ctx, "disk", "copy", func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want cancelled", err)
	}
	if _, err := store.Disk("copy"); !errors.Is(err, blockstore.ErrNotFound) {
		t.Errorf("the half-made copy is there: %v", err)
	}
}

func TestErrors(t *testing.T) {
	store := open(t)
	must(t, store.Create("disk", 1000))
	disk, err := store.Disk("disk")
	must(t, err)
	checks := map[string]struct{ got, want error }{
		"create twice":    {store.Create("disk", 1), blockstore.ErrExists},
		"clone onto":      {store.Clone("disk", "disk"), blockstore.ErrExists},
		"clone missing":   {store.Clone("none", "new"), blockstore.ErrNotFound},
		"copy missing":    {store.Copy(t.Context(), "none", "new", nil), blockstore.ErrNotFound},
		"shrink":          {store.Resize("disk", 999), blockstore.ErrShrink},
		"destroy missing": {store.Destroy("none"), blockstore.ErrNotFound},
		"write behind":    {second(disk.WriteAt(make([]byte, 2), 999)), blockstore.ErrOutOfRange},
		"read behind":     {second(disk.ReadAt(make([]byte, 2), 1000)), io.EOF},
		"read across":     {second(disk.ReadAt(make([]byte, 2), 999)), io.EOF},
	}
	for name, check := range checks {
		if !errors.Is(check.got, check.want) {
			t.Errorf("%s: %v, want %v", name, check.got, check.want)
		}
	}
}

func second(_ int, err error) error { return err }

func TestEmptyDisksCostNoFiles(t *testing.T) {
	dir := t.TempDir()
	store, err := blockstore.Open(dir)
	must(t, err)
	for i := range 10000 {
		store.Ensure(fmt.Sprint(i), 50<<30)
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 0 {
		t.Errorf("%d files for disks that nobody wrote", len(entries))
	}
}

func TestConcurrentUse(t *testing.T) {
	store := open(t)
	must(t, store.Create("disk", 4<<20))
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			disk, err := store.Disk("disk")
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", worker, i)
				if _, err := disk.WriteAt([]byte(id), int64(worker)<<20); err != nil {
					t.Error(err)
				}
				if err := store.Clone("disk", id); err != nil {
					t.Error(err)
				}
				if got := read(t, store, id, int64(worker)<<20, len(id)); got != id {
					t.Errorf("snapshot %s reads %q", id, got)
				}
				if err := store.Destroy(id); err != nil {
					t.Error(err)
				}
				if _, err := store.Coalesce(t.Context(), "disk"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// TestAgainstPlainBytes runs random operations on the store and on byte slices, and compares all disks after each.
func TestAgainstPlainBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(t, err)
		store, err := blockstore.Open(dir)
		must(t, err)
		model := map[string][]byte{}
		next := 0
		pick := func() string {
			ids := []string{}
			for id := range model {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			if len(ids) == 0 {
				rt.Skip("no disk")
			}
			return rapid.SampledFrom(ids).Draw(rt, "disk")
		}
		fresh := func() string { next++; return fmt.Sprint(next) }
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(rt *rapid.T) {
				id, size := fresh(), rapid.IntRange(0, 3*blockstore.BlockSize).Draw(rt, "size")
				must(t, store.Create(id, int64(size)))
				model[id] = make([]byte, size)
			},
			"write": func(rt *rapid.T) {
				id := pick()
				from := rapid.IntRange(0, len(model[id])).Draw(rt, "from")
				to := rapid.IntRange(from, len(model[id])).Draw(rt, "to")
				text := bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 0, 1, 2}).Draw(rt, "byte")}, to-from)
				copy(model[id][from:], text)
				write(t, store, id, int64(from), string(text))
			},
			"clone": func(*rapid.T) {
				id, newID := pick(), fresh()
				must(t, store.Clone(id, newID))
				model[newID] = bytes.Clone(model[id])
			},
			"copy": func(*rapid.T) {
				id, newID := pick(), fresh()
				must(t, store.Copy(t.Context(), id, newID, nil))
				model[newID] = bytes.Clone(model[id])
			},
			"resize": func(rt *rapid.T) {
				id, more := pick(), rapid.IntRange(0, blockstore.BlockSize).Draw(rt, "more")
				must(t, store.Resize(id, int64(len(model[id])+more)))
				model[id] = append(model[id], make([]byte, more)...)
			},
			"coalesce": func(*rapid.T) {
				_, err := store.Coalesce(t.Context(), pick())
				must(t, err)
			},
			"destroy": func(*rapid.T) {
				id := pick()
				must(t, store.Destroy(id))
				delete(model, id)
			},
			"": func(rt *rapid.T) { compare(rt, store, model) },
		})
	})
}

func compare(rt *rapid.T, store *blockstore.Store, model map[string][]byte) {
	for id, want := range model {
		disk, err := store.Disk(id)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(disk, 0, disk.Size()))
		if err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("disk %s differs (%v)", id, err)
		}
		written := make([]byte, len(want))
		for _, e := range disk.Extents() {
			copy(written[e.Offset:e.Offset+e.Length], want[e.Offset:])
		}
		if !bytes.Equal(written, want) {
			rt.Fatalf("the extents of disk %s leave out bytes", id)
		}
	}
}
