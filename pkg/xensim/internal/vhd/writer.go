package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Extent is a run of bytes of a disk.
type Extent struct {
	// Offset and Length are in bytes.
	Offset, Length int64
}

// Image says what a VHD that is to be written contains.
type Image struct {
	// Size is the virtual size in bytes; a part of a sector at the end counts as a whole one.
	Size int64
	// ID is the VHD's own unique id, which a differencing VHD on top of it names.
	ID [16]byte
	// Created is the VHD's time stamp, kept in whole seconds.
	Created time.Time
	// Extents are the parts of the disk that the VHD holds, in order and without overlap. What a dynamic VHD does not hold
	// is zeros, what a differencing one does not hold is the parent's.
	Extents []Extent
	// Parent makes the VHD a differencing one.
	Parent *Parent
}

// layout is where the parts of an image stand in its stream.
type layout struct {
	footer footer
	header header
	// blocks are the numbers of the blocks that are there, in order.
	blocks     []int64
	dataOffset int64
	length     int64
}

// bitmapSize is how many bytes stand before a block's data: a bit for each of its sectors.
const bitmapSize = BlockSize / sectorSize / 8

func (m Image) layout() layout {
	size := wholeSectors(m.Size)
	l := layout{
		footer: footer{kind: Dynamic, size: size, id: m.ID, created: m.Created},
		header: header{
			entries:   uint32((size + BlockSize - 1) / BlockSize),
			blockSize: BlockSize,
			parent:    m.Parent,
		},
	}
	end := int64(footerSize + headerSize)
	if m.Parent != nil {
		l.footer.kind = Differencing
		l.header.locators = locatorsOf(m.Parent.Name)
		for i := range l.header.locators {
			l.header.locators[i].offset = end
			end += wholeSectors(int64(len(l.header.locators[i].name)))
		}
	}
	l.header.tableOffset = end
	l.dataOffset = end + wholeSectors(int64(l.header.entries)*4)
	l.blocks = blocksOf(m.Extents)
	l.length = l.dataOffset + int64(len(l.blocks))*(bitmapSize+BlockSize) + footerSize
	return l
}

// locatorsOf names the parent as a neighbour of the VHD, for Windows and for blktap, which wants a URL in UTF-8.
func locatorsOf(name string) []locator {
	return []locator{
		{platform: "W2ru", name: encodeUTF16(`.\`+name, binary.LittleEndian)},
		{platform: "MacX", name: []byte("file://./" + name)},
	}
}

func blocksOf(extents []Extent) []int64 {
	var blocks []int64
	for _, e := range extents {
		for block := e.Offset / BlockSize; block*BlockSize < e.Offset+e.Length; block++ {
			if len(blocks) == 0 || blocks[len(blocks)-1] < block {
				blocks = append(blocks, block)
			}
		}
	}
	return blocks
}

// Len is how many bytes Write will write.
func (m Image) Len() int64 { return m.layout().length }

// Write streams the image with the bytes of disk.
func (m Image) Write(w io.Writer, disk io.ReaderAt) error {
	if m.Size > MaxSize {
		return fmt.Errorf("write VHD of %d bytes: larger than %d", m.Size, int64(MaxSize))
	}
	l := m.layout()
	if err := l.writeMetadata(w); err != nil {
		return fmt.Errorf("write VHD: %w", err)
	}
	buffer := make([]byte, bitmapSize+BlockSize)
	for _, block := range l.blocks {
		m.fillBitmap(buffer[:bitmapSize], block)
		if err := readZeroed(disk, buffer[bitmapSize:], block*BlockSize); err != nil {
			return fmt.Errorf("write VHD: %w", err)
		}
		if _, err := w.Write(buffer); err != nil {
			return fmt.Errorf("write VHD: %w", err)
		}
	}
	if _, err := w.Write(l.footer.encode()); err != nil {
		return fmt.Errorf("write VHD: %w", err)
	}
	return nil
}

func (l layout) writeMetadata(w io.Writer) error {
	parts := append(l.footer.encode(), l.header.encode()...)
	for _, locator := range l.header.locators {
		parts = append(parts, padded(locator.name, 0)...)
	}
	parts = append(parts, padded(l.table(), 0xFF)...) // as if it were unused entries
	_, err := w.Write(parts)
	return err
}

// table is the block allocation table: the sector at which each block begins.
func (l layout) table() []byte {
	table := make([]byte, 4*l.header.entries)
	for i := range table {
		table[i] = 0xFF
	}
	for i, block := range l.blocks {
		offset := l.dataOffset + int64(i)*(bitmapSize+BlockSize)
		binary.BigEndian.PutUint32(table[4*block:], uint32(offset/sectorSize))
	}
	return table
}

// padded fills up to a whole sector.
func padded(b []byte, filler byte) []byte {
	for len(b)%sectorSize != 0 {
		b = append(b, filler)
	}
	return b
}

// fillBitmap sets the bits of the sectors that the image holds. In a dynamic VHD these are all of the block.
func (m Image) fillBitmap(bitmap []byte, block int64) {
	clear(bitmap)
	if m.Parent == nil {
		for i := range bitmap {
			bitmap[i] = 0xFF
		}
		return
	}
	start, end := block*BlockSize, (block+1)*BlockSize
	for _, e := range m.Extents {
		from, to := max(e.Offset, start), min(e.Offset+e.Length, end)
		for sector := (from - start) / sectorSize; sector*sectorSize < to-start && from < to; sector++ {
			bitmap[sector/8] |= 0x80 >> (sector % 8)
		}
	}
}

// readZeroed fills p from the disk, and with zeros what lies behind the disk's end.
func readZeroed(disk io.ReaderAt, p []byte, offset int64) error {
	n, err := disk.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[n:])
	return nil
}
