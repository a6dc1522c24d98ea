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
	bounded := &bounded{limit: limit, name: Format(c)}
	switch c {
	case None, "":
		bounded.reader = io.NopCloser(r)
		bounded.name = Raw
	case Gzip:
		reader, err := gzip.NewReader(r)
		if err != nil {
			return nil, compressionFault(c, 0, err)
		}
		bounded.reader = reader
	case Zstd:
		reader, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, compressionFault(c, 0, err)
		}
		bounded.reader = reader.IOReadCloser()
	default:
		return nil, fmt.Errorf("no compression %q", c)
	}
	return bounded, nil
}

// compressionFault tells bytes that are wrong from a network that failed.
func compressionFault(c Compression, offset int64, err error) error {
	wrong := []error{
		gzip.ErrChecksum, gzip.ErrHeader, zstd.ErrMagicMismatch, zstd.ErrWindowSizeExceeded, zstd.ErrWindowSizeTooSmall,
		zstd.ErrUnknownDictionary, zstd.ErrFrameSizeExceeded, zstd.ErrFrameSizeMismatch, zstd.ErrCRCMismatch, zstd.ErrReservedBlockType,
		zstd.ErrCompressedSizeTooBig, zstd.ErrBlockTooSmall, zstd.ErrUnexpectedBlockSize, zstd.ErrDecoderSizeExceeded, io.ErrUnexpectedEOF, io.EOF,
	}
	for _, w := range wrong {
		if errors.Is(err, w) {
			return &FormatError{Format: Format(c), Offset: offset, Field: "stream", Want: "a whole one", Got: "a broken one", Err: err}
		}
	}
	return fmt.Errorf("decompress %s: %w", c, err)
}

type bounded struct {
	reader io.ReadCloser
	name   Format
	at     int64
	limit  int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.reader.Read(p)
	b.at += int64(n)
	if b.at > b.limit {
		return 0, malformed(b.name, b.limit, "length", fmt.Sprintf("at most %d bytes", b.limit), "more")
	}
	if err != nil && !errors.Is(err, io.EOF) && b.name != Raw {
		err = compressionFault(Compression(b.name), b.at, err)
	}
	return n, err
}

func (b *bounded) Close() error { return b.reader.Close() }

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
