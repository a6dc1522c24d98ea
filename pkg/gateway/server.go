package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// limits bound what a peer can cost before and after it is let in.
type limits struct {
	header       time.Duration // the request's headers must be here
	headerBytes  int           // and be no larger
	hello        time.Duration // the token must be here after the WebSocket is open
	helloBytes   int64         // in a frame no larger
	frameBytes   int64         // a later frame of the page
	dial         time.Duration // one attempt to reach a console
	guestReturns time.Duration // attempts together, while a guest reboots
	guestAnswers time.Duration // the same for a viewer, which cannot be told why it waits
	count        time.Duration // the API server must have counted a session
	ping, pong   time.Duration // how often a peer is asked whether it lives, and how long it may take to say so
	write        time.Duration // a peer must take what it is sent
	farewell     time.Duration // and the reason for the end
	connections  int           // open at once, let in or not
}

var defaultLimits = limits{
	header: 5 * time.Second, headerBytes: 16 << 10,
	hello: 5 * time.Second, helloBytes: 1 << 10, frameBytes: 1 << 20,
	dial: 10 * time.Second, guestReturns: 2 * time.Minute, guestAnswers: 5 * time.Second, count: 10 * time.Second,
	ping: 20 * time.Second, pong: 10 * time.Second, write: 30 * time.Second, farewell: 500 * time.Millisecond,
	connections: 4096,
}

// Options are what a Server needs.
type Options struct {
	Directory Directory
	Dialer    Dialer
	Ledger    Ledger
	// Origins are the hosts, beside the one that the request names, whose pages may open a WebSocket here (host patterns).
	Origins []string
	// Proxies are trusted to name the client in X-Forwarded-For.
	Proxies []netip.Prefix
	Log     logr.Logger
	Clock   clock.Clock
	// Metrics may be nil.
	Metrics *Metrics
}

// Server is the console gateway's HTTP side. Its zero value is of no use; NewServer makes one.
type Server struct {
	directory Directory
	dialer    Dialer
	ledger    Ledger
	origins   []string
	proxies   []netip.Prefix
	log       logr.Logger
	clock     clock.Clock
	metrics   *Metrics
	limits    limits
	bad       *badTokens

	open     openSessions
	draining chan struct{}
	drain    sync.Once
	ready    atomic.Bool
}

// NewServer makes a gateway.
func NewServer(o Options) *Server {
	s := &Server{
		directory: o.Directory, dialer: o.Dialer, ledger: o.Ledger, origins: o.Origins, proxies: o.Proxies,
		log: o.Log, clock: o.Clock, metrics: o.Metrics, limits: defaultLimits,
		bad: newBadTokens(time.Second, 10, 10_000), draining: make(chan struct{}),
	}
	if s.clock == nil {
		s.clock = clock.RealClock{}
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	s.ready.Store(true)
	return s
}

// Handler answers: the page and its parts, the WebSocket, the raw way for viewers, and /healthz and /readyz.
func (s *Server) Handler() http.Handler {
	files := pageFiles()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		switch path := r.URL.Path; {
		case path == "/healthz":
			_, _ = io.WriteString(w, "ok\n")
		case path == "/readyz":
			s.answerReady(w)
		case path == "/console/socket":
			s.serveWebSocket(w, r)
		case path == "/console" && (r.Method == http.MethodConnect || bearer(r) != ""):
			s.serveRaw(w, r)
		case path == "/console" && wantsPage(r):
			http.Redirect(w, r, "/console/", http.StatusFound)
		case path == "/console":
			s.serveRaw(w, r) // answers what is missing
		default:
			files.ServeHTTP(w, r)
		}
	})
}

// wantsPage tells a browser from a viewer.
func wantsPage(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// guard sets the headers that keep the page to itself: nothing of a third party, no frame around it, no address in a Referer.
// Styles are allowed inline because the terminal and the screen size their own elements.
func guard(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "+
		"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
}

func (s *Server) answerReady(w http.ResponseWriter) {
	if !s.ready.Load() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// refuse notes that somebody was not let in, without what they offered, and returns the cause to tell them.
func (s *Server) refuse(err error, from string) Cause {
	cause := causeOf(context.Background(), err)
	if cause == CauseBadToken && !s.bad.seen(networkOf(from), s.clock.Now()) {
		cause = CauseTooManyGuesses
	}
	s.metrics.refused(cause)
	switch cause {
	case CauseTooManyGuesses: // said often enough
	case CauseBadToken:
		s.log.Info("Token opens no console", "from", from)
	default:
		s.log.Info("Console session refused", "cause", cause, "from", from)
	}
	return cause
}

// refusalStatus is what a viewer is answered, the status of the ancestor's proxy where it had one; any other cause is 403.
var refusalStatus = map[Cause]int{
	CauseBadToken: http.StatusUnauthorized, CauseExpired: http.StatusUnauthorized, CauseRevoked: http.StatusUnauthorized,
	CauseDeleted: http.StatusUnauthorized, CauseNotAfter: http.StatusUnauthorized,
	CauseStopped: http.StatusServiceUnavailable, CauseBusy: http.StatusServiceUnavailable,
	CauseUnavailable: http.StatusServiceUnavailable, CauseDraining: http.StatusServiceUnavailable,
	CauseTooMany: http.StatusTooManyRequests, CauseTooManyGuesses: http.StatusTooManyRequests,
}

// answerRefusal tells a viewer why it is not let in.
func (s *Server) answerRefusal(w http.ResponseWriter, cause Cause) {
	if cause == CauseTooManyGuesses {
		w.Header().Set("Connection", "close") // each further try costs a connection
	}
	status, known := refusalStatus[cause]
	if !known {
		status = http.StatusForbidden
	}
	http.Error(w, cause.message(), status)
}

// Serve answers on listener until ctx ends, with TLS unless config is nil. Then it lets nobody in, tells every session that it drains,
// and returns when the last one is gone or grace is over.
func (s *Server) Serve(ctx context.Context, listener net.Listener, config *tls.Config, grace time.Duration) error {
	listener = limitConnections(listener, s.limits.connections)
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.limits.header,
		MaxHeaderBytes:    s.limits.headerBytes,
		IdleTimeout:       20 * time.Second, // idle connections hold places that users want
		ErrorLog:          quietLog(s.log),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true) // a console takes its connection over, which HTTP/2 cannot do
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	s.ready.Store(false)
	s.drain.Do(func() { close(s.draining) })
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := server.Shutdown(stop)
	s.awaitEmpty(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}

// awaitEmpty waits for the sessions that took their connection over, which the HTTP server no longer knows.
func (s *Server) awaitEmpty(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for s.open.all() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
