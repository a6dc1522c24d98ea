package disk

import (
	"fmt"
	"io"
	"slices"
)

// VHDHead is what precedes the blocks of a dynamic or differencing VHD: all that must be known to make the VDI it goes to.
type VHDHead struct {
	Footer VHDFooter
	Header VHDHeader
	// Blocks is how many blocks hold data.
	Blocks int64

	table    []byte   // as it is written
	order    []uint32 // the blocks by their place in the file; nil if that is their order
	metadata int64    // where the metadata ends
	end      int64    // where the last block ends
	raw      []byte   // what was read
}

// vhdMaxTableOffset bounds what is kept of the bytes before the table; known writers need 2 KiB to 16 KiB.
const vhdMaxTableOffset = 1 << 20

// VirtualSize is the disk's size in bytes.
func (h *VHDHead) VirtualSize() int64 { return h.Footer.VirtualSize }

// ImageSize is the length of the whole VHD in bytes, if its closing footer follows its last block, as in every VHD that XenServer streams.
func (h *VHDHead) ImageSize() int64 { return max(h.metadata, h.end) + vhdFooterSize }

// InOrder says whether blocks are in the file as they are on the disk.
func (h *VHDHead) InOrder() bool { return h.order == nil }

// entry is the sector at which a block's bitmap is, vhdUnallocated if it has none.
func (h *VHDHead) entry(block int64) uint32 { return be.Uint32(h.table[4*block:]) }

// ReadVHDHead reads up to the end of the block table.
func ReadVHDHead(r io.Reader) (*VHDHead, error) {
	raw, err := grow(nil, r, vhdFooterSize, "footer's copy")
	if err != nil {
		return nil, err
	}
	h := &VHDHead{}
	if h.Footer, err = ParseVHDFooter(raw, 0); err != nil {
		return nil, err
	}
	if h.Footer.Type == VHDFixed {
		return nil, malformed(VHD, 60, "type", "dynamic or differencing at the beginning of a stream", h.Footer.Type)
	}
	if h.Footer.HeaderOffset > vhdMaxTableOffset {
		return nil, malformed(VHD, 16, "offset of the header", "near the beginning of a stream", h.Footer.HeaderOffset)
	}
	headerEnd := h.Footer.HeaderOffset + vhdHeaderSize
	if raw, err = grow(raw, r, headerEnd, "header"); err != nil {
		return nil, err
	}
	if h.Header, err = ParseVHDHeader(raw[h.Footer.HeaderOffset:], h.Footer.HeaderOffset, h.Footer); err != nil {
		return nil, err
	}
	if t := h.Header.TableOffset; t < headerEnd || t > vhdMaxTableOffset {
		return nil, malformed(VHD, h.Footer.HeaderOffset+16, "offset of the block table", "soon after the header in a stream", t)
	}
	tableEnd := h.Header.TableOffset + h.Header.tableSize()
	if raw, err = grow(raw, r, tableEnd, "block table"); err != nil {
		return nil, err
	}
	h.raw, h.table = raw, raw[h.Header.TableOffset:]
	h.metadata = tableEnd
	for _, l := range h.Header.Locators {
		if end := l.Offset + int64(l.Length); l.Offset >= 0 && l.Offset < 1<<40 && end > h.metadata {
			h.metadata = wholeSectors(end)
		}
	}
	return h, h.arrange()
}

// grow reads on until raw has size bytes. It allocates as bytes come, not as they are announced.
func grow(raw []byte, r io.Reader, size int64, field string) ([]byte, error) {
	for int64(len(raw)) < size {
		from := len(raw)
		step := int(min(size-int64(from), chunkSize))
		raw = slices.Grow(raw, step)[:from+step]
		if n, err := io.ReadFull(r, raw[from:]); err != nil {
			return nil, truncated(VHD, int64(from+n), field, err)
		}
	}
	return raw, nil
}

// arrange finds the order of blocks in the file, and refuses a table in which they overlap each other or the metadata.
func (h *VHDHead) arrange() error {
	span := h.Header.bitmapSize() + h.Header.BlockSize
	floor, inOrder := h.Header.TableOffset+h.Header.tableSize(), true
	for block := range h.Header.blocks(h.VirtualSize()) {
		entry := h.entry(block)
		if entry == vhdUnallocated {
			continue
		}
		h.Blocks++
		inOrder = inOrder && int64(entry)*sectorSize >= floor
		floor = max(floor, int64(entry)*sectorSize+span)
	}
	if h.Blocks > 0 {
		h.end = floor
	}
	if inOrder {
		return nil
	}
	h.order = make([]uint32, 0, h.Blocks)
	for block := range h.Header.blocks(h.VirtualSize()) {
		if h.entry(block) != vhdUnallocated {
			h.order = append(h.order, uint32(block))
		}
	}
	slices.SortFunc(h.order, func(a, b uint32) int { return int(int64(h.entry(int64(a))) - int64(h.entry(int64(b)))) })
	floor = h.Header.TableOffset + h.Header.tableSize()
	for _, block := range h.order {
		at := int64(h.entry(int64(block))) * sectorSize
		if at < floor {
			return malformed(VHD, h.Header.TableOffset+4*int64(block), "place of a block", fmt.Sprintf("at byte %d or later", floor), at)
		}
		floor = at + span
	}
	return nil
}

// inFile yields the blocks that hold data, by their place in the file.
func (h *VHDHead) inFile(yield func(block int64) bool) {
	if h.order != nil {
		for _, block := range h.order {
			if !yield(int64(block)) {
				return
			}
		}
		return
	}
	for block := range h.Header.blocks(h.VirtualSize()) {
		if h.entry(block) != vhdUnallocated && !yield(block) {
			return
		}
	}
}

// checkClosing compares the closing footer, found at offset, with its copy.
func (h *VHDHead) checkClosing(b []byte, offset int64) error {
	f, err := ParseVHDFooter(b, offset)
	if err != nil {
		return err
	}
	if f.VirtualSize != h.Footer.VirtualSize || f.UUID != h.Footer.UUID || f.Type != h.Footer.Type {
		return malformed(VHD, offset, "closing footer", fmt.Sprintf("that of a %s disk %s of %d bytes", h.Footer.Type, h.Footer.UUID, h.Footer.VirtualSize),
			fmt.Sprintf("%s, %s, %d", f.Type, f.UUID, f.VirtualSize))
	}
	return nil
}
