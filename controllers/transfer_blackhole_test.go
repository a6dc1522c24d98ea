package controllers_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// blackHole is a store that accepts connections and never answers.
func blackHole(t testing.TB) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, conn) // until the other side gives up
				_ = conn.Close()
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// TestADeadStoreHoldsNobodyElseUp: many objects use a store that never answers. A snapshot and an image of others are ready as
// soon as ever, and those that wait say for what.
func TestADeadStoreHoldsNobodyElseUp(t *testing.T) {
	t.Parallel()
	const many = 20
	w, _ := withWeb(t, nil)
	alive := newWebStore(t)
	hole := blackHole(t)
	raw := make([]byte, 4<<20)
	alive.put("/alive.raw", raw)
	var stuck []*v1alpha1.XenSnapshot
	for i := range many {
		create(t, w, httpImage(fmt.Sprintf("dead-%d", i), hole+"/dead.raw", raw, testkit.PoolName))
		s := xenSnapshot(w, fmt.Sprintf("dead-%d", i), func(spec *v1alpha1.XenSnapshotSpec) {
			spec.Destination = &v1alpha1.SnapshotDestination{HTTP: &v1alpha1.HTTPDestination{URLTemplate: hole + "/{snapshot}/{file}"}}
		})
		create(t, w, s)
		stuck = append(stuck, s)
	}
	for _, s := range stuck {
		w.WaitFor(t, s, "it says what it waits for", func() error {
			for _, condition := range s.Status.Conditions {
				if condition.Type == v1alpha1.ConditionCaptured && condition.Message != "" {
					return nil
				}
			}
			return fmt.Errorf("it says nothing yet")
		})
	}
	start := time.Now()
	image, saved := httpImage("alive", alive.URL+"/alive.raw", raw, testkit.PoolName), xenSnapshot(w, "alive", toStore(alive, nil))
	create(t, w, image)
	create(t, w, saved)
	w.WaitReady(t, image)
	w.WaitReady(t, saved)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("beside %d objects at a store that never answers it took %s", 2*many, took)
	}
	for _, s := range stuck { // nor does it hold up who gives them up
		if err := w.Client.Delete(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range stuck {
		w.WaitGone(t, s)
	}
}
