package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

const testToken = "s3cret-Token-of-this-test-0123456789"

// fixture is a gateway whose consoles, guests and ledger a test holds in its hand.
type fixture struct {
	*Server
	url string

	mu      sync.Mutex
	console Console
	gone    bool
	wakes   map[chan struct{}]bool
	opened  int
	busy    []bool
	visits  []Visit
	dialErr error

	guests chan net.Conn // the guest's end of each console that was dialled
	logged strings.Builder
}

func newFixture(t *testing.T, change func(*Console), tune ...func(*limits)) *fixture {
	t.Helper()
	f := &fixture{wakes: map[chan struct{}]bool{}, guests: make(chan net.Conn, 16)}
	f.console = Console{Namespace: "team-a", Name: "web", UID: "uid-1", Instance: "web", TokenSHA256: v1alpha1.ConsoleTokenDigest(testToken), Running: true,
		Series: "first", IssuedFor: "vm-uuid", ExpiresAt: time.Now().Add(time.Hour), Target: Target{Pool: "p", Host: "127.0.0.1", VMUUID: "vm-uuid"}}
	if change != nil {
		change(&f.console)
	}
	log := funcr.New(func(prefix, args string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		fmt.Fprintln(&f.logged, prefix, args)
	}, funcr.Options{Verbosity: 9})
	f.Server = NewServer(Options{Directory: f, Dialer: f, Ledger: f, Log: log})
	f.limits.hello, f.limits.dial, f.limits.guestReturns, f.limits.guestAnswers = 500*time.Millisecond, 2*time.Second, 400*time.Millisecond, 200*time.Millisecond
	for _, set := range tune {
		set(&f.limits)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.url = "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, listener, nil, 5*time.Second) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil && ctx.Err() == nil {
			t.Errorf("serve: %v", err)
		}
		if open := f.open.all(); open != 0 {
			t.Errorf("%d sessions are still counted as open", open)
		}
		if strings.Contains(f.logs(), testToken) {
			t.Errorf("the token is in the log:\n%s", f.logs())
		}
	})
	return f
}

func (f *fixture) logs() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logged.String()
}

func (f *fixture) ByDigest(_ context.Context, digest string) (Console, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.console, !f.gone && f.console.TokenSHA256 == digest
}

func (f *fixture) Current(context.Context, string, string) (Console, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.console, !f.gone
}

func (f *fixture) Changes(string) (<-chan struct{}, func()) {
	wake := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakes[wake] = true
	return wake, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.wakes, wake)
	}
}

// change edits the console as the API server would, and wakes whoever watches.
func (f *fixture) change(edit func(*fixture)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(f)
	for wake := range f.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

func (f *fixture) DialConsole(context.Context, Target) (net.Conn, error) {
	f.mu.Lock()
	err := f.dialErr
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ours, guest := tcpPair()
	f.guests <- guest
	return ours, nil
}

func (f *fixture) Busy(_ context.Context, _ Console, busy bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = append(f.busy, busy)
}

func (f *fixture) Opened(context.Context, Console, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return nil
}

func (f *fixture) Closed(_ Console, v Visit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.visits = append(f.visits, v)
}

func (f *fixture) guest(t *testing.T) net.Conn {
	t.Helper()
	select {
	case conn := <-f.guests:
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	case <-time.After(10 * time.Second):
		t.Fatal("no console was dialled")
		return nil
	}
}

// tcpPair is a connected pair of loopback connections; unlike net.Pipe it buffers, as a network does.
func tcpPair() (net.Conn, net.Conn) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		accepted <- conn
	}()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		panic(err)
	}
	return dialled, <-accepted
}

// browser is a page at the other end, played by the test.
type browser struct {
	t  *testing.T
	ws *websocket.Conn
}

func (f *fixture) dialPage(t *testing.T, header http.Header) (*browser, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, f.url+"/console/socket", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	ws.SetReadLimit(1 << 20)
	return &browser{t: t, ws: ws}, nil
}

