package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kubexen/kubexen/pkg/contain"
)

// download is a body that is read: its errors have kinds, and an end before its time is one.
type download struct {
	ctx        context.Context //nolint:containedctx // the body belongs to its request
	body       io.ReadCloser
	op, target string
	left       int64 // bytes that must still come; negative when unknown
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	known := d.left >= 0
	d.left -= int64(n)
	switch {
	case known && d.left < 0:
		return n, &Error{Kind: Changed, Op: d.op, Target: d.target, Err: errors.New("more bytes came than there should be")}
	case err == io.EOF && known && d.left > 0:
		return n, &Error{Kind: Interrupted, Op: d.op, Target: d.target, Err: fmt.Errorf("the connection ended %d bytes early", d.left)}
	case err == nil, err == io.EOF:
		if !known {
			d.left = -1
		}
		return n, err
	}
	kinded := wrap(d.ctx, d.op, d.target, err)
	if e := (*Error)(nil); errors.As(kinded, &e) && e.Kind == Unavailable {
		e.Kind = Interrupted // bytes had been flowing
	}

	return n, kinded
}

// Close implements io.Closer.
func (d *download) Close() error { return d.body.Close() }

// errAborted ends the body of a request that is given up: the server sees a broken connection, never an end.
var errAborted = errors.New("the upload was given up")

// errAnswered says a server was content before it had everything.
var errAnswered = errors.New("the server answered before all bytes were sent")

// outgoing is the body of a request that is written while it is sent. The request does not end before finish is called:
// the last byte (of a body of known size) or the terminating chunk (of another) is withheld until then, so that a
// server never takes what was not released for complete.
type outgoing struct {
	pipe  *io.PipeWriter
	size  int64 // −1 when unknown
	sent  int64
	held  []byte        // the last byte, until finish
	ended chan struct{} // closed when the request is over
	err   error         // why it failed, once ended
}

// send starts a request with a body to be written; do gets it and returns when the request is over.
func send(size int64, do func(body io.ReadCloser) error) *outgoing {
	reader, writer := io.Pipe()
	o := &outgoing{pipe: writer, size: size, ended: make(chan struct{})}
	go func() {
		defer close(o.ended)
		o.err = contain.Call(func() error { return do(reader) })
		if o.err == nil {
			_ = reader.CloseWithError(io.ErrClosedPipe) // a pipe's close does not fail
			return
		}
		_ = reader.CloseWithError(o.err)
	}()

	return o
}

// Write implements io.Writer.
func (o *outgoing) Write(p []byte) (int, error) {
	if o.size >= 0 && o.sent+int64(len(p)) > o.size {
		return 0, fmt.Errorf("more than the %d bytes that were announced", o.size)
	}
	now := p
	if len(p) > 0 && o.sent+int64(len(p)) == o.size {
		now, o.held = p[:len(p)-1], []byte{p[len(p)-1]}
	}
	if len(now) > 0 {
		if _, err := o.pipe.Write(now); err != nil {
			return 0, o.why(err)
		}
	}
	o.sent += int64(len(p))

	return len(p), nil
}

// why tells the request's own error: the pipe only knows that nobody reads any more.
func (o *outgoing) why(err error) error {
	<-o.ended
	switch {
	case o.err != nil:
		return o.err
	case errors.Is(err, io.ErrClosedPipe):
		return errAnswered
	default:
		return err
	}
}

// finish releases what was withheld and waits for the server's answer.
func (o *outgoing) finish() error {
	if o.size >= 0 && o.sent != o.size {
		o.abort()

		return fmt.Errorf("%d bytes were announced, %d were written", o.size, o.sent)
	}
	if len(o.held) > 0 {
		_, _ = o.pipe.Write(o.held) // a failure is the request's, which is awaited below
	}
	_ = o.pipe.Close()
	<-o.ended

	return o.err
}

// abort breaks the connection and waits until the request is over.
func (o *outgoing) abort() {
	_ = o.pipe.CloseWithError(errAborted)
	<-o.ended
}
