package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

const (
	// maxBlockSize bounds what a hostile header makes a reader hold at once.
	maxBlockSize = 16 << 20
	// fixedUnit is how many bytes of a fixed VHD Next returns at once.
	fixedUnit = 1 << 20
)

// Reader reads a VHD from a stream, each byte once.
type Reader struct {
	// Type is how the VHD keeps its blocks.
	Type Type
	// Size is the virtual size in bytes.
	Size int64
	// ID is the VHD's own unique id; a fixed VHD's is only known at its end.
	ID [16]byte
	// Created is the VHD's time stamp; a fixed VHD's is only known at its end.
	Created time.Time
	// Parent is what a differencing VHD stands on, nil for the others.
	Parent *Parent

	source   io.Reader
	position int64

	// blocks are what the allocation table lists, in the order of the stream.
	blocks    []placedBlock
	blockSize int64
	// buffer holds the present block, bitmap first; pending are its runs that Next has yet to return.
	buffer  []byte
	pending []run
	// fixedLeft are the bytes of a fixed VHD before its footer that have not been returned, kept begins with those that
	// were read while looking for a footer copy.
	fixedLeft int64
	kept      []byte
	done      bool
}

type placedBlock struct {
	offset int64 // in the stream
	number int64
}

// run is a piece of the present block: where it belongs and where it stands in the buffer.
type run struct {
	diskOffset int64
	from, to   int64
}

// NewReader reads up to the first block. The length of the stream is needed for a fixed VHD alone, which has its footer at
// the end and nothing at the beginning; it is negative when unknown.
func NewReader(source io.Reader, length int64) (*Reader, error) {
	r := &Reader{source: source}
	first, err := r.take(footerSize)
	if err != nil {
		return nil, fmt.Errorf("read VHD: %w", err)
	}
	if string(first[:8]) != footerCookie {
		if length < footerSize {
			return nil, fmt.Errorf("read VHD: %w: no footer at the beginning", ErrFormat)
		}
		r.Type, r.Size = Fixed, length-footerSize
		r.fixedLeft, r.kept = r.Size, first
		return r, nil
	}
	f, err := decodeFooter(first)
	if err != nil {
		return nil, fmt.Errorf("read VHD: %w", err)
	}
	r.Type, r.Size, r.ID, r.Created = f.kind, f.size, f.id, f.created
	if r.Type != Dynamic && r.Type != Differencing {
		return nil, fmt.Errorf("read VHD: %w: type %d begins with a footer", ErrFormat, r.Type)
	}
	if err := r.readMetadata(int64(binary.BigEndian.Uint64(first[16:]))); err != nil {
		return nil, fmt.Errorf("read VHD: %w", err)
	}
	return r, nil
}

// take reads exactly n bytes. It allocates only as they come, so that a header cannot make it allocate much.
func (r *Reader) take(n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.source, n))
	r.position += int64(len(b))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// skipTo passes over bytes up to an offset in the stream.
func (r *Reader) skipTo(offset int64) error {
	if offset < r.position {
		return fmt.Errorf("%w: parts overlap or stand in an order that a stream cannot have", ErrFormat)
	}
	n, err := io.CopyN(io.Discard, r.source, offset-r.position)
	r.position += n
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) readMetadata(headerOffset int64) error {
	if err := r.skipTo(headerOffset); err != nil {
		return err
	}
	b, err := r.take(headerSize)
	if err != nil {
		return err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return err
	}
	r.blockSize = int64(h.blockSize)
	if r.blockSize < sectorSize || r.blockSize > maxBlockSize || r.blockSize&(r.blockSize-1) != 0 {
		return fmt.Errorf("%w: block size %d", ErrFormat, r.blockSize)
	}
	used := r.Size/r.blockSize + min(r.Size%r.blockSize, 1)
	if used > int64(h.entries) {
		return fmt.Errorf("%w: %d table entries for %d blocks", ErrFormat, h.entries, used)
	}
	if r.Type == Differencing {
		r.Parent = h.parent
	}
	if err := r.skipTo(h.tableOffset); err != nil {
		return err
	}
	table, err := r.take(used * 4)
	if err != nil {
		return err
	}
	r.placeBlocks(table)
	return nil
}

