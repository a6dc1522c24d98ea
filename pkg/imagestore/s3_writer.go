package imagestore

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // stores tell MD5 of what they hold; it finds damage, it proves nothing
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/semaphore"

	"github.com/kubexen/kubexen/pkg/contain"
)

// Sizes of a multipart upload. S3 takes 10,000 parts of at least 5 MiB, the last one apart.
const (
	mebibyte     = 1 << 20
	maxParts     = 10_000
	bufferBudget = 48 * mebibyte // of one writer, over all parts that are under way
	largestPart  = 48 * mebibyte // that is kept in memory, so that it can be repeated
)

// A parting says how large the parts of an object are.
type parting struct {
	// growing sizes are for objects of unknown size, so that short ones have several parts under way and long ones do
	// not run out of parts. Together the default ones are 360 GiB.
	growing []partStep
	// streamAbove is the size above which parts are sent as they come: they are too large for memory, and cannot be
	// repeated.
	streamAbove int64
}

type partStep struct {
	upTo int // the number of the last part of this size
	size int64
}

var defaultParting = parting{
	growing:     []partStep{{2000, 16 * mebibyte}, {4000, 24 * mebibyte}, {maxParts, largestPart}},
	streamAbove: largestPart,
}

// size of the part with a number, from 1 on, of an object whose size is known, or negative.
func (p parting) size(object int64, number int) int64 {
	needed := (object + maxParts - 1) / maxParts
	for _, step := range p.growing {
		if object < 0 && number <= step.upTo || object >= 0 && needed <= step.size {
			return step.size
		}
	}

	return (needed + mebibyte - 1) / mebibyte * mebibyte
}

// transferKey is the metadata by which an upload is known again when the answer to its completion was lost.
const transferKey = "Kubexen-Transfer"

// s3Writer sends an object in parts while it is written, as many at a time as the budget of memory allows. What fits
// into one part is sent at once with the commit.
type s3Writer struct {
	store  *S3
	ctx    context.Context //nolint:containedctx // of Create: parts are sent between calls
	cancel context.CancelCauseFunc
	name   string
	upload Upload
	id     string // of this transfer

	uploadID string // empty until the first part is sent
	digest   *digester
	written  int64

	buffer   []byte // of the part that is being written
	number   int
	streamed *outgoing // the part that is being written, if it is too large for memory
	sum      hash.Hash // of that part
	budget   *semaphore.Weighted
	sending  sync.WaitGroup
	inFlight atomic.Int32 // parts

	mu    sync.Mutex
	free  [][]byte // buffers to use again
	parts []sentPart

	committed bool
}

// sentPart is a part that the store has confirmed.
type sentPart struct {
	minio.CompletePart
	sha256    []byte
	confirmed bool
}

// Create implements Store. The context bounds the writing.
func (s *S3) Create(ctx context.Context, name string, upload Upload) (Writer, error) {
	if err := s.removeStale(ctx, name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)

	return &s3Writer{
		store: s, ctx: ctx, cancel: cancel, name: name, upload: upload, id: rand.Text(), number: 1,
		digest: digesterOf(Digests{SHA256: "wanted"}), budget: semaphore.NewWeighted(bufferBudget),
	}, nil
}

// Write implements io.Writer.
func (w *s3Writer) Write(p []byte) (n int, err error) {
	if w.upload.Size >= 0 && w.written+int64(len(p)) > w.upload.Size {
		return 0, w.misused(fmt.Errorf("more than the %d bytes that were announced", w.upload.Size))
	}
	for len(p) > 0 {
		taken := 0
		if w.upload.Size >= 0 && w.partSize() > w.store.parting.streamAbove {
			taken, err = w.stream(p)
		} else {
			taken, err = w.collect(p)
		}
		w.digest.write(p[:taken])
		w.written += int64(taken)
		n, p = n+taken, p[taken:]
		if err != nil {
			return n, err
		}
	}

	return n, nil
}

// collect puts bytes into the buffer of the current part and sends the part when it is full.
func (w *s3Writer) collect(p []byte) (int, error) {
	size := w.partSize()
	if w.number > maxParts {
		return 0, &Error{Kind: TooLarge, Op: "write", Target: w.store.Location(w.name), Err: errors.New(
			"an archive, or a compressed disk, can have at most 359 GiB in a bucket, since its size is not known before its end; VHD and Raw without compression have no such limit")}
	}
	if w.buffer == nil {
		if err := w.budget.Acquire(w.ctx, size); err != nil {
			return 0, w.failed("write", err)
		}
		w.buffer = w.newBuffer(int(size))
	}
	n := min(len(p), int(size)-len(w.buffer))
	w.buffer = append(w.buffer, p[:n]...)
	if int64(len(w.buffer)) == size {
		return n, w.sendBuffer()
	}

	return n, nil
}

