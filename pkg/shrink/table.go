package shrink

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	sectorSize = 512
	kibibyte   = 1 << 10
	mebibyte   = 1 << 20
	// headLength is how much of a disk's beginning is kept in memory: tables, and what the file system begins with.
	headLength = mebibyte
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// partition is a range of the disk, in bytes.
type partition struct {
	name       string // for people
	start, end int64
	// logical tells those inside an extended partition.
	logical bool
	// raid tells those whose type is that of a member of a Linux RAID.
	raid bool
	// entry is where the table describes it: the byte of its entry on the disk.
	entry int64
}

// patch is what a place on the new disk holds instead of what the old disk had there.
type patch struct {
	offset int64
	data   []byte
}

func (p patch) end() int64 { return p.offset + int64(len(p.data)) }

// table is a partition table, or the lack of one.
type table interface {
	// partitions are in the order of their places. Those inside an extended partition are among them once they are known.
	partitions() []partition
	// usable is where the last partition may end at the latest on a disk of this size.
	usable(size int64) int64
	// patches are what changes on a disk of this size when the partition that reaches furthest ends at end.
	patches(size int64, last partition, end int64) []patch
}

// readTable looks for the partition table at the beginning of a disk of this size.
func readTable(head []byte, size int64) (table, error) {
	if len(head) < 2*sectorSize {
		return nil, refuse(UnknownTable, "", "the disk has %d bytes, too few for a partition table", len(head))
	}
	gptHeader := string(head[sectorSize:sectorSize+8]) == gptSignature
	switch {
	case !hasBootSignature(head):
		if gptHeader {
			return nil, refuse(ContradictoryTable, "", "there is a GPT, but no protective MBR before it")
		}
		return wholeDisk{size}, nil
	case isProtective(head):
		return readGPT(head, size)
	case gptHeader && hasEntries(head):
		return nil, refuse(ContradictoryTable, "", "there is a GPT and an MBR with other partitions; which one holds is not to be told")
	case !hasEntries(head) || isBootSector(head):
		return wholeDisk{size}, nil
	default:
		return readMBR(head, size)
	}
}

// wholeDisk is a file system without a table.
type wholeDisk struct{ size int64 }

func (w wholeDisk) partitions() []partition {
	return []partition{{name: "the whole disk", start: 0, end: w.size}}
}

func (w wholeDisk) usable(size int64) int64 { return size }

func (w wholeDisk) patches(int64, partition, int64) []patch { return nil }

// byPlace sorts partitions and refuses those that overlap.
func byPlace(parts []partition) error {
	slices.SortFunc(parts, func(a, b partition) int { return cmp.Compare(a.start, b.start) })
	for i := 1; i < len(parts); i++ {
		if before := parts[i-1]; before.end > parts[i].start {
			return refuse(ContradictoryTable, "", "%s and %s overlap at byte %d", before.name, parts[i].name, parts[i].start)
		}
	}
	return nil
}

// inSectors makes a range of bytes of one of sectors, if it lies on the disk.
func inSectors(first, count uint64, size int64) (start, end int64, ok bool) {
	sectors := uint64(size / sectorSize)
	if first > sectors || count > sectors-first {
		return 0, 0, false
	}
	return int64(first) * sectorSize, int64(first+count) * sectorSize, true
}

// newEnd is where a partition ends that may reach up to usable: where partitions are aligned, its end is too.
func newEnd(p partition, usable int64) int64 {
	step := int64(mebibyte)
	if p.start%step != 0 {
		step = 64 * kibibyte // the largest block of an ext file system
		return p.start + max(0, usable-p.start)/step*step
	}
	return usable / step * step
}

func number(i int) string { return fmt.Sprintf("partition %d", i) }
