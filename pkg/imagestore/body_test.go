package imagestore

import (
	"errors"
	"io"
	"testing"

	"github.com/kubexen/kubexen/pkg/contain"
)

// TestAPanicInARequestIsItsError: whoever writes its body is told, and waits for nothing.
func TestAPanicInARequestIsItsError(t *testing.T) {
	o := send(-1, func(io.ReadCloser) error { panic("an answer of no kind") })
	_, err := o.Write([]byte("bytes"))
	if panicked := (*contain.Panic)(nil); !errors.As(err, &panicked) {
		t.Errorf("the write fails with %v", err)
	}
	o.abort()
	if panicked := (*contain.Panic)(nil); !errors.As(o.finish(), &panicked) {
		t.Errorf("it ends with %v", o.err)
	}
}
