package xenapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

// Call sends any message and returns its result as it came. The session is added in front of args. Integers go as decimal strings, records as
// map[string]any; nil cannot be sent.
func (c *Client) Call(ctx context.Context, method string, args ...any) (Value, error) {
	return invoke(ctx, c, method, readValue, args...)
}

// invoke sends a message and reads its result with read.
func invoke[T any](ctx context.Context, c *Client, method string, read func(*scanner, *T) error, args ...any) (T, error) {
	var out T
	settle, err := c.tasks.begin(method, args)
	if err != nil {
		return out, err
	}
	err = c.perform(ctx, method, args, func(s *scanner) error {
		var fresh T // an earlier attempt may have read a part
		err := read(s, &fresh)
		out = fresh
		return err
	})
	settle(any(out), err)
	if err != nil {
		var none T
		return none, err
	}
	return out, nil
}

const (
	maxAttempts  = 4
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 2 * time.Second

	// maxSilences is how many calls in a row may time out without an answer before the coordinator is looked for anew: one slow call says
	// nothing, a host that vanished behind open connections shows in no other way.
	maxSilences = 2
)

// isRead says whether a message changes nothing, so that it may be sent again whatever became of it.
func isRead(method string) bool {
	if method == "event.inject" || method == "system.listMethods" {
		return true
	}
	_, verb, ok := strings.Cut(method, ".")
	return ok && (strings.HasPrefix(verb, "get_") || strings.HasPrefix(verb, "assert_") || strings.HasPrefix(verb, "compute_"))
}

// perform sends a call in the current session, renews the session where it was lost, follows the coordinator, and tries again where that is safe.
func (c *Client) perform(ctx context.Context, method string, args []any, read func(*scanner) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.CallTimeout)
		defer cancel()
	}
	release, err := c.enter(ctx, method)
	if err != nil {
		return err
	}
	defer release()
	return c.attempts(ctx, request{client: c.calls, method: method, args: args, read: isRead(method)}, read)
}

// enter takes a place among the calls in flight.
func (c *Client) enter(ctx context.Context, method string) (func(), error) {
	select {
	case c.inFlight <- struct{}{}:
		return func() { <-c.inFlight }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: waiting for a place among %d calls in flight: %w", method, cap(c.inFlight), ctx.Err())
	}
}

func (c *Client) attempts(ctx context.Context, r request, read func(*scanner) error) error {
	args := r.args
	renewed := 0
	for r.attempt = 1; ; r.attempt++ {
		s, err := c.currentSession(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", r.method, err)
		}
		r.endpoint = s.endpoint
		r.args = append([]any{s.ref}, args...)
		done, err := c.exchange(ctx, r, read)
		if err == nil {
			c.silences.Store(0)
			return nil
		}
		again := c.react(s, done, err)
		if again == retryNo || r.attempt >= maxAttempts || ctx.Err() != nil {
			return err
		}
		if again == retryNow && r.continues {
			return &Error{Code: ErrEventsLost, Method: r.method, Params: []string{"the session was lost"}}
		}
		if again == retryNow && renewed == 0 {
			renewed++
			continue
		}
		c.log.V(1).Info("trying again", "method", r.method, "attempt", r.attempt, "reason", err.Error())
		if c.pause(ctx, backoff(r.attempt)) != nil {
			return err
		}
	}
}

// backoff doubles with each attempt, with full jitter, so that callers that failed together do not come back together.
func backoff(attempt int) time.Duration {
	limit := min(firstBackoff<<(attempt-1), maxBackoff)
	return limit/4 + rand.N(limit) //nolint:gosec // jitter needs no secrecy
}

type retry uint8

const (
	retryNo    retry = iota
	retryNow         // in another session
	retryLater       // after a pause
)

