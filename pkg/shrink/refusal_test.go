package shrink

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/pkg/disk"
)

// What the first bytes of other content look like, as the programs that make it write them.
var otherContent = map[string]struct {
	says string
	at   map[int64]string
}{
	"XFS":            {"an XFS file system", map[int64]string{0: "XFSB\x00\x00\x10\x00"}},
	"Btrfs":          {"a Btrfs file system", map[int64]string{65600: "_BHRfS_M"}},
	"LVM":            {"an LVM physical volume", map[int64]string{512: "LABELONE\x01"}},
	"NTFS":           {"an NTFS file system", map[int64]string{0: "\xeb\x52\x90NTFS    "}},
	"swap":           {"swap space", map[int64]string{4086: "SWAPSPACE2"}},
	"LUKS1":          {"a LUKS-encrypted volume", map[int64]string{0: "LUKS\xba\xbe\x00\x01"}},
	"LUKS2":          {"a LUKS-encrypted volume", map[int64]string{0: "LUKS\xba\xbe\x00\x02"}},
	"BitLocker":      {"a BitLocker-encrypted volume", map[int64]string{0: "\xeb\x58\x90-FVE-FS-"}},
	"ZFS":            {"a ZFS volume", map[int64]string{135168: "\x0c\xb1\xba\x00\x00\x00\x00\x00"}},
	"RAID":           {"a member of a Linux RAID", map[int64]string{4096: "\xfc\x4e\x2b\xa9"}},
	"FAT32":          {"a FAT file system", map[int64]string{82: "FAT32   "}},
	"nothing known":  {"nothing that is known", map[int64]string{0: "plain text"}},
	"nothing at all": {"begins with zeros", nil},
	"ext4 over LUKS": {"which one holds is not to be told", map[int64]string{0: "LUKS\xba\xbe\x00\x02", 1024 + 0x38: "\x53\xef", 1024 + 4: "\x00\x00\x01"}},
	"journal":        {"the journal of another", map[int64]string{1024 + 0x38: "\x53\xef", 1024 + 4: "\x00\x00\x01", 1024 + 0x60: "\x08"}},
}

// refusedWith complains unless a disk is refused for a reason, and the words say why and what to do.
func refusedWith(t *testing.T, path string, size int64, reason Reason, words ...string) {
	t.Helper()
	out, _, err := shrinkFile(t, path, size)
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Reason != reason {
		t.Fatalf("got %q, %v; want %s", out, err, reason)
	}
	for _, word := range append(words, "; ") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func TestOtherContentIsRefused(t *testing.T) {
	t.Parallel()
	mbr, gpt := layouts["MBR with two primaries"], layouts["GPT with a boot partition and an ESP"]
	for name, content := range otherContent {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, l := range []layout{mbr, gpt} {
				path := blank(t, l.mebibytes)
				tool(t, l.script, "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
				for at, magic := range content.at {
					put(t, path, l.root+at, []byte(magic))
				}
				refusedWith(t, path, 100*mebibyte, OtherContent, "partition", content.says)
			}
			whole := blank(t, 100)
			put(t, whole, 0, make([]byte, mebibyte))
			for at, magic := range content.at {
				put(t, whole, at, []byte(magic))
			}
			refusedWith(t, whole, 50*mebibyte, OtherContent, content.says)
		})
	}
}

func TestDamagedFileSystemIsRefused(t *testing.T) {
	t.Parallel()
	layout, files := layouts["MBR with two primaries"], tree(t, 4)
	damages := map[string]func(path string){
		"its root directory is gone": func(path string) {
			image := carve(t, path, layout.root, layout.root+layout.length)
			tool(t, "", "debugfs", "-w", "-R", "clri <2>", image)
			transplant(t, image, 0, layout.length, path, layout.root)
		},
		"a feature of the future": func(path string) { put(t, path, layout.root+1024+0x63, []byte{0x80}) },
		"no groups": func(path string) {
			put(t, path, layout.root+4096, make([]byte, 64*kibibyte))
			put(t, path, layout.root+128*mebibyte, make([]byte, 64*kibibyte))
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := layout.build(t, files, "ext4")
			damage(path)
			_, _, err := shrinkFile(t, path, 200*mebibyte)
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Reason != Damaged {
				t.Fatalf("got %v", err)
			}
			if text := err.Error(); !strings.Contains(text, "rescue mode") || strings.Contains(text, "/proc/") || len(text) > 700 {
				t.Errorf("the message is %q", text)
			}
		})
	}
}

