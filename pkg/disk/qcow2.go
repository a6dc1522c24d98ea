package disk

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

// What is read of a qcow2's header before it is believed, and what bounds the work that it can ask for.
const (
	qcow2HeaderSize     = 104
	qcow2MinClusterBits = 9
	qcow2MaxClusterBits = 21
	// qcow2MaxSize is XenServer's largest disk.
	qcow2MaxSize = 16 << 40
	// qcow2MaxL1 bounds the first table: 16 TiB in clusters of 16 KiB, 2 TiB in the smallest that anyone uses (4 KiB).
	qcow2MaxL1 = 8 << 20
)

// Incompatible features that we read: compressed otherwise than by deflate, and reference counts that wait for a repair, which reading
// does not need.
const (
	qcow2Dirty           = 1 << 0
	qcow2CompressionType = 1 << 3
)

type qcow2Header struct {
	clusterBits uint32
	size        int64
	l1Entries   int64
	l1Offset    int64
}

// cluster is the size of a cluster in bytes.
func (h qcow2Header) cluster() int64 { return 1 << h.clusterBits }

// reach is how much of the disk one entry of the first table stands for.
func (h qcow2Header) reach() int64 { return h.cluster() * h.cluster() / 8 }

// parseQCOW2Header reads what says how to read the rest, and refuses what cannot be read as one whole disk.
func parseQCOW2Header(b []byte) (qcow2Header, error) {
	if len(b) < qcow2HeaderSize {
		return qcow2Header{}, malformed(QCOW2, int64(len(b)), "header", "104 bytes", len(b))
	}
	if string(b[:4]) != string(qcow2Magic) {
		return qcow2Header{}, malformed(QCOW2, 0, "magic", `"QFI\xfb"`, fmt.Sprintf("%q", b[:4]))
	}
	version := be.Uint32(b[4:])
	if version != 2 && version != 3 {
		return qcow2Header{}, malformed(QCOW2, 4, "version", "2 or 3", version)
	}
	if be.Uint64(b[8:]) != 0 {
		return qcow2Header{}, malformed(QCOW2, 8, "backing file", "none: an image has to be whole", "one")
	}
	if method := be.Uint32(b[32:]); method != 0 {
		return qcow2Header{}, malformed(QCOW2, 32, "encryption", "none", method)
	}
	if features := be.Uint64(b[72:]); version == 3 && features&^(qcow2Dirty|qcow2CompressionType) != 0 {
		return qcow2Header{}, malformed(QCOW2, 72, "incompatible features", "none but dirty and compression type", fmt.Sprintf("%#x", features))
	}
	h := qcow2Header{clusterBits: be.Uint32(b[20:]), size: int64(be.Uint64(b[24:])), l1Entries: int64(be.Uint32(b[36:])), l1Offset: int64(be.Uint64(b[40:]))}
	return h, h.check()
}

// check bounds what is going to be allocated and read.
func (h qcow2Header) check() error {
	if h.clusterBits < qcow2MinClusterBits || h.clusterBits > qcow2MaxClusterBits {
		return malformed(QCOW2, 20, "cluster bits", "9 to 21", h.clusterBits)
	}
	if h.size <= 0 || h.size > qcow2MaxSize {
		return malformed(QCOW2, 24, "virtual size", "1 byte to 16 TiB", uint64(h.size))
	}
	if h.l1Entries*8 > qcow2MaxL1 {
		return malformed(QCOW2, 36, "entries of the first table", fmt.Sprintf("at most %d", qcow2MaxL1/8), h.l1Entries)
	}
	if want := (h.size + h.reach() - 1) / h.reach(); h.l1Entries < want {
		return malformed(QCOW2, 36, "entries of the first table", fmt.Sprintf("at least %d", want), h.l1Entries)
	}
	if h.l1Offset < qcow2HeaderSize-32 || h.l1Offset > 1<<56 {
		return malformed(QCOW2, 40, "offset of the first table", "a place in the file", uint64(h.l1Offset))
	}
	return nil
}

// readZstd teaches the library the other compression.
var readZstd = sync.OnceFunc(func() {
	qcow2.SetDecompressor(qcow2.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		decoder, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	})
})

