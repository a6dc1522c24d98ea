package contain_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/kubexen/kubexen/pkg/contain"
)

// brittle panics with the first byte.
type brittle struct{}

func (brittle) Read(p []byte) (int, error) {
	var table []int
	return table[len(p)], nil
}

func TestAPanicBecomesAnError(t *testing.T) {
	undone := false
	var panicked *contain.Panic
	err := contain.Call(func() error {
		defer func() { undone = true }()
		_, err := brittle{}.Read(make([]byte, 1))
		return err
	})
	if !errors.As(err, &panicked) || !strings.Contains(string(panicked.Stack), "brittle.Read") || !undone {
		t.Errorf("the error is %v, with the stack\n%s", err, panicked.Stack)
	}
	if _, err := io.ReadAll(contain.Reader(brittle{})); !errors.As(err, &panicked) {
		t.Errorf("the reader fails with %v", err)
	}
}

func TestWhatDoesNotPanicPasses(t *testing.T) {
	if err := contain.Call(func() error { return io.ErrNoProgress }); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	if err := iotest.TestReader(contain.Reader(strings.NewReader("bytes")), []byte("bytes")); err != nil {
		t.Error(err)
	}
}
