package xenapi

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"sync"
	"unicode/utf8"
)

// Limits bound what an answer may cost. An answer beyond them is a [DecodeError], never a partial result.
type Limits struct {
	// MaxBytes is the largest answer in bytes.
	MaxBytes int64
	// MaxText is the longest single value or name in bytes.
	MaxText int
	// MaxDepth is how deeply arrays and structs may be nested.
	MaxDepth int
}

// DefaultLimits are used where a limit is zero. A pool of 10,000 VMs answers get_all_records with about 90 MB; no XenAPI value is
// nested more than six deep, and the longest single text is a changed-block bitmap of a few megabytes.
var DefaultLimits = Limits{MaxBytes: 1 << 30, MaxText: 64 << 20, MaxDepth: 64}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultLimits.MaxBytes
	}
	if l.MaxText <= 0 {
		l.MaxText = DefaultLimits.MaxText
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = DefaultLimits.MaxDepth
	}
	return l
}

const (
	windowSize    = 64 << 10
	maxPooledSize = 1 << 20
	internSlots   = 2048
	internMaxLen  = 64
)

// scanner cuts an XML-RPC answer into tags and texts. It reads through a sliding window, so that an answer's text is held once: in the
// values made of it. It knows no DTD and expands nothing but the five predefined entities and character references, each of which is
// shorter than what it stands for is long; a document therefore cannot grow while it is read.
type scanner struct {
	src    io.Reader
	limits Limits

	buf  []byte // the window
	pos  int    // next unread byte in buf
	end  int    // end of valid bytes in buf
	base int64  // offset in the document of buf[0]

	depth   int
	scratch []byte // a text that could not be taken from the window as it stands
	name    []byte // the name of the member being read
	interns [internSlots]string
}

var scanners = sync.Pool{New: func() any { return &scanner{buf: make([]byte, windowSize)} }}

func newScanner(src io.Reader, limits Limits) *scanner {
	s := scanners.Get().(*scanner)
	s.src, s.limits = src, limits.withDefaults()
	s.pos, s.end, s.base, s.depth = 0, 0, 0, 0
	return s
}

// release gives the scanner's buffers back for the next answer.
func (s *scanner) release() {
	s.src = nil
	if len(s.buf) > maxPooledSize {
		s.buf = make([]byte, windowSize)
	}
	if cap(s.scratch) > maxPooledSize {
		s.scratch = nil
	}
	scanners.Put(s)
}

