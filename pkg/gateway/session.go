package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// session is one user's visit: let in by a token, cut by whatever ends it first. It outlives the guest's reboots.
type session struct {
	gateway *Server
	console Console
	visit   Visit

	toGuest, fromGuest atomic.Int64
}

// enter checks a token and lets a session in. The context it returns ends when the session must; its cause says why.
func (s *Server) enter(ctx context.Context, token, from, client string) (*session, context.Context, func(error), error) {
	digest := v1alpha1.ConsoleTokenDigest(token)
	console, found := s.directory.ByDigest(ctx, digest)
	if !found || !console.OpenedBy(digest) {
		return nil, nil, nil, &Ended{Cause: CauseBadToken}
	}
	now := s.clock.Now()
	if cause := admits(console, digest, now); cause != "" {
		return nil, nil, nil, &Ended{Cause: cause}
	}
	if !s.open.add(console) {
		return nil, nil, nil, &Ended{Cause: CauseTooMany}
	}
	v := &session{gateway: s, console: console, visit: Visit{From: from, Client: client, Started: now}}
	if err := s.count(ctx, console, from); err != nil {
		s.open.remove(console)
		return nil, nil, nil, err
	}
	s.metrics.opened(client)
	ctx, cut := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		v.watch(ctx, cut)
	}()
	leave := func(err error) {
		cause := causeOf(ctx, err)
		cut(&Ended{Cause: cause})
		<-watched
		v.leave(cause)
	}
	return v, ctx, leave, nil
}

// count tells the ledger of a newcomer. Without its word nobody is let in: sessions that are not counted would be without a limit.
func (s *Server) count(ctx context.Context, c Console, from string) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.count)
	defer cancel()
	err := s.ledger.Opened(ctx, c, from)
	var ended *Ended
	if err == nil || errors.As(err, &ended) {
		return err
	}
	s.log.Error(err, "Cannot count a session, so it is not let in", "xenconsole", c.Key())
	return &Ended{Cause: CauseUnavailable, Err: err}
}

// leave tells the ledger and the metrics how the visit went.
func (v *session) leave(cause Cause) {
	v.visit.Ended, v.visit.Cause = v.gateway.clock.Now(), cause
	v.visit.ToGuest, v.visit.FromGuest = v.toGuest.Load(), v.fromGuest.Load()
	v.gateway.open.remove(v.console)
	v.gateway.metrics.closed(v.visit)
	v.gateway.ledger.Closed(v.console, v.visit)
}

// watch cuts the session within moments of anything that ends it: a change of the console or its instance, or the clock.
func (v *session) watch(ctx context.Context, cut context.CancelCauseFunc) {
	wake, stop := v.gateway.directory.Changes(v.console.Key())
	defer stop()
	for {
		current, found := v.gateway.directory.Current(ctx, v.console.Key(), v.console.UID)
		cause, until := verdict(v.console, current, found, v.visit.Started, v.gateway.clock.Now())
		if cause != "" {
			cut(&Ended{Cause: cause})
			return
		}
		var timer <-chan time.Time
		if !until.IsZero() {
			timer = v.gateway.clock.After(until.Sub(v.gateway.clock.Now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-v.gateway.draining:
			cut(&Ended{Cause: CauseDraining})
			return
		case <-wake:
		case <-timer:
		}
	}
}

// dial opens the guest's console, again and again while the guest reboots or its host is slow to say where it is. Each refusal that
// waiting may cure is told to the user, for as long as patience lasts.
func (v *session) dial(ctx context.Context, patience time.Duration, tell func(Cause)) (net.Conn, error) {
	deadline := v.gateway.clock.Now().Add(patience)
	pause, busy := 100*time.Millisecond, false
	for {
		conn, err := v.attempt(ctx)
		if err == nil {
			if busy {
				v.gateway.ledger.Busy(ctx, v.console, false)
			}
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, &Ended{Cause: causeOf(ctx, nil)}
		}
		cause := causeOr(err, CauseUnavailable)
		v.gateway.log.V(1).Info("Console does not answer", "xenconsole", v.console.Key(), "cause", cause, "error", err.Error())
		if cause == CauseBusy && !busy {
			busy = true
			v.gateway.ledger.Busy(ctx, v.console, true)
		}
		if !v.gateway.clock.Now().Before(deadline) {
			return nil, &Ended{Cause: cause, Err: err}
		}
		tell(cause)
		select {
		case <-ctx.Done():
			return nil, &Ended{Cause: causeOf(ctx, nil)}
		case <-v.gateway.clock.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// attempt dials once, where the guest is now.
func (v *session) attempt(ctx context.Context) (net.Conn, error) {
	console, found := v.gateway.directory.Current(ctx, v.console.Key(), v.console.UID)
	if !found {
		return nil, &Ended{Cause: CauseDeleted}
	}
	if console.Target.VMUUID != v.console.Target.VMUUID {
		return nil, &Ended{Cause: CauseRevoked} // whoever watches the session is about to say so
	}
	ctx, cancel := context.WithTimeout(ctx, v.gateway.limits.dial)
	defer cancel()
	return v.gateway.dialer.DialConsole(ctx, console.Target)
}

// input is where a client's bytes go: the guest, through the view-only filter where the console asks for it.
func (v *session) input(guest io.Writer) io.Writer {
	switch {
	case !v.console.ViewOnly:
		return guest
	case v.console.Text:
		return io.Discard
	default:
		return newViewOnly(guest)
	}
}

// openSessions counts the sessions that this gateway holds, by console.
type openSessions struct {
	mu    sync.Mutex
	count map[string]int
	total int
}

// add counts one more, unless that would exceed maxSessions together with those that other gateways hold.
func (o *openSessions) add(c Console) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.MaxSessions > 0 && o.count[c.UID]+c.OtherSessions >= c.MaxSessions {
		return false
	}
	if o.count == nil {
		o.count = map[string]int{}
	}
	o.count[c.UID]++
	o.total++
	return true
}

// remove counts one less.
func (o *openSessions) remove(c Console) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count[c.UID]--
	o.total--
	if o.count[c.UID] == 0 {
		delete(o.count, c.UID)
	}
}

// all is how many are open.
func (o *openSessions) all() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}
