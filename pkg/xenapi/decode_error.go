package xenapi

import (
	"errors"
	"fmt"
	"io"
)

// What can be wrong with an answer; a [DecodeError] wraps one of these or the transport's own error.
var (
	// ErrMalformed says that an answer is not the XML-RPC that a XenAPI sends.
	ErrMalformed = errors.New("malformed answer")
	// ErrTruncated says that an answer ends too early.
	ErrTruncated = errors.New("truncated answer")
	// ErrTooLarge says that an answer is beyond its [Limits].
	ErrTooLarge = errors.New("answer beyond its limits")
	// ErrUnexpectedType says that a value is well-formed, but is not of the type that the data model states.
	ErrUnexpectedType = errors.New("value of an unexpected type")
)

// DecodeError tells what is wrong with an answer and where. It never quotes the answer, which may hold secrets.
type DecodeError struct {
	// Offset is the position in the answer's body in bytes.
	Offset int64
	// Field is the class and field being read, such as VM.memory_static_max; empty outside of records.
	Field string
	// Reason says what was found.
	Reason string
	// Err is ErrMalformed, ErrTruncated, ErrTooLarge, ErrUnexpectedType or an error of the transport.
	Err error
}

// Error implements error.
func (e *DecodeError) Error() string {
	where := fmt.Sprintf("at byte %d", e.Offset)
	if e.Field != "" {
		where += " in " + e.Field
	}
	return fmt.Sprintf("%v %s: %s", e.Err, where, e.Reason)
}

// Unwrap implements the errors package's convention.
func (e *DecodeError) Unwrap() error { return e.Err }

func (s *scanner) fail(kind error, format string, args ...any) error {
	return &DecodeError{Offset: s.base + int64(s.pos), Reason: fmt.Sprintf(format, args...), Err: kind}
}

// broken makes a read error a DecodeError: the end of the answer in the middle of a value is a truncation.
func (s *scanner) broken(err error) error {
	var decode *DecodeError
	switch {
	case errors.As(err, &decode):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return s.fail(ErrTruncated, "the answer ends in the middle of a value")
	default:
		return s.fail(err, "the answer could not be read on")
	}
}