func TestTablesThatDoNotAddUp(t *testing.T) {
	t.Parallel()
	mbr, gpt, logical := layouts["MBR with two primaries"], layouts["GPT with a boot partition and an ESP"], layouts["MBR with logical partitions"]
	const entry1, entry2 = mbrEntries, mbrEntries + mbrEntrySize
	number := func(n uint32) []byte { return le.AppendUint32(nil, n) }
	cases := map[string]struct {
		layout layout
		harm   func(t *testing.T, path string)
		reason Reason
		says   string
	}{
		"no table and no file system": {layout{mebibytes: 200}, func(*testing.T, string) {}, OtherContent, "nothing that is known"},
		"partitions overlap":          {mbr, at(entry2+8, number(100000)), ContradictoryTable, "overlap"},
		"beyond the end":              {mbr, at(entry2+12, number(1<<31)), ContradictoryTable, "beyond"},
		"half an entry":               {mbr, at(entry1+12, number(0)), ContradictoryTable, "half empty"},
		"no partition":                {mbr, at(entry1, []byte{8: 1, 2*mbrEntrySize - 1: 0}), UnknownTable, "no partition"},
		"Windows dynamic disk":        {mbr, at(entry1+4, []byte{kindDynamic}), OtherContent, "dynamic disk"},
		"dynamic disk in a GPT":       {gptOf("AF9B60A0-1431-4F62-BC68-3311714A69AD"), asItIs, OtherContent, "dynamic disk"},
		"RAID by its type":            {mbrOf("fd"), asItIs, OtherContent, "the type of a file system"},
		"RAID by a logical one's":     {logicalMBR("fd"), asItIs, OtherContent, "the type of a file system"},
		"RAID by its type in a GPT":   {gptOf("A19D880F-05FC-4D3B-A006-743F0F84911E"), asItIs, OtherContent, "the type of a file system"},
		"its table in a GPT":          {gptOf("5808C8AA-7E8F-42E0-85D2-E1E90434CFB3"), asItIs, OtherContent, "dynamic disk"},
		"hybrid":                      {gpt, at(entry2, []byte{0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0}), HybridTable, "hybrid"},
		"no protective MBR":           {gpt, at(510, []byte{0, 0}), ContradictoryTable, "protective"},
		"GPT and MBR":                 {gpt, at(entry1+4, []byte{0x83}), ContradictoryTable, "which one holds"},
		"no GPT after all":            {gpt, at(sectorSize, []byte("FISH")), ContradictoryTable, "there is none"},
		"GPT with a bad checksum":     {gpt, at(sectorSize+60, []byte{1, 2, 3}), ContradictoryTable, "checksum of the GPT's header"},
		"GPT entries harmed":          {gpt, at(2*sectorSize+1, []byte{1, 2, 3}), ContradictoryTable, "checksum of the GPT's entries"},
		"GPT outside of the disk":     {gpt, gptField(gptLastUsable, 1<<40), ContradictoryTable, "the disk has"},
		"GPT with too many":           {gpt, gptField(gptCount, 0xffffffff|128<<32), ContradictoryTable, "entries of"},
		"GPT's backup differs":        {gpt, harmBackup, ContradictoryTable, "differ"},
		"chain without signature":     {logical, at(32768*sectorSize+510, []byte{0, 0}), ContradictoryTable, "no signature"},
		"chain in a circle":           {logical, at(32768*sectorSize+entry2+8, number(0)), ContradictoryTable, "not in the order"},
		"chain leaves":                {logical, at(32768*sectorSize+entry2+8, number(1<<30)), ContradictoryTable, "leads out"},
		"a logical one too long":      {logical, at(32768*sectorSize+entry1+12, number(1<<30)), ContradictoryTable, "does not lie inside"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := blank(t, c.layout.mebibytes)
			if c.layout.script != "" {
				tool(t, c.layout.script, "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
				put(t, path, c.layout.root+1024+0x38, []byte{0x53, 0xef})
				put(t, path, c.layout.root+1024+4, []byte{0, 1})
			}
			c.harm(t, path)
			refusedWith(t, path, 100*mebibyte, c.reason, c.says)
		})
	}
}

