package xenapi

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestConnectLogsInOnceWithAnOriginatorOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	var originators []string
	login := s.answers["session.login_with_password"]
	s.on("session.login_with_password", func(p []node) string {
		originators = append(originators, p[3].text)
		return login(p)
	})
	first, second := s.connect(nil), s.connect(nil)
	if originators[0] == originators[1] || !strings.HasPrefix(originators[0], "kubexen/") {
		t.Errorf("originators %q", originators)
	}
	s.on("VM.get_all", func(p []node) string {
		return success("<value><array><data><value>" + p[0].text + "</value></data></array></value>")
	})
	for range 3 {
		refs, err := first.VM.GetAll(context.Background())
		if err != nil || len(refs) != 1 || refs[0] != "OpaqueRef:session-1" {
			t.Fatalf("refs %v, err %v", refs, err)
		}
	}
	if got := s.count("session.login_with_password"); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
	for _, header := range s.headers {
		if header.Get("User-Agent") != "kubexen/test" {
			t.Errorf("user agent %q", header.Get("User-Agent"))
		}
	}
	if err := second.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if s.count("session.logout") != 1 {
		t.Error("close did not log out")
	}
	if _, err := second.VM.GetAll(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestALostSessionIsRenewedOnceForAllWhoNeedIt(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("VM.get_uuid", func(p []node) string {
		if p[0].text == "OpaqueRef:session-1" {
			return failure("SESSION_INVALID", p[0].text)
		}
		return success("<value>u</value>")
	})
	s.on("VM.start", s.answers["VM.get_uuid"])
	c := s.connect(nil)
	before := c.SessionSerial()
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if _, err := c.VM.GetUUID(context.Background(), "OpaqueRef:vm"); err != nil {
				t.Error(err)
			}
			if err := c.VM.Start(context.Background(), "OpaqueRef:vm", false, false); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := s.count("session.login_with_password"); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
	if c.SessionSerial() == before {
		t.Error("the session's serial has not changed")
	}
}

func TestASessionThatCannotBeRenewedIsAnErrorWithoutItsReference(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("VM.get_uuid", func(p []node) string { return failure("SESSION_INVALID", p[0].text) })
	c := s.connect(nil)
	_, err := c.VM.GetUUID(context.Background(), "OpaqueRef:vm")
	if !errors.Is(err, ErrSessionInvalid) || strings.Contains(err.Error(), "session-") {
		t.Errorf("err %v", err)
	}
	if got := s.count("VM.get_uuid"); got > maxAttempts {
		t.Errorf("%d attempts", got)
	}
}

func TestARefusedPasswordIsReportedAndNotTriedAgain(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	accept := s.answers["session.login_with_password"]
	s.on("session.login_with_password", func(p []node) string {
		if p[1].text != "right password" {
			return failure("SESSION_AUTHENTICATION_FAILED", p[0].text, "Authentication failure for "+p[1].text)
		}
		return accept(p)
	})
	_, err := s.tryConnect(nil)
	if !errors.Is(err, ErrSessionAuthenticationFailed) {
		t.Fatalf("err %v", err)
	}
	if strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the password stands in %q", err)
	}

	c := s.connect(func(cfg *Config) { cfg.Password = "right password" })
	c.SetCredentials("root", "wrong password")
	c.dropSession(c.session)
	already := s.count("session.login_with_password")
	for range 5 {
		if _, err := c.VM.GetAll(context.Background()); !errors.Is(err, ErrSessionAuthenticationFailed) {
			t.Errorf("err %v", err)
		}
	}
	if got := s.count("session.login_with_password") - already; got != 1 {
		t.Errorf("%d logins with a refused password, want 1", got)
	}
	s.on("VM.get_all", func([]node) string { return success("<value><array><data></data></array></value>") })
	c.SetCredentials("root", "right password")
	if _, err := c.VM.GetAll(context.Background()); err != nil {
		t.Errorf("with the right password: %v", err)
	}
}

func TestTheCoordinatorIsFollowed(t *testing.T) {
	t.Parallel()
	coordinator, supporter := newScript(t), newScript(t)
	host := strings.TrimPrefix(coordinator.server.URL, "http://")
	supporter.on("session.login_with_password", func([]node) string { return failure("HOST_IS_SLAVE", host) })
	c := supporter.connect(nil)
	if c.Coordinator() != host {
		t.Errorf("coordinator %s, want %s", c.Coordinator(), host)
	}

	// The role moves: the old coordinator answers calls with the new one's address.
	coordinator.on("VM.start", func([]node) string {
		return failure("HOST_IS_SLAVE", strings.TrimPrefix(supporter.server.URL, "http://"))
	})
	supporter.on("session.login_with_password", func([]node) string { return success("<value>OpaqueRef:new</value>") })
	supporter.on("VM.start", func([]node) string { return success("<value></value>") })
	if err := c.VM.Start(context.Background(), "OpaqueRef:vm", false, false); err != nil {
		t.Fatal(err)
	}
	if coordinator.count("VM.start") != 1 || supporter.count("VM.start") != 1 {
		t.Error("the call was not sent exactly once to each")
	}
}

