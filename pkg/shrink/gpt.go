package shrink

import (
	"bytes"
	"hash/crc32"
	"slices"
)

// A GPT: a protective MBR, a header in the second sector, an array of entries, and a backup of both at the disk's end.
const (
	gptSignature  = "EFI PART"
	gptHeaderSize = 92
	gptMaxEntries = 1024
)

// Offsets in the header.
const (
	gptSize        = 12
	gptCRC         = 16
	gptMine        = 24
	gptAlternate   = 32
	gptFirstUsable = 40
	gptLastUsable  = 48
	gptArray       = 72
	gptCount       = 80
	gptEntrySize   = 84
	gptArrayCRC    = 88
)

// dynamicDisk are the types of the partitions that Windows puts on a dynamic disk, as they are on the disk: the one of its own
// table (5808c8aa-7e8f-42e0-85d2-e1e90434cfb3), and the one of its volumes (af9b60a0-1431-4f62-bc68-3311714a69ad).
var dynamicDisk = []string{
	"\xaa\xc8\x08\x58\x8f\x7e\xe0\x42\x85\xd2\xe1\xe9\x04\x34\xcf\xb3",
	"\xa0\x60\x9b\xaf\x31\x14\x62\x4f\xbc\x68\x33\x11\x71\x4a\x69\xad",
}

// raidMember is the type of the members of a Linux RAID as it is on the disk (a19d880f-05fc-4d3b-a006-743f0f84911e).
const raidMember = "\x0f\x88\x9d\xa1\xfc\x05\x3b\x4d\xa0\x06\x74\x3f\x0f\x84\x91\x1e"

// gptTable is a GPT as read from the beginning of the disk.
type gptTable struct {
	mbr    []byte // the protective MBR
	header []byte // the whole sector
	array  []byte
	parts  []partition
}

func readGPT(head []byte, size int64) (*gptTable, error) {
	t := &gptTable{mbr: head[:sectorSize], header: head[sectorSize : 2*sectorSize]}
	if err := t.checkProtection(); err != nil {
		return nil, err
	}
	if err := checkHeader(t.header); err != nil {
		return nil, err
	}
	count, entrySize := int64(t.field32(gptCount)), int64(t.field32(gptEntrySize))
	arrayStart, arrayEnd, fits := inSectors(t.field(gptArray), uint64((count*entrySize+sectorSize-1)/sectorSize), size)
	switch {
	case t.field(gptMine) != 1:
		return nil, refuse(ContradictoryTable, "", "the GPT's header is in sector 1 and says it is in %d", t.field(gptMine))
	case entrySize < 128 || entrySize > 4096 || entrySize%8 != 0 || count < 1 || count > gptMaxEntries:
		return nil, refuse(ContradictoryTable, "", "the GPT has %d entries of %d bytes", count, entrySize)
	case !fits || arrayEnd > int64(len(head)) || arrayStart < 2*sectorSize:
		return nil, refuse(ContradictoryTable, "", "the GPT's entries are at sector %d, not near the disk's beginning", t.field(gptArray))
	}
	t.array = head[arrayStart : arrayStart+count*entrySize]
	if crc32.ChecksumIEEE(t.array) != t.field32(gptArrayCRC) {
		return nil, refuse(ContradictoryTable, "", "the checksum of the GPT's entries is wrong")
	}
	return t, t.readPartitions(arrayStart, arrayEnd, entrySize, size)
}

// checkProtection refuses an MBR with anything beside the entry that protects the GPT.
func (t *gptTable) checkProtection() error {
	others := 0
	for _, entry := range readEntries(t.mbr) {
		if !entry.empty() && entry.kind != kindProtective {
			others++
		}
	}
	if others > 0 {
		return refuse(HybridTable, "", "the MBR before the GPT has %d partitions of its own (a hybrid MBR)", others)
	}
	return nil
}

// checkHeader says whether a sector is a GPT's header and unharmed.
func checkHeader(sector []byte) error {
	size := int64(le.Uint32(sector[gptSize:]))
	switch {
	case string(sector[:8]) != gptSignature:
		return refuse(ContradictoryTable, "", "the MBR protects a GPT, but there is none in sector 1")
	case size < gptHeaderSize || size > sectorSize:
		return refuse(ContradictoryTable, "", "the GPT's header says it has %d bytes", size)
	case headerCRC(sector) != le.Uint32(sector[gptCRC:]):
		return refuse(ContradictoryTable, "", "the checksum of the GPT's header is wrong")
	}
	return nil
}

// headerCRC is the checksum of a header, in which its own field counts as zero.
func headerCRC(sector []byte) uint32 {
	header := bytes.Clone(sector[:le.Uint32(sector[gptSize:])])
	clear(header[gptCRC : gptCRC+4])
	return crc32.ChecksumIEEE(header)
}

func (t *gptTable) field(offset int) uint64   { return le.Uint64(t.header[offset:]) }
func (t *gptTable) field32(offset int) uint32 { return le.Uint32(t.header[offset:]) }

