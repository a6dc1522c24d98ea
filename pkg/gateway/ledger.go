package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// renewEvery is how often a gateway says again that its sessions live; v1alpha1.ConsoleSessionsCountFor is how long that is believed.
const renewEvery = time.Minute

// storeTimeout bounds one write of a count.
const storeTimeout = 10 * time.Second

// StatusLedger counts sessions into the consoles' status, each gateway into its own entry, and tells of them in Events.
type StatusLedger struct {
	client  client.Client
	events  events.EventRecorder
	gateway string
	log     logr.Logger

	mu   sync.Mutex // guards the map and what its entries say
	open map[types.NamespacedName]*ledgerEntry
}

// ledgerEntry is what this gateway says of one console.
type ledgerEntry struct {
	write     sync.Mutex // held over a write, so that the last one says what holds
	console   Console
	users     int // who has it in hand; an entry is forgotten when nobody has and it says nothing
	open      int
	connected *metav1.Time
	busy      *metav1.Time
}

// NewStatusLedger makes a ledger that writes under the gateway's name.
func NewStatusLedger(c client.Client, recorder events.EventRecorder, gateway string, log logr.Logger) *StatusLedger {
	return &StatusLedger{client: c, events: recorder, gateway: gateway, log: log, open: map[types.NamespacedName]*ledgerEntry{}}
}

// Opened implements Ledger. The count is stored before the session is let in, and the API server's answer tells what other gateways
// hold by then: of two that come at once at most the first finds a place that only one can have.
func (l *StatusLedger) Opened(ctx context.Context, c Console, from string) error {
	entry := l.take(c)
	defer l.release(entry)
	now := metav1.Now()
	l.say(func() { entry.open++; entry.connected = &now })
	open, err := l.store(ctx, entry)
	if err != nil {
		l.say(func() { entry.open-- })
		return fmt.Errorf("count the session: %w", err)
	}
	if c.MaxSessions > 0 && open > c.MaxSessions {
		l.say(func() { entry.open-- })
		if _, err := l.store(ctx, entry); err != nil {
			l.log.Info("Cannot take back the count of a session", "xenconsole", c.Key(), "error", err.Error())
		}
		return &Ended{Cause: CauseTooMany}
	}
	l.events.Eventf(object(c), nil, corev1.EventTypeNormal, v1alpha1.ReasonConsoleOpened, "Connect", "connected from %s", from)
	return nil
}

// Closed implements Ledger.
func (l *StatusLedger) Closed(c Console, v Visit) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	entry := l.take(c)
	defer l.release(entry)
	l.say(func() { entry.open-- })
	if _, err := l.store(ctx, entry); err != nil {
		l.log.Info("Cannot count a session that ended", "xenconsole", c.Key(), "error", err.Error())
	}
	l.events.Eventf(object(c), nil, corev1.EventTypeNormal, v1alpha1.ReasonConsoleClosed, "Disconnect",
		"from %s (%s), %s long, %d bytes to the guest, %d from it: %s", v.From, v.Client, v.Ended.Sub(v.Started).Round(time.Second), v.ToGuest, v.FromGuest, v.Cause)
	l.log.Info("Console session ended", "xenconsole", c.Key(), "from", v.From, "client", v.Client, "seconds", int(v.Ended.Sub(v.Started).Seconds()), "cause", v.Cause)
}

// Busy implements Ledger. A crowd before a console that is taken makes one write and one Event in a while.
func (l *StatusLedger) Busy(ctx context.Context, c Console, busy bool) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	entry := l.take(c)
	defer l.release(entry)
	now, known := metav1.Now(), false
	l.say(func() {
		known = busy == (entry.busy != nil && now.Sub(entry.busy.Time) < v1alpha1.ConsoleBusyFor/2)
		switch {
		case !busy:
			entry.busy = nil
		case !known:
			entry.busy = &now
		}
	})
	if known {
		return
	}
	if _, err := l.store(ctx, entry); err != nil {
		l.log.Info("Cannot say whether a console is busy", "xenconsole", c.Key(), "error", err.Error())
	}
	if busy {
		l.events.Eventf(object(c), nil, corev1.EventTypeWarning, v1alpha1.ReasonConsoleBusy, "Connect", "somebody else looks, and the pool lets one session at a time")
	}
}

// Run repeats, until ctx ends, what this gateway holds open.
func (l *StatusLedger) Run(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			l.renew(ctx, now)
		}
	}
}

func (l *StatusLedger) renew(ctx context.Context, now time.Time) {
	for _, entry := range l.takeAll() {
		l.say(func() {
			if entry.busy != nil && now.Sub(entry.busy.Time) >= v1alpha1.ConsoleBusyFor {
				entry.busy = nil
			}
		})
		storing, cancel := context.WithTimeout(ctx, storeTimeout)
		if _, err := l.store(storing, entry); err != nil && ctx.Err() == nil {
			l.log.Info("Cannot renew the count of sessions", "xenconsole", entry.console.Key(), "error", err.Error())
		}
		cancel()
		l.release(entry)
	}
}

// say changes what entries say.
func (l *StatusLedger) say(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// take gives the entry of a console, which is there until it is released.
func (l *StatusLedger) take(c Console) *ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	entry, ok := l.open[key]
	if !ok || entry.console.UID != c.UID {
		entry = &ledgerEntry{console: c}
		l.open[key] = entry
	}
	entry.users++
	return entry
}

func (l *StatusLedger) takeAll() []*ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*ledgerEntry, 0, len(l.open))
	for _, entry := range l.open {
		entry.users++
		all = append(all, entry)
	}
	return all
}

func (l *StatusLedger) release(entry *ledgerEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry.users--
	key := types.NamespacedName{Namespace: entry.console.Namespace, Name: entry.console.Name}
	if entry.users == 0 && entry.open <= 0 && entry.busy == nil && l.open[key] == entry {
		delete(l.open, key)
	}
}

// store applies this gateway's entry, or takes it back when it says nothing: what an applier leaves out of its next apply is removed.
// It returns how many sessions all gateways together hold then.
func (l *StatusLedger) store(ctx context.Context, entry *ledgerEntry) (int, error) {
	entry.write.Lock()
	defer entry.write.Unlock()
	status := map[string]any{}
	l.say(func() {
		if entry.open > 0 || entry.busy != nil {
			status["sessions"] = []v1alpha1.ConsoleSessions{{
				Gateway: l.gateway, Open: int32(entry.open), LastConnectedAt: entry.connected, BusyAt: entry.busy, RenewedAt: metav1.Now(),
			}}
		}
	})
	c := entry.console
	patch, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "XenConsole",
		"metadata": map[string]any{"name": c.Name, "namespace": c.Namespace, "uid": c.UID},
		"status":   status,
	})
	if err != nil {
		return 0, err
	}
	answer := object(c)
	err = l.client.Status().Patch(ctx, answer, client.RawPatch(types.ApplyPatchType, patch), client.FieldOwner(fieldOwner(l.gateway)), client.ForceOwnership)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, or another object of that name
		return 0, nil
	}
	return int(answer.Status.OpenSessions("", time.Now())), err
}

// fieldOwner is the gateway's name as an applier, which may not be longer than 128 characters.
func fieldOwner(gateway string) string {
	const most = 100
	if len(gateway) > most {
		gateway = v1alpha1.ConsoleTokenDigest(gateway)
	}
	return "kubexen-gateway-" + gateway
}

// object names a console, for patches and Events.
func object(c Console) *v1alpha1.XenConsole {
	return &v1alpha1.XenConsole{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "XenConsole"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name, UID: types.UID(c.UID)},
	}
}