func TestAnOldServerIsLoggedInToWithoutAnOriginator(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	accept := s.answers["session.login_with_password"]
	s.on("session.login_with_password", func(p []node) string {
		if len(p) > 3 {
			return failure("MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password", "3", "4")
		}
		return accept(p)
	})
	s.connect(nil)
}

func TestSupportersThatNameEachOtherAreGivenUp(t *testing.T) {
	t.Parallel()
	a, b := newScript(t), newScript(t)
	a.on("session.login_with_password", func([]node) string { return failure("HOST_IS_SLAVE", strings.TrimPrefix(b.server.URL, "http://")) })
	b.on("session.login_with_password", func([]node) string { return failure("HOST_IS_SLAVE", strings.TrimPrefix(a.server.URL, "http://")) })
	if _, err := a.tryConnect(nil); !errors.Is(err, ErrNoCoordinator) {
		t.Errorf("err %v", err)
	}
	if a.count("session.login_with_password") != 1 {
		t.Error("a member was asked more than once")
	}
}

func TestAnotherMemberIsAskedWhenTheCoordinatorIsGone(t *testing.T) {
	t.Parallel()
	gone, next := newScript(t), newScript(t)
	c := gone.connect(func(cfg *Config) { cfg.Endpoints = append(cfg.Endpoints, next.server.URL) })
	gone.server.Close()
	c.closeConnections() // as the idle time-out would have: a write into a connection that is going has an unknown outcome
	next.on("VM.start", func([]node) string { return success("<value></value>") })
	if err := c.VM.Start(context.Background(), "OpaqueRef:vm", false, false); err != nil {
		t.Fatalf("a call that was never sent was not sent to the next member: %v", err)
	}
	if next.count("VM.start") != 1 {
		t.Error("not sent exactly once")
	}
	eventually(t, func() bool { return next.count("session.logout") == 1 }, "the session left behind is logged out at the new coordinator")
}

// A member that vanished behind an open connection answers nothing; two calls that time out in a row are taken for that.
func TestASilentCoordinatorIsLeft(t *testing.T) {
	t.Parallel()
	silent, next := newScript(t), newScript(t)
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	silent.on("VM.get_uuid", func([]node) string { <-hold; return "drop" })
	next.on("VM.get_uuid", func([]node) string { return success("<value>u</value>") })
	c := silent.connect(func(cfg *Config) { cfg.Endpoints = append(cfg.Endpoints, next.server.URL) })
	ask := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := c.VM.GetUUID(ctx, "OpaqueRef:vm")
		return err
	}
	for range maxSilences {
		if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("err %v", err)
		}
	}
	if _, err := c.VM.GetUUID(context.Background(), "OpaqueRef:vm"); err != nil {
		t.Error(err)
	}
}

func TestALoginGoesOnWhenTheFirstToWantItGivesUp(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	c := s.connect(nil)
	s.on("VM.get_all", func([]node) string { return success("<value><array><data></data></array></value>") })
	entered, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	accept := s.answers["session.login_with_password"]
	s.on("session.login_with_password", func(p []node) string {
		once.Do(func() { close(entered) })
		<-open
		return accept(p)
	})
	c.dropSession(c.session)
	ctx, cancel := context.WithCancel(context.Background())
	impatient := make(chan error, 1)
	go func() { _, err := c.VM.GetAll(ctx); impatient <- err }()
	<-entered
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	close(open)
	if _, err := c.VM.GetAll(context.Background()); err != nil {
		t.Error(err)
	}
	if got := s.count("session.login_with_password"); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	entered, hold := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(hold) })
	s.on("VM.clean_shutdown", func([]node) string { close(entered); <-hold; return "drop" })
	c := s.connect(nil)
	ended := make(chan error, 1)
	go func() { ended <- c.VM.CleanShutdown(context.Background(), "OpaqueRef:vm") }()
	<-entered
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) || !OutcomeUnknown(err) {
		t.Errorf("err %v", err)
	}
}

// While a pool has no coordinator, many callers share one look for it.
func TestAFailedLoginStandsForAWhile(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	c := s.connect(nil)
	s.on("session.login_with_password", func([]node) string { return failure("HOST_STILL_BOOTING") })
	c.dropSession(c.session)
	before := s.count("session.login_with_password")
	for range 20 {
		if _, err := c.VM.GetAll(context.Background()); !errors.Is(err, ErrNoCoordinator) || !errors.Is(err, ErrHostStillBooting) || !RetrySafe(err) {
			t.Fatalf("err %v", err)
		}
	}
	if got := s.count("session.login_with_password") - before; got > 2 {
		t.Errorf("%d logins", got)
	}
}

