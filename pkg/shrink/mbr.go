package shrink

import "slices"

// An MBR: boot code, four entries of 16 bytes, and a signature. One entry may be an extended partition, in which each logical
// one is described by a sector of the same shape (an EBR) that also points to the next.
const (
	mbrEntries   = 446
	mbrEntrySize = 16
	mbrCount     = 4
	// maxLogical bounds how many logical partitions are read: a chain may be endless.
	maxLogical = 256
)

// mbrEntry is one line of a table.
type mbrEntry struct {
	kind         byte
	first, count uint64
}

const (
	kindProtective  = 0xee
	kindDynamic     = 0x42
	kindExtended    = 0x05
	kindExtendedLBA = 0x0f
	kindExtendedLnx = 0x85
	kindRAID        = 0xfd
)

func (e mbrEntry) empty() bool { return e == mbrEntry{} }

func (e mbrEntry) extended() bool {
	return e.kind == kindExtended || e.kind == kindExtendedLBA || e.kind == kindExtendedLnx
}

// readEntries reads the four lines of a sector.
func readEntries(sector []byte) (entries [mbrCount]mbrEntry) {
	for i := range entries {
		line := sector[mbrEntries+i*mbrEntrySize:]
		entries[i] = mbrEntry{kind: line[4], first: uint64(le.Uint32(line[8:])), count: uint64(le.Uint32(line[12:]))}
	}
	return entries
}

func hasBootSignature(sector []byte) bool { return sector[510] == 0x55 && sector[511] == 0xaa }

func hasEntries(sector []byte) bool {
	entries := readEntries(sector)
	return slices.ContainsFunc(entries[:], func(e mbrEntry) bool { return !e.empty() })
}

func isProtective(sector []byte) bool {
	entries := readEntries(sector)
	return slices.ContainsFunc(entries[:], func(e mbrEntry) bool { return e.kind == kindProtective })
}

// isBootSector tells a file system's first sector, which has the signature too, from an MBR: its entries are code.
func isBootSector(sector []byte) bool {
	for i := range mbrCount {
		if flag := sector[mbrEntries+i*mbrEntrySize]; flag != 0 && flag != 0x80 {
			return true
		}
	}
	return false
}

// mbrTable is an MBR and what is known of its extended partition.
type mbrTable struct {
	size      int64
	primary   []partition
	extended  *partition
	logical   []partition
	sectors   []ebr // of the extended partition, as read so far
	following int64 // where the next one is, 0 at the end of the chain
}

// ebr is a sector that describes a logical partition. link is the byte of the entry before it that points to it, 0 for the
// first, which the extended partition's own entry points to; end is how far that entry says the rest of the chain reaches, which
// nobody relies on.
type ebr struct{ at, link, end int64 }

func readMBR(head []byte, size int64) (*mbrTable, error) {
	t := &mbrTable{size: size}
	for i, entry := range readEntries(head) {
		if entry.kind == 0 && entry.count == 0 {
			continue
		}
		start, end, fits := inSectors(entry.first, entry.count, size)
		switch {
		case entry.kind == kindDynamic:
			return nil, refuse(OtherContent, number(i+1), "it is part of a Windows dynamic disk, which keeps its own table at the disk's end")
		case entry.kind == 0 || entry.first == 0 || entry.count == 0:
			return nil, refuse(ContradictoryTable, "", "entry %d of the MBR is half empty", i+1)
		case !fits:
			return nil, refuse(ContradictoryTable, "", "%s reaches beyond the disk's end", number(i+1))
		}
		p := partition{name: number(i + 1), start: start, end: end, entry: mbrEntries + int64(i)*mbrEntrySize, raid: entry.kind == kindRAID}
		switch {
		case !entry.extended():
			t.primary = append(t.primary, p)
		case t.extended != nil:
			return nil, refuse(ContradictoryTable, "", "the MBR has two extended partitions")
		default:
			t.extended, t.following = &p, start
			t.sectors = []ebr{{at: start}}
		}
	}
	outer := slices.Clone(t.primary)
	if t.extended != nil {
		outer = append(outer, *t.extended)
	}
	if len(outer) == 0 {
		return nil, refuse(UnknownTable, "", "the MBR has no partition")
	}
	return t, byPlace(outer)
}

