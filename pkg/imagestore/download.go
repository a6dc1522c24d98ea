package imagestore

import (
	"context"
	"errors"
	"io"
	"time"

	"k8s.io/utils/clock"
)

// DownloadOptions say how an object is read to its end.
type DownloadOptions struct {
	// Wanted digests are compared at the end, in place of which the error of kind Mismatch stands. So are those that the
	// store tells of the object; what differs from them is Interrupted. SHA-256 is computed anyway.
	Wanted Digests
	// Attempts is how often the connection may break without a byte in between; 5 when zero.
	Attempts int
	// Wait pauses before a new connection; nil waits 1 s, 2 s, 4 s… or what the store asks for.
	Wait func(ctx context.Context, attempt int, asked time.Duration) error
	// Clock tells how fast bytes come, over all connections; the real one if nil.
	Clock clock.PassiveClock
}

const (
	defaultAttempts = 5
	// maxPause is how long a download waits for a new connection. Who is asked to wait longer had better begin anew then:
	// meanwhile others may use what the download holds.
	maxPause = 30 * time.Second
)

// Download reads an object from the beginning to its end. A connection that breaks is made anew where it broke, if the
// store reads from an offset.
type Download struct {
	ctx     context.Context //nolint:containedctx // the download belongs to its caller's work
	store   Store
	name    string
	object  Object
	options DownloadOptions
	digest  *digester
	pace    *pace

	body   io.ReadCloser
	offset int64
	broken int // times in a row
	done   bool
}

// NewDownload makes no request yet.
func NewDownload(ctx context.Context, store Store, name string, object Object, options DownloadOptions) *Download {
	if options.Attempts == 0 {
		options.Attempts = defaultAttempts
	}
	if options.Wait == nil {
		options.Wait = pause
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	compute := options.Wanted
	compute.SHA256 = "wanted"
	compute.SHA512 += object.Digests.SHA512
	if object.Digests.SHA256 == "" && object.Digests.SHA512 == "" {
		compute.MD5 += object.Digests.MD5
	}

	return &Download{ctx: ctx, store: store, name: name, object: object, options: options, digest: digesterOf(compute), pace: newPace(options.Clock)}
}

// Read implements io.Reader.
func (d *Download) Read(p []byte) (int, error) {
	d.pace.await(0)
	n, err := d.readOn(p)
	d.pace.moved += int64(n)
	if slow := d.pace.rest(); slow != nil && err == nil {
		err = &Error{Kind: Stalled, Op: "read", Target: d.store.Location(d.name), Err: slow}
	}

	return n, err
}

// readOn reads, over a new connection if need be.
func (d *Download) readOn(p []byte) (int, error) {
	for {
		if d.done {
			return 0, io.EOF
		}
		n, err := d.read(p)
		d.digest.write(p[:n])
		d.offset += int64(n)
		if n > 0 {
			d.broken = 0
		}
		switch {
		case err == io.EOF: //nolint:errorlint // io.EOF comes bare
			if err := d.end(); err != nil {
				return n, err
			}
			d.done = true
			return n, io.EOF
		case err != nil:
			err = d.again(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (d *Download) read(p []byte) (int, error) {
	if d.body == nil && d.offset > 0 && d.offset == d.object.Size {
		return 0, io.EOF // it broke behind the last byte
	}
	if d.body == nil {
		body, err := d.store.Open(d.ctx, d.name, d.object, d.offset, -1)
		if err != nil {
			return 0, err
		}
		d.body = body
	}

	return d.body.Read(p)
}

// end compares the digests.
func (d *Download) end() error {
	if d.object.Size >= 0 && d.offset != d.object.Size {
		return &Error{Kind: Interrupted, Op: "read", Target: d.store.Location(d.name), Err: io.ErrUnexpectedEOF}
	}
	if _, err := d.options.Wanted.compare(d.digest.digests()); err != nil {
		return &Error{Kind: Mismatch, Op: "read", Target: d.store.Location(d.name), Err: err}
	}
	if _, err := d.object.Digests.compare(d.digest.digests()); err != nil {
		return &Error{Kind: Interrupted, Op: "read", Target: d.store.Location(d.name), Err: err}
	}

	return nil
}

// again makes ready for a new connection after an error that may pass; otherwise it returns the error.
func (d *Download) again(cause error) error {
	_ = d.Close() // it is broken anyway
	var e *Error
	if d.broken++; !errors.As(cause, &e) || !e.Retryable() || errors.Is(cause, errSlow) || e.RetryAfter > maxPause || d.broken >= d.options.Attempts || d.ctx.Err() != nil {
		return cause
	}

	return d.options.Wait(d.ctx, d.broken, e.RetryAfter)
}

// Close implements io.Closer.
func (d *Download) Close() error {
	if d.body == nil {
		return nil
	}
	body := d.body
	d.body = nil

	return body.Close()
}

// Digests are those of all bytes that were read so far.
func (d *Download) Digests() Digests { return d.digest.digests() }

// Offset is how many bytes were read so far.
func (d *Download) Offset() int64 { return d.offset }

func pause(ctx context.Context, attempt int, asked time.Duration) error {
	return sleep(ctx, max(asked, min(time.Second<<(attempt-1), maxPause)))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
