package transfer

import (
	"errors"
	"io"

	"github.com/kubexen/kubexen/pkg/contain"
)

// copyBuffer is how much of a stream is handed on at a time; passBuffers of them are in our hands.
const (
	copyBuffer  = 1 << 20
	passBuffers = 3
)

// chunk is a piece of a stream, and why it is the last one.
type chunk struct {
	bytes []byte
	err   error
}

// pass copies a stream to its end. It reads ahead, so that decrypting and checking what comes and digesting and sending what
// goes are done at the same time, and hands on whole buffers: the pool's connection gives 16 KiB at a time. After an error of
// to, from may be read for a moment longer: the caller closes what is behind it.
func pass(to io.Writer, from io.Reader) error {
	full, free := make(chan chunk), make(chan []byte, passBuffers)
	done := make(chan struct{})
	defer close(done)
	for range passBuffers {
		free <- make([]byte, copyBuffer)
	}
	go readAhead(contain.Reader(from), free, full, done) // nobody above this goroutine could
	for {
		next := <-full
		if _, err := to.Write(next.bytes); err != nil {
			return err
		}
		switch {
		case errors.Is(next.err, errEnd):
			return nil
		case next.err != nil:
			return next.err
		}
		free <- next.bytes[:copyBuffer]
	}
}

// readAhead fills free buffers until the stream ends or nobody wants more.
func readAhead(from io.Reader, free <-chan []byte, full chan<- chunk, done <-chan struct{}) {
	for {
		var next chunk
		select {
		case buffer := <-free:
			next = fill(buffer, from)
		case <-done:
			return
		}
		select {
		case full <- next:
		case <-done:
			return
		}
		if next.err != nil {
			return
		}
	}
}

// errEnd is io.EOF as it comes bare from a reader: an error that only wraps it is one.
var errEnd = errors.New("the stream has ended well")

// fill reads until the buffer is full or the stream ends.
func fill(buffer []byte, from io.Reader) chunk {
	for n := 0; ; {
		read, err := from.Read(buffer[n:])
		n += read
		if err == io.EOF {
			err = errEnd
		}
		if err != nil || n == len(buffer) {
			return chunk{buffer[:n], err}
		}
	}
}
