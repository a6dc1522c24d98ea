package disk

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf16"
)

// VHDOptions are what a VHD tells of itself besides its content.
type VHDOptions struct {
	// UUID is what a child names as its parent; a random one if it is zero.
	UUID UUID
	// Created is a time in whole seconds.
	Created time.Time
	// Parent makes a differencing VHD: what the disk has no data for is the parent's.
	Parent *VHDParent
}

// VHDParent names the VHD below.
type VHDParent struct {
	UUID     UUID
	Name     string
	Modified time.Time
}

// NewFixedVHDImage writes a disk as a fixed VHD: raw, and a footer.
func NewFixedVHDImage(d Disk, o VHDOptions) (Image, error) {
	footer, err := o.footer(d, VHDFixed, -1)
	if err != nil {
		return nil, err
	}
	return &joined{len: d.Size() + vhdFooterSize, Reader: io.MultiReader(NewRawImage(d), bytes.NewReader(footer.Bytes()))}, nil
}

type joined struct {
	io.Reader
	len int64
}

func (j *joined) Len() int64 { return j.len }

// NewVHDImage writes a disk as a dynamic VHD, or as a differencing one if it has a parent. Blocks without data are neither read nor
// written; the others are, with all of their sectors in a dynamic VHD.
func NewVHDImage(d Disk, o VHDOptions) (Image, error) {
	kind := VHDDynamic
	if o.Parent != nil {
		kind = VHDDifferencing
	}
	footer, err := o.footer(d, kind, vhdFooterSize)
	if err != nil {
		return nil, err
	}
	header := VHDHeader{TableOffset: vhdTableOffset, Entries: uint32((d.Size() + VHDBlockSize - 1) / VHDBlockSize), BlockSize: VHDBlockSize}
	var name []byte
	if o.Parent != nil {
		name = parentName(o.Parent.Name)
		header.ParentUUID, header.ParentName, header.ParentModified = o.Parent.UUID, o.Parent.Name, o.Parent.Modified
		header.Locators = []VHDLocator{{Platform: "W2ku", Space: sectorSize, Length: uint32(len(name)), Offset: vhdLocatorOffset}}
	}
	m := &vhdImage{disk: d, header: header, footer: footer.Bytes(), differencing: o.Parent != nil, buffer: make([]byte, header.bitmapSize()+VHDBlockSize)}
	table, err := m.place()
	if err != nil {
		return nil, err
	}
	m.pending = make([]byte, vhdTableOffset, vhdTableOffset+len(table))
	copy(m.pending, m.footer)
	copy(m.pending[vhdFooterSize:], header.Bytes())
	copy(m.pending[vhdLocatorOffset:], name)
	m.pending = append(m.pending, table...)
	m.table = m.pending[vhdTableOffset:]
	return m, nil
}

// Where we put what precedes the blocks: where XenServer's own streams have it.
const (
	vhdLocatorOffset = vhdFooterSize + vhdHeaderSize
	vhdTableOffset   = vhdLocatorOffset + sectorSize
)

func (o VHDOptions) footer(d Disk, kind VHDType, header int64) (VHDFooter, error) {
	if !FitsVHD(d.Size()) {
		return VHDFooter{}, fmt.Errorf("a disk of %d bytes does not go into a VHD: whole sectors of 512 bytes and at most 2040 GiB do", d.Size())
	}
	if o.UUID == (UUID{}) {
		_, _ = rand.Read(o.UUID[:]) // it never fails
		o.UUID[6] = o.UUID[6]&0x0f | 0x40
		o.UUID[8] = o.UUID[8]&0x3f | 0x80
	}
	return VHDFooter{Type: kind, VirtualSize: d.Size(), HeaderOffset: header, UUID: o.UUID, Created: o.Created}, nil
}

// parentName is the name as Windows writes it, cut to what a sector takes.
func parentName(name string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(name)) {
		if len(b) == sectorSize {
			break
		}
		b = append(b, byte(unit), byte(unit>>8))
	}
	return b
}

