package imagestore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

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
	// AnswerTimeout is how long a store may think once it has all of a request, ten minutes when zero: some compute the
	// digest of a whole disk then.
	AnswerTimeout time.Duration
}

const (
	defaultStallTimeout  = time.Minute
	defaultAnswerTimeout = 10 * time.Minute
	dialTimeout          = 15 * time.Second
	maxRedirects         = 10
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
			next:  transport,
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

// checkRedirect follows redirects as far as the guard lets, and never from https to http.
func (n Network) checkRedirect(request *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%d redirects lead nowhere", maxRedirects)
	}
	if via[0].URL.Scheme == "https" && request.URL.Scheme != "https" {
		return fmt.Errorf("%w: a redirect leads from https to %s", egress.ErrForbidden, request.URL.Scheme)
	}

	return n.checkURL(withoutQuery(request.URL))
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

// watched ends requests in which nothing moves. While the other side is awaited a clock runs; while our own side is
// (the request's body is being read, the response's body is not) it stands.
type watched struct {
	next          http.RoundTripper
	stall, answer time.Duration
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	watch := &watch{cancel: cancel, limit: w.stall}
	request = request.WithContext(ctx)
	if request.Body != nil && request.Body != http.NoBody {
		request.Body = &watchedUpload{body: request.Body, watch: watch, answer: w.answer}
	} else {
		watch.setLimit(w.answer)
	}
	watch.run()
	response, err := w.next.RoundTrip(request)
	watch.answered()
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		if errors.Is(cause, errStalled) {
			return nil, errStalled
		}

		return nil, err
	}
	watch.setLimit(w.stall)
	response.Body = &watchedDownload{body: response.Body, watch: watch, ctx: ctx}

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
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.watch.stop()
	n, err := u.body.Read(p)
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
}

func (d *watchedDownload) Read(p []byte) (int, error) {
	d.watch.run()
	n, err := d.body.Read(p)
	d.watch.stop()
	if err != nil && errors.Is(context.Cause(d.ctx), errStalled) {
		err = errStalled
	}

	return n, err
}

func (d *watchedDownload) Close() error {
	d.watch.stop()
	d.watch.cancel(nil)

	return d.body.Close()
}
