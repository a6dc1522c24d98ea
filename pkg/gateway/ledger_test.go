package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// apiServer keeps the entries that gateways apply to one console, as the API server merges them.
type apiServer struct {
	mu      sync.Mutex
	entries map[string]v1alpha1.ConsoleSessions
	writes  int
	fails   error
}

// ledger is a gateway's ledger on the API server.
func (a *apiServer) ledger(gateway string) *StatusLedger {
	c := interceptor.NewClient(fake.NewFakeClient(), interceptor.Funcs{SubResourcePatch: func(_ context.Context, _ client.Client, _ string,
		obj client.Object, patch client.Patch, _ ...client.SubResourcePatchOption,
	) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.writes++
		if a.fails != nil {
			return a.fails
		}
		body, err := patch.Data(obj)
		if err != nil {
			return err
		}
		var said v1alpha1.XenConsole
		if err := json.Unmarshal(body, &said); err != nil {
			return err
		}
		delete(a.entries, gateway)
		for _, entry := range said.Status.Sessions {
			a.entries[entry.Gateway] = entry
		}
		for _, entry := range a.entries {
			obj.(*v1alpha1.XenConsole).Status.Sessions = append(obj.(*v1alpha1.XenConsole).Status.Sessions, entry)
		}
		return nil
	}})
	return NewStatusLedger(c, events.NewFakeRecorder(1000), gateway, logr.Discard())
}

func (a *apiServer) open() int32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var open int32
	for _, entry := range a.entries {
		open += entry.Open
	}
	return open
}

// TestSeveralGatewaysLetInNoMoreThanMaxSessions: all of them try at once, and none knows of the others beforehand.
func TestSeveralGatewaysLetInNoMoreThanMaxSessions(t *testing.T) {
	api := &apiServer{entries: map[string]v1alpha1.ConsoleSessions{}}
	console := Console{Namespace: "team-a", Name: "web", UID: "uid", MaxSessions: 1}
	ledgers := []*StatusLedger{api.ledger("a"), api.ledger("b"), api.ledger("c")}
	in := make(chan *StatusLedger, len(ledgers))
	var all sync.WaitGroup
	for _, ledger := range ledgers {
		all.Go(func() {
			err := ledger.Opened(t.Context(), console, "192.0.2.1")
			var ended *Ended
			switch {
			case err == nil:
				in <- ledger
			case !errors.As(err, &ended) || ended.Cause != CauseTooMany:
				t.Errorf("wanted TooManySessions, found %v", err)
			}
		})
	}
	all.Wait()
	close(in)
	if len(in) != 1 || api.open() != 1 {
		t.Fatalf("%d of three were let in, %d are counted; wanted one", len(in), api.open())
	}
	(<-in).Closed(console, Visit{})
	if len(api.entries) != 0 {
		t.Fatalf("entries are left: %v", api.entries)
	}
}

// TestTheCountIsWhatIsOpen: sessions come and go at once, and the last word is true.
func TestTheCountIsWhatIsOpen(t *testing.T) {
	api := &apiServer{entries: map[string]v1alpha1.ConsoleSessions{}}
	ledger := api.ledger("a")
	console := Console{Namespace: "team-a", Name: "web", UID: "uid"}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			if err := ledger.Opened(t.Context(), console, "192.0.2.1"); err != nil {
				t.Error(err)
			}
			if i%4 != 0 {
				ledger.Closed(console, Visit{})
			}
		})
	}
	all.Wait()
	if open := api.open(); open != 10 {
		t.Fatalf("%d are counted, 10 are open", open)
	}
	ledger.renew(t.Context(), time.Now())
	if open := api.open(); open != 10 {
		t.Fatalf("%d are counted after a renewal, 10 are open", open)
	}
}

// TestASessionThatCannotBeCountedIsNotCountedLater: what failed leaves nothing behind that a renewal would bring back.
func TestASessionThatCannotBeCountedIsNotCountedLater(t *testing.T) {
	api := &apiServer{entries: map[string]v1alpha1.ConsoleSessions{}, fails: errors.New("no API server")}
	ledger := api.ledger("a")
	console := Console{Namespace: "team-a", Name: "web", UID: "uid"}
	if err := ledger.Opened(t.Context(), console, "192.0.2.1"); err == nil {
		t.Fatal("a session was let in that is not counted")
	}
	api.fails = nil
	ledger.renew(t.Context(), time.Now())
	if open := api.open(); open != 0 || len(ledger.open) != 0 {
		t.Fatalf("%d sessions are counted, %d entries kept; none is open", open, len(ledger.open))
	}
}

// TestABusyConsoleIsTold once in a while, and no longer than it is so.
func TestABusyConsoleIsTold(t *testing.T) {
	api := &apiServer{entries: map[string]v1alpha1.ConsoleSessions{}}
	ledger := api.ledger("a")
	console := Console{Namespace: "team-a", Name: "web", UID: "uid"}
	busy := func() bool {
		status := v1alpha1.XenConsoleStatus{Sessions: []v1alpha1.ConsoleSessions{api.entries["a"]}}
		return !status.LastBusy(metav1.Now().Time).IsZero()
	}
	for range 100 {
		ledger.Busy(t.Context(), console, true)
	}
	if !busy() || api.writes != 1 {
		t.Fatalf("busy %v after %d writes; wanted one write that says so", busy(), api.writes)
	}
	ledger.Busy(t.Context(), console, false)
	if busy() || len(ledger.open) != 0 {
		t.Fatal("it is busy no more")
	}
	ledger.Busy(t.Context(), console, true)
	ledger.renew(t.Context(), time.Now().Add(2*v1alpha1.ConsoleBusyFor))
	if busy() || len(ledger.open) != 0 {
		t.Fatal("a word of long ago is still said")
	}
}
