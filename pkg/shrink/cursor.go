package shrink

import (
	"errors"
	"fmt"
	"io"

	"github.com/kubexen/kubexen/pkg/disk"
)

// cursor reads a disk that passes once, range by range.
type cursor struct {
	source disk.Stream
	at     int64      // what lies before was read
	chunk  disk.Chunk // the next data, at or after at
	ended  bool       // no data follows the chunk
	moved  func(to int64)
}

func newCursor(source disk.Stream, moved func(int64)) *cursor {
	if moved == nil {
		moved = func(int64) {}
	}
	return &cursor{source: source, moved: moved}
}

// data returns the next data before limit. At io.EOF there is none, and the cursor stands at limit.
func (c *cursor) data(limit int64) (disk.Chunk, error) {
	for len(c.chunk.Data) == 0 && !c.ended {
		chunk, err := c.source.Next()
		switch {
		case errors.Is(err, io.EOF):
			c.ended = true
		case err != nil:
			return disk.Chunk{}, err
		case chunk.Offset < c.at:
			return disk.Chunk{}, fmt.Errorf("read the disk: its data is not in order: byte %d comes after byte %d", chunk.Offset, c.at)
		default:
			c.chunk = chunk
		}
	}
	if c.ended && len(c.chunk.Data) == 0 || c.chunk.Offset >= limit {
		c.at = limit
		c.moved(c.at)
		return disk.Chunk{}, io.EOF
	}
	n := min(int64(len(c.chunk.Data)), limit-c.chunk.Offset)
	part := disk.Chunk{Offset: c.chunk.Offset, Data: c.chunk.Data[:n]}
	c.chunk = disk.Chunk{Offset: c.chunk.Offset + n, Data: c.chunk.Data[n:]}
	c.at = part.Offset + n
	c.moved(c.at)
	return part, nil
}

// read fills p with what comes next.
func (c *cursor) read(p []byte) error {
	start := c.at
	clear(p)
	return c.each(start+int64(len(p)), func(chunk disk.Chunk) error {
		copy(p[chunk.Offset-start:], chunk.Data)
		return nil
	})
}

// copyTo writes what lies before limit to w, where byte base of the disk is its first.
func (c *cursor) copyTo(w io.WriterAt, base, limit int64) error {
	return c.each(limit, func(chunk disk.Chunk) error {
		_, err := w.WriteAt(chunk.Data, chunk.Offset-base)
		return err
	})
}

// skip reads what lies before limit and drops it.
func (c *cursor) skip(limit int64) error {
	return c.each(limit, func(disk.Chunk) error { return nil })
}

// finish reads to the source's end, so that the source can say whether all of it was well.
func (c *cursor) finish() error {
	if err := c.skip(c.source.Size()); err != nil {
		return err
	}
	if c.ended {
		return nil
	}
	if _, err := c.data(1 << 62); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("read the disk: there is more than its %d bytes", c.source.Size())
		}
		return err
	}
	return nil
}

func (c *cursor) each(limit int64, use func(disk.Chunk) error) error {
	for c.at < limit {
		chunk, err := c.data(limit)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = use(chunk)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
