package shrink

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// layout is a disk with a table that another program made.
type layout struct {
	mebibytes int64
	// script is sfdisk's; sizes are in sectors.
	script string
	// root is where the last partition is, length how long, in bytes.
	root, length int64
}

var layouts = map[string]layout{
	"GPT with a boot partition and an ESP": {
		mebibytes: 300, root: 50 * mebibyte, length: 249 * mebibyte,
		script: "label: gpt\nfirst-lba: 34\n" +
			"start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n" +
			"start=4096, size=98304, type=U, name=esp\n" +
			"start=102400, size=509952, type=L, name=root, attrs=LegacyBIOSBootable\n",
	},
	"GPT whose last partition is the first entry, as cloud images have it": {
		mebibytes: 260, root: 16 * mebibyte, length: 243 * mebibyte,
		script: "label: gpt\n14: start=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649\n" +
			"15: start=10240, size=16384, type=U\n1: start=32768, size=497664, type=L\n",
	},
	"MBR with two primaries": {
		mebibytes: 256, root: 64 * mebibyte, length: 192 * mebibyte,
		script: "label: dos\nstart=2048, size=129024, type=83, bootable\nstart=131072, size=393216, type=83\n",
	},
	"MBR with one that begins at sector 63": {
		mebibytes: 200, root: 63 * sectorSize, length: 199 * mebibyte,
		script: "label: dos\nstart=63, size=407552, type=83, bootable\n",
	},
	"MBR with logical partitions": {
		mebibytes: 256, root: 48 * mebibyte, length: 200 * mebibyte,
		script: "label: dos\nstart=2048, size=30720, type=83\nstart=32768, size=483328, type=5\n" +
			"start=34816, size=20480, type=83\nstart=59392, size=36864, type=83\nstart=98304, size=409600, type=83\n",
	},
	"no table": {mebibytes: 200, root: 0, length: 200 * mebibyte},
}

// build makes the disk of a layout with noise before its last partition and a file system in it.
func (l layout) build(t *testing.T, tree, kind string, more ...string) string {
	t.Helper()
	path := blank(t, l.mebibytes)
	if l.script != "" {
		tool(t, l.script, "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
		if l.root > mebibyte {
			put(t, path, l.root-mebibyte+grain, noise(2, mebibyte-grain)) // a logical partition's table is a MiB before it
		}
	}
	mkfs(t, path, kind, tree, l.root, l.length, more...)
	return path
}

func TestShrink(t *testing.T) {
	t.Parallel()
	kinds := map[string][]string{"ext2": {"-b", "1024"}, "ext3": nil, "ext4": nil}
	files := tree(t, 6)
	for name, layout := range layouts {
		for kind, options := range kinds {
			if kind == "ext2" && layout.script != "" || kind == "ext3" && !strings.HasPrefix(name, "MBR with two") {
				continue // the older kinds matter once each
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				before := layout.build(t, files, kind, options...)
				size := layout.root + 100*mebibyte
				after := shrunk(t, before, size-size%mebibyte)
				layout.check(t, before, after, size-size%mebibyte, files)
			})
		}
	}
}

// check compares a disk before and after.
func (l layout) check(t *testing.T, before, after string, size int64, files string) {
	t.Helper()
	head := slice(t, after, 0, headLength)
	table, err := readTable(head, size)
	if err != nil {
		t.Fatal(err)
	}
	last := furthest(table.partitions())
	if mbr, ok := table.(*mbrTable); ok && mbr.extended != nil {
		for mbr.following != 0 {
			if err := mbr.follow(slice(t, after, mbr.following, mbr.following+sectorSize)); err != nil {
				t.Fatal(err)
			}
		}
		last = furthest(table.partitions())
	}
	if last.start != l.root || last.end > size || last.end < size-2*mebibyte {
		t.Errorf("the last partition is at %d to %d on a disk of %d, it began at %d", last.start, last.end, size, l.root)
	}
	if l.script != "" {
		verifyTable(t, after)
		sameButTable(t, before, after, l.root)
	}
	sameFiles(t, carve(t, after, last.start, last.end), files)
}

