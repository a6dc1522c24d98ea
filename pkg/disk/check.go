package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Checked passes an image through unchanged and ends in a *FormatError, not in io.EOF, if it was not a whole one: a server that fails
// in the middle of an export cuts the body or writes an error's text into it.
type Checked struct {
	reader  io.Reader
	format  Format
	length  int64 // -1 if unknown
	virtual int64
	vhd     *VHDHead
	xva     *xvaCheck
	at      int64
	tail    tail
}

// NewChecked reads what precedes the image's data and checks it. length is the image's length if it is known, of Raw the disk's
// size, else -1.
func NewChecked(r io.Reader, format Format, length int64) (*Checked, error) {
	c := &Checked{format: format, length: length, virtual: -1}
	var raw []byte
	var err error
	switch format {
	case VHD:
		raw, err = c.openVHD(r)
	case QCOW2:
		raw, err = c.openQCOW2(r)
	case XVA:
		c.xva = &xvaCheck{}
	case Raw:
		c.virtual = length
		raw, err = peekAnswer(r, length)
	case NovaTarball:
		err = fmt.Errorf("a %s is read member by member", format)
	}
	if err != nil {
		return nil, err
	}
	c.reader = io.MultiReader(bytes.NewReader(raw), r)
	return c, nil
}

func (c *Checked) openVHD(r io.Reader) ([]byte, error) {
	head, err := ReadVHDHead(r)
	if err != nil {
		return nil, err
	}
	c.vhd, c.virtual = head, head.VirtualSize()
	if c.length < 0 {
		c.length = head.ImageSize()
	}
	if c.length < head.ImageSize() {
		return nil, malformed(VHD, c.length, "length", fmt.Sprintf("at least %d bytes, for %d blocks", head.ImageSize(), head.Blocks), c.length)
	}
	raw := head.raw
	head.raw = nil
	return raw, nil
}

func (c *Checked) openQCOW2(r io.Reader) ([]byte, error) {
	raw := make([]byte, qcow2HeaderSize)
	if n, err := io.ReadFull(r, raw); err != nil {
		return nil, truncated(QCOW2, int64(n), "header", err)
	}
	header, err := parseQCOW2Header(raw)
	if err != nil {
		return nil, err
	}
	c.virtual = header.size
	return raw, nil
}

// peekAnswer looks for a server's error in place of a disk. A disk's boot code does not begin like that.
func peekAnswer(r io.Reader, length int64) ([]byte, error) {
	answer := []byte("HTTP/")
	if length >= 0 && length < int64(len(answer)) {
		return nil, nil
	}
	raw := make([]byte, len(answer))
	n, err := io.ReadFull(r, raw)
	if err != nil && length >= 0 {
		return nil, truncated(Raw, int64(n), "content", err)
	}
	if bytes.Equal(raw[:n], answer) {
		return nil, malformed(Raw, 0, "content", "a disk", "an HTTP answer")
	}
	return raw[:n], nil
}

// Len is the image's length in bytes, -1 if only its end tells.
func (c *Checked) Len() int64 { return c.length }

// VirtualSize is the disk's size in bytes, -1 if it is not one disk.
func (c *Checked) VirtualSize() int64 { return c.virtual }

// VHD is what precedes the blocks of a VHD, nil of another format.
func (c *Checked) VHD() *VHDHead { return c.vhd }

// Read passes bytes on and checks what it sees.
func (c *Checked) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	if n > 0 {
		if late := c.see(p[:n]); late != nil {
			return 0, late
		}
	}
	if errors.Is(err, io.EOF) {
		if late := c.end(); late != nil {
			return n, late
		}
	}
	return n, err
}

func (c *Checked) see(p []byte) error {
	if c.xva != nil {
		if err := c.xva.see(p); err != nil {
			return err
		}
	}
	c.at += int64(len(p))
	if c.length >= 0 && c.at > c.length {
		return malformed(c.format, c.length, "end", "no more bytes", "more")
	}
	c.tail.see(p)
	return nil
}

func (c *Checked) end() error {
	if c.length >= 0 && c.at < c.length {
		return truncated(c.format, c.at, "content", io.ErrUnexpectedEOF)
	}
	if c.xva != nil {
		return c.xva.end()
	}
	if c.vhd != nil {
		return c.vhd.checkClosing(c.tail[:], c.at-vhdFooterSize)
	}
	return nil
}
