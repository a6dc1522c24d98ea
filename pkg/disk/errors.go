package disk

import (
	"errors"
	"fmt"
	"io"
)

// FormatError says that bytes are not what their format asks for. It is final: the same bytes will fail again.
type FormatError struct {
	// Format is what the bytes were read as.
	Format Format
	// Offset is where in the input the fault is, in bytes.
	Offset int64
	// Field names what was read there.
	Field string
	// Want and Got are what the format asks for and what was there.
	Want, Got string
	// Err is the cause, if there is one below.
	Err error
}

func (e *FormatError) Error() string {
	text := fmt.Sprintf("not a valid %s: %s at byte %d: wanted %s, found %s", e.Format, e.Field, e.Offset, e.Want, e.Got)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause. It is never io.EOF, which tells a reader that all is well.
func (e *FormatError) Unwrap() error {
	if errors.Is(e.Err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return e.Err
}

// malformed makes a FormatError.
func malformed(format Format, offset int64, field, want string, got any) error {
	return &FormatError{Format: format, Offset: offset, Field: field, Want: want, Got: fmt.Sprint(got)}
}

// truncated turns the end of the input into a FormatError; other errors of reading (a network's) stay what they are.
func truncated(format Format, offset int64, field string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FormatError{Format: format, Offset: offset, Field: field, Want: "more bytes", Got: "the end", Err: io.ErrUnexpectedEOF}
	}
	return fmt.Errorf("read %s of %s at byte %d: %w", field, format, offset, err)
}
