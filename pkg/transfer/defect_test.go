package transfer_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// hostile is a file at which a parser panics after some bytes.
type hostile struct{ left int }

func (h *hostile) Read(p []byte) (int, error) {
	n := min(h.left, len(p))
	if n == 0 {
		var table []int
		return table[len(p)], nil
	}
	h.left -= n
	return n, nil
}

// blind is a store that panics when it is looked at.
type blind struct{ file }

func (blind) Stat(context.Context, string) (imagestore.Object, error) { panic("a digest of no length") }

// TestAPanicEndsOneTransfer: a store or a file at which our code panics costs its own transfer and nothing else. What was made is
// taken away, the stack is logged, the message says whose fault it is, and it is not tried again.
func TestAPanicEndsOneTransfer(t *testing.T) {
	raw := make([]byte, 8<<20)
	r := newRig(t, anywhere(func(place transfer.Place) (imagestore.Store, error) {
		switch url := place.Source.HTTP.URL; {
		case strings.Contains(url, "nowhere"):
			panic("no such place")
		case strings.Contains(url, "blind"):
			return blind{}, nil
		case strings.Contains(url, "head"):
			return file{body: raw, read: func() io.Reader { return &hostile{0} }}, nil
		case strings.Contains(url, "middle"):
			return file{body: raw, read: func() io.Reader { return &hostile{5 << 20} }}, nil
		}
		return file{body: raw}, nil
	}))
	for _, name := range []string{"nowhere", "blind", "head", "middle"} {
		r.Start(named(name), r.fromHTTP(t, "https://store/"+name+"?signature=secret"))
		f := failure(t, r.ended(t, named(name)).Err)
		if f.Reason != v1alpha1.ReasonDefect || !f.Permanent {
			t.Errorf("%s: %s, permanent %t: %v", name, f.Reason, f.Permanent, f)
		}
		if words := f.Error(); !strings.Contains(words, "a defect of KubeXen") || !strings.Contains(words, "https://store/"+name+" ") || strings.Contains(words, "secret") {
			t.Errorf("%s: the message is %q", name, words)
		}
		if !r.logged.has("team-a/" + name) {
			t.Errorf("%s: its stack is not logged", name)
		}
	}
	if n := r.complete(); n != 0 {
		t.Errorf("%d disks are taken for complete", n)
	}
	r.Start(named("whole"), r.fromHTTP(t, "https://store/whole"))
	if state := r.ended(t, named("whole")); state.Err != nil {
		t.Errorf("the next transfer: %v", state.Err)
	}
	if !r.logged.has("hostile") {
		t.Error("no stack shows where it was")
	}
}
