package disk

import (
	"crypto/sha1" //nolint:gosec // older XVAs have it as their pieces' checksum; it guards against accidents only
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

const (
	// XVAChunkSize is how much of a disk one member holds; the last of a disk may hold less.
	XVAChunkSize = 1 << 20
	// xvaMaxMetadata bounds ova.xml; that of a VM with 250 disks is below 4 MiB.
	xvaMaxMetadata = 16 << 20

	xvaSHA1  = ".checksum"
	xvaXXH64 = ".xxhash"
)

// xvaMembers holds the members of an XVA, as they come, against the order and the checksums that XenServer writes: ova.xml first, then
// of every disk its pieces in order, each followed by its checksum.
type xvaMembers struct {
	name   string // of the member at hand
	offset int64  // where it is, for errors
	first  bool   // ova.xml was there
	disk   string
	number int64
	// piece is the piece that waits for its checksum, "" if none does.
	piece string
	sums  map[string]hash.Hash
	text  []byte // of a checksum
}

// begin takes a member's header.
func (m *xvaMembers) begin(name string, size, offset int64) error {
	m.name, m.offset = name, offset
	switch {
	case !m.first:
		if name != ovaName || size > xvaMaxMetadata {
			return malformed(XVA, offset, "first member", "ova.xml of at most 16 MiB", fmt.Sprintf("%q of %d bytes", name, size))
		}
		m.first = true
		return nil
	case m.piece == "":
		return m.beginPiece(size)
	case name != m.piece+xvaSHA1 && name != m.piece+xvaXXH64:
		return malformed(XVA, offset, "member", "the checksum of "+m.piece, fmt.Sprintf("%q", name))
	case size > 64:
		return malformed(XVA, offset, "size of a checksum", "at most 64 bytes", size)
	}
	m.text = m.text[:0]
	return nil
}

// beginPiece takes the name of a disk's piece apart.
func (m *xvaMembers) beginPiece(size int64) error {
	disk, digits, found := strings.Cut(m.name, "/")
	number, err := strconv.ParseInt(digits, 10, 40)
	if !found || disk == "" || err != nil || number < 0 || size > XVAChunkSize {
		return malformed(XVA, m.offset, "member", "a piece of a disk of at most 1 MiB, such as Ref:4/00000007", fmt.Sprintf("%q of %d bytes", m.name, size))
	}
	if disk == m.disk && number <= m.number {
		return malformed(XVA, m.offset, "member", fmt.Sprintf("a piece after the %dth", m.number), fmt.Sprintf("%q", m.name))
	}
	m.disk, m.number, m.piece = disk, number, m.name
	if m.sums == nil {
		m.sums = map[string]hash.Hash{xvaSHA1: sha1.New(), xvaXXH64: xxhash.New()} //nolint:gosec // see the import
	}
	for _, sum := range m.sums {
		sum.Reset()
	}
	return nil
}

// isChecksum says that the member at hand is not a piece of a disk.
func (m *xvaMembers) isChecksum() bool { return m.name != m.piece }

// see takes the next bytes of the member at hand.
func (m *xvaMembers) see(p []byte) {
	switch {
	case m.name == ovaName:
	case m.isChecksum():
		m.text = append(m.text, p...)
	default:
		for _, sum := range m.sums {
			_, _ = sum.Write(p)
		}
	}
}

// finish compares a checksum with what was computed.
func (m *xvaMembers) finish() error {
	if m.name == ovaName || !m.isChecksum() {
		return nil
	}
	kind := strings.TrimPrefix(m.name, m.piece)
	sum := m.sums[kind]
	if sum == nil {
		return malformed(XVA, m.offset, "member", "one kind of checksum", fmt.Sprintf("%q", m.name))
	}
	want := hex.EncodeToString(sum.Sum(nil))
	if got := strings.TrimSpace(string(m.text)); !strings.EqualFold(got, want) {
		return malformed(XVA, m.offset, "checksum of "+m.piece, want, got)
	}
	for other := range m.sums { // an archive uses one kind; the other need not be computed
		if other != kind {
			delete(m.sums, other)
		}
	}
	m.piece = ""
	return nil
}

// complete says whether the archive may end.
func (m *xvaMembers) complete(offset int64) error {
	switch {
	case !m.first:
		return malformed(XVA, offset, "first member", ovaName, "the end")
	case m.piece != "":
		return malformed(XVA, offset, "member", "the checksum of "+m.piece, "the end")
	}
	return nil
}

// xvaCheck sees an XVA pass, and knows a whole one from one that was cut.
type xvaCheck struct {
	members xvaMembers
	header  []byte
	data    int64 // of the member at hand, still to come
	padding int64
	at      int64
	ended   bool
}

func (c *xvaCheck) see(p []byte) error {
	for len(p) > 0 {
		n, err := c.take(p)
		if err != nil {
			return err
		}
		c.at += int64(n)
		p = p[n:]
	}
	return nil
}

// take looks at some of the next bytes.
func (c *xvaCheck) take(p []byte) (int, error) {
	if c.ended {
		if !isZero(p) {
			return 0, malformed(XVA, c.at, "bytes after the end", "zeros", "others")
		}
		return len(p), nil
	}
	if c.data > 0 {
		n := int(min(c.data, int64(len(p))))
		c.members.see(p[:n])
		if c.data -= int64(n); c.data == 0 {
			return n, c.members.finish()
		}
		return n, nil
	}
	if c.padding > 0 {
		n := int(min(c.padding, int64(len(p))))
		c.padding -= int64(n)
		return n, nil
	}
	n := min(tarBlock-len(c.header), len(p))
	if c.header = append(c.header, p[:n]...); len(c.header) < tarBlock {
		return n, nil
	}
	err := c.member()
	c.header = c.header[:0]
	return n, err
}

func (c *xvaCheck) member() error {
	start := c.at / tarBlock * tarBlock
	if isZero(c.header) {
		c.ended = true
		return c.members.complete(start)
	}
	if !isTarHeader(c.header) {
		return malformed(XVA, start, "header of a member", "one with a right checksum", fmt.Sprintf("%.12q", c.header))
	}
	size, err := strconv.ParseInt(strings.Trim(string(c.header[124:136]), " \x00"), 8, 64)
	if err != nil || size < 0 {
		return malformed(XVA, start+124, "size of a member", "octal digits", fmt.Sprintf("%q", c.header[124:136]))
	}
	if err := c.members.begin(tarName(c.header), size, start); err != nil {
		return err
	}
	c.data, c.padding = size, (tarBlock-size%tarBlock)%tarBlock
	if size == 0 {
		return c.members.finish()
	}
	return nil
}

func (c *xvaCheck) end() error {
	if !c.ended {
		return truncated(XVA, c.at, "end of the archive", io.ErrUnexpectedEOF)
	}
	return nil
}