// qcow2Disk holds the library's reader to what we checked.
type qcow2Disk struct {
	header qcow2Header
	reader *remembering
	image  *qcow2.Qcow2
	used   []bool // by entry of the first table
	last   Extent // of the data that was found last: a run may be long, and is asked for piece by piece
}

// OpenQCOW2 reads a qcow2 of length bytes. One with a backing file is refused: its name would be a path on our machine.
func OpenQCOW2(r io.ReaderAt, length int64) (Disk, error) {
	raw := make([]byte, qcow2HeaderSize)
	if err := readFullAt(r, raw, 0); err != nil {
		return nil, truncated(QCOW2, 0, "header", err)
	}
	header, err := parseQCOW2Header(raw)
	if err != nil {
		return nil, err
	}
	if end, ok := sum(header.l1Offset, header.l1Entries*8); !ok || end > length {
		return nil, malformed(QCOW2, 40, "first table", fmt.Sprintf("one that ends before %d", length), fmt.Sprintf("%d entries at %d", header.l1Entries, header.l1Offset))
	}
	table := make([]byte, header.l1Entries*8)
	if err := readFullAt(r, table, header.l1Offset); err != nil {
		return nil, truncated(QCOW2, header.l1Offset, "first table", err)
	}
	d := &qcow2Disk{header: header, reader: &remembering{ReaderAt: r}, used: make([]bool, header.l1Entries)}
	for i := range d.used {
		d.used[i] = be.Uint64(table[8*i:])&0x00fffffffffffe00 != 0
	}
	readZstd()
	err = guard(func() error {
		// A section hides the file's name and its Close from the library.
		d.image, err = qcow2.Open(io.NewSectionReader(d.reader, 0, length), nil)
		if err != nil {
			return err
		}
		return d.image.Readable()
	})
	if err != nil {
		return nil, d.fault(0, "header", err)
	}
	return d, nil
}

// guard turns a panic of the library at hostile bytes into an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("reading it fails: %v", r)
		}
	}()
	return f()
}

// remembering keeps why a read failed, since the library's errors do not tell hostile bytes from a network that failed.
type remembering struct {
	io.ReaderAt
	err error
}

func (r *remembering) ReadAt(p []byte, offset int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// fault tells the library's error about the bytes from one of reading them.
func (d *qcow2Disk) fault(offset int64, field string, err error) error {
	if cause := d.reader.err; cause != nil {
		d.reader.err = nil
		return fmt.Errorf("read %s of %s at byte %d: %w", field, QCOW2, offset, cause)
	}
	return &FormatError{Format: QCOW2, Offset: offset, Field: field, Want: "a readable one", Got: "another", Err: err}
}

func (d *qcow2Disk) Size() int64 { return d.header.size }

// ReadAt reads what the library reads in several pieces.
func (d *qcow2Disk) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= d.header.size {
		return 0, io.EOF
	}
	whole := p[:min(int64(len(p)), d.header.size-offset)]
	done := 0
	for done < len(whole) {
		n := 0
		err := guard(func() (err error) {
			n, err = d.image.ReadAt(whole[done:], offset+int64(done))
			return err
		})
		done += n
		if n <= 0 {
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.ErrUnexpectedEOF
			}
			return done, d.fault(offset+int64(done), "content of the disk", err)
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (d *qcow2Disk) NextData(offset int64) (Extent, error) {
	if offset >= d.last.Offset && offset < d.last.End() {
		return Extent{offset, d.last.End() - offset}, nil
	}
	for offset < d.header.size {
		entry := offset / d.header.reach()
		if !d.used[entry] {
			offset = (entry + 1) * d.header.reach()
			continue
		}
		limit := min((entry+1)*d.header.reach(), d.header.size)
		var start, length int64
		zero := false
		err := guard(func() error {
			e, err := d.image.Extent(offset, limit-offset)
			start, length, zero = offset, e.Length, e.Zero
			return err
		})
		if err == nil && length <= 0 {
			err = errors.New("an empty range")
		}
		if err != nil {
			return Extent{}, d.fault(offset, "range of the disk", err)
		}
		if !zero {
			d.last = Extent{start, min(length, limit-start)}
			return d.last, nil
		}
		offset += length
	}
	return Extent{}, io.EOF
}