func (w *s3Writer) newBuffer(size int) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, buffer := range w.free {
		if cap(buffer) == size {
			w.free = slices.Delete(w.free, i, i+1)
			return buffer[:0]
		}
	}
	w.free = nil // of another size, not needed again

	return make([]byte, 0, size)
}

// sendBuffer sends the current part while the next one is written.
func (w *s3Writer) sendBuffer() error {
	if err := w.begin(); err != nil {
		return err
	}
	buffer, number := w.buffer, w.number
	w.buffer, w.number = nil, number+1
	w.inFlight.Add(1)
	w.sending.Go(func() {
		defer w.inFlight.Add(-1)
		clean := false
		err := contain.Call(func() (err error) {
			clean, err = w.sendPart(number, buffer)
			return err
		})
		if err != nil {
			w.cancel(err) // the next Write and Commit tell
		}
		if clean {
			w.mu.Lock()
			w.free = append(w.free, buffer)
			w.mu.Unlock()
		}
		w.budget.Release(int64(cap(buffer)))
	})

	return nil
}

// begin opens the multipart upload.
func (w *s3Writer) begin() (err error) {
	if w.ctx.Err() != nil {
		return w.failed("write", w.ctx.Err())
	}
	if w.uploadID != "" {
		return nil
	}
	w.uploadID, err = w.store.core.NewMultipartUpload(w.ctx, w.store.bucket, w.store.key(w.name), w.options(true))

	return w.failed("begin the upload of", err)
}

func (w *s3Writer) options(multipart bool) minio.PutObjectOptions {
	metadata := map[string]string{transferKey: w.id}
	if multipart {
		metadata["X-Amz-Checksum-Algorithm"] = "SHA256"
	}

	return minio.PutObjectOptions{ContentType: w.upload.contentType(), UserMetadata: metadata}
}

// sendPart sends a part from memory; the store compares its SHA-256 while it takes it. Clean tells that the first
// attempt succeeded: the connection of one that failed may read the bytes for some moments yet.
func (w *s3Writer) sendPart(number int, data []byte) (clean bool, err error) {
	digest := sha256.Sum256(data)
	op, attempts := fmt.Sprintf("upload part %d of", number), 0
	err = w.repeat(w.ctx, op, func() error {
		attempts++
		part, err := w.store.core.PutObjectPart(w.ctx, w.store.bucket, w.store.key(w.name), w.uploadID, number, once(data), int64(len(data)),
			minio.PutObjectPartOptions{
				Sha256Hex: hex.EncodeToString(digest[:]), DisableContentSha256: true,
				CustomHeader: http.Header{"X-Amz-Checksum-Sha256": {base64.StdEncoding.EncodeToString(digest[:])}},
			})
		if err != nil {
			return err
		}
		return w.sent(part, digest[:], func() string {
			sum := md5.Sum(data) //nolint:gosec // as above
			return hex.EncodeToString(sum[:])
		})
	})

	return attempts == 1, err
}

// once is a reader that the client cannot rewind. It would do so for a second attempt while the connection of the first
// may still be reading.
func once(data []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }

// repeat makes a request again while its error may pass, a few times.
func (w *s3Writer) repeat(ctx context.Context, op string, do func() error) error {
	for attempt := 1; ; attempt++ {
		err := w.store.wrap(ctx, op, w.name, do())
		var e *Error
		if !errors.As(err, &e) || !e.Retryable() || attempt == s3Attempts {
			return w.failed(op, err)
		}
		if err := sleep(ctx, firstPause<<(attempt-1)); err != nil {
			return w.failed(op, err)
		}
	}
}

