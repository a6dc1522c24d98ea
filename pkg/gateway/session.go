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
	digest  string
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
	if cause, _ := verdict(console, true, digest, now, now, true); cause != "" {
		return nil, nil, nil, &Ended{Cause: cause}
	}
	open, admitted := s.open.add(console)
	if !admitted {
		return nil, nil, nil, &Ended{Cause: CauseTooMany}
	}
	v := &session{gateway: s, console: console, digest: digest, visit: Visit{From: from, Client: client, Started: now}}
	if err := s.ledger.Opened(ctx, console, from, open); err != nil {
		s.open.remove(console)
		return nil, nil, nil, &Ended{Cause: CauseTooMany, Err: err}
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

// leave tells the ledger and the metrics how the visit went.
func (v *session) leave(cause Cause) {
	v.visit.Ended, v.visit.Cause = v.gateway.clock.Now(), cause
	v.visit.ToGuest, v.visit.FromGuest = v.toGuest.Load(), v.fromGuest.Load()
	open := v.gateway.open.remove(v.console)
	v.gateway.metrics.closed(v.visit)
	v.gateway.ledger.Closed(v.console, v.visit, open)
}

// watch cuts the session within moments of anything that ends it: a change of the console or its instance, or the clock.
func (v *session) watch(ctx context.Context, cut context.CancelCauseFunc) {
	wake, stop := v.gateway.directory.Changes(v.console.Key())
	defer stop()
	for {
		current, found := v.gateway.directory.Current(ctx, v.console.Key(), v.console.UID)
		cause, until := verdict(current, found, v.digest, v.visit.Started, v.gateway.clock.Now(), false)
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
// waiting may cure is told to the user; the longest wait for one attachment is guestReturns.
func (v *session) dial(ctx context.Context, tell func(Cause)) (net.Conn, error) {
	deadline := v.gateway.clock.Now().Add(v.gateway.limits.guestReturns)
	pause := 100 * time.Millisecond
	for {
		console, found := v.gateway.directory.Current(ctx, v.console.Key(), v.console.UID)
		if !found {
			return nil, &Ended{Cause: CauseDeleted}
		}
		dialCtx, cancel := context.WithTimeout(ctx, v.gateway.limits.dial)
		conn, err := v.gateway.dialer.DialConsole(dialCtx, console.Target)
		cancel()
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, &Ended{Cause: causeOf(ctx, nil)}
		}
		cause := CauseUnavailable
		var ended *Ended
		if errors.As(err, &ended) {
			cause = ended.Cause
		}
		v.gateway.log.V(1).Info("Console does not answer", "xenconsole", v.console.Key(), "cause", cause, "error", err.Error())
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
func (o *openSessions) add(c Console) (open int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.MaxSessions > 0 && o.count[c.UID]+c.OtherSessions >= c.MaxSessions {
		return o.count[c.UID], false
	}
	if o.count == nil {
		o.count = map[string]int{}
	}
	o.count[c.UID]++
	o.total++
	return o.count[c.UID], true
}

// remove counts one less and returns how many are left.
func (o *openSessions) remove(c Console) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count[c.UID]--
	o.total--
	left := o.count[c.UID]
	if left == 0 {
		delete(o.count, c.UID)
	}
	return left
}

// all is how many are open.
func (o *openSessions) all() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}