// at writes bytes over a place of the disk.
func at(offset int64, data []byte) func(*testing.T, string) {
	return func(t *testing.T, path string) { put(t, path, offset, data) }
}

// mbrOf is an MBR with a partition of a type, logicalMBR has it as a logical one.
func mbrOf(kind string) layout {
	return layout{mebibytes: 200, root: mebibyte, script: "label: dos\nstart=2048, size=300000, type=" + kind + "\n"}
}

func logicalMBR(kind string) layout {
	return layout{mebibytes: 200, root: 2 * mebibyte, script: "label: dos\nstart=2048, size=302048, type=5\nstart=4096, size=300000, type=" + kind + "\n"}
}

// gptOf is a GPT with a partition of a type.
func gptOf(kind string) layout {
	return layout{mebibytes: 200, root: mebibyte, script: "label: gpt\nstart=2048, size=300000, type=" + kind + "\n"}
}

// TestRAIDWithItsSuperblockAtTheEnd: an ext file system begins where its partition does, and only the end tells that the partition is
// a member of a RAID. In a disk without a table the end is looked at even if the file system is small enough.
func TestRAIDWithItsSuperblockAtTheEnd(t *testing.T) {
	t.Parallel()
	files, members := tree(t, 4), maps.Clone(layouts)
	members["MBR with one that ends anywhere"] = layout{mebibytes: 200, root: mebibyte, length: 300000 * sectorSize, script: mbrOf("83").script}
	for metadata, place := range map[string]func(size int64) int64{
		"0.90": func(size int64) int64 { return size/65536*65536 - 65536 },
		"1.0":  func(size int64) int64 { return (size/sectorSize - 16) / 8 * 8 * sectorSize },
	} {
		for name, l := range members {
			t.Run(metadata+" "+name, func(t *testing.T) {
				t.Parallel()
				member := l
				member.length -= mebibyte // mkfs has made the file system in the RAID, which is smaller
				path := member.build(t, files, "ext4")
				put(t, path, l.root+place(l.length), []byte(raidMagic))
				refusedWith(t, path, (l.root+100*mebibyte)/mebibyte*mebibyte, OtherContent, "a member of a Linux RAID", "rescue mode")
			})
		}
		t.Run(metadata+" behind what is small enough", func(t *testing.T) {
			t.Parallel()
			member, whole := layouts["no table"], layouts["no table"].length
			member.length = 60 * mebibyte
			path := member.build(t, files, "ext4")
			put(t, path, place(whole), []byte(raidMagic))
			refusedWith(t, path, 100*mebibyte, OtherContent, "a member of a Linux RAID")
		})
		t.Run(metadata+" left over inside the file system", func(t *testing.T) {
			t.Parallel()
			l := layouts["MBR with two primaries"]
			path := l.build(t, files, "ext4")
			put(t, path, l.root+place(l.length), []byte(raidMagic))
			after := shrunk(t, path, 200*mebibyte)
			l.check(t, path, after, 200*mebibyte, files)
		})
	}
}

func asItIs(*testing.T, string) {}

// gptField sets a field of the GPT's header, and its checksum.
func gptField(offset int64, value uint64) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		put(t, path, sectorSize+offset, le.AppendUint64(nil, value))
		put(t, path, sectorSize+gptCRC, le.AppendUint32(nil, headerCRC(slice(t, path, sectorSize, 2*sectorSize))))
	}
}

// harmBackup makes the GPT's backup another table, which is whole in itself.
func harmBackup(t *testing.T, path string) {
	last := layouts["GPT with a boot partition and an ESP"].mebibytes*mebibyte - sectorSize
	sector := slice(t, path, last, last+sectorSize)
	le.PutUint32(sector[gptArrayCRC:], crc32.ChecksumIEEE([]byte("another")))
	le.PutUint32(sector[gptCRC:], headerCRC(sector))
	put(t, path, last, sector)
}