func (f *fixture) openPage(t *testing.T, token string) *browser {
	t.Helper()
	b, err := f.dialPage(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.say(hello{Token: token})
	return b
}

func (b *browser) say(v any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := wsjson.Write(ctx, b.ws, v); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) hear() toPage {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var m toPage
	if err := wsjson.Read(ctx, b.ws, &m); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// until reads control frames until one has the state, and gives it.
func (b *browser) until(state string) toPage {
	b.t.Helper()
	for {
		m := b.hear()
		if m.State == state {
			return m
		}
		if m.State == stateEnded {
			b.t.Fatalf("wanted %s, the session ended: %+v", state, m)
		}
	}
}

func (b *browser) bytes(n int) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var out []byte
	for len(out) < n {
		kind, body, err := b.ws.Read(ctx)
		if err != nil || kind != websocket.MessageBinary {
			b.t.Fatalf("wanted bytes, found %v %q %v", kind, body, err)
		}
		out = append(out, body...)
	}
	return string(out)
}

func (b *browser) send(s string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := b.ws.Write(ctx, websocket.MessageBinary, []byte(s)); err != nil {
		b.t.Fatal(err)
	}
}

func expectRead(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("wanted %q, found %q (%v)", want, got, err)
	}
}

func TestPageCarriesBytesAcrossAReboot(t *testing.T) {
	f := newFixture(t, nil)
	b := f.openPage(t, testToken)
	if m := b.until(stateAccepted); m.Instance != "web" || m.Namespace != "team-a" || m.Type != "Graphical" {
		t.Fatalf("accepted: %+v", m)
	}
	guest := f.guest(t)
	first := b.until(stateConnected)
	b.say(fromPage{Stream: first.Stream})
	_, _ = io.WriteString(guest, "RFB 003.008\n")
	if got := b.bytes(12); got != "RFB 003.008\n" {
		t.Fatalf("page read %q", got)
	}
	b.send("typed")
	expectRead(t, guest, "typed")

	_ = guest.Close() // the guest reboots
	b.until(stateDetached)
	b.send("typed too late, into the old screen")
	guest = f.guest(t)
	second := b.until(stateConnected)
	if second.Stream == first.Stream {
		t.Fatalf("the new stream has the number of the old one: %+v", second)
	}
	b.say(fromPage{Stream: second.Stream})
	b.send("typed anew")
	expectRead(t, guest, "typed anew")
	if f.opened != 1 {
		t.Fatalf("one visit was wanted over the reboot, the ledger has %d", f.opened)
	}
}

func TestLiveSessionsAreCut(t *testing.T) {
	cases := map[string]struct {
		edit func(*fixture)
		want Cause
	}{
		"deleted":       {func(f *fixture) { f.gone = true }, CauseDeleted},
		"being deleted": {func(f *fixture) { f.console.Deleting = true }, CauseDeleted},
		"revoked":       {func(f *fixture) { f.console.TokenSHA256, f.console.Series = "", "" }, CauseRevoked},
		"replaced": {func(f *fixture) {
			f.console.TokenSHA256, f.console.Series = v1alpha1.ConsoleTokenDigest("new"), "second"
		}, CauseRevoked},
		"another VM":       {func(f *fixture) { f.console.Target.VMUUID = "rescue-vm" }, CauseRevoked},
		"now for looking":  {func(f *fixture) { f.console.ViewOnly = true }, CauseChanged},
		"guest stopped":    {func(f *fixture) { f.console.Running = false }, CauseStopped},
		"notAfter reached": {func(f *fixture) { f.console.NotAfter = time.Now().Add(50 * time.Millisecond) }, CauseNotAfter},
		"session too long": {func(f *fixture) { f.console.MaxSession = 50 * time.Millisecond }, CauseSessionTooLong},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			b := f.openPage(t, testToken)
			guest := f.guest(t)
			b.until(stateConnected)
			viewer := f.dialRaw(t, "GET /console?token="+testToken+" HTTP/1.1\r\nHost: x\r\n\r\n")
			expectRead(t, viewer, xvpGreeting)
			second := f.guest(t)

			started := time.Now()
			f.change(c.edit)
			m := b.hear()
			if m.State != stateEnded || m.Cause != c.want || m.Message == "" {
				t.Fatalf("wanted the page to be told %s, found %+v", c.want, m)
			}
			for _, conn := range []net.Conn{guest, second, viewer} {
				if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Fatalf("wanted the connection to end: %v", err)
				}
			}
			if took := time.Since(started); took > time.Second {
				t.Fatalf("cut after %s, wanted within a second", took)
			}
		})
	}
}