// verifyTable lets the programs of others look at a table.
func verifyTable(t *testing.T, path string) {
	t.Helper()
	says := tool(t, "", "sfdisk", "--verify", path)
	if strings.Contains(tool(t, "", "sfdisk", "--dump", path), "label: gpt") {
		says += tool(t, "", "sgdisk", "-v", path)
		if !strings.Contains(says, "No problems found") {
			t.Errorf("sgdisk: %s", says)
		}
	}
	says = strings.ReplaceAll(says, "No errors", "")
	for _, complaint := range []string{"rror", "mismatch", "outside", "overlap", "beyond", "does not"} {
		if strings.Contains(says, complaint) {
			t.Errorf("of the table: %s", says)
		}
	}
}

// sameButTable compares what precedes the last partition, the fields of the table apart that hold sizes.
func sameButTable(t *testing.T, before, after string, end int64) {
	t.Helper()
	a, b := slice(t, before, 0, end), slice(t, after, 0, end)
	if !bytes.Equal(a[:mbrEntries], b[:mbrEntries]) {
		t.Error("the boot code differs")
	}
	differ := 0
	for at := 0; at < len(a); at += sectorSize {
		if to := min(at+sectorSize, len(a)); !bytes.Equal(a[at:to], b[at:to]) {
			differ++
			if isTable := at < 34*sectorSize || hasBootSignature(a[at:to]); !isTable {
				t.Errorf("the sector at byte %d differs and is no table's", at)
			}
		}
	}
	if differ > 5 {
		t.Errorf("%d sectors differ", differ)
	}
	was, is := tool(t, "", "sfdisk", "--dump", before), tool(t, "", "sfdisk", "--dump", after)
	if lines := len(strings.Split(was, "\n")); lines != len(strings.Split(is, "\n")) {
		t.Errorf("the table was\n%s\nis\n%s", was, is)
	}
	for _, kept := range []string{"label-id", "uuid=", "name=", "attrs=", "type=", "start="} {
		if strings.Count(was, kept) != strings.Count(is, kept) {
			t.Errorf("%s: the table was\n%s\nis\n%s", kept, was, is)
		}
	}
}

func TestDirtyJournalIsCarriedOut(t *testing.T) {
	t.Parallel()
	layout, files := layouts["MBR with two primaries"], tree(t, 4)
	path := layout.build(t, files, "ext4")
	// A transaction that was written to the journal and not to its place, as a VM leaves it whose plug was pulled.
	image := carve(t, path, layout.root, layout.root+layout.length)
	block := carve(t, path, 0, 4*kibibyte)
	tool(t, "", "debugfs", "-w", "-f", script(t, "jo", "jw -b 30000 "+block, "jc"), image)
	transplant(t, image, 0, layout.length, path, layout.root)
	if !strings.Contains(tool(t, "", "debugfs", "-R", "stats -h", image), "needs_recovery") {
		t.Fatal("the journal of the test is clean")
	}
	after := shrunk(t, path, 200*mebibyte)
	sameFiles(t, carve(t, after, layout.root, 200*mebibyte), files)
}

func TestTooMuchData(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"no table", "MBR with logical partitions", "GPT with a boot partition and an ESP"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layout, files := layouts[name], tree(t, 30)
			path := layout.build(t, files, "ext4")
			_, _, err := shrinkFile(t, path, layout.root-layout.root%mebibyte+24*mebibyte)
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Reason != TooMuchData || refusal.Needed == 0 {
				t.Fatalf("got %v", err)
			}
			after := shrunk(t, path, refusal.Needed)
			layout.check(t, path, after, refusal.Needed, files)
		})
	}
	path := layouts["MBR with two primaries"].build(t, tree(t, 1), "ext4")
	_, _, err := shrinkFile(t, path, 60*mebibyte)
	if !strings.Contains(fmt.Sprint(err), "it begins at 64 MiB") {
		t.Errorf("got %v", err)
	}
}

// A file system that its owner has made smaller needs no more than its partition to follow.
func TestPartitionFollowsItsFileSystem(t *testing.T) {
	t.Parallel()
	layout, files := layouts["GPT with a boot partition and an ESP"], tree(t, 4)
	layout.length = 60 * mebibyte
	path := layout.build(t, files, "ext4")
	after, result, err := shrinkFile(t, path, 120*mebibyte)
	if err != nil || result.Resized {
		t.Fatalf("resized %v, %v", result, err)
	}
	layout.check(t, path, after, 120*mebibyte, files)
	if !bytes.Equal(slice(t, path, layout.root+4096, layout.root+50*mebibyte), slice(t, after, layout.root+4096, layout.root+50*mebibyte)) {
		t.Error("the file system changed")
	}
}
