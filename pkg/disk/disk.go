package disk

import (
	"errors"
	"io"
	"iter"
)

// Disk is a disk's content that can be read anywhere. ReadAt beyond Size ends with io.EOF. Safe for one reader at a time.
type Disk interface {
	io.ReaderAt
	// Size is the disk's size in bytes.
	Size() int64
	// NextData is the first range at or after offset that may hold something else than zeros; io.EOF if none follows. Ranges that
	// follow one another may touch.
	NextData(offset int64) (Extent, error)
}

// Extent is a range of a disk in bytes.
type Extent struct {
	Offset, Length int64
}

// End is where the range ends.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Chunk is a run of a disk's content. Data is valid until the stream's next call.
type Chunk struct {
	Offset int64
	Data   []byte
}

// Stream is a disk's content that passes once.
type Stream interface {
	// Size is the disk's size in bytes.
	Size() int64
	// Next returns the next run of data, io.EOF after the last, when all that follows it in the input was checked as well. What no
	// run covers is zero, or the parent's in a differencing VHD. Runs do not overlap. They are in increasing order unless the
	// input's blocks are not.
	Next() (Chunk, error)
}

// Image is a disk written in a format. Its length is known before its first byte.
type Image interface {
	io.Reader
	// Len is the image's whole length in bytes.
	Len() int64
}

// Extents yields the ranges of a disk that may hold data.
func Extents(d Disk) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for offset := int64(0); offset < d.Size(); {
			e, err := d.NextData(offset)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
			offset = e.End()
		}
	}
}

// chunkSize is how much a stream reads at once.
const chunkSize = 1 << 20

// NewStream reads a disk from front to back, data only.
func NewStream(d Disk) Stream { return &diskStream{disk: d, buffer: make([]byte, chunkSize)} }

type diskStream struct {
	disk   Disk
	at     Extent
	buffer []byte
}

func (s *diskStream) Size() int64 { return s.disk.Size() }

func (s *diskStream) Next() (Chunk, error) {
	if s.at.Length == 0 {
		next, err := s.disk.NextData(s.at.Offset)
		if err != nil {
			return Chunk{}, err
		}
		s.at = next
	}
	part := s.buffer[:min(s.at.Length, chunkSize)]
	if err := readFullAt(s.disk, part, s.at.Offset); err != nil {
		return Chunk{}, err
	}
	chunk := Chunk{Offset: s.at.Offset, Data: part}
	s.at.Offset += int64(len(part))
	s.at.Length -= int64(len(part))
	return chunk, nil
}

// Apply writes the runs of a stream where they belong, in whatever order they come. Several streams applied one after the other, the
// base first, make the disk of a chain.
func Apply(w io.WriterAt, s Stream) error {
	for {
		chunk, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.WriteAt(chunk.Data, chunk.Offset); err != nil {
			return err
		}
	}
}

// readFullAt fills p. An io.EOF with all of p is none.
func readFullAt(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
