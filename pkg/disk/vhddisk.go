package disk

import (
	"errors"
	"fmt"
	"io"
)

// VHDDisk reads a VHD anywhere.
type VHDDisk struct {
	// Footer and Header are the file's own; the header of a fixed VHD is zero.
	Footer VHDFooter
	Header VHDHeader

	reader io.ReaderAt
	length int64
	parent Disk

	page   []byte // of the block table
	pageAt int64  // the first block in it
	bitmap []byte
	of     int64 // the block whose bitmap is held, -1 if none
}

// vhdPage is how much of a block table is held at once, so that a chain of thirty needs no more than its pages.
const vhdPage = 256 << 10

// OpenVHD reads a VHD of length bytes. A differencing one wants its parent, other ones want none.
func OpenVHD(r io.ReaderAt, length int64, parent Disk) (*VHDDisk, error) {
	d := &VHDDisk{reader: r, length: length, parent: parent, of: -1, pageAt: -1}
	if length < vhdFooterSize {
		return nil, malformed(VHD, 0, "length", "at least a footer", length)
	}
	sector := make([]byte, vhdHeaderSize)
	if err := readFullAt(r, sector[:vhdFooterSize], length-vhdFooterSize); err != nil {
		return nil, truncated(VHD, length-vhdFooterSize, "footer", err)
	}
	var err error
	if d.Footer, err = ParseVHDFooter(sector, length-vhdFooterSize); err != nil {
		return nil, err
	}
	if (d.Footer.Type == VHDDifferencing) != (parent != nil) {
		return nil, malformed(VHD, length-vhdFooterSize+60, "type", map[bool]string{true: "differencing", false: "fixed or dynamic, since no parent is at hand"}[parent != nil], d.Footer.Type)
	}
	if d.Footer.Type == VHDFixed {
		if d.Footer.VirtualSize > length-vhdFooterSize {
			return nil, malformed(VHD, length-vhdFooterSize+48, "virtual size", fmt.Sprintf("at most %d", length-vhdFooterSize), d.Footer.VirtualSize)
		}
		return d, nil
	}
	if err := readFullAt(r, sector, d.Footer.HeaderOffset); err != nil {
		return nil, truncated(VHD, d.Footer.HeaderOffset, "header", err)
	}
	if d.Header, err = ParseVHDHeader(sector, d.Footer.HeaderOffset, d.Footer); err != nil {
		return nil, err
	}
	if end := d.Header.TableOffset + 4*int64(d.Header.Entries); end > length {
		return nil, malformed(VHD, d.Footer.HeaderOffset+28, "block table", fmt.Sprintf("one that ends before %d", length), end)
	}
	d.page = make([]byte, min(vhdPage, 4*int64(d.Header.Entries)))
	d.bitmap = make([]byte, d.Header.bitmapSize())
	return d, d.checkTable()
}

// checkTable refuses a table with more blocks than the file has place for, which is how a small file would make a huge disk.
func (d *VHDDisk) checkTable() error {
	span := d.Header.bitmapSize() + d.Header.BlockSize
	place, used := d.length/span+1, int64(0)
	for block := range d.Header.blocks(d.Size()) {
		entry, err := d.entry(block)
		if err != nil {
			return err
		}
		if entry == vhdUnallocated {
			continue
		}
		at := int64(entry) * sectorSize
		if used++; used > place || at < vhdFooterSize || at > d.length-d.Header.bitmapSize()-vhdFooterSize {
			return malformed(VHD, d.Header.TableOffset+4*block, "place of a block", fmt.Sprintf("one of %d in a file of %d bytes", place, d.length), at)
		}
	}
	return nil
}

// entry reads the block table by pages.
func (d *VHDDisk) entry(block int64) (uint32, error) {
	perPage := int64(len(d.page)) / 4
	if first := block / perPage * perPage; first != d.pageAt {
		part := d.page[:min(int64(len(d.page)), 4*(int64(d.Header.Entries)-first))]
		if err := readFullAt(d.reader, part, d.Header.TableOffset+4*first); err != nil {
			d.pageAt = -1
			return 0, truncated(VHD, d.Header.TableOffset+4*first, "block table", err)
		}
		d.pageAt = first
	}
	return be.Uint32(d.page[4*(block-d.pageAt):]), nil
}

// enter reads the bitmap of a block that is there.
func (d *VHDDisk) enter(block int64, entry uint32) error {
	if d.of == block {
		return nil
	}
	d.of = -1
	if err := readFullAt(d.reader, d.bitmap, int64(entry)*sectorSize); err != nil {
		return truncated(VHD, int64(entry)*sectorSize, "bitmap", err)
	}
	d.of = block
	return nil
}

