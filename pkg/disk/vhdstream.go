package disk

import (
	"errors"
	"fmt"
	"io"
	"iter"
)

// VHDStream reads the runs of data of a dynamic or differencing VHD as it passes. Of a differencing one it gives what it has itself.
type VHDStream struct {
	*VHDHead
	reader io.Reader
	at     int64 // in the file

	next   func() (int64, bool)
	block  int64
	bitmap []byte
	sector int64 // in the block; all of it when there is none
	buffer []byte
}

// NewVHDStream reads up to the end of the block table.
func NewVHDStream(r io.Reader) (*VHDStream, error) {
	head, err := ReadVHDHead(r)
	if err != nil {
		return nil, err
	}
	next, _ := iter.Pull(head.inFile)
	return &VHDStream{
		VHDHead: head, reader: r, at: int64(len(head.raw)), next: next,
		bitmap: make([]byte, head.Header.bitmapSize()), sector: head.sectors(), buffer: make([]byte, chunkSize),
	}, nil
}

// Size is the disk's size in bytes.
func (s *VHDStream) Size() int64 { return s.VirtualSize() }

// Next returns the next run of data.
func (s *VHDStream) Next() (Chunk, error) {
	for {
		for s.sector >= s.sectors() {
			block, ok := s.next()
			if !ok {
				return Chunk{}, s.finish()
			}
			if err := s.enter(block); err != nil {
				return Chunk{}, err
			}
		}
		present := bit(s.bitmap, s.sector)
		length := min(s.run(present)*sectorSize, chunkSize)
		part := s.buffer[:length]
		if err := s.fill(part, "block"); err != nil {
			return Chunk{}, err
		}
		offset := s.block*s.Header.BlockSize + s.sector*sectorSize
		s.sector += length / sectorSize
		if left := s.VirtualSize() - offset; present && left > 0 { // the last block may be longer than the disk
			return Chunk{offset, part[:min(length, left)]}, nil
		}
	}
}

// enter goes to a block and reads its bitmap.
func (s *VHDStream) enter(block int64) error {
	if err := s.skipTo(int64(s.entry(block)) * sectorSize); err != nil {
		return err
	}
	s.block, s.sector = block, 0
	return s.fill(s.bitmap, "bitmap")
}

// run is how many sectors from here on are all there, or all not.
func (s *VHDStream) run(present bool) int64 { return bitRun(s.bitmap, s.sector, s.sectors(), present) }

func (s *VHDStream) fill(p []byte, field string) error {
	n, err := io.ReadFull(s.reader, p)
	if err != nil {
		return truncated(VHD, s.at+int64(n), field, err)
	}
	s.at += int64(n)
	return nil
}

func (s *VHDStream) skipTo(offset int64) error {
	if offset < s.at {
		return malformed(VHD, s.at, "place of a block", fmt.Sprintf("at byte %d or later", s.at), offset)
	}
	for s.at < offset {
		if err := s.fill(s.buffer[:min(offset-s.at, chunkSize)], "gap"); err != nil {
			return err
		}
	}
	return nil
}

// finish looks for the footer in the last sector, wherever that is.
func (s *VHDStream) finish() error {
	if err := s.skipTo(max(s.at, s.metadata)); err != nil {
		return err
	}
	var last [vhdFooterSize]byte
	found := false
	for {
		n, err := io.ReadFull(s.reader, s.buffer[:vhdFooterSize])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return truncated(VHD, s.at+int64(n), "closing footer", err)
		}
		copy(last[:], s.buffer)
		found = true
		s.at += vhdFooterSize
	}
	if !found {
		return truncated(VHD, s.at, "closing footer", io.EOF)
	}
	if err := s.checkClosing(last[:], s.at-vhdFooterSize); err != nil {
		return err
	}
	return io.EOF
}

// sectors is how many sectors a block has.
func (h *VHDHead) sectors() int64 { return h.Header.BlockSize / sectorSize }

// bit reads a VHD's bitmap, whose first sector is the highest bit of the first byte.
func bit(bitmap []byte, i int64) bool { return bitmap[i/8]&(0x80>>(i%8)) != 0 }

// bitRun is how many bits from i on, and before end, are as given.
func bitRun(bitmap []byte, i, end int64, set bool) int64 {
	full := byte(0)
	if set {
		full = 0xff
	}
	from := i
	for i < end {
		if i%8 == 0 && end-i >= 8 && bitmap[i/8] == full {
			i += 8
			continue
		}
		if bit(bitmap, i) != set {
			break
		}
		i++
	}
	return i - from
}