type vhdImage struct {
	disk         Disk
	header       VHDHeader
	footer       []byte
	differencing bool
	table        []byte
	blocks       int64

	buffer  []byte // a bitmap and its block
	pending []byte // what comes next
	block   int64  // the block after it
	closed  bool   // the footer is in pending, or was
}

// place asks the disk where its data is and lays the blocks out in their order.
func (m *vhdImage) place() ([]byte, error) {
	table := make([]byte, m.header.tableSize())
	for i := range table {
		table[i] = 0xff
	}
	sector := (vhdTableOffset + m.header.tableSize()) / sectorSize
	for offset := int64(0); offset < m.disk.Size(); {
		e, err := m.disk.NextData(offset)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for block := e.Offset / VHDBlockSize; block*VHDBlockSize < e.End(); block++ {
			if be.Uint32(table[4*block:]) != vhdUnallocated {
				continue
			}
			be.PutUint32(table[4*block:], uint32(sector))
			sector += int64(len(m.buffer)) / sectorSize
			m.blocks++
		}
		offset = e.End()
		if !m.differencing { // the rest of the block is read anyway
			offset = (offset + VHDBlockSize - 1) / VHDBlockSize * VHDBlockSize
		}
	}
	return table, nil
}

func (m *vhdImage) Len() int64 {
	return vhdTableOffset + m.header.tableSize() + m.blocks*int64(len(m.buffer)) + vhdFooterSize
}

func (m *vhdImage) Read(p []byte) (int, error) {
	if len(m.pending) == 0 {
		if err := m.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, m.pending)
	m.pending = m.pending[n:]
	return n, nil
}

// WriteTo saves the copy that Read needs.
func (m *vhdImage) WriteTo(w io.Writer) (int64, error) {
	total := int64(0)
	for {
		if len(m.pending) > 0 {
			n, err := w.Write(m.pending)
			total += int64(n)
			if err != nil {
				return total, err
			}
			m.pending = nil
		}
		if err := m.advance(); errors.Is(err, io.EOF) {
			return total, nil
		} else if err != nil {
			return total, err
		}
	}
}

// advance puts the next block, or the footer, into pending.
func (m *vhdImage) advance() error {
	if m.closed {
		return io.EOF
	}
	for ; m.block < int64(m.header.Entries); m.block++ {
		if be.Uint32(m.table[4*m.block:]) == vhdUnallocated {
			continue
		}
		if err := m.read(m.block); err != nil {
			return err
		}
		m.block++
		m.pending = m.buffer
		return nil
	}
	m.closed = true
	m.pending = m.footer
	return nil
}

// read fills buffer with a block. Outside of the disk's data it is zero without being read.
func (m *vhdImage) read(block int64) error {
	bitmap, content := m.buffer[:m.header.bitmapSize()], m.buffer[m.header.bitmapSize():]
	start := block * VHDBlockSize
	end := min(start+VHDBlockSize, m.disk.Size())
	clear(bitmap)
	at := start
	for at < end {
		e, err := m.disk.NextData(at)
		if errors.Is(err, io.EOF) || err == nil && e.Offset >= end {
			break
		}
		if err != nil {
			return err
		}
		stop := min(e.End(), end)
		clear(content[at-start : e.Offset-start])
		if err := readFullAt(m.disk, content[e.Offset-start:stop-start], e.Offset); err != nil {
			return err
		}
		setBits(bitmap, (e.Offset-start)/sectorSize, (stop-start+sectorSize-1)/sectorSize)
		at = stop
	}
	clear(content[at-start:])
	if !m.differencing {
		setBits(bitmap, 0, VHDBlockSize/sectorSize)
	}
	return nil
}

// setBits sets the bits of [from, to).
func setBits(bitmap []byte, from, to int64) {
	for ; from < to; from++ {
		if from%8 == 0 && to-from >= 8 {
			bitmap[from/8] = 0xff
			from += 7
			continue
		}
		bitmap[from/8] |= 0x80 >> (from % 8)
	}
}
