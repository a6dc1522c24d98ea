package disk

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// XVAReader reads the disks of an XVA as it passes.
type XVAReader struct {
	tar     *tar.Reader
	counted *counter
	members xvaMembers
	disks   []XVADisk
	ova     []byte
	next    int64 // where in the disk the next piece begins, holes before it apart
	last    int64 // the number of the piece before
	of      string
	buffer  []byte
}

// XVAChunk is a run of a disk's content. Data is valid until the reader's next call.
type XVAChunk struct {
	// Ref names the disk.
	Ref string
	Chunk
}

// NewXVAReader reads ova.xml from an XVA in no compression.
func NewXVAReader(r io.Reader) (*XVAReader, error) {
	x := &XVAReader{counted: &counter{Reader: r}, buffer: make([]byte, XVAChunkSize)}
	x.tar = tar.NewReader(x.counted)
	header, err := x.member()
	if err != nil {
		return nil, err
	}
	if x.ova, err = io.ReadAll(io.LimitReader(x.tar, header.Size)); err != nil {
		return nil, x.fault(err)
	}
	x.disks, err = parseOVA(x.ova)
	return x, err
}

// Metadata is ova.xml, as it is.
func (x *XVAReader) Metadata() []byte { return x.ova }

// Disks are the disks in the archive, in its order.
func (x *XVAReader) Disks() []XVADisk { return x.disks }

func (x *XVAReader) member() (*tar.Header, error) {
	header, err := x.tar.Next()
	if errors.Is(err, io.EOF) && x.counted.ended() {
		if err := x.members.complete(x.counted.n); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	if err != nil {
		return nil, x.fault(err)
	}
	return header, x.members.begin(header.Name, header.Size, x.counted.n-tarBlock)
}

func (x *XVAReader) fault(err error) error { return x.counted.fault(XVA, "member", err) }

// Next returns the next piece of a disk, its checksum verified, or io.EOF at the archive's end. Pieces of one disk are in order; what
// none covers is zero.
func (x *XVAReader) Next() (XVAChunk, error) {
	for {
		header, err := x.member()
		if err != nil {
			return XVAChunk{}, err
		}
		chunk := XVAChunk{Ref: x.members.disk, Chunk: Chunk{Data: x.buffer[:header.Size]}}
		if err := x.content(chunk.Data); err != nil {
			return XVAChunk{}, err
		}
		sum, err := x.member()
		if err != nil {
			return XVAChunk{}, err
		}
		var text [64]byte
		if err := x.content(text[:sum.Size]); err != nil {
			return XVAChunk{}, err
		}
		if chunk.Offset, err = x.place(chunk); err != nil {
			return XVAChunk{}, err
		}
		if len(chunk.Data) > 0 {
			return chunk, nil
		}
	}
}

func (x *XVAReader) content(p []byte) error {
	if _, err := io.ReadFull(x.tar, p); err != nil {
		return x.fault(err)
	}
	x.members.see(p)
	return x.members.finish()
}

// place computes where a piece belongs: a number that is left out is a piece of zeros, but an empty piece, which XenServer writes to
// keep a connection alive, takes a number and no room (stream_vdi.ml).
func (x *XVAReader) place(chunk XVAChunk) (int64, error) {
	if chunk.Ref != x.of {
		x.of, x.next, x.last = chunk.Ref, 0, -1
	}
	offset := x.next + (x.members.number-x.last-1)*XVAChunkSize
	x.next, x.last = offset+int64(len(chunk.Data)), x.members.number
	for _, d := range x.disks {
		if d.Ref == chunk.Ref {
			if x.next > d.VirtualSize {
				return 0, malformed(XVA, x.counted.n, "piece of "+d.Ref, fmt.Sprintf("one within %d bytes", d.VirtualSize), x.next)
			}
			return offset, nil
		}
	}
	return 0, malformed(XVA, x.counted.n, "piece", "one of a disk in ova.xml", chunk.Ref)
}

// XVAWriter writes an XVA.
type XVAWriter struct {
	w      io.Writer
	buffer []byte
}

// NewXVAWriter writes ova.xml, which names the disks that follow.
func NewXVAWriter(w io.Writer, ova []byte) (*XVAWriter, error) {
	x := &XVAWriter{w: w, buffer: make([]byte, XVAChunkSize)}
	return x, x.member(ovaName, ova)
}

// WriteDisk writes a disk's pieces, of which those without data are left out, but for the first and the last. Disks have to come in
// the order of their references.
func (x *XVAWriter) WriteDisk(ref string, d Disk) error {
	last := (d.Size() - 1) / XVAChunkSize
	next, err := d.NextData(0)
	for number := int64(0); number <= last; number++ {
		start := number * XVAChunkSize
		piece := x.buffer[:min(XVAChunkSize, d.Size()-start)]
		if err == nil && next.End() <= start {
			next, err = d.NextData(start)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil || next.Offset >= start+int64(len(piece)) { // no data here
			if number != 0 && number != last {
				if number = last - 1; err == nil {
					number = min(last, next.Offset/XVAChunkSize) - 1
				}
				continue
			}
			clear(piece)
		} else if err := readFullAt(d, piece, start); err != nil {
			return err
		}
		if err := x.piece(ref, number, piece); err != nil {
			return err
		}
	}
	return nil
}

func (x *XVAWriter) piece(ref string, number int64, content []byte) error {
	name := fmt.Sprintf("%s/%08d", ref, number)
	if err := x.member(name, content); err != nil {
		return err
	}
	return x.member(name+xvaXXH64, fmt.Appendf(nil, "%016X", xxhash.Sum64(content)))
}

func (x *XVAWriter) member(name string, content []byte) error {
	padding := make([]byte, (tarBlock-len(content)%tarBlock)%tarBlock)
	for _, part := range [][]byte{tarHeader(name, int64(len(content))), content, padding} {
		if _, err := x.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the archive and leaves what it is written to open.
func (x *XVAWriter) Close() error {
	_, err := x.w.Write(make([]byte, 2*tarBlock))
	return err
}