func TestPlainHTTPStaysOnLoopback(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"http://192.0.2.1", "http://xs1.example", "ftp://127.0.0.1", "http://user:pw@127.0.0.1"} {
		_, err := newClient(Config{Endpoints: []string{endpoint}, Username: "root"})
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	s := newScript(t)
	s.on("session.login_with_password", func([]node) string { return failure("HOST_IS_SLAVE", "192.0.2.1") })
	if _, err := s.tryConnect(nil); !errors.Is(err, ErrConfig) {
		t.Errorf("a supporter on loopback that names an address off it: %v", err)
	}
}

func TestMemberAddresses(t *testing.T) {
	t.Parallel()
	of, err := parseEndpoint("https://xs1.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := parseEndpoint("xs1.example")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string][2]string{
		"192.0.2.7":       {"https://192.0.2.7:8443", "https://192.0.2.7"},
		"2001:db8::7":     {"https://[2001:db8::7]:8443", "https://[2001:db8::7]"},
		"xs2.example:444": {"https://xs2.example:444", "https://xs2.example:444"},
	} {
		a, errA := member(of, address)
		b, errB := member(plain, address)
		if errA != nil || errB != nil || a.String() != want[0] || b.String() != want[1] {
			t.Errorf("%s: %v %v, %v %v", address, a, errA, b, errB)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	secure := httptest.NewTLSServer(s.server.Config.Handler)
	t.Cleanup(secure.Close)
	pin := fingerprint(secure.Certificate().Raw)
	cases := map[string]struct {
		change func(*Config)
		wrong  bool
	}{
		"unknown authority":     {func(*Config) {}, true},
		"CA bundle":             {func(cfg *Config) { cfg.CABundle = pemOf(secure.Certificate().Raw) }, false},
		"fingerprint":           {func(cfg *Config) { cfg.FingerprintsSHA256 = []string{strings.Repeat("00:", 31) + "00", pin} }, false},
		"fingerprint, colons":   {func(cfg *Config) { cfg.FingerprintsSHA256 = []string{strings.ToUpper(colons(pin))} }, false},
		"another's fingerprint": {func(cfg *Config) { cfg.FingerprintsSHA256 = []string{strings.Repeat("ab", 32)} }, true},
		"insecure, as asked":    {func(cfg *Config) { cfg.InsecureSkipVerify = true }, false},
	}
	for name, test := range cases {
		_, err := s.tryConnect(func(cfg *Config) {
			cfg.Endpoints = []string{secure.URL}
			test.change(cfg)
		})
		if test.wrong != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if test.wrong && (!errors.Is(err, ErrTLSVerification) || RetrySafe(errors.Unwrap(err))) {
			t.Errorf("%s: not told as a certificate error: %v", name, err)
		}
	}
	_, err := newClient(Config{Endpoints: []string{secure.URL}, Username: "root", InsecureSkipVerify: true, FingerprintsSHA256: []string{pin}})
	if !errors.Is(err, ErrConfig) {
		t.Errorf("two ways to trust: %v", err)
	}
}

func TestOneSlowCallDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	entered, hold := make(chan struct{}), make(chan struct{})
	s.on("VM.clean_shutdown", func([]node) string { close(entered); <-hold; return success("<value></value>") })
	var blocked atomic.Int32
	s.on("event.from", func([]node) string {
		blocked.Add(1)
		<-hold
		return success("<value><struct><member><name>token</name><value>t</value></member></struct></value>")
	})
	s.on("VM.get_all", func([]node) string { return success("<value><array><data></data></array></value>") })
	c := s.connect(func(cfg *Config) { cfg.MaxInFlight = 2 })
	var group sync.WaitGroup
	group.Go(func() {
		if err := c.VM.CleanShutdown(context.Background(), "OpaqueRef:vm"); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		group.Go(func() {
			if _, err := c.EventFrom(context.Background(), []string{"vm"}, "", time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	eventually(t, func() bool { return blocked.Load() == 3 }, "three waits for events, which take no place among the calls")
	if _, err := c.VM.GetAll(context.Background()); err != nil {
		t.Error(err)
	}
	close(hold)
	group.Wait()
}

func TestCallsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	hold := make(chan struct{})
	var inside, most atomic.Int32
	s.on("VM.get_all", func([]node) string {
		now := inside.Add(1)
		for {
			seen := most.Load()
			if now <= seen || most.CompareAndSwap(seen, now) {
				break
			}
		}
		<-hold
		inside.Add(-1)
		return success("<value><array><data></data></array></value>")
	})
	c := s.connect(func(cfg *Config) { cfg.MaxInFlight = 3 })
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			if _, err := c.VM.GetAll(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, func() bool { return inside.Load() == 3 }, "three calls in flight")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.VM.GetAll(ctx); !errors.Is(err, context.Canceled) || OutcomeUnknown(err) {
		t.Errorf("a call that waits for its place: %v", err)
	}
	close(hold)
	group.Wait()
	if most.Load() != 3 {
		t.Errorf("%d calls in flight, want 3", most.Load())
	}
}
