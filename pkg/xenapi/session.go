package xenapi

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// loginTimeout bounds one attempt at one member; a XenAPI takes 5 s to refuse a password.
const loginTimeout = 20 * time.Second

// loginHoldOff is how long a failed search for the coordinator stands for those who come after it, so that many callers do not keep all members
// busy with logins while the pool has no coordinator.
const loginHoldOff = time.Second

// clientVersion is the XenAPI version that a login names. Servers take any.
const clientVersion = "2.21"

// session is a login at the coordinator.
type session struct {
	ref      SessionRef
	endpoint *url.URL
	serial   uint64
}

// loginFlight is a login under way; whoever needs a session meanwhile waits for it instead of starting another.
type loginFlight struct {
	done    chan struct{}
	session session
	err     error
}

// currentSession returns the session, logging in if there is none. Concurrent callers share one login, which goes on when one of them gives up.
func (c *Client) currentSession(ctx context.Context) (session, error) {
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return session{}, ErrClosed
	case c.session.ref != "":
		defer c.mu.Unlock()
		return c.session, nil
	case c.refused != nil:
		defer c.mu.Unlock()
		return session{}, c.refused
	case c.failed != nil && time.Since(c.failedAt) < loginHoldOff:
		defer c.mu.Unlock()
		return session{}, c.failed
	}
	flight := c.login
	if flight == nil {
		flight = &loginFlight{done: make(chan struct{})}
		c.login = flight
		go c.runLogin(context.WithoutCancel(ctx), flight)
	}
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return session{}, ctx.Err()
	case <-flight.done:
		return flight.session, flight.err
	}
}

func (c *Client) runLogin(ctx context.Context, flight *loginFlight) {
	c.mu.Lock()
	endpoints := append([]*url.URL(nil), c.endpoints...)
	username, password := c.username, c.password
	c.mu.Unlock()

	s, err := c.findCoordinator(ctx, endpoints, username, password)

	c.mu.Lock()
	flight.session, flight.err = s, err
	c.login, c.failed, c.failedAt = nil, err, time.Now()
	var leave []session
	switch {
	case err == nil && c.closed:
		flight.session, flight.err = session{}, ErrClosed
		leave = []session{s}
	case err == nil:
		c.serial++
		s.serial = c.serial
		flight.session, c.session = s, s
		leave, c.abandoned = c.abandoned, nil
		c.tasks.clear()
		c.preferEndpoint(s.endpoint)
	case errors.Is(err, ErrSessionAuthenticationFailed) && username == c.username && password == c.password:
		c.refused = err
	}
	c.mu.Unlock()
	close(flight.done)
	c.leaveBehind(ctx, leave, s.endpoint)
}

// leaveBehind logs sessions out that were given up when their member could not be reached. They are the pool's, so its new coordinator knows
// them, if it is not the toolstack's restart that ended them.
func (c *Client) leaveBehind(ctx context.Context, sessions []session, at *url.URL) {
	for _, s := range sessions {
		if at != nil {
			s.endpoint = at
		}
		if err := c.logout(ctx, s); err != nil {
			c.log.V(1).Info("session left behind was not logged out", "endpoint", s.endpoint.Host, "reason", c.redact.text(err.Error()))
		}
	}
}

// preferEndpoint puts the coordinator first among the endpoints.
func (c *Client) preferEndpoint(first *url.URL) {
	order := []*url.URL{first}
	for _, endpoint := range c.endpoints {
		if *endpoint != *first {
			order = append(order, endpoint)
		}
	}
	c.endpoints = order
}

// findCoordinator tries one endpoint after the other, and where a supporter answers the coordinator that it names.
func (c *Client) findCoordinator(ctx context.Context, endpoints []*url.URL, username, password string) (session, error) {
	tried := make(map[url.URL]struct{})
	var failures []error
	for len(endpoints) > 0 {
		endpoint := endpoints[0]
		endpoints = endpoints[1:]
		if _, again := tried[*endpoint]; again {
			continue
		}
		tried[*endpoint] = struct{}{}

		ref, err := c.logIn(ctx, endpoint, username, password)
		if err == nil {
			c.log.V(1).Info("logged in", "coordinator", endpoint.Host)
			return session{ref: ref, endpoint: endpoint}, nil
		}
		var refusal *Error
		if errors.As(err, &refusal) && refusal.Code == ErrHostIsSlave {
			coordinator, err := member(endpoint, refusal.Param(0))
			if err == nil {
				endpoints = append([]*url.URL{coordinator}, endpoints...)
			} else {
				failures = append(failures, err)
			}
			continue
		}
		if errors.Is(err, ErrSessionAuthenticationFailed) {
			return session{}, err
		}
		failures = append(failures, err)
	}
	return session{}, fmt.Errorf("%w: %w", ErrNoCoordinator, errors.Join(failures...))
}

// logIn logs in at one member. Servers of before 2013 do not know the originator, and refuse the number of parameters.
func (c *Client) logIn(ctx context.Context, endpoint *url.URL, username, password string) (SessionRef, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	args := []any{username, password, clientVersion, c.cfg.Originator}
	ref, err := c.logInWith(ctx, endpoint, args)
	if errors.Is(err, ErrMessageParameterCountMismatch) {
		ref, err = c.logInWith(ctx, endpoint, args[:3])
	}
	if err != nil {
		return "", err
	}
	c.redact.add(string(ref))
	return ref, nil
}

func (c *Client) logInWith(ctx context.Context, endpoint *url.URL, args []any) (ref SessionRef, err error) {
	_, err = c.exchange(ctx, request{
		client: c.calls, endpoint: endpoint, method: "session.login_with_password", attempt: 1, read: true, args: args,
	}, func(s *scanner) error {
		_, text, err := s.scalar()
		ref = SessionRef(text) // not interned: the scanner is used again for other answers
		return err
	})
	return ref, err
}

func (c *Client) logout(ctx context.Context, s session) error {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	_, err := c.exchange(ctx, request{
		client: c.calls, endpoint: s.endpoint, method: "session.logout", attempt: 1, read: true, args: []any{s.ref},
	}, func(s *scanner) error { return readVoid(s, nil) })
	if errors.Is(err, ErrSessionInvalid) {
		return nil
	}
	return err
}

// dropSession forgets a session that the server no longer knows, unless it has been replaced already.
func (c *Client) dropSession(old session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.serial == old.serial {
		c.session = session{}
	}
}

// abandonSession forgets a session whose member cannot be reached, and tries that member last.
func (c *Client) abandonSession(old session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.serial != old.serial || c.session.ref == "" {
		return
	}
	c.abandoned = append(c.abandoned, c.session)
	c.session = session{}
	if len(c.endpoints) > 1 {
		c.endpoints = append(c.endpoints[1:len(c.endpoints):len(c.endpoints)], c.endpoints[0])
	}
}

// followCoordinator drops the session and tries first the address that a supporter named.
func (c *Client) followCoordinator(old session, address string) {
	c.dropSession(old)
	c.mu.Lock()
	defer c.mu.Unlock()
	if coordinator, err := member(old.endpoint, address); err == nil {
		c.preferEndpoint(coordinator)
	}
}
