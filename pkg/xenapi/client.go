package xenapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
)

// Client is a session with one pool. It is safe for use by many goroutines.
type Client struct {
	// Services are the classes' calls.
	Services

	cfg    Config
	log    logr.Logger
	redact redactor
	pause  func(ctx context.Context, d time.Duration) error // between attempts

	headWait time.Duration

	calls     *http.Client // calls that answer soon
	events    *http.Client // event.from, which blocks
	transfers *http.Client // disks and VMs
	bases     []*http.Transport

	lifetime context.Context //nolint:containedctx // ends with Close, and with it whatever is under way
	end      context.CancelFunc
	inFlight chan struct{}
	tasks    taskSlots
	silences atomic.Int32 // calls in a row that timed out

	mu        sync.Mutex
	endpoints []*url.URL // as configured and learnt, in the order in which they are tried
	session   session
	abandoned []session    // left behind on an unreachable member
	login     *loginFlight // under way, if any
	refused   error        // credentials that were refused are not tried again
	failed    error        // why the last login failed,
	failedAt  time.Time    // and when
	username  string
	password  string
	serial    uint64
	closed    bool
}

// Connect opens a session with the pool that the configuration names. It fails with [ErrSessionAuthenticationFailed] on a wrong password, with
// [ErrTLSVerification] on a wrong certificate, and with [ErrNoCoordinator] when no endpoint leads to the pool's coordinator.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := c.currentSession(ctx); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

func newClient(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger, pause: sleep, headWait: defaultHeadWait,
		inFlight: make(chan struct{}, cfg.MaxInFlight), tasks: taskSlots{limit: cfg.MaxTasks},
		username: cfg.Username, password: cfg.Password,
	}
	c.lifetime, c.end = context.WithCancel(context.Background())
	if c.log.GetSink() == nil {
		c.log = logr.Discard()
	}
	c.cfg.Password = ""
	c.redact.add(cfg.Password)
	for _, text := range cfg.Endpoints {
		endpoint, err := parseEndpoint(text)
		if err != nil {
			return nil, err
		}
		c.addEndpoint(endpoint)
	}
	for _, target := range []**http.Client{&c.calls, &c.events, &c.transfers} {
		rt, base, err := newTransport(cfg)
		if err != nil {
			return nil, err
		}
		*target = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		c.bases = append(c.bases, base)
	}
	c.Services = newServices(c)
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Close logs out and ends all connections. Calls under way fail; later ones fail with [ErrClosed].
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	leaving := append(c.abandoned, c.session)
	c.session, c.abandoned = session{}, nil
	c.mu.Unlock()

	var errs []error
	for _, s := range leaving {
		if s.ref != "" {
			errs = append(errs, c.logout(ctx, s))
		}
	}
	c.end()
	c.closeConnections()
	return errors.Join(errs...)
}

func (c *Client) closeConnections() {
	for _, base := range c.bases {
		base.CloseIdleConnections()
	}
}

// Coordinator returns host:port of the coordinator that the session is with; empty while there is none.
func (c *Client) Coordinator() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.endpoint == nil {
		return ""
	}
	return c.session.endpoint.Host
}

// SessionSerial counts logins. Another number than before says that the pool's toolstack or coordinator may have changed meanwhile: tasks may be
// gone, and an event token may be ahead of the database.
func (c *Client) SessionSerial() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.serial
}

// SetCredentials replaces user name and password for the next login; the present session stays. It also forgets that credentials were
// refused, so the next call tries them once, also when they are the same.
func (c *Client) SetCredentials(username, password string) {
	c.redact.add(password)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.username, c.password, c.refused, c.failed = username, password, nil, nil
}

// AddMembers makes addresses of further members known, to be tried when the coordinator is lost. Those that a configuration of this kind could not
// name (a plain http endpoint off loopback) are passed over.
func (c *Client) AddMembers(addresses ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, address := range addresses {
		if endpoint, err := member(c.endpoints[0], address); err == nil {
			c.addEndpoint(endpoint)
		}
	}
}

func (c *Client) addEndpoint(endpoint *url.URL) {
	for _, known := range c.endpoints {
		if *known == *endpoint {
			return
		}
	}
	c.endpoints = append(c.endpoints, endpoint)
}