// follow reads the sector to which the chain of the extended partition has come. The chain must run forward, since the disk
// is read once.
func (t *mbrTable) follow(sector []byte) error {
	here := t.following
	t.following = 0
	entries := readEntries(sector)
	first := len(t.sectors) == 1
	switch {
	case !hasBootSignature(sector) && first && !hasEntries(sector):
		return nil // an extended partition that nobody has begun to use
	case !hasBootSignature(sector):
		return t.broken("the table at byte %d of the extended partition has no signature", here)
	case !entries[2].empty() || !entries[3].empty():
		return t.broken("the table at byte %d has more than two entries", here)
	case entries[0].kind == 0 && !first:
		return t.broken("the table at byte %d has no partition", here)
	}
	if entries[0].kind != 0 {
		if err := t.addLogical(here, entries[0]); err != nil {
			return err
		}
	}
	if entries[1].kind != 0 {
		return t.goOn(here, entries[1])
	}
	return byPlace(t.partitions())
}

func (t *mbrTable) broken(format string, args ...any) error {
	return refuse(ContradictoryTable, t.extended.name, format, args...)
}

// addLogical notes the partition that the sector at here describes.
func (t *mbrTable) addLogical(here int64, own mbrEntry) error {
	start, end, fits := inSectors(uint64(here/sectorSize)+own.first, own.count, t.size)
	if !fits || own.first == 0 || own.count == 0 || end > t.extended.end {
		return t.broken("the logical partition at byte %d does not lie inside it", here)
	}
	t.logical = append(t.logical, partition{
		name: number(mbrCount + 1 + len(t.logical)), start: start, end: end, logical: true, entry: here + mbrEntries,
		raid: own.kind == kindRAID,
	})
	return nil
}

// goOn notes where the sector at here says that the chain goes on.
func (t *mbrTable) goOn(here int64, next mbrEntry) error {
	start, _, fits := inSectors(uint64(t.extended.start/sectorSize)+next.first, 0, t.size)
	switch {
	case !fits || !next.extended() || start >= t.extended.end:
		return t.broken("the chain leads out of the extended partition at byte %d", here)
	case start <= here || len(t.logical) > 0 && start < t.logical[len(t.logical)-1].end:
		return t.broken("the logical partitions are not in the order of their places (sfdisk --reorder puts them in order)")
	case len(t.sectors) == maxLogical:
		return t.broken("there are more than %d logical partitions", maxLogical)
	}
	t.following = start
	t.sectors = append(t.sectors, ebr{at: start, link: here + mbrEntries + mbrEntrySize, end: start + int64(next.count)*sectorSize})
	return nil
}

func (t *mbrTable) partitions() []partition {
	parts := slices.Concat(t.primary, t.logical)
	if t.extended != nil && len(t.logical) == 0 {
		parts = append(parts, *t.extended)
	}
	slices.SortFunc(parts, func(a, b partition) int { return int(min(1, max(-1, a.start-b.start))) })
	return parts
}

func (t *mbrTable) usable(size int64) int64 { return min(size, maxMBR) }

// maxMBR is where 32 bits of sectors end.
const maxMBR = (1<<32 - 1) * sectorSize

func (t *mbrTable) patches(size int64, last partition, end int64) []patch {
	var changed []patch
	if last.end != end {
		changed = append(changed, sizeOfEntry(last.entry, last.start, end)...)
	}
	if t.extended == nil || t.extended.end <= t.usable(size) {
		return changed
	}
	end = max(end, t.extended.start+sectorSize)
	for _, s := range t.sectors[1:] {
		if s.end > end {
			changed = append(changed, sizeOfEntry(s.link, s.at, end)...)
		}
	}
	return append(changed, sizeOfEntry(t.extended.entry, t.extended.start, end)...)
}

// sizeOfEntry sets an entry's number of sectors, and its end in the terms of old geometry.
func sizeOfEntry(entry, start, end int64) []patch {
	count := le.AppendUint32(nil, uint32((end-start)/sectorSize))
	return []patch{{offset: entry + 5, data: geometry(end/sectorSize - 1)}, {offset: entry + 12, data: count}}
}

// geometry writes a sector's number as cylinder, head and sector of a disk with 255 heads of 63 sectors, as all tools do.
func geometry(lba int64) []byte {
	cylinder, head, sector := lba/(255*63), lba/63%255, lba%63+1
	if cylinder > 1023 {
		return []byte{0xfe, 0xff, 0xff}
	}
	return []byte{byte(head), byte(sector) | byte(cylinder>>8)<<6, byte(cylinder)}
}