// stream passes bytes on to the request of the current part, which is too large to be kept.
func (w *s3Writer) stream(p []byte) (int, error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	size := min(w.partSize(), w.upload.Size-w.offsetOfPart())
	if w.streamed == nil {
		w.sum = sha256.New()
		w.streamed = w.sendStream(w.number, size)
	}
	n := int(min(int64(len(p)), size-w.streamed.sent))
	_, _ = w.sum.Write(p[:n]) // before the bytes leave: with the last one the digest is sent
	if _, err := w.streamed.Write(p[:n]); err != nil {
		return 0, w.failed(fmt.Sprintf("upload part %d of", w.number), err)
	}
	if w.streamed.sent == size {
		streamed := w.streamed
		w.streamed, w.number = nil, w.number+1
		if err := streamed.finish(); err != nil {
			return n, err
		}
	}

	return n, nil
}

func (w *s3Writer) partSize() int64 { return w.store.parting.size(w.upload.Size, w.number) }

// offsetOfPart is where the current part begins, of an object of known size: its parts have one size.
func (w *s3Writer) offsetOfPart() int64 { return int64(w.number-1) * w.partSize() }

// sendStream opens the request of a large part; its SHA-256 follows the bytes.
func (w *s3Writer) sendStream(number int, size int64) *outgoing {
	digest, both := w.sum, md5.New() //nolint:gosec // as above
	return send(size, func(body io.ReadCloser) error {
		trailer := http.Header{"X-Amz-Checksum-Sha256": {base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))}}
		reader := io.TeeReader(io.LimitReader(body, size), both)
		part, err := w.store.core.PutObjectPart(w.ctx, w.store.bucket, w.store.key(w.name), w.uploadID, number,
			&atEnd{reader, size, func() {
				trailer.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(digest.Sum(nil)))
			}}, size,
			minio.PutObjectPartOptions{Trailer: trailer, DisableContentSha256: true})
		if err != nil {
			return w.failed(fmt.Sprintf("upload part %d of", number), err)
		}

		return w.sent(part, digest.Sum(nil), func() string { return hex.EncodeToString(both.Sum(nil)) })
	})
}

// atEnd calls a function before it passes on the last byte. Some who read by count never ask for the end.
type atEnd struct {
	reader io.Reader
	left   int64
	call   func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.reader.Read(p)
	if a.left -= int64(n); n > 0 && a.left == 0 {
		a.call()
	}

	return n, err
}

// sent compares what the store says of a part with what was sent.
func (w *s3Writer) sent(part minio.ObjectPart, digest []byte, md5Sum func() string) error {
	wanted := base64.StdEncoding.EncodeToString(digest)
	confirmed := part.ChecksumSHA256 != ""
	var err error
	switch {
	case confirmed && part.ChecksumSHA256 != wanted:
		err = errors.New("the store's SHA-256 of it is another one")
	case !confirmed && len(part.ETag) == md5.Size*2:
		if confirmed = part.ETag == md5Sum(); !confirmed {
			err = errors.New("the store's MD5 of it is another one")
		}
	}
	if err != nil {
		return &Error{Kind: Damaged, Op: fmt.Sprintf("upload part %d of", part.PartNumber), Target: w.store.Location(w.name), Err: err}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parts = append(w.parts, sentPart{
		CompletePart: minio.CompletePart{PartNumber: part.PartNumber, ETag: part.ETag, ChecksumSHA256: part.ChecksumSHA256},
		sha256:       digest, confirmed: confirmed,
	})

	return nil
}

// Commit implements Writer.
func (w *s3Writer) Commit(ctx context.Context) (Object, error) {
	if w.upload.Size >= 0 && w.written != w.upload.Size {
		return Object{}, w.misused(fmt.Errorf("%d bytes were announced, %d were written", w.upload.Size, w.written))
	}
	if w.uploadID == "" {
		return w.commitWhole(ctx)
	}
	if len(w.buffer) > 0 {
		if err := w.sendBuffer(); err != nil {
			return Object{}, err
		}
	}
	w.sending.Wait()
	if w.ctx.Err() != nil {
		return Object{}, w.failed("finish", w.ctx.Err())
	}
	slices.SortFunc(w.parts, func(a, b sentPart) int { return a.PartNumber - b.PartNumber })
	confirmed := true
	list, composite := make([]minio.CompletePart, 0, len(w.parts)), sha256.New()
	for _, part := range w.parts {
		list = append(list, part.CompletePart)
		_, _ = composite.Write(part.sha256) // a hash takes everything
		confirmed = confirmed && part.confirmed
	}
	done, err := w.store.core.CompleteMultipartUpload(ctx, w.store.bucket, w.store.key(w.name), w.uploadID, list, minio.PutObjectOptions{})
	wanted := fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(composite.Sum(nil)), len(list))
	if err == nil && done.ChecksumSHA256 != "" && done.ChecksumSHA256 != wanted {
		return Object{}, w.damaged(ctx, errors.New("the store's SHA-256 of the parts is another one"))
	}

	return w.finished(ctx, err, confirmed)
}