func TestExpiryEndsTheTimeToConnectOnly(t *testing.T) {
	f := newFixture(t, nil)
	b := f.openPage(t, testToken)
	guest := f.guest(t)
	stream := b.until(stateConnected)
	b.say(fromPage{Stream: stream.Stream})
	f.change(func(f *fixture) { f.console.ExpiresAt = time.Now().Add(-time.Second) })
	b.send("still here")
	expectRead(t, guest, "still here")
	// The manager takes the token away, or puts another in its place; the series says that this ended nothing but the time to connect.
	f.change(func(f *fixture) { f.console.TokenSHA256 = v1alpha1.ConsoleTokenDigest("the next one") })
	b.send("and still here")
	expectRead(t, guest, "and still here")
	f.change(func(f *fixture) { f.console.TokenSHA256 = v1alpha1.ConsoleTokenDigest(testToken) })
	late := f.openPage(t, testToken)
	if m := late.hear(); m.State != stateEnded || m.Cause != CauseExpired {
		t.Fatalf("wanted Expired, found %+v", m)
	}
	_ = guest.Close() // and a reboot does not need the token again
	f.guest(t)
	b.until(stateConnected)
}

func (f *fixture) dialRaw(t *testing.T, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestRawDialogue(t *testing.T) {
	cases := map[string]struct {
		request string
		answer  string // all of it where the client is let in, the first line otherwise
		in      bool
	}{
		"CONNECT as the ancestor's viewer": {"CONNECT /console?token=" + testToken + " HTTP/1.1\r\n\r\n", xvpGreeting, true},
		"CONNECT with HTTP/1.0":            {"CONNECT /console?token=" + testToken + " HTTP/1.0\r\n\r\n", xvpGreeting, true},
		"GET":                              {"GET /console?token=" + testToken + " HTTP/1.1\r\nHost: gateway\r\n\r\n", xvpGreeting, true},
		"a bearer token":                   {"CONNECT /console HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testToken + "\r\n\r\n", xvpGreeting, true},
		"bytes sent ahead":                 {"GET /console?token=" + testToken + " HTTP/1.1\r\nHost: gateway\r\n\r\nRFB 003.003\n", xvpGreeting, true},
		"no token":                         {"GET /console HTTP/1.1\r\nHost: gateway\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", false},
		"a wrong token":                    {"GET /console?token=wrong HTTP/1.1\r\nHost: gateway\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\n", false},
		"a truncated token":                {"GET /console?token=" + testToken[:20] + " HTTP/1.1\r\nHost: gateway\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\n", false},
		"a token of a megabyte":            {"GET /console?token=" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: gateway\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large\r\n", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			var conn net.Conn
			if len(c.request) > 1<<16 {
				conn = f.dialRaw(t, "")
				go func() { _, _ = io.WriteString(conn, c.request) }() // refused before it is read to its end
			} else {
				conn = f.dialRaw(t, c.request)
			}
			expectRead(t, conn, c.answer)
			if !c.in {
				return
			}
			guest := f.guest(t)
			if strings.HasSuffix(c.request, "RFB 003.003\n") {
				expectRead(t, guest, "RFB 003.003\n")
			}
			_, _ = io.WriteString(guest, "from the guest")
			expectRead(t, conn, "from the guest")
			_, _ = io.WriteString(conn, "to the guest")
			expectRead(t, guest, "to the guest")
			_ = guest.Close()
			if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
				t.Fatalf("wanted a clean end, found %q, %v", rest, err)
			}
		})
	}
}

func TestOnlyTheGatewaysOwnPageMayOpenASession(t *testing.T) {
	f := newFixture(t, nil)
	if _, err := f.dialPage(t, http.Header{"Origin": {"https://elsewhere.example"}}); err == nil {
		t.Fatal("a page of another origin opened a WebSocket")
	}
	if _, err := f.dialPage(t, http.Header{"Origin": {f.url}}); err != nil {
		t.Fatalf("the gateway's own page was refused: %v", err)
	}
}

