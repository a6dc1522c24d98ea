package imagestore

import (
	"context"
	"errors"
	"fmt"
)

// withheld is what writers have in common that send an object in one request, and hold its end back until the commit: a
// server takes a file for complete as soon as it has its end.
type withheld struct {
	upload   Upload
	location string
	digest   *digester
	body     *outgoing
	cancel   context.CancelFunc // of the request

	written   int64
	committed bool
	// mayBeTaken says that the end was sent and the server did not answer that it refuses.
	mayBeTaken bool
}

// withhold returns a writer without its body, which the caller begins to send. told are the digests that the store may tell
// of what it holds, by whatever value: each costs as much as the whole rest of a transfer.
func withhold(upload Upload, location string, told Digests, cancel context.CancelFunc) withheld {
	return withheld{upload: upload, location: location, cancel: cancel, digest: digesterOf(told)}
}

// Write implements io.Writer.
func (w *withheld) Write(p []byte) (int, error) {
	if w.upload.Size >= 0 && w.written+int64(len(p)) > w.upload.Size {
		return 0, w.wrong(Invalid, "write", fmt.Errorf("more than the %d bytes that were announced", w.upload.Size))
	}
	n, err := w.body.Write(p)
	w.digest.write(p[:n])
	w.written += int64(n)

	return n, err
}

// release sends the end, and waits for the server's answer.
func (w *withheld) release(ctx context.Context) error {
	if w.upload.Size >= 0 && w.written != w.upload.Size {
		return w.wrong(Invalid, "write", fmt.Errorf("%d bytes were announced, %d were written", w.upload.Size, w.written))
	}
	stop := context.AfterFunc(ctx, w.cancel)
	defer stop()
	err := w.body.finish()
	var answer *Error
	w.mayBeTaken = !errors.As(err, &answer) || answer.Status == 0

	return err
}

// confirmed holds what the store says of an object against what was sent.
func (w *withheld) confirmed(object Object, theirs ...Digests) (Object, error) {
	if object.Size >= 0 && object.Size != w.written {
		return Object{}, w.wrong(Damaged, "upload", fmt.Errorf("it has %d bytes, not %d", object.Size, w.written))
	}
	ours := w.digest.digests()
	for _, digests := range theirs {
		compared, err := ours.compare(digests)
		if err != nil {
			return Object{}, w.wrong(Damaged, "upload", err)
		}
		object.Confirmed = object.Confirmed || compared
	}
	object.Digests, w.committed = ours, true
	w.cancel()

	return object, nil
}

func (w *withheld) wrong(kind Kind, op string, why error) error {
	return &Error{Kind: kind, Op: op, Target: w.location, Err: why}
}