// more drops what lies before from and reads at least one byte after the window's end. Positions are relative to from afterwards: from
// itself becomes zero.
func (s *scanner) more(from int) error {
	copy(s.buf, s.buf[from:s.end])
	s.end -= from
	s.pos -= from
	s.base += int64(from)
	if s.end == len(s.buf) {
		if len(s.buf) > s.limits.MaxText {
			return s.fail(ErrTooLarge, "a single text is longer than %d bytes", s.limits.MaxText)
		}
		grown := make([]byte, 2*len(s.buf))
		copy(grown, s.buf[:s.end])
		s.buf = grown
	}
	for range 100 {
		n, err := s.src.Read(s.buf[s.end:])
		s.end += n
		if s.base+int64(s.end) > s.limits.MaxBytes {
			return s.fail(ErrTooLarge, "the answer is larger than %d bytes", s.limits.MaxBytes)
		}
		if n > 0 {
			return nil
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// literal consumes text if the window continues with it. A false answer may also mean that the window ends too early: the general path
// must follow.
func (s *scanner) literal(text string) bool {
	if s.end-s.pos < len(text) || string(s.buf[s.pos:s.pos+len(text)]) != text {
		return false
	}
	s.pos += len(text)
	return true
}

// until returns the window's bytes from pos to the next occurrence of c, reading on as needed. It consumes nothing.
func (s *scanner) until(c byte) ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(s.buf[s.pos+searched:s.end], c); i >= 0 {
			return s.buf[s.pos : s.pos+searched+i], nil
		}
		searched = s.end - s.pos
		if err := s.more(s.pos); err != nil {
			return nil, s.broken(err)
		}
	}
}

// need makes at least n unread bytes available, or fails at the end of the answer.
func (s *scanner) need(n int) error {
	for s.end-s.pos < n {
		if err := s.more(s.pos); err != nil {
			return s.broken(err)
		}
	}
	return nil
}

// text returns the character data up to the next tag, with references resolved. It is valid until the scanner moves on.
func (s *scanner) text() ([]byte, error) {
	raw, err := s.until('<')
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(raw, '&') < 0 {
		n := len(raw)
		if s.end-s.pos < n+2 {
			if err := s.need(n + 2); err != nil {
				return nil, err
			}
			raw = s.buf[s.pos : s.pos+n]
		}
		if next := s.buf[s.pos+n+1]; next != '!' && next != '?' {
			s.pos += n
			return raw, nil
		}
	}
	return s.textInPieces()
}

// textInPieces is text where references, CDATA sections, comments or processing instructions are in the way.
func (s *scanner) textInPieces() ([]byte, error) {
	s.scratch = s.scratch[:0]
	for {
		raw, err := s.until('<')
		if err != nil {
			return nil, err
		}
		if err := s.resolve(raw); err != nil {
			return nil, err
		}
		s.pos += len(raw)
		if err := s.need(2); err != nil {
			return nil, err
		}
		switch s.buf[s.pos+1] {
		case '?':
			err = s.skipPast("?>")
		case '!':
			err = s.declaration(true)
		default:
			return s.scratch, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// declaration reads what begins with "<!": a comment, or where text may stand a CDATA section, whose content it adds to scratch.
// A document type is refused: no XenAPI sends one, and entities are what hostile documents are made of.
func (s *scanner) declaration(inText bool) error {
	if err := s.need(9); err != nil {
		return err
	}
	switch {
	case string(s.buf[s.pos:s.pos+4]) == "<!--":
		s.pos += 4
		return s.skipPast("-->")
	case inText && string(s.buf[s.pos:s.pos+9]) == "<![CDATA[":
		s.pos += 9
		for {
			part, err := s.until(']')
			if err != nil {
				return err
			}
			s.scratch = append(s.scratch, part...)
			s.pos += len(part)
			if err := s.need(3); err != nil {
				return err
			}
			if s.literal("]]>") {
				return nil
			}
			s.scratch = append(s.scratch, ']')
			s.pos++
			if len(s.scratch) > s.limits.MaxText {
				return s.fail(ErrTooLarge, "a single text is longer than %d bytes", s.limits.MaxText)
			}
		}
	default:
		return s.fail(ErrMalformed, "a declaration other than a comment")
	}
}

func (s *scanner) skipPast(mark string) error {
	for {
		part, err := s.until(mark[0])
		if err != nil {
			return err
		}
		s.pos += len(part)
		if err := s.need(len(mark)); err != nil {
			return err
		}
		if s.literal(mark) {
			return nil
		}
		s.pos++
	}
}

// resolve appends raw to scratch with its references resolved.
func (s *scanner) resolve(raw []byte) error {
	for {
		i := bytes.IndexByte(raw, '&')
		if i < 0 {
			s.scratch = append(s.scratch, raw...)
			return s.checkText()
		}
		s.scratch = append(s.scratch, raw[:i]...)
		raw = raw[i+1:]
		stop := bytes.IndexByte(raw[:min(len(raw), 12)], ';')
		if stop < 0 {
			return s.fail(ErrMalformed, "an ampersand that begins no reference")
		}
		r, ok := reference(raw[:stop])
		if !ok {
			return s.fail(ErrMalformed, "an unknown entity")
		}
		s.scratch = utf8.AppendRune(s.scratch, r)
		raw = raw[stop+1:]
	}
}

func (s *scanner) checkText() error {
	if len(s.scratch) > s.limits.MaxText {
		return s.fail(ErrTooLarge, "a single text is longer than %d bytes", s.limits.MaxText)
	}
	return nil
}

// reference resolves what stands between & and ;.
func reference(name []byte) (rune, bool) {
	switch string(name) {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	if len(name) < 2 || name[0] != '#' {
		return 0, false
	}
	digits, radix := name[1:], 10
	if digits[0] == 'x' {
		digits, radix = digits[1:], 16
	}
	n, err := strconv.ParseUint(string(digits), radix, 32)
	if err != nil || n > utf8.MaxRune || (n >= 0xD800 && n < 0xE000) {
		return 0, false
	}
	return rune(n), true
}

// skipSpace consumes white space between tags.
func (s *scanner) skipSpace() error {
	for {
		for s.pos < s.end {
			switch s.buf[s.pos] {
			case ' ', '\t', '\r', '\n':
				s.pos++
			default:
				return nil
			}
		}
		if err := s.more(s.pos); err != nil {
			return s.broken(err)
		}
	}
}

// intern returns b as a string, sharing one copy among equal short texts: references, enum values and map keys repeat without end.
func (s *scanner) intern(b []byte) string {
	n := len(b)
	if n == 0 {
		return ""
	}
	if n > internMaxLen {
		return string(b)
	}
	var hash uint64
	if n >= 8 {
		hash = binary.LittleEndian.Uint64(b) ^ binary.LittleEndian.Uint64(b[n-8:])*0x9E3779B97F4A7C15
	} else {
		for _, c := range b {
			hash = hash<<8 | uint64(c)
		}
	}
	hash = (hash ^ uint64(n)) * 0xD6E8FEB86659FD93
	slot := &s.interns[hash>>53]
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot
}
