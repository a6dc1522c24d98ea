package xva

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Extent is a run of bytes of a disk.
type Extent struct {
	// Offset and Length are in bytes.
	Offset, Length int64
}

// Writer writes an archive member by member.
type Writer struct {
	out io.Writer
}

// NewWriter makes a writer of an archive.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// WriteMetadata writes ova.xml, which is the first of an archive's members.
func (w *Writer) WriteMetadata(m Metadata, modified time.Time) error {
	return w.member(metadataName, modified.Unix(), m.Encode())
}

// WriteDisk writes a disk of size bytes under the name that it has in the metadata. Only the extents are read; they are in
// order and without overlap, and all else is zeros.
func (w *Writer) WriteDisk(ctx context.Context, name string, disk io.ReaderAt, size int64, extents []Extent) error {
	chunks := chunksOf(size, extents)
	buffer := make([]byte, ChunkSize)
	for i, number := range chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buffer[:min(ChunkSize, size-number*ChunkSize)]
		if _, err := disk.ReadAt(chunk, number*ChunkSize); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("write disk %s to the archive: %w", name, err)
		}
		if i != 0 && i != len(chunks)-1 && allZero(chunk) {
			continue
		}
		if err := w.chunk(name, number, chunk); err != nil {
			return fmt.Errorf("write disk %s to the archive: %w", name, err)
		}
	}
	return nil
}

// chunksOf are the numbers of the chunks that an extent touches, and of the first and the last.
func chunksOf(size int64, extents []Extent) []int64 {
	if size <= 0 {
		return nil
	}
	last := (size - 1) / ChunkSize
	chunks := []int64{0}
	add := func(from, to int64) {
		for number := max(from, chunks[len(chunks)-1]+1); number <= min(to, last); number++ {
			chunks = append(chunks, number)
		}
	}
	for _, e := range extents {
		add(e.Offset/ChunkSize, (e.Offset+e.Length-1)/ChunkSize)
	}
	add(last, last)
	return chunks
}

func (w *Writer) chunk(name string, number int64, chunk []byte) error {
	member := chunkName(name, number)
	if err := w.member(member, 0, chunk); err != nil {
		return err
	}
	return w.member(member+xxhashSuffix, 0, fmt.Appendf(nil, "%016X", xxhash.Sum64(chunk)))
}

func chunkName(disk string, number int64) string { return fmt.Sprintf("%s/%08d", disk, number) }

// Close writes the archive's end. It does not close what it writes to.
func (w *Writer) Close() error {
	_, err := w.out.Write(make([]byte, 2*tarBlock))
	return err
}

const tarBlock = 512

// member writes one member with a header of the oldest form, as xapi does: a name, a mode, a size, a time.
func (w *Writer) member(name string, modified int64, content []byte) error {
	header := make([]byte, tarBlock)
	copy(header, name)
	copy(header[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00", 0o400, 0, 0, len(content), modified))
	copy(header[148:], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%07o\x00", sum))
	padding := make([]byte, (tarBlock-len(content)%tarBlock)%tarBlock)
	for _, part := range [][]byte{header, content, padding} {
		if _, err := w.out.Write(part); err != nil {
			return err
		}
	}
	return nil
}

var zeroChunk [ChunkSize]byte

func allZero(chunk []byte) bool { return bytes.Equal(chunk, zeroChunk[:len(chunk)]) }
