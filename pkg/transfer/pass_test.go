package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func TestPass(t *testing.T) {
	content := make([]byte, 3*copyBuffer+17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // it never fails
	broken := errors.New("the connection broke")
	for name, tc := range map[string]struct {
		from io.Reader
		want []byte
		err  error
	}{
		"nothing":                     {strings.NewReader(""), nil, nil},
		"one byte":                    {strings.NewReader("x"), []byte("x"), nil},
		"a whole buffer":              {bytes.NewReader(content[:copyBuffer]), content[:copyBuffer], nil},
		"several":                     {bytes.NewReader(content), content, nil},
		"in small pieces":             {iotest.HalfReader(bytes.NewReader(content)), content, nil},
		"with the end beside":         {iotest.DataErrReader(bytes.NewReader(content)), content, nil},
		"an error in the middle":      {io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)), content, broken},
		"an error that wraps the end": {io.MultiReader(bytes.NewReader(content), iotest.ErrReader(fmt.Errorf("cut: %w", io.EOF))), content, io.EOF},
		"an unexpected end":           {io.MultiReader(bytes.NewReader(content), iotest.ErrReader(io.ErrUnexpectedEOF)), content, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := pass(&got, tc.from); !errors.Is(err, tc.err) || err != nil && tc.err == nil {
				t.Errorf("the error is %v, want %v", err, tc.err)
			}
			if !bytes.Equal(got.Bytes(), tc.want) {
				t.Errorf("%d bytes came, want %d, or others", got.Len(), len(tc.want))
			}
		})
	}
}

// full is a store without space.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

var errFull = errors.New("no space left")

func TestPassEndsWithItsWriter(t *testing.T) {
	reader, writer := io.Pipe()
	defer reader.Close()
	go func() {
		for { // an export that goes on for ever, until it is closed
			if _, err := writer.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	if err := pass(&full{left: 2 * copyBuffer}, reader); !errors.Is(err, errFull) {
		t.Errorf("the error is %v", err)
	}
}
