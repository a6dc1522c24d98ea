package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/egress"
)

// Kind is what is wrong.
type Kind int

// Kinds. Those of the first group may be over by the next attempt.
const (
	// Unavailable says the store cannot be reached, or answers that it cannot serve now.
	Unavailable Kind = iota + 1
	// Interrupted says a connection ended before all bytes were through.
	Interrupted
	// Stalled says no byte moved for too long, or too few.
	Stalled
	// Throttled says the store asks for fewer requests.
	Throttled
	// Full says the store has no space left, or the quota is used up.
	Full
	// Damaged says the digest of what the store holds is not that of what was sent.
	Damaged

	// Refused says the store does not let us, or does not take the request.
	Refused
	// NotFound says the store has no such object, bucket or image.
	NotFound
	// Exists says the name is taken.
	Exists
	// Changed says the object is not the one that was looked at before.
	Changed
	// NoRanges says the store reads from the beginning only.
	NoRanges
	// Forbidden says the endpoint is not open to tenants.
	Forbidden
	// Invalid says the credentials or the place cannot be understood.
	Invalid
	// Mismatch says the bytes are not those that the caller's checksum is of.
	Mismatch
	// TooLarge says the store takes no object as large as this one in the way that it is written.
	TooLarge
)

var kindNames = map[Kind]string{
	Unavailable: "unavailable", Interrupted: "interrupted", Stalled: "stalled", Throttled: "throttled", Full: "full", Damaged: "damaged",
	Refused: "refused", NotFound: "not found", Exists: "exists", Changed: "changed", NoRanges: "no ranges", Forbidden: "forbidden",
	Invalid: "invalid", Mismatch: "checksum mismatch", TooLarge: "too large",
}

// String names the kind.
func (k Kind) String() string { return kindNames[k] }

// Error is what a store could not do.
type Error struct {
	// Kind decides what to do about it.
	Kind Kind
	// Op is what was being done, "upload part 7" for instance.
	Op string
	// Target is what it was done to, without secrets.
	Target string
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// RetryAfter is how long the store asks to wait, 0 when it does not.
	RetryAfter time.Duration
	// Err is the cause, or the store's words.
	Err error
}

// Error tells what was done to what, and why it failed.
func (e *Error) Error() string {
	text := e.Op + " " + e.Target + ": "
	if e.Status != 0 {
		text += fmt.Sprintf("the store answers %d: ", e.Status)
	}

	return text + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Retryable tells whether another attempt may succeed though nobody changed anything.
func (e *Error) Retryable() bool { return e.Kind >= Unavailable && e.Kind <= Damaged }

// KindOf returns the kind of an error, 0 when it is none of a store.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}

	return 0
}

// wrap gives a transport's error its kind. A context that ended comes first: it is why everything else failed.
func wrap(ctx context.Context, op, target string, err error) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errStalled):
		return fmt.Errorf("%s %s: %w", op, target, context.Cause(ctx))
	case errors.As(err, &known):
		return err
	}
	var inURL *url.Error // repeats the URL with its query, which may hold a signature
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	e := &Error{Kind: Unavailable, Op: op, Target: target, Err: err}
	switch {
	case errors.Is(err, egress.ErrForbidden):
		e.Kind = Forbidden
	case errors.Is(err, errSlow):
		e.Kind, e.Err = Stalled, errSlow
	case errors.Is(err, errStalled):
		e.Kind, e.Err = Stalled, errStalled
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Kind = Interrupted
	}

	return e
}

// wordsOf are how much of a store's own explanation is repeated.
const wordsOf = 300

// answered makes an error of an answer that is no success, and closes its body.
func answered(op, target string, response *http.Response) *Error {
	defer response.Body.Close()
	words, _ := io.ReadAll(io.LimitReader(response.Body, wordsOf)) // what can be read of the explanation is enough
	text := strings.Join(strings.Fields(string(words)), " ")
	if text == "" || strings.HasPrefix(text, "<") {
		text = http.StatusText(response.StatusCode)
	}

	return &Error{
		Kind: kindOfStatus(response.StatusCode), Op: op, Target: target, Status: response.StatusCode,
		RetryAfter: retryAfter(response.Header), Err: errors.New(text),
	}
}

func kindOfStatus(status int) Kind {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return NotFound
	case http.StatusTooManyRequests:
		return Throttled
	case http.StatusRequestTimeout:
		return Stalled
	case http.StatusInsufficientStorage:
		return Full
	case http.StatusPreconditionFailed:
		return Changed
	case http.StatusRequestedRangeNotSatisfiable:
		return Changed
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return Refused
	}
	if status >= http.StatusInternalServerError {
		return Unavailable
	}

	return Refused
}

// maxRetryAfter bounds what a store may ask for.
const maxRetryAfter = time.Hour

func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}

	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
