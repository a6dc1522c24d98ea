package disk

import (
	"errors"
	"fmt"
	"io"
)

// counter stands between a source and a parser that is not ours. It keeps what tells hostile bytes from a network that failed.
type counter struct {
	io.Reader
	n    int64 // what was read
	tail tail  // the end of it
	err  error // why the source failed
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.tail.see(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// ended says that an archive that has no more members was closed: by a block of zeros, without which it was cut.
func (c *counter) ended() bool { return isZero(c.tail[:]) }

// fault is the source's error, or else one about the bytes.
func (c *counter) fault(format Format, field string, err error) error {
	if c.err != nil {
		return fmt.Errorf("read %s of %s at byte %d: %w", field, format, c.n, c.err)
	}
	return &FormatError{Format: format, Offset: c.n, Field: field, Want: "a whole one", Got: "a broken one", Err: err}
}

// tail is the last sector of what passed.
type tail [sectorSize]byte

func (t *tail) see(p []byte) {
	if len(p) >= len(t) {
		copy(t[:], p[len(p)-len(t):])
		return
	}
	copy(t[:], t[len(p):])
	copy(t[len(t)-len(p):], p)
}