func (t *gptTable) readPartitions(arrayStart, arrayEnd, entrySize, size int64) error {
	firstUsable, usableEnd, fits := inSectors(t.field(gptFirstUsable), t.field(gptLastUsable)-t.field(gptFirstUsable)+1, size)
	if !fits || t.field(gptLastUsable) < t.field(gptFirstUsable) || firstUsable < arrayEnd || t.field(gptAlternate) >= uint64(size/sectorSize) {
		return refuse(ContradictoryTable, "", "the GPT says it uses sectors %d to %d and has its backup at %d, and the disk has %d",
			t.field(gptFirstUsable), t.field(gptLastUsable), t.field(gptAlternate), size/sectorSize)
	}
	for i := int64(0); i*entrySize < int64(len(t.array)); i++ {
		entry := t.array[i*entrySize : (i+1)*entrySize]
		if bytes.Equal(entry[:16], make([]byte, 16)) {
			continue // no type: not used
		}
		name := number(int(i) + 1)
		if slices.Contains(dynamicDisk, string(entry[:16])) {
			return refuse(OtherContent, name, "it is part of a Windows dynamic disk, which keeps a table of its own")
		}
		first, last := le.Uint64(entry[32:]), le.Uint64(entry[40:])
		start, end, fits := inSectors(first, last-first+1, size)
		if last < first || !fits || start < firstUsable || end > usableEnd {
			return refuse(ContradictoryTable, "", "%s has sectors %d to %d, outside of those that the GPT uses (%d to %d)",
				name, first, last, t.field(gptFirstUsable), t.field(gptLastUsable))
		}
		t.parts = append(t.parts, partition{
			name: name, start: start, end: end, entry: arrayStart + i*entrySize, raid: string(entry[:16]) == raidMember,
		})
	}
	if len(t.parts) == 0 {
		return refuse(UnknownTable, "", "the GPT has no partition")
	}
	return byPlace(t.parts)
}

func (t *gptTable) partitions() []partition { return slices.Clone(t.parts) }

// backupLength is what the backup takes at the disk's end: the entries, and the header in the very last sector.
func (t *gptTable) backupLength() int64 {
	return (int64(len(t.array))+sectorSize-1)/sectorSize*sectorSize + sectorSize
}

func (t *gptTable) usable(size int64) int64 { return size - t.backupLength() }

// backup is where the header's backup is on the old disk.
func (t *gptTable) backup() int64 { return int64(t.field(gptAlternate)) * sectorSize }

// checkBackup refuses a backup that is unharmed and says something else: then nobody knows which one holds. A harmed one, or
// none, is common on disks that were grown, and harmless.
func (t *gptTable) checkBackup(sector []byte) error {
	if checkHeader(sector) != nil {
		return nil //nolint:nilerr // it is no backup then, and none is needed
	}
	if le.Uint32(sector[gptArrayCRC:]) != t.field32(gptArrayCRC) || !bytes.Equal(sector[56:72], t.header[56:72]) {
		return refuse(ContradictoryTable, "", "the GPT and its backup at the disk's end differ")
	}
	return nil
}

func (t *gptTable) patches(size int64, last partition, end int64) []patch {
	array := bytes.Clone(t.array)
	arrayStart := int64(t.field(gptArray)) * sectorSize
	if last.end != end {
		le.PutUint64(array[last.entry-arrayStart+40:], uint64(end/sectorSize-1))
	}
	header, backup := bytes.Clone(t.header), bytes.Clone(t.header)
	lastSector := uint64(size/sectorSize - 1)
	le.PutUint64(header[gptAlternate:], lastSector)
	le.PutUint64(backup[gptMine:], lastSector)
	le.PutUint64(backup[gptAlternate:], 1)
	le.PutUint64(backup[gptArray:], uint64(t.usable(size)/sectorSize))
	for _, h := range [][]byte{header, backup} {
		le.PutUint64(h[gptLastUsable:], uint64(t.usable(size)/sectorSize-1))
		le.PutUint32(h[gptArrayCRC:], crc32.ChecksumIEEE(array))
		le.PutUint32(h[gptCRC:], headerCRC(h))
	}
	atEnd := make([]byte, t.backupLength())
	copy(atEnd, array)
	copy(atEnd[len(atEnd)-sectorSize:], backup)
	return []patch{
		{offset: 0, data: t.protection(lastSector)}, {offset: sectorSize, data: header}, {offset: arrayStart, data: array},
		{offset: t.usable(size), data: atEnd},
	}
}

// protection is the protective MBR of a disk with this last sector. An entry that claims all that can be claimed does so
// whatever the disk's size.
func (t *gptTable) protection(lastSector uint64) []byte {
	mbr := bytes.Clone(t.mbr)
	for i := range mbrCount {
		line := mbr[mbrEntries+i*mbrEntrySize:]
		if line[4] == kindProtective && le.Uint32(line[12:]) != 1<<32-1 {
			le.PutUint32(line[12:], uint32(min(lastSector, 1<<32-1)))
		}
	}
	return mbr
}
