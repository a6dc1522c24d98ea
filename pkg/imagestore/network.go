package imagestore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/pkg/egress"
)

// Network is how stores are reached.
type Network struct {
	// Guard decides where connections may go when a tenant named the endpoint; nil lets them go anywhere.
	Guard *egress.Guard
	// CABundle (PEM) is trusted besides the system's authorities.
	CABundle []byte
	// StallTimeout is how long nothing may move, one minute when zero. Waiting for our own side does not count.
	StallTimeout time.Duration
	// AnswerTimeout is how long a store may think once it has all of a request that changes something, ten minutes when
	// zero: some compute the digest of a whole disk then. What only reads is answered within StallTimeout.
	AnswerTimeout time.Duration
	// Clock tells how fast bytes move; the real one if nil.
	Clock clock.PassiveClock
}

const (
	defaultStallTimeout  = time.Minute
	defaultAnswerTimeout = 10 * time.Minute
	dialTimeout          = 15 * time.Second
	// maxAnswer is the most that a store may say besides the bytes of an object: lists and errors are kept in memory.
	maxAnswer = 16 * mebibyte
)

// errStalled is the cause of a request that was given up because nothing moved.
var errStalled = errors.New("no byte moved for too long")

// client returns a client whose connections and redirects the guard sees, and whose requests end when nothing moves.
func (n Network) client() (*http.Client, error) {
	transport := n.transport()
	if len(n.CABundle) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(n.CABundle) {
			return nil, errors.New("ca.crt holds no PEM certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}

	return &http.Client{
		Transport: &watched{
			next: transport, clock: n.clock(),
			stall: orDefault(n.StallTimeout, defaultStallTimeout), answer: orDefault(n.AnswerTimeout, defaultAnswerTimeout),
		},
		CheckRedirect: n.checkRedirect,
	}, nil
}

func (n Network) transport() *http.Transport {
	var transport *http.Transport
	if n.Guard != nil {
		transport = n.Guard.Transport()
	} else {
		transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		}
	}
	transport.ResponseHeaderTimeout = 0 // the watch knows better what a store is doing
	transport.DisableCompression = true // bytes are wanted as they are stored

	return transport
}

// checkURL refuses an endpoint that the guard refuses at sight.
func (n Network) checkURL(text string) error {
	if n.Guard == nil {
		return nil
	}

	return n.Guard.CheckURL(text)
}

func (n Network) clock() clock.PassiveClock {
	if n.Clock == nil {
		return clock.RealClock{}
	}

	return n.Clock
}

// withoutQuery is a URL as it may be shown.
func withoutQuery(u *url.URL) string {
	shown := *u
	shown.RawQuery, shown.Fragment, shown.User = "", "", nil

	return shown.String()
}

func orDefault(value, fallback time.Duration) time.Duration {
	if value == 0 {
		return fallback
	}

	return value
}

type wholeKey struct{}

// whole marks a request whose answer is an object: as long as it is.
func whole(ctx context.Context) context.Context { return context.WithValue(ctx, wholeKey{}, true) }

// watched ends requests in which nothing moves, or too little. While the other side is awaited a clock runs; while our own side is
// (the request's body is being read, the response's body is not) it stands.
type watched struct {
	next          http.RoundTripper
	clock         clock.PassiveClock
	stall, answer time.Duration
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	watch := &watch{cancel: cancel, limit: w.stall}
	request = request.WithContext(ctx)
	if request.Body != nil && request.Body != http.NoBody {
		request.Body = &watchedUpload{body: request.Body, watch: watch, answer: w.answer, pace: newPace(w.clock)}
	} else if request.Method != http.MethodGet && request.Method != http.MethodHead {
		watch.setLimit(w.answer)
	}
	watch.run()
	response, err := w.next.RoundTrip(request)
	watch.answered()
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		if errors.Is(cause, errStalled) {
			return nil, cause
		}

		return nil, err
	}
	watch.setLimit(w.stall)
	left := int64(maxAnswer)
	if isWhole, _ := ctx.Value(wholeKey{}).(bool); isWhole && response.StatusCode < http.StatusMultipleChoices {
		left = math.MaxInt64
	}
	response.Body = &watchedDownload{body: response.Body, watch: watch, ctx: ctx, pace: newPace(w.clock), left: left}

	return response, nil
}

// watch gives a request up when its clock has run for the limit without a pause.
type watch struct {
	mu       sync.Mutex
	cancel   context.CancelCauseFunc
	limit    time.Duration
	timer    *time.Timer
	response bool // it has come: what is left of the upload runs no clock
}

func (w *watch) setLimit(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = limit
}

// run lets the clock run from zero.
func (w *watch) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		w.timer = time.AfterFunc(w.limit, func() { w.cancel(errStalled) })
		return
	}
	w.timer.Reset(w.limit)
}

// runUnanswered lets the clock run unless the response has come.
func (w *watch) runUnanswered() {
	w.mu.Lock()
	response := w.response
	w.mu.Unlock()
	if !response {
		w.run()
	}
}

// answered stops the clock: the response has come, or will never.
func (w *watch) answered() {
	w.mu.Lock()
	w.response = true
	w.mu.Unlock()
	w.stop()
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// watchedUpload stops the clock while our own side is asked for bytes.
type watchedUpload struct {
	body   io.ReadCloser
	watch  *watch
	answer time.Duration
	pace   *pace
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.watch.stop()
	if err := u.pace.rest(); err != nil { // the store has taken what it was given last
		u.watch.cancel(err)
		return 0, err
	}
	n, err := u.body.Read(p)
	u.pace.await(n)
	if err != nil {
		u.watch.setLimit(u.answer) // the store has everything; now it may think
	}
	u.watch.runUnanswered()

	return n, err
}

func (u *watchedUpload) Close() error { return u.body.Close() }

// watchedDownload runs the clock while the store is asked for bytes.
type watchedDownload struct {
	body  io.ReadCloser
	watch *watch
	ctx   context.Context //nolint:containedctx // the body belongs to its request
	pace  *pace
	left  int64 // that the store may still say
}

func (d *watchedDownload) Read(p []byte) (int, error) {
	d.watch.run()
	d.pace.await(0)
	n, err := d.body.Read(p)
	d.pace.moved += int64(n)
	d.watch.stop()
	if cause := context.Cause(d.ctx); err != nil && errors.Is(cause, errStalled) {
		err = cause
	}
	if slow := d.pace.rest(); slow != nil && err == nil {
		err = slow
	}
	if d.left -= int64(n); d.left < 0 {
		return 0, fmt.Errorf("the answer is longer than %d MiB", maxAnswer/mebibyte)
	}

	return n, err
}

func (d *watchedDownload) Close() error {
	d.watch.stop()
	d.watch.cancel(nil)

	return d.body.Close()
}
