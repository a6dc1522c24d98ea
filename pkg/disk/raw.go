package disk

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
)

// NewRaw is a disk of bytes that are there as they are. A file tells its holes.
func NewRaw(r io.ReaderAt, size int64) Disk {
	if f, ok := r.(*os.File); ok {
		return &sparseFile{rawDisk{f, size}, f}
	}
	return &rawDisk{r, size}
}

type rawDisk struct {
	io.ReaderAt
	size int64
}

func (d *rawDisk) Size() int64 { return d.size }

func (d *rawDisk) NextData(offset int64) (Extent, error) {
	if offset >= d.size {
		return Extent{}, io.EOF
	}
	return Extent{offset, d.size - offset}, nil
}

type sparseFile struct {
	rawDisk
	file *os.File
}

// What lseek(2) of Linux calls SEEK_DATA and SEEK_HOLE.
const (
	seekData = 3
	seekHole = 4
)

func (d *sparseFile) NextData(offset int64) (Extent, error) {
	if offset >= d.size {
		return Extent{}, io.EOF
	}
	start, err := d.file.Seek(offset, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return Extent{}, io.EOF
	}
	if err != nil || start >= d.size {
		return d.rawDisk.NextData(max(offset, start)) // a file system that cannot tell, or data behind the end
	}
	end, err := d.file.Seek(start, seekHole)
	if err != nil {
		end = d.size
	}
	return Extent{start, min(end, d.size) - start}, nil
}

// NewRawImage writes a disk raw.
func NewRawImage(d Disk) Image { return &rawImage{disk: d} }

type rawImage struct {
	disk Disk
	at   int64
	data Extent // the next range with data; what precedes it is zero
	done bool   // nothing but zeros follows
}

func (m *rawImage) Len() int64 { return m.disk.Size() }

func (m *rawImage) Read(p []byte) (int, error) {
	left := m.disk.Size() - m.at
	if left == 0 {
		return 0, io.EOF
	}
	if !m.done && m.at >= m.data.End() {
		next, err := m.disk.NextData(m.at)
		switch {
		case errors.Is(err, io.EOF):
			m.done = true
		case err != nil:
			return 0, err
		default:
			m.data = next
		}
	}
	if m.done || m.at < m.data.Offset {
		if !m.done {
			left = m.data.Offset - m.at
		}
		n := int(min(left, int64(len(p))))
		clear(p[:n])
		m.at += int64(n)
		return n, nil
	}
	n := int(min(m.data.End()-m.at, int64(len(p))))
	if err := readFullAt(m.disk, p[:n], m.at); err != nil {
		return 0, err
	}
	m.at += int64(n)
	return n, nil
}

// NewRawStreamImage writes raw what passes once. A stream whose runs are not in increasing order ends in a *FormatError: such an input
// has to be read by an io.ReaderAt.
func NewRawStreamImage(s Stream) Image { return &rawStreamImage{stream: s} }

type rawStreamImage struct {
	stream Stream
	at     int64
	chunk  Chunk
	done   bool
}

func (m *rawStreamImage) Len() int64 { return m.stream.Size() }

func (m *rawStreamImage) Read(p []byte) (int, error) {
	for !m.done && len(m.chunk.Data) == 0 {
		if err := m.next(); err != nil {
			return 0, err
		}
	}
	limit := m.stream.Size()
	if !m.done {
		limit = m.chunk.Offset
	}
	if m.at < limit {
		n := int(min(limit-m.at, int64(len(p))))
		clear(p[:n])
		m.at += int64(n)
		return n, nil
	}
	if m.done {
		return 0, io.EOF
	}
	n := copy(p, m.chunk.Data)
	m.chunk.Data = m.chunk.Data[n:]
	m.chunk.Offset += int64(n)
	m.at += int64(n)
	return n, nil
}

func (m *rawStreamImage) next() error {
	chunk, err := m.stream.Next()
	if errors.Is(err, io.EOF) {
		m.done = true
		return nil
	}
	if err != nil {
		return err
	}
	if chunk.Offset < m.at || int64(len(chunk.Data)) > m.stream.Size()-chunk.Offset {
		return malformed(Raw, m.at, "next run of data", fmt.Sprintf("one in %d…%d", m.at, m.stream.Size()), chunk.Offset)
	}
	m.chunk = chunk
	return nil
}

// NewRawStream takes size bytes from r as a disk's content; pieces of zeros are left out. Fewer bytes, or more, are a *FormatError.
func NewRawStream(r io.Reader, size int64) Stream {
	return &rawStream{reader: r, size: size, buffer: make([]byte, rawPiece)}
}

// rawPiece is what a raw stream leaves out when it is all zeros.
const rawPiece = 256 << 10

type rawStream struct {
	reader   io.Reader
	size, at int64
	buffer   []byte
}

func (s *rawStream) Size() int64 { return s.size }

func (s *rawStream) Next() (Chunk, error) {
	for s.at < s.size {
		part := s.buffer[:min(s.size-s.at, rawPiece)]
		if _, err := io.ReadFull(s.reader, part); err != nil {
			return Chunk{}, truncated(Raw, s.at, "content", err)
		}
		chunk := Chunk{s.at, part}
		s.at += int64(len(part))
		if !isZero(part) {
			return chunk, nil
		}
	}
	return Chunk{}, wantEnd(s.reader, Raw, s.at)
}

// wantEnd is io.EOF if nothing follows.
func wantEnd(r io.Reader, format Format, offset int64) error {
	var one [1]byte
	n, err := io.ReadFull(r, one[:])
	if n > 0 {
		return malformed(format, offset, "end", "no more bytes", "more")
	}
	return err
}

// isZero compares words; it runs over every byte that is sent.
func isZero(b []byte) bool {
	for len(b) >= 64 {
		w := b[:64]
		if be.Uint64(w)|be.Uint64(w[8:])|be.Uint64(w[16:])|be.Uint64(w[24:])|
			be.Uint64(w[32:])|be.Uint64(w[40:])|be.Uint64(w[48:])|be.Uint64(w[56:]) != 0 {
			return false
		}
		b = b[64:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// sum adds sizes and says whether they still are a size.
func sum(a, b int64) (int64, bool) {
	if a < 0 || b < 0 || a > math.MaxInt64-b {
		return 0, false
	}
	return a + b, true
}