func TestSessionsAreLimited(t *testing.T) {
	f := newFixture(t, func(c *Console) { c.MaxSessions, c.OtherSessions = 3, 1 })
	for range 2 {
		f.openPage(t, testToken).until(stateConnected)
	}
	third := f.openPage(t, testToken)
	if m := third.hear(); m.Cause != CauseTooMany {
		t.Fatalf("wanted TooManySessions, found %+v", m)
	}
}

func TestSilentPeersAreLetGo(t *testing.T) {
	f := newFixture(t, nil, func(l *limits) { l.ping, l.pong = 50*time.Millisecond, 50*time.Millisecond })
	b, err := f.dialPage(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := b.hear(); m.State != stateEnded || m.Cause != CauseProtocol {
		t.Fatalf("wanted a page that shows no token to be let go, found %+v", m)
	}
	gone := f.openPage(t, testToken)
	f.guest(t)
	gone.until(stateConnected) // and then it reads no more, so answers no ping
	deadline := time.Now().Add(10 * time.Second)
	for f.open.all() > 0 {
		if time.Now().After(deadline) {
			t.Fatal("a peer that answers no ping still holds its session")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestTenThousandBadTokensHarmNobody(t *testing.T) {
	f := newFixture(t, nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var wait sync.WaitGroup
	var limited atomic.Int64
	for worker := range 8 {
		wait.Go(func() {
			for i := range 1250 {
				response, err := client.Get(fmt.Sprintf("%s/console?token=guess-%d-%d", f.url, worker, i))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				switch response.StatusCode {
				case http.StatusUnauthorized:
				case http.StatusTooManyRequests:
					limited.Add(1)
				default:
					t.Errorf("a guess was answered %s", response.Status)
				}
			}
		})
	}
	good := f.openPage(t, testToken)
	guest := f.guest(t)
	stream := good.until(stateConnected)
	good.say(fromPage{Stream: stream.Stream})
	good.send("unharmed")
	expectRead(t, guest, "unharmed")
	wait.Wait()
	f.openPage(t, testToken).until(stateConnected)
	if limited.Load() < 9000 {
		t.Fatalf("%d of 10,000 guesses were told to be too many", limited.Load())
	}
	if lines := strings.Count(f.logs(), "Token opens no console"); lines == 0 || lines > 200 {
		t.Fatalf("10,000 bad tokens made %d lines of log, wanted a few", lines)
	}
	if strings.Contains(f.logs(), "guess-") {
		t.Fatal("an offered token is in the log")
	}
}

func TestRefusalsTellWhatToDo(t *testing.T) {
	cases := map[string]struct {
		console func(*Console)
		dial    error
		want    Cause
	}{
		"expired":        {func(c *Console) { c.ExpiresAt = time.Now().Add(-time.Minute) }, nil, CauseExpired},
		"notAfter":       {func(c *Console) { c.NotAfter = time.Now().Add(-time.Minute) }, nil, CauseNotAfter},
		"not running":    {func(c *Console) { c.Running = false }, nil, CauseStopped},
		"being deleted":  {func(c *Console) { c.Deleting = true }, nil, CauseDeleted},
		"another VM":     {func(c *Console) { c.IssuedFor = "rescue-vm" }, nil, CauseRevoked},
		"busy":           {nil, &Ended{Cause: CauseBusy}, CauseBusy},
		"host is silent": {nil, io.ErrUnexpectedEOF, CauseUnavailable},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.console)
			f.change(func(f *fixture) { f.dialErr = c.dial })
			b := f.openPage(t, testToken)
			for {
				m := b.hear()
				if m.State != stateEnded {
					continue
				}
				if m.Cause != c.want || m.Message == "" {
					t.Fatalf("wanted %s with a message, found %+v", c.want, m)
				}
				return
			}
		})
	}
}

func TestPageHeaders(t *testing.T) {
	handler := newFixture(t, nil).Handler()
	for path, kind := range map[string]string{
		"/console/": "text/html; charset=utf-8", "/console/page.js": "text/javascript; charset=utf-8",
		"/console/novnc/core/rfb.js": "text/javascript; charset=utf-8", "/console/xterm/xterm.css": "text/css; charset=utf-8",
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s, %d bytes", path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		for _, header := range []string{"Content-Security-Policy", "Referrer-Policy", "X-Frame-Options"} {
			if w.Header().Get(header) == "" {
				t.Errorf("%s has no %s", path, header)
			}
		}
		again := httptest.NewRequest(http.MethodGet, path, nil)
		again.Header.Set("If-None-Match", w.Header().Get("ETag"))
		w = httptest.NewRecorder()
		handler.ServeHTTP(w, again)
		if w.Code != http.StatusNotModified {
			t.Errorf("%s asked for again: %d", path, w.Code)
		}
	}
}

func TestDrainingTellsPagesAndEnds(t *testing.T) {
	f := newFixture(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := NewServer(Options{Directory: f, Dialer: f, Ledger: f, Log: f.log})
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- second.Serve(ctx, listener, nil, 5*time.Second) }()
	f.url = "http://" + listener.Addr().String()
	b := f.openPage(t, testToken)
	f.guest(t)
	b.until(stateConnected)
	stop()
	if m := b.hear(); m.Cause != CauseDraining {
		t.Fatalf("wanted Draining, found %+v", m)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func TestSlowAndFloodingPeersAreLetGoBeforeTheyAreLetIn(t *testing.T) {
	cases := map[string]struct {
		send func(net.Conn)
		want string // the start of the answer; "" for none
	}{
		"headers that never end": {func(c net.Conn) { _, _ = io.WriteString(c, "GET /console HTTP/1.1\r\nHost: x\r\nX-A: ") }, ""},
		"nothing at all":         {func(net.Conn) {}, ""},
		"a flood of headers": {func(c net.Conn) {
			_, _ = io.WriteString(c, "GET /console HTTP/1.1\r\nHost: x\r\n"+strings.Repeat("X-Flood: "+strings.Repeat("a", 500)+"\r\n", 200))
		}, "HTTP/1.1 431"},
		"not HTTP": {func(c net.Conn) { _, _ = io.WriteString(c, "RFB 003.008\n\r\n\r\n") }, "HTTP/1.1 400"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, func(l *limits) { l.header = 300 * time.Millisecond })
			conn := f.dialRaw(t, "")
			go c.send(conn)
			answer, err := io.ReadAll(conn)
			if err != nil && !strings.Contains(err.Error(), "reset") {
				t.Fatalf("the peer still holds its connection: %v", err)
			}
			if !strings.HasPrefix(string(answer), c.want) {
				t.Fatalf("wanted %q, found %q", c.want, answer)
			}
			f.openPage(t, testToken).until(stateConnected) // and everybody else is served
		})
	}
}

// FuzzFirstBytes holds that whatever a peer says first, nobody is let in without the token and the gateway goes on serving.
func FuzzFirstBytes(f *testing.F) {
	f.Add([]byte("GET /console?token=x HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("CONNECT /console HTTP/1.0\r\nAuthorization: Bearer\r\n\r\n"))
	f.Add([]byte("GET /console/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85\x00\x00\x00\x00hello"))
	dialled := make(chan struct{}, 1)
	server := NewServer(Options{Directory: nobody{}, Dialer: nobody{dialled}, Ledger: nobody{}, Log: logr.Discard()})
	server.limits.header, server.limits.hello, server.limits.farewell = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f.Cleanup(stop)
	go func() { _ = server.Serve(ctx, listener, nil, time.Second) }()
	f.Fuzz(func(t *testing.T, first []byte) {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatalf("the gateway serves no more: %v", err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(first)
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("the connection is held open: %v", err)
		}
		if strings.HasPrefix(string(answer), xvpGreeting) {
			t.Fatal("somebody was let in")
		}
		select {
		case <-dialled:
			t.Fatal("a console was dialled")
		default:
		}
	})
}

// nobody is a directory in which no token opens anything.
type nobody struct{ dialled chan struct{} }

func (nobody) ByDigest(context.Context, string) (Console, bool)        { return Console{}, false }
func (nobody) Current(context.Context, string, string) (Console, bool) { return Console{}, false }
func (nobody) Changes(string) (<-chan struct{}, func())                { return nil, func() {} }
func (nobody) Opened(context.Context, Console, string) error           { return nil }
func (nobody) Closed(Console, Visit)                                   {}
func (nobody) Busy(context.Context, Console, bool)                     {}
func (n nobody) DialConsole(context.Context, Target) (net.Conn, error) {
	n.dialled <- struct{}{}
	return nil, io.EOF
}