// commitWhole sends an object that fits into one part.
func (w *s3Writer) commitWhole(ctx context.Context) (Object, error) {
	if w.ctx.Err() != nil {
		return Object{}, w.failed("upload", w.ctx.Err())
	}
	digest := sha256.Sum256(w.buffer)
	options := w.options(false)
	options.UserMetadata["X-Amz-Checksum-Sha256"] = base64.StdEncoding.EncodeToString(digest[:])
	sum := md5.Sum(w.buffer) //nolint:gosec // as above
	err := w.repeat(ctx, "upload", func() error {
		_, err := w.store.core.PutObject(ctx, w.store.bucket, w.store.key(w.name), once(w.buffer), int64(len(w.buffer)),
			base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(digest[:]), options)
		return err
	})

	return w.finished(ctx, err, true) // a wrong Content-MD5 is refused
}

// finished looks at what stands under the name now. An answer that was lost is no failure when the object is ours.
func (w *s3Writer) finished(ctx context.Context, failure error, confirmed bool) (Object, error) {
	if failure = w.store.wrap(ctx, "finish the upload of", w.name, failure); failure != nil {
		var e *Error
		if !errors.As(failure, &e) || !e.Retryable() {
			return Object{}, failure
		}
	}
	info, err := w.store.core.StatObject(ctx, w.store.bucket, w.store.key(w.name), minio.StatObjectOptions{Checksum: true})
	switch {
	case failure != nil && (err != nil || info.UserMetadata[transferKey] != w.id):
		return Object{}, failure
	case err != nil:
		return Object{}, w.store.wrap(ctx, "look at", w.name, err)
	case info.Size != w.written:
		return Object{}, w.damaged(ctx, fmt.Errorf("it has %d bytes, not %d", info.Size, w.written))
	}
	object := s3Object(info)
	if _, err := w.digest.digests().compare(object.Digests); err != nil {
		return Object{}, w.damaged(ctx, err)
	}
	object.Digests, object.Confirmed = w.digest.digests(), confirmed
	w.committed = true
	w.cancel(nil)

	return object, nil
}

// damaged takes away what should not stand there.
func (w *s3Writer) damaged(ctx context.Context, why error) error {
	err := &Error{Kind: Damaged, Op: "finish the upload of", Target: w.store.Location(w.name), Err: why}

	return errors.Join(err, w.store.Remove(ctx, w.name))
}

// Abort implements Writer.
func (w *s3Writer) Abort(ctx context.Context) error {
	if w.committed {
		return nil
	}
	interrupted := w.inFlight.Load() > 0 || w.streamed != nil
	w.cancel(errAborted)
	if w.streamed != nil {
		w.streamed.abort()
	}
	w.sending.Wait()
	if w.uploadID == "" {
		return nil
	}
	err := w.store.core.AbortMultipartUpload(ctx, w.store.bucket, w.store.key(w.name), w.uploadID)
	if err := w.store.wrap(ctx, "abort the upload of", w.name, err); err != nil && KindOf(err) != Interrupted && KindOf(err) != NotFound {
		return err
	}
	if !interrupted {
		return nil
	}
	// A store that is just taking a part when the upload is aborted may keep the upload for it; S3 says to look again.
	if err := sleep(ctx, firstPause); err != nil {
		return w.store.wrap(ctx, "abort the upload of", w.name, err)
	}

	return w.store.removeStale(ctx, w.name)
}

// failed wraps an error; of a part that failed before, it tells that one's.
func (w *s3Writer) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	var earlier *Error
	if errors.As(context.Cause(w.ctx), &earlier) {
		return earlier
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}

	return w.store.wrap(w.ctx, op, w.name, err)
}

func (w *s3Writer) misused(err error) error {
	return &Error{Kind: Invalid, Op: "write", Target: w.store.Location(w.name), Err: err}
}

// hexOf turns the base64 that S3 speaks into hexadecimal digits.
func hexOf(inBase64 string) string {
	raw, err := base64.StdEncoding.DecodeString(inBase64)
	if err != nil {
		return ""
	}

	return hex.EncodeToString(raw)
}
