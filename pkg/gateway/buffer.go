package gateway

import (
	"io"
	"sync"
)

// A session waits most of its life, and then a screen is painted at once: a buffer is small while little comes and large while it is filled.
const (
	smallBuffer = 4 << 10
	largeBuffer = 256 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
)

// buffer is what one direction of a session reads into.
type buffer struct {
	bytes []byte
	from  *sync.Pool
	held  *[]byte
}

func newBuffer() *buffer {
	b := &buffer{}
	b.take(&smallBuffers)
	return b
}

func (b *buffer) take(from *sync.Pool) {
	b.from, b.held = from, from.Get().(*[]byte)
	b.bytes = *b.held
}

func (b *buffer) free() { b.from.Put(b.held) }

func (b *buffer) read(r io.Reader) (int, error) { return r.Read(b.bytes) }

// fit takes a buffer of the other size when the last read of n bytes shows that this one is too small or far too large.
func (b *buffer) fit(n int) {
	switch {
	case b.from == &smallBuffers && n == smallBuffer:
		b.free()
		b.take(&largeBuffers)
	case b.from == &largeBuffers && n < smallBuffer:
		b.free()
		b.take(&smallBuffers)
	}
}