// A partition whose file system reaches beyond it is about to lose its end.
func TestFileSystemLargerThanItsPartition(t *testing.T) {
	t.Parallel()
	layout := layouts["MBR with two primaries"]
	claims := map[string]map[int64]string{
		"ext4":  {1024 + 0x38: "\x53\xef", 1024 + 0x18: "\x02", 1024 + 4: "\x00\x00\x10\x00"},
		"XFS":   {0: "XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x10\x00\x00"},
		"NTFS":  {0: "\xeb\x52\x90NTFS    \x00\x02", 40: "\x00\x00\x10\x00"},
		"Btrfs": {65600: "_BHRfS_M", 65536 + 112: "\x00\x00\x00\x00\x01"},
	}
	for name, bytes := range claims {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := blank(t, layout.mebibytes)
			tool(t, layout.script, "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
			for at, magic := range bytes {
				put(t, path, layout.root+at, []byte(magic))
			}
			if name == "ext4" {
				refusedWith(t, path, 200*mebibyte, ContradictoryTable, "that says it has")
			}
			put(t, path, mbrEntries+mbrEntrySize+12, le.AppendUint32(nil, 100*2048)) // the partition ends at 164 MiB
			refusedWith(t, path, 200*mebibyte, ContradictoryTable, "that says it has")
		})
	}
}

func TestScratchSpace(t *testing.T) {
	t.Parallel()
	space := NewSpace(t.TempDir(), 30*mebibyte)
	var full *SpaceError
	if _, err := space.Reserve(31 * mebibyte); !errors.As(err, &full) || full.Needed != 31*mebibyte || full.Free != 30*mebibyte {
		t.Fatalf("got %v", err)
	}
	first, err := space.Reserve(20 * mebibyte)
	if err != nil {
		t.Fatal(err)
	}
	if err := space.Check(15 * mebibyte); !errors.As(err, &full) || full.Free != 10*mebibyte {
		t.Errorf("beside another: %v", err)
	}
	// 20 MiB are set aside and the disk has 34 MiB of data.
	path := blank(t, 200)
	mkfs(t, path, "ext4", tree(t, 34), 0, 200*mebibyte)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, err = Read(context.Background(), Request{Source: disk.NewStream(disk.NewRaw(file, 200*mebibyte)), Size: 20 * mebibyte, Scratch: first})
	if !errors.As(err, &full) || full.Needed < 30*mebibyte || !strings.Contains(err.Error(), "--scratch-limit") {
		t.Errorf("with too little: %v", err)
	}
	first.Close()
	if err := space.Check(30 * mebibyte); err != nil {
		t.Errorf("after it: %v", err)
	}
	if left, _ := os.ReadDir(space.dir); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	path := layouts["no table"].build(t, tree(t, 1), "ext4")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	scratch, err := NewSpace(t.TempDir(), 0).Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	defer scratch.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stopped")
	cancel(stop)
	_, err = Read(ctx, Request{Source: disk.NewStream(disk.NewRaw(file, 200*mebibyte)), Size: 100 * mebibyte, Scratch: scratch})
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if _, err := Read(ctx, Request{Source: disk.NewStream(disk.NewRaw(file, 200*mebibyte)), Size: 200 * mebibyte}); err == nil {
		t.Error("a disk of the same size is no smaller one")
	}
}

func TestOutputOfPrograms(t *testing.T) {
	t.Parallel()
	var l limited
	_, _ = fmt.Fprintf(&l, "e2fsck 1.47.0 (5-Feb-2023)\n%s: one\x1b[31m\xff\n\n  two %s\n", scratchName, scratchName)
	if got := l.text(); got != "one [31m? two it" {
		t.Errorf("got %q", got)
	}
	_, _ = l.Write([]byte(strings.Repeat("x", 3*maxOutput)))
	if got := l.text(); len(got) > maxText+4 || l.buffer.Len() > maxOutput {
		t.Errorf("%d of %d characters", len(got), l.buffer.Len())
	}
}
