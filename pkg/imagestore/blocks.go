package imagestore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
)

// Blocks are the digests of an object's blocks, taken while it was read from front to back. Held against them, what is read
// of it later is what its whole digest was computed of, whatever the store answers to a range.
type Blocks struct {
	sums    [][]byte
	current hash.Hash
	left    int64
}

// Write implements io.Writer, for what is read from front to back.
func (b *Blocks) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if b.current == nil {
			b.current, b.left = sha256.New(), blockSize
		}
		part := rest[:min(int64(len(rest)), b.left)]
		_, _ = b.current.Write(part) // a hash takes everything
		if b.left -= int64(len(part)); b.left == 0 {
			b.end()
		}
		rest = rest[len(part):]
	}

	return len(p), nil
}

func (b *Blocks) end() {
	if b.current != nil {
		b.sums, b.current = append(b.sums, b.current.Sum(nil)), nil
	}
}

// check compares a block with what it was.
func (b *Blocks) check(number int64, data []byte) error {
	b.end() // all was written before anything is read
	sum := sha256.Sum256(data)
	if number >= int64(len(b.sums)) || !bytes.Equal(b.sums[number], sum[:]) {
		return errors.New("the store answers other bytes to a range than it did for the whole")
	}

	return nil
}