// Size is the disk's size in bytes.
func (d *VHDDisk) Size() int64 { return d.Footer.VirtualSize }

// ReadAt reads the disk's content.
func (d *VHDDisk) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= d.Size() {
		return 0, io.EOF
	}
	whole := p[:min(int64(len(p)), d.Size()-offset)]
	for done := 0; done < len(whole); {
		n, err := d.readRun(whole[done:], offset+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	if len(whole) < len(p) {
		return len(whole), io.EOF
	}
	return len(whole), nil
}

// readRun reads up to where another block, or another layer, begins.
func (d *VHDDisk) readRun(p []byte, offset int64) (int, error) {
	if d.Footer.Type == VHDFixed {
		if err := readFullAt(d.reader, p, offset); err != nil {
			return 0, truncated(VHD, offset, "content", err)
		}
		return len(p), nil
	}
	block, within := offset/d.Header.BlockSize, offset%d.Header.BlockSize
	p = p[:min(int64(len(p)), d.Header.BlockSize-within)]
	entry, err := d.entry(block)
	if err != nil {
		return 0, err
	}
	if entry == vhdUnallocated {
		return len(p), d.readParent(p, offset)
	}
	if err := d.enter(block, entry); err != nil {
		return 0, err
	}
	sector := within / sectorSize
	own := bit(d.bitmap, sector)
	run := bitRun(d.bitmap, sector, d.Header.BlockSize/sectorSize, own)
	p = p[:min(int64(len(p)), run*sectorSize-within%sectorSize)]
	if !own {
		return len(p), d.readParent(p, offset)
	}
	at := int64(entry)*sectorSize + d.Header.bitmapSize() + within
	if err := readFullAt(d.reader, p, at); err != nil {
		return 0, truncated(VHD, at, "block", err)
	}
	return len(p), nil
}

// readParent reads what this layer does not have. A parent may be smaller: its child was grown.
func (d *VHDDisk) readParent(p []byte, offset int64) error {
	n := int64(0)
	if d.parent != nil {
		n = min(max(d.parent.Size()-offset, 0), int64(len(p)))
		if err := readFullAt(d.parent, p[:n], offset); err != nil {
			return err
		}
	}
	clear(p[n:])
	return nil
}

// NextData is the next range that this layer or one below has.
func (d *VHDDisk) NextData(offset int64) (Extent, error) {
	own, err := d.nextOwn(offset)
	if d.parent == nil || err == nil && own.Offset == offset {
		return own, err
	}
	noneOwn := errors.Is(err, io.EOF)
	if err != nil && !noneOwn {
		return Extent{}, err
	}
	below, err := d.parent.NextData(offset)
	noneBelow := errors.Is(err, io.EOF) || err == nil && below.Offset >= d.Size()
	switch {
	case noneOwn && noneBelow:
		return Extent{}, io.EOF
	case noneBelow:
		return own, nil
	case err != nil:
		return Extent{}, err
	case noneOwn:
		return Extent{below.Offset, min(below.End(), d.Size()) - below.Offset}, nil
	case own.Offset <= below.Offset:
		return own, nil
	}
	return Extent{below.Offset, min(below.End(), own.Offset) - below.Offset}, nil
}

// nextOwn is the next range that this layer has.
func (d *VHDDisk) nextOwn(offset int64) (Extent, error) {
	if d.Footer.Type == VHDFixed && offset < d.Size() {
		return Extent{offset, d.Size() - offset}, nil
	}
	for offset < d.Size() {
		block := offset / d.Header.BlockSize
		end := min((block+1)*d.Header.BlockSize, d.Size())
		entry, err := d.entry(block)
		if err != nil {
			return Extent{}, err
		}
		if entry == vhdUnallocated {
			offset = end
			continue
		}
		if err := d.enter(block, entry); err != nil {
			return Extent{}, err
		}
		for offset < end {
			sector := offset % d.Header.BlockSize / sectorSize
			own := bit(d.bitmap, sector)
			run := bitRun(d.bitmap, sector, d.Header.BlockSize/sectorSize, own)
			stop := min(block*d.Header.BlockSize+(sector+run)*sectorSize, end)
			if own {
				return Extent{offset, stop - offset}, nil
			}
			offset = stop
		}
	}
	return Extent{}, io.EOF
}
