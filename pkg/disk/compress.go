package disk

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow is the largest window that is decoded: what zstd itself takes without being told to (8 MiB), doubled.
const zstdWindow = 16 << 20

// NewDecompressor reads what r holds. More than limit bytes, however small their compressed form, are a *FormatError.
func NewDecompressor(r io.Reader, c Compression, limit int64) (io.ReadCloser, error) {
	b := &bounded{source: &counter{Reader: r}, name: Format(c), limit: limit}
	switch c {
	case None, "":
		b.name, b.ReadCloser = Raw, io.NopCloser(b.source)
	case Gzip:
		reader, err := gzip.NewReader(b.source)
		if err != nil {
			return nil, b.fault(err)
		}
		b.ReadCloser = reader
	case Zstd:
		reader, err := zstd.NewReader(b.source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, b.fault(err)
		}
		b.ReadCloser = reader.IOReadCloser()
	default:
		return nil, fmt.Errorf("no compression %q", c)
	}
	return b, nil
}

// bounded reads to a limit.
type bounded struct {
	io.ReadCloser
	source *counter
	name   Format
	at     int64
	limit  int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.at += int64(n)
	if b.at > b.limit {
		return 0, malformed(b.name, b.limit, "length", fmt.Sprintf("at most %d bytes", b.limit), "more")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.fault(err)
	}
	return n, err
}

func (b *bounded) fault(err error) error { return b.source.fault(b.name, "compressed stream", err) }

// NewCompressor compresses what is written to it. Close ends the compressed stream and leaves w open.
func NewCompressor(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case None, "":
		return unclosed{w}, nil
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	default:
		return nil, fmt.Errorf("no compression %q", c)
	}
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// Sniffed is an object of which the first bytes were looked at.
type Sniffed struct {
	// Format and Compression are what was found.
	Format      Format
	Compression Compression
	// ReadCloser is the object from its first byte, decompressed. Close does not close the source.
	io.ReadCloser
}

// Sniff finds out what r holds. What contradicts the stated format ("" if none is) is a *FormatError, as are more than limit bytes after
// decompression.
func Sniff(r io.Reader, stated Format, limit int64) (*Sniffed, error) {
	head, r, err := peek(r, 4)
	if err != nil {
		return nil, err
	}
	s := &Sniffed{Compression: DetectCompression(head)}
	if s.Compression != None {
		if r, err = NewDecompressor(r, s.Compression, limit); err != nil {
			return nil, err
		}
	}
	if head, r, err = peek(r, DetectLength); err != nil {
		return nil, err
	}
	if s.Format, err = DetectAs(stated, head); err != nil {
		return nil, err
	}
	closer, ok := r.(io.Closer)
	if !ok {
		closer = io.NopCloser(nil)
	}
	s.ReadCloser = struct {
		io.Reader
		io.Closer
	}{r, closer}
	return s, nil
}
