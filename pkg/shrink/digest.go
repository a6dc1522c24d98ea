package shrink

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/kubexen/kubexen/pkg/disk"
)

// piece is what a digest counts as one; zeros only count as a size.
const piece = 64 * kibibyte

// Digest is of a disk's content, wherever its zeros are said or left out: two disks of the same size and content have the same,
// in whatever format they are read. Chunks are added in order.
type Digest struct {
	hash   hash.Hash
	size   int64
	buffer []byte
	at     int64 // which piece is in the buffer
	filled bool
}

// NewDigest is of a disk of a size.
func NewDigest(size int64) *Digest {
	return &Digest{hash: sha256.New(), size: size, buffer: make([]byte, piece)}
}

// Add takes the next chunk.
func (d *Digest) Add(chunk disk.Chunk) {
	for len(chunk.Data) > 0 {
		if index := chunk.Offset / piece; !d.filled || index != d.at {
			d.flush()
			d.at, d.filled = index, true
		}
		n := copy(d.buffer[chunk.Offset%piece:], chunk.Data)
		chunk = disk.Chunk{Offset: chunk.Offset + int64(n), Data: chunk.Data[n:]}
	}
}

func (d *Digest) flush() {
	if !d.filled {
		return
	}
	if !isZero(d.buffer) {
		_, _ = d.hash.Write(le.AppendUint64(nil, uint64(d.at)))
		_, _ = d.hash.Write(d.buffer)
	}
	clear(d.buffer)
}

// Sum is the digest, in hexadecimal digits. Nothing is added after it.
func (d *Digest) Sum() string {
	d.flush()
	d.filled = false
	_, _ = d.hash.Write(le.AppendUint64(nil, uint64(d.size)))
	return hex.EncodeToString(d.hash.Sum(nil))
}

// SumOf reads a stream to its end.
func SumOf(stream disk.Stream) (string, error) {
	digest := NewDigest(stream.Size())
	for {
		chunk, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return digest.Sum(), nil
		}
		if err != nil {
			return "", err
		}
		digest.Add(chunk)
	}
}