// react draws the consequences of a failure for the session, and says whether to try again.
func (c *Client) react(s session, phase Phase, err error) retry {
	var refusal *Error
	if errors.As(err, &refusal) {
		switch refusal.Code {
		case ErrSessionInvalid:
			c.dropSession(s)
			return retryNow
		case ErrHostIsSlave:
			c.followCoordinator(s, refusal.Param(0))
			return retryNow
		case ErrHostStillBooting, ErrTooBusy:
			return retryLater
		default:
			return retryNo
		}
	}
	var transport *TransportError
	if !errors.As(err, &transport) {
		return retryNo
	}
	unreachable := phase == PhaseConnect && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrBadArgument)
	silent := phase == PhaseSend && errors.Is(err, context.DeadlineExceeded) && c.silences.Add(1) >= maxSilences
	if unreachable || silent {
		c.abandonSession(s)
	}
	if RetrySafe(err) && !permanent(err) {
		return retryLater
	}
	return retryNo
}

// permanent says that the same request would fail in the same way.
func permanent(err error) bool {
	var status *HTTPError
	if errors.As(err, &status) {
		return status.Status < 500 || status.Status == http.StatusNotImplemented
	}
	return errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnexpectedType) || errors.Is(err, context.Canceled)
}

// request is one HTTP exchange of a call.
type request struct {
	client   *http.Client
	endpoint *url.URL
	method   string
	args     []any
	attempt  int
	read     bool
	// continues says that the call makes no sense in another session than the one before.
	continues bool
}

// exchange sends a call once and reads its answer. The phase is how far it got.
func (c *Client) exchange(ctx context.Context, r request, read func(*scanner) error) (Phase, error) {
	body, err := encodeCall(r.method, r.args)
	if err != nil {
		return PhaseConnect, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.lifetime, func() { cancel(ErrClosed) })()
	began := time.Now()
	var phase atomic.Uint32
	counted := &countingReader{}
	err = c.send(withPhase(ctx, &phase), r, body, counted, read)
	reached := Phase(phase.Load())
	if err != nil && c.lifetime.Err() != nil {
		err = ErrClosed
	}
	err = c.dress(err, r, reached)
	if c.cfg.OnCall != nil {
		c.cfg.OnCall(CallInfo{
			Method: r.method, Endpoint: r.endpoint.Host, Attempt: r.attempt, Duration: time.Since(began),
			RequestBytes: int64(len(body)), ResponseBytes: counted.n, Err: err,
		})
	}
	return reached, err
}

// withPhase notes in phase how far the request with this context gets.
func withPhase(ctx context.Context, phase *atomic.Uint32) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { phase.Store(uint32(PhaseSend)) },
		GotFirstResponseByte: func() { phase.Store(uint32(PhaseAnswer)) },
	})
}

func (c *Client) send(ctx context.Context, r request, body []byte, counted *countingReader, read func(*scanner) error) error {
	target := *r.endpoint
	target.Path = "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.statusError(resp)
	}
	counted.src = resp.Body
	answer, err := readAnswer(counted, c.cfg.Limits, read)
	if err != nil {
		return err
	}
	if answer.failed {
		return c.redact.error(newError(r.method, answer.description))
	}
	return nil
}

// dress makes a transport's error ours: without addresses that may hold secrets, with the phase that decides about trying again.
func (c *Client) dress(err error, r request, phase Phase) error {
	if err == nil {
		return nil
	}
	var refusal *Error
	if errors.As(err, &refusal) {
		return err
	}
	return &TransportError{Op: r.method, Endpoint: r.endpoint.Host, Phase: phase, Read: r.read, Err: tlsError(stripURL(err))}
}

// stripURL drops the address that net/http puts into its errors.
func stripURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

const maxErrorBody = 4 << 10

var htmlTag = regexp.MustCompile(`<[^>]*>`)

// statusError reads the beginning of an error page: a XenAPI says in HTML what it did not like.
func (c *Client) statusError(resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	detail := strings.Join(strings.Fields(htmlTag.ReplaceAllString(c.redact.text(string(raw)), " ")), " ")
	if len(detail) > 300 {
		detail = detail[:300] + "…"
	}
	if err != nil && detail == "" {
		detail = "no body"
	}
	return &HTTPError{Status: resp.StatusCode, Detail: strings.ToValidUTF8(detail, "")}
}

type countingReader struct {
	src io.Reader
	n   int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.n += int64(n)
	return n, err
}
