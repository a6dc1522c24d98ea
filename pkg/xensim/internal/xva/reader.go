package xva

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha1" //nolint:gosec // the checksum of archives made before 8.1, not a secret
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

const (
	xxhashSuffix = ".xxhash"
	sha1Suffix   = ".checksum"

	// maxChunk bounds what a hostile archive makes a reader hold at once.
	maxChunk    = 16 << 20
	maxMetadata = 64 << 20
)

// ErrChecksum says that a chunk does not have the checksum that the archive gives for it.
var ErrChecksum = errors.New("checksum differs")

// UnexpectedMemberError says that a member stands where another should.
type UnexpectedMemberError struct {
	// Expected and Actual are members' names.
	Expected, Actual string
}

// Error implements error.
func (e *UnexpectedMemberError) Error() string {
	return fmt.Sprintf("expected %q next in the archive, found %q", e.Expected, e.Actual)
}

// Chunk is a piece of a disk.
type Chunk struct {
	// Disk is the name that the disk has in the metadata.
	Disk string
	// Offset is where on the disk the piece belongs, in bytes.
	Offset int64
	// Content is valid until the next chunk is read.
	Content []byte
}

// Reader reads an archive from a stream.
type Reader struct {
	// Metadata is what the archive begins with.
	Metadata Metadata

	members *tar.Reader
	decoder *zstd.Decoder
	// content holds the present chunk.
	content bytes.Buffer
}

// NewReader reads up to the first disk. An archive that is cut short, or that is none at all, ends with
// io.ErrUnexpectedEOF: this is how a real one reports both (recording 2090).
func NewReader(source io.Reader) (*Reader, error) {
	r := &Reader{}
	plain, err := r.decompress(source)
	if err != nil {
		return nil, err
	}
	r.members = tar.NewReader(plain)
	header, err := r.next()
	if err != nil || header.Name != metadataName {
		return nil, fmt.Errorf("read %s: %w", metadataName, io.ErrUnexpectedEOF)
	}
	text, err := io.ReadAll(io.LimitReader(r.members, maxMetadata))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", metadataName, endEarly(err))
	}
	if r.Metadata, err = ParseMetadata(text); err != nil {
		return nil, err
	}
	return r, nil
}

// NewDiskReader reads the chunks of an archive that has no metadata: a single disk as /export_raw_vdi sends it as tar.
func NewDiskReader(source io.Reader) *Reader { return &Reader{members: tar.NewReader(source)} }

// Close frees what the decompression holds. It does not close what the archive was read from.
func (r *Reader) Close() {
	if r.decoder != nil {
		r.decoder.Close()
	}
}

// decompress finds out how the archive is compressed. What is neither zstd nor a tar that begins as it should is taken for
// gzip, as a real one takes it.
func (r *Reader) decompress(source io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(source, 1<<16)
	start, err := buffered.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", io.ErrUnexpectedEOF)
	}
	switch {
	case bytes.Equal(start, []byte{0x28, 0xB5, 0x2F, 0xFD}):
		r.decoder, err = zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", io.ErrUnexpectedEOF)
		}
		return r.decoder, nil
	case bytes.Equal(start, []byte(metadataName)[:4]):
		return buffered, nil
	}
	decoder, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", io.ErrUnexpectedEOF)
	}
	return decoder, nil
}

func (r *Reader) next() (*tar.Header, error) {
	header, err := r.members.Next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, endEarly(err)
	}
	return header, err
}

// endEarly turns whatever a broken stream gives into an unexpected end; the errors of the source itself stay.
func endEarly(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Next reads the next piece of a disk and checks it against the checksum that follows. It returns io.EOF at the archive's
// end, and with ErrChecksum the piece that is wrong, for those who want it all the same. Pieces without content, which a slow exporter sends to keep the connection alive, are passed over.
func (r *Reader) Next() (Chunk, error) {
	for {
		header, err := r.next()
		if err != nil {
			return Chunk{}, err
		}
		chunk, err := r.chunk(header)
		if err != nil || len(chunk.Content) > 0 {
			return chunk, err
		}
	}
}

func (r *Reader) chunk(header *tar.Header) (Chunk, error) {
	disk, digits, found := strings.Cut(header.Name, "/")
	number, err := strconv.ParseInt(digits, 10, 40)
	if !found || err != nil || number < 0 {
		return Chunk{}, &UnexpectedMemberError{Expected: "Ref:0/00000000", Actual: header.Name}
	}
	if header.Size > maxChunk {
		return Chunk{}, fmt.Errorf("%w: %s has %d bytes", ErrFormat, header.Name, header.Size)
	}
	r.content.Reset()
	if _, err := r.content.ReadFrom(r.members); err != nil {
		return Chunk{}, fmt.Errorf("read %s: %w", header.Name, endEarly(err))
	}
	chunk := Chunk{Disk: disk, Offset: number * ChunkSize, Content: r.content.Bytes()}
	return chunk, r.verify(header.Name, chunk.Content)
}

// verify reads the member that follows a chunk and compares.
func (r *Reader) verify(name string, content []byte) error {
	header, err := r.next()
	if err != nil {
		return fmt.Errorf("read the checksum of %s: %w", name, endEarly(err))
	}
	var want string
	switch header.Name {
	case name + xxhashSuffix:
		want = fmt.Sprintf("%016x", xxhash.Sum64(content))
	case name + sha1Suffix:
		sum := sha1.Sum(content) //nolint:gosec // see the import
		want = hex.EncodeToString(sum[:])
	default:
		return &UnexpectedMemberError{Expected: name + xxhashSuffix, Actual: header.Name}
	}
	got, err := io.ReadAll(io.LimitReader(r.members, 64))
	if err != nil {
		return fmt.Errorf("read the checksum of %s: %w", name, endEarly(err))
	}
	if !strings.EqualFold(string(got), want) {
		return fmt.Errorf("%s: %w", name, ErrChecksum)
	}
	return nil
}
