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

// StatusLedger counts sessions into the consoles' status, each gateway into its own entry, and tells of them in Events.
type StatusLedger struct {
	client  client.Client
	events  events.EventRecorder
	gateway string
	log     logr.Logger

	mu   sync.Mutex
	open map[types.NamespacedName]*ledgerEntry
}

// ledgerEntry is what this gateway says of one console.
type ledgerEntry struct {
	mu        sync.Mutex // held over a write, so that writes of one console keep their order
	uid       types.UID
	open      int
	connected metav1.Time
}

// NewStatusLedger makes a ledger that writes under the gateway's name.
func NewStatusLedger(c client.Client, recorder events.EventRecorder, gateway string, log logr.Logger) *StatusLedger {
	return &StatusLedger{client: c, events: recorder, gateway: gateway, log: log, open: map[types.NamespacedName]*ledgerEntry{}}
}

// Opened implements Ledger. The count is stored before the session is let in, so that gateways know of each other; two that let somebody
// in within the same moment may exceed maxSessions by one each.
func (l *StatusLedger) Opened(ctx context.Context, c Console, from string, open int) error {
	entry := l.entry(c)
	if err := l.store(ctx, c, entry, func() { entry.open, entry.connected = open, metav1.Now() }); err != nil {
		return fmt.Errorf("count the session: %w", err)
	}
	l.events.Eventf(object(c), nil, corev1.EventTypeNormal, v1alpha1.ReasonConsoleOpened, "Connect", "connected from %s", from)
	return nil
}

// Closed implements Ledger.
func (l *StatusLedger) Closed(c Console, v Visit, open int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	entry := l.entry(c)
	if err := l.store(ctx, c, entry, func() { entry.open = open }); err != nil {
		l.log.Info("Cannot count a session that ended", "xenconsole", c.Key(), "error", err.Error())
	}
	l.events.Eventf(object(c), nil, corev1.EventTypeNormal, v1alpha1.ReasonConsoleClosed, "Disconnect",
		"from %s (%s), %s long, %d bytes to the guest, %d from it: %s", v.From, v.Client, v.Ended.Sub(v.Started).Round(time.Second), v.ToGuest, v.FromGuest, v.Cause)
	l.log.Info("Console session ended", "xenconsole", c.Key(), "from", v.From, "client", v.Client, "seconds", int(v.Ended.Sub(v.Started).Seconds()), "cause", v.Cause)
}

// Run repeats, until ctx ends, what this gateway holds open.
func (l *StatusLedger) Run(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for key, entry := range l.held() {
			c := Console{Namespace: key.Namespace, Name: key.Name, UID: string(entry.uid)}
			if err := l.store(ctx, c, entry, func() {}); err != nil && ctx.Err() == nil {
				l.log.Info("Cannot renew the count of sessions", "xenconsole", c.Key(), "error", err.Error())
			}
		}
	}
}

func (l *StatusLedger) held() map[types.NamespacedName]*ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(map[types.NamespacedName]*ledgerEntry, len(l.open))
	for key, entry := range l.open {
		held[key] = entry
	}
	return held
}

func (l *StatusLedger) entry(c Console) *ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	entry, ok := l.open[key]
	if !ok || entry.uid != types.UID(c.UID) {
		entry = &ledgerEntry{uid: types.UID(c.UID)}
		l.open[key] = entry
	}
	return entry
}

// store applies this gateway's entry, or takes it back when nothing is open: what an applier leaves out of its next apply is removed.
func (l *StatusLedger) store(ctx context.Context, c Console, entry *ledgerEntry, change func()) error {
	entry.mu.Lock()
	defer entry.mu.Unlock()
	change()
	status := map[string]any{}
	if entry.open > 0 {
		status["sessions"] = []v1alpha1.ConsoleSessions{{
			Gateway: l.gateway, Open: int32(entry.open), LastConnectedAt: &entry.connected, RenewedAt: metav1.Now(),
		}}
	} else {
		l.forget(c, entry)
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "XenConsole",
		"metadata": map[string]any{"name": c.Name, "namespace": c.Namespace, "uid": c.UID},
		"status":   status,
	})
	if err != nil {
		return err
	}
	err = l.client.Status().Patch(ctx, object(c), client.RawPatch(types.ApplyPatchType, patch),
		client.FieldOwner("kubexen-gateway-"+l.gateway), client.ForceOwnership)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, or another object of that name
		return nil
	}
	return err
}

func (l *StatusLedger) forget(c Console, entry *ledgerEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	if l.open[key] == entry {
		delete(l.open, key)
	}
}

// object names a console, for patches and Events.
func object(c Console) *v1alpha1.XenConsole {
	return &v1alpha1.XenConsole{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "XenConsole"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name, UID: types.UID(c.UID)},
	}
}