func (r *Reader) placeBlocks(table []byte) {
	for number := int64(0); len(table) > 0; number, table = number+1, table[4:] {
		if sector := binary.BigEndian.Uint32(table); sector != unusedBlock {
			r.blocks = append(r.blocks, placedBlock{offset: int64(sector) * sectorSize, number: number})
		}
	}
	slices.SortFunc(r.blocks, func(a, b placedBlock) int { return int(a.offset/sectorSize - b.offset/sectorSize) })
}

// Next returns the next bytes that the VHD holds and where on the disk they belong. They are valid until the next call. It
// returns io.EOF after the closing footer, and io.ErrUnexpectedEOF when the stream ends before it.
func (r *Reader) Next() (offset int64, data []byte, err error) {
	if r.Type == Fixed {
		return r.nextFixed()
	}
	for len(r.pending) == 0 {
		if r.done {
			return 0, nil, io.EOF
		}
		if len(r.blocks) == 0 {
			r.done = true
			if err := r.findFooter(); err != nil {
				return 0, nil, fmt.Errorf("read VHD's closing footer: %w", err)
			}
			continue
		}
		if err := r.readBlock(r.blocks[0]); err != nil {
			return 0, nil, fmt.Errorf("read VHD's block %d: %w", r.blocks[0].number, err)
		}
		r.blocks = r.blocks[1:]
	}
	next := r.pending[0]
	r.pending = r.pending[1:]
	return next.diskOffset, r.buffer[next.from:next.to], nil
}

func (r *Reader) readBlock(block placedBlock) error {
	if err := r.skipTo(block.offset); err != nil {
		return err
	}
	sectors := r.blockSize / sectorSize
	bitmap := wholeSectors((sectors + 7) / 8)
	if int64(len(r.buffer)) < bitmap+r.blockSize {
		r.buffer = make([]byte, bitmap+r.blockSize)
	}
	n, err := io.ReadFull(r.source, r.buffer[:bitmap+r.blockSize])
	r.position += int64(n)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	present := func(sector int64) bool { return r.buffer[sector/8]&(0x80>>(sector%8)) != 0 }
	start := block.number * r.blockSize
	for sector := int64(0); sector < sectors; {
		first := sector
		for sector < sectors && present(sector) == present(first) {
			sector++
		}
		from, to := first*sectorSize, min(sector*sectorSize, r.Size-start)
		if present(first) && from < to {
			r.pending = append(r.pending, run{diskOffset: start + from, from: bitmap + from, to: bitmap + to})
		}
	}
	return nil
}

// findFooter looks for the closing footer in the sectors behind the last block: some writers leave room before it.
func (r *Reader) findFooter() error {
	if err := r.skipTo(wholeSectors(r.position)); err != nil {
		return err
	}
	sector := make([]byte, footerSize)
	for {
		if _, err := io.ReadFull(r.source, sector); err != nil {
			return io.ErrUnexpectedEOF
		}
		if string(sector[:8]) == footerCookie {
			_, err := decodeFooter(sector)
			return err
		}
	}
}

func (r *Reader) nextFixed() (int64, []byte, error) {
	if r.done {
		return 0, nil, io.EOF
	}
	if r.fixedLeft == 0 {
		r.done = true
		return 0, nil, r.closeFixed()
	}
	if r.buffer == nil {
		r.buffer = make([]byte, fixedUnit)
	}
	part := r.buffer[:min(fixedUnit, r.fixedLeft)]
	n := copy(part, r.kept)
	r.kept = r.kept[n:]
	if _, err := io.ReadFull(r.source, part[n:]); err != nil {
		return 0, nil, fmt.Errorf("read VHD: %w", io.ErrUnexpectedEOF)
	}
	offset := r.Size - r.fixedLeft
	r.fixedLeft -= int64(len(part))
	return offset, part, nil
}

// closeFixed reads a fixed VHD's footer, the first that tells that it is one.
func (r *Reader) closeFixed() error {
	last := append([]byte{}, r.kept...)
	rest, err := r.take(footerSize - int64(len(last)))
	if err != nil {
		return fmt.Errorf("read VHD's footer: %w", err)
	}
	f, err := decodeFooter(append(last, rest...))
	if err != nil {
		return fmt.Errorf("read VHD's footer: %w", err)
	}
	if f.kind != Fixed || f.size != r.Size {
		return fmt.Errorf("read VHD's footer: %w: type %d of %d bytes after %d bytes", ErrFormat, f.kind, f.size, r.Size)
	}
	r.ID, r.Created = f.id, f.created
	return io.EOF
}
