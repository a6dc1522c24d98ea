package shrink

import (
	"bytes"
)

// probeLength is how much of a partition's beginning tells what is on it.
const probeLength = 256 * kibibyte

// signature is a mark by which content is known.
type signature struct {
	content string
	offset  int
	magic   string
	// deep marks lie where an ext file system's own blocks may still hold what was there before it; they count only where there
	// is no ext.
	deep bool
}

// signatures of what is not made smaller here. An ext file system is found by its superblock (readExt).
var signatures = []signature{
	{content: "a LUKS-encrypted volume", offset: 0, magic: "LUKS\xba\xbe"},
	{content: "a BitLocker-encrypted volume", offset: 3, magic: "-FVE-FS-"},
	{content: "an LVM physical volume", offset: 0, magic: "LABELONE"},
	{content: "an LVM physical volume", offset: 512, magic: "LABELONE"},
	{content: "an LVM physical volume", offset: 1024, magic: "LABELONE"},
	{content: "an LVM physical volume", offset: 1536, magic: "LABELONE"},
	{content: "a member of a Linux RAID", offset: 0, magic: raidMagic},
	{content: "a member of a Linux RAID", offset: 4096, magic: raidMagic},
	{content: "an XFS file system", offset: 0, magic: "XFSB"},
	{content: "an NTFS file system", offset: 3, magic: "NTFS    "},
	{content: "a ReFS file system", offset: 3, magic: "ReFS\x00\x00\x00\x00"},
	{content: "an exFAT file system", offset: 3, magic: "EXFAT   "},
	{content: "a FAT file system", offset: 54, magic: "FAT1"},
	{content: "a FAT file system", offset: 82, magic: "FAT32   "},
	{content: "an F2FS file system", offset: 1024, magic: "\x10\x20\xf5\xf2"},
	{content: "swap space", offset: 4096 - 10, magic: "SWAPSPACE2"},
	{content: "swap space", offset: 4096 - 10, magic: "SWAP-SPACE"},
	{content: "a bcachefs file system", offset: 4096 + 24, magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9", deep: true},
	{content: "swap space", offset: 65536 - 10, magic: "SWAPSPACE2", deep: true},
	{content: "a Btrfs file system", offset: 65536 + 64, magic: "_BHRfS_M", deep: true},
	{content: "a ReiserFS file system", offset: 65536 + 52, magic: "ReIsEr", deep: true},
	{content: "a JFS file system", offset: 32768, magic: "JFS1", deep: true},
	{content: "an ISO 9660 file system", offset: 32769, magic: "CD001", deep: true},
}

// raidMagic begins the superblock of a member of a Linux RAID.
const raidMagic = "\xfc\x4e\x2b\xa9"

// raidEnds are where such a superblock is that lies near the end of so many bytes, in order: of metadata 0.90, and of 1.0.
func raidEnds(size int64) []int64 {
	return []int64{size&^(64*kibibyte-1) - 64*kibibyte, (size - 8*kibibyte) &^ (4*kibibyte - 1)}
}

// ZFS has a ring of 1 KiB blocks with this number at their heads, in either order of bytes.
const zfsRing, zfsRingEnd = 128 * kibibyte, 256 * kibibyte

var zfsMagic = []string{"\x0c\xb1\xba\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\xba\xb1\x0c"}

// identify says what else than an ext file system begins like this: what is certain, and what may be of an earlier use.
func identify(probe []byte) (certain, traces []string) {
	for _, s := range signatures {
		end := s.offset + len(s.magic)
		switch {
		case end > len(probe) || string(probe[s.offset:end]) != s.magic:
		case s.deep:
			traces = append(traces, s.content)
		default:
			certain = append(certain, s.content)
		}
	}
	for at := zfsRing; at < zfsRingEnd && at+8 <= len(probe); at += kibibyte {
		if word := string(probe[at : at+8]); word == zfsMagic[0] || word == zfsMagic[1] {
			return certain, append(traces, "a ZFS volume")
		}
	}
	return certain, traces
}

// lookAt finds the ext file system that begins like this, or refuses what is there instead.
func lookAt(p partition, probe []byte) (*ext, error) {
	certain, traces := identify(probe)
	found := readExt(probe)
	switch {
	case p.raid:
		return nil, refuse(OtherContent, p.name, "its type is that of a member of a Linux RAID, of which a part would be missing; "+
			"if it is none, give it the type of a file system in rescue mode (sfdisk --part-type)")
	case found == nil && len(certain) > 0:
		return nil, refuse(OtherContent, p.name, "it holds %s; only ext2, ext3 and ext4 are made smaller", certain[0])
	case found == nil && len(traces) > 0:
		return nil, refuse(OtherContent, p.name, "it holds %s; only ext2, ext3 and ext4 are made smaller", traces[0])
	case found == nil && bytes.Equal(probe, make([]byte, len(probe))):
		return nil, refuse(OtherContent, p.name, "it begins with zeros: it holds nothing, or nothing that is known")
	case found == nil:
		return nil, refuse(OtherContent, p.name, "it holds nothing that is known; only ext2, ext3 and ext4 are made smaller")
	case len(certain) > 0:
		return nil, refuse(OtherContent, p.name, "it has the marks of %s and of %s; which one holds is not to be told", certain[0], found.kind())
	}
	return found, found.check(p)
}

// claim is how many bytes the content that begins like this says it has; 0 if it does not say, or is not known.
func claim(probe []byte) (content string, size int64) {
	at := func(offset, length int) []byte { return probe[offset : offset+length] }
	certain, traces := identify(probe)
	fs := readExt(probe)
	switch {
	case len(probe) < 1024, fs != nil && len(certain) > 0:
		return "", 0
	case fs != nil:
		return fs.kind(), fs.size()
	case has(certain, "an XFS file system"):
		return certain[0], product(uint64(be.Uint32(at(4, 4))), be.Uint64(at(8, 8)))
	case has(certain, "an NTFS file system"):
		// It counts its sectors without the last, which has a copy of the first.
		return certain[0], product(uint64(le.Uint16(at(11, 2))), min(le.Uint64(at(40, 8)), 1<<62)+1)
	case has(traces, "a Btrfs file system") && len(certain) == 0 && len(probe) >= 65536+128:
		return traces[0], product(1, le.Uint64(at(65536+112, 8)))
	}
	return "", 0
}

func has(list []string, content string) bool { return len(list) > 0 && list[0] == content }

// checkClaim refuses a partition with a file system that reaches beyond it: someone made the partition smaller and not what is
// on it, and the rest is about to be left behind.
func checkClaim(p partition, probe []byte) error {
	if content, size := claim(probe); size > p.end-p.start {
		return refuse(ContradictoryTable, p.name, "it has %d bytes, and %s on it that says it has %d", p.end-p.start, content, size)
	}
	return nil
}

// checkRAIDEnd refuses a partition with the superblock of a Linux RAID near its end, which would be left behind. What lies before
// from is the file system's own. read reads what is on the partition, its places in order.
func checkRAIDEnd(p partition, from int64, read func(data []byte, at int64) error) error {
	for _, at := range raidEnds(p.end - p.start) {
		if at < from {
			continue
		}
		magic := make([]byte, len(raidMagic))
		if err := read(magic, at); err != nil {
			return err
		}
		if string(magic) == raidMagic {
			return refuse(OtherContent, p.name, "it holds a member of a Linux RAID, whose superblock is at its end; only ext2, ext3 and ext4 are made smaller")
		}
	}
	return nil
}

// product multiplies without going beyond what a size can be.
func product(a, b uint64) int64 {
	const most = 1 << 62
	if a != 0 && b > most/a {
		return most
	}
	return int64(a * b)
}

// ext is what the superblock of an ext2, ext3 or ext4 file system says.
type ext struct {
	blockSize, blocks        int64
	compatible, incompatible uint32
	externalJournal          bool
}

// The superblock's place and mark, and the features that matter here.
const (
	superblock      = 1024
	extMagic        = 0xef53
	compatJournal   = 0x4
	incompatJournal = 0x8
	incompatExtents = 0x40
	incompat64Bit   = 0x80
)

// readExt reads the superblock of an ext file system, nil if there is none.
func readExt(probe []byte) *ext {
	if len(probe) < 2*superblock {
		return nil
	}
	sb := probe[superblock : 2*superblock]
	if le.Uint16(sb[0x38:]) != extMagic || le.Uint32(sb[0x18:]) > 6 {
		return nil
	}
	fs := &ext{
		blockSize: kibibyte << le.Uint32(sb[0x18:]), blocks: int64(le.Uint32(sb[4:])),
		compatible: le.Uint32(sb[0x5c:]), incompatible: le.Uint32(sb[0x60:]),
		externalJournal: le.Uint32(sb[0xe4:]) != 0,
	}
	if fs.incompatible&incompat64Bit != 0 {
		fs.blocks |= int64(le.Uint32(sb[0x150:])) << 32
	}
	return fs
}

func (fs *ext) kind() string {
	switch {
	case fs.incompatible&incompatExtents != 0:
		return "an ext4 file system"
	case fs.compatible&compatJournal != 0:
		return "an ext3 file system"
	}
	return "an ext2 file system"
}

func (fs *ext) size() int64 { return product(uint64(fs.blockSize), uint64(fs.blocks)) }

// check refuses what e2fsprogs would not take, or what does not fit where it is.
func (fs *ext) check(p partition) error {
	switch {
	case fs.incompatible&incompatJournal != 0:
		return refuse(OtherContent, p.name, "it holds the journal of another ext file system")
	case fs.externalJournal:
		return refuse(OtherContent, p.name, "it holds %s whose journal is on another disk", fs.kind())
	case fs.blocks == 0:
		return refuse(Damaged, p.name, "it holds %s of no size", fs.kind())
	}
	if size := fs.size(); size > p.end-p.start {
		return refuse(ContradictoryTable, p.name, "it has %d bytes, and %s on it that says it has %d", p.end-p.start, fs.kind(), size)
	}
	return nil
}
