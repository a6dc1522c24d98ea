package transfer_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// trickle gives a byte a second.
type trickle struct {
	clock *clocktesting.FakePassiveClock
}

func (t trickle) Read([]byte) (int, error) {
	t.clock.SetTime(t.clock.Now().Add(time.Second))
	return 1, nil
}

// silent is a store that never answers.
type silent struct{ file }

func (silent) Stat(ctx context.Context, _ string) (imagestore.Object, error) {
	<-ctx.Done()
	return imagestore.Object{}, ctx.Err()
}

// TestStoresThatHoldSlots: neither a store that trickles nor many that never answer keep others from the few slots of a host.
func TestStoresThatHoldSlots(t *testing.T) {
	raw := make([]byte, 16<<20)
	var r *rig
	r = newRig(t, anywhere(func(place transfer.Place) (imagestore.Store, error) {
		switch url := place.Source.HTTP.URL; {
		case strings.Contains(url, "silent"):
			return silent{}, nil
		case strings.Contains(url, "trickle"):
			return file{body: raw, read: func() io.Reader { return trickle{r.clock} }}, nil
		}
		return file{body: raw}, nil
	}))
	for _, name := range []string{"silent-1", "silent-2", "silent-3", "silent-4"} {
		r.Start(named(name), r.fromHTTP(t, "https://store/"+name))
	}
	r.Start(named("trickle"), r.fromHTTP(t, "https://store/trickle"))
	f := failure(t, r.ended(t, named("trickle")).Err)
	if f.Reason != v1alpha1.ReasonStoreUnavailable || f.Permanent || !strings.Contains(f.Error(), "too slow") {
		t.Errorf("%s, permanent %t: %v", f.Reason, f.Permanent, f)
	}
	r.Start(named("whole"), r.fromHTTP(t, "https://store/whole"))
	if state := r.ended(t, named("whole")); state.Err != nil {
		t.Errorf("beside four stores that never answer: %v", state.Err)
	}
	if state, _ := r.State(named("silent-1")); state.Phase != transfer.Waiting {
		t.Errorf("one that never answers is %+v", state)
	}
	if n := r.complete(); n != 1 {
		t.Errorf("%d disks are complete", n)
	}
}
