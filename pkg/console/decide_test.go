package console

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// state is one console and its surroundings; a case changes what it is about.
type state struct {
	c *v1alpha1.XenConsole
	f Facts
}

// fresh is a console that was just applied, of an instance that runs.
func fresh() *state {
	instance := &v1alpha1.XenInstance{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	instance.Spec.PowerState = v1alpha1.PowerStateRunning
	instance.Status.PowerState, instance.Status.UUID = v1alpha1.PowerStateRunning, "own-vm"
	c := &v1alpha1.XenConsole{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "team-a"}}
	c.Spec = v1alpha1.XenConsoleSpec{
		InstanceRef: v1alpha1.InstanceReference{Name: "web"}, Type: v1alpha1.ConsoleGraphical, Client: v1alpha1.ConsoleClientBrowser,
		Access: v1alpha1.AccessURLToken, TTLSeconds: 600, MaxSessionSeconds: 3600, MaxSessions: 10, Renewal: v1alpha1.RenewalNever,
	}
	return &state{c: c, f: Facts{Now: now, Instance: instance, GatewayURL: "https://gw.example", TokenKept: true}}
}

// issued is a console whose URL was issued a minute ago.
func issued() *state {
	s := fresh()
	d := Decide(s.c, s.f)
	Report(s.c, d, &Token{Digest: v1alpha1.ConsoleTokenDigest("t"), URL: URL("https://gw.example", s.c.Spec.Client, "t")}, now)
	s.f.Now = now.Add(time.Minute)
	return s
}

// step decides, reports and returns the decision, as a pass does.
func (s *state) step() Decision {
	d := Decide(s.c, s.f)
	Report(s.c, d, &Token{Digest: v1alpha1.ConsoleTokenDigest(s.f.Now.String()), URL: "https://gw.example/console/#token=x"}, s.f.Now)
	return d
}

func TestDecide(t *testing.T) {
	halted := func(s *state) { s.f.Instance.Status.PowerState = v1alpha1.PowerStateHalted }
	cases := map[string]struct {
		given  func() *state
		when   func(*state)
		act    Act
		ready  string // reason of Ready
		kind   reconcile.Kind
		opens  bool
		expire bool
		within time.Duration // the next deadline, 0 for none
	}{
		"a new console gets a URL": {fresh, nil, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"a valid URL stays":        {issued, nil, Keep, "Issued", reconcile.KindDone, true, false, 540 * time.Second},
		"no gateway is known":      {fresh, func(s *state) { s.f.GatewayURL = "" }, Keep, "GatewayNotConfigured", reconcile.KindTerminal, false, false, 0},
		"the pool forbids URLs with tokens": {fresh, func(s *state) {
			s.f.Policy = &v1alpha1.PoolConsole{AllowedAccess: []v1alpha1.ConsoleAccess{"SecretToken"}}
		}, Keep, "AccessForbidden", reconcile.KindTerminal, false, false, 0},
		"the pool forbids them now": {issued, func(s *state) {
			s.f.Policy = &v1alpha1.PoolConsole{AllowedAccess: []v1alpha1.ConsoleAccess{"SecretToken"}}
		}, End, "AccessForbidden", reconcile.KindTerminal, false, false, 0},
		"the pool caps the TTL":          {fresh, func(s *state) { s.f.Policy = &v1alpha1.PoolConsole{MaxTTLSeconds: ptr.To[int32](60)} }, Issue, "Issued", reconcile.KindDone, true, false, time.Minute},
		"notAfter caps the TTL":          {fresh, func(s *state) { s.c.Spec.NotAfter = &metav1.Time{Time: now.Add(30 * time.Second)} }, Issue, "Issued", reconcile.KindDone, true, false, 30 * time.Second},
		"notAfter over before the first": {fresh, func(s *state) { s.c.Spec.NotAfter = &metav1.Time{Time: now} }, Keep, "Expired", reconcile.KindDone, false, true, 0},
		"notAfter over while it lives":   {issued, func(s *state) { s.c.Spec.NotAfter = &metav1.Time{Time: now.Add(time.Minute)} }, End, "Expired", reconcile.KindDone, false, true, 0},
		"a bad public key":               {fresh, func(s *state) { s.c.Spec.Access, s.c.Spec.PublicKey = "EncryptedToken", "no key" }, Keep, "InvalidPublicKey", reconcile.KindTerminal, false, false, 0},
		"no instance yet":                {fresh, func(s *state) { s.f.Instance = nil }, Keep, "InstanceNotFound", reconcile.KindWait, false, false, 0},
		"the instance is starting":       {fresh, halted, Keep, "InstanceNotRunning", reconcile.KindWait, false, false, 0},
		"the instance is meant to be off": {fresh, func(s *state) {
			halted(s)
			s.f.Instance.Spec.PowerState = v1alpha1.PowerStateHalted
		}, Keep, "InstanceNotRunning", reconcile.KindDone, false, false, 0},
		"the guest stops":                 {issued, halted, End, "Revoked", reconcile.KindDone, false, true, 0},
		"the guest stops, renewal":        {issued, func(s *state) { halted(s); s.c.Spec.Renewal = v1alpha1.RenewalWhileRequested }, End, "InstanceNotRunning", reconcile.KindWait, false, false, 0},
		"the instance is deleted":         {issued, func(s *state) { s.f.Instance = nil }, End, "InstanceNotFound", reconcile.KindWait, false, false, 0},
		"the instance is being deleted":   {issued, func(s *state) { s.f.Instance.DeletionTimestamp = &metav1.Time{Time: now} }, End, "Revoked", reconcile.KindDone, false, true, 0},
		"time to connect over":            {issued, func(s *state) { s.f.Now = now.Add(600 * time.Second) }, End, "Expired", reconcile.KindDone, false, true, 0},
		"time to connect over, renewal":   {issued, func(s *state) { s.f.Now = now.Add(time.Hour); s.c.Spec.Renewal = v1alpha1.RenewalWhileRequested }, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"a new renewToken while it lives": {issued, func(s *state) { s.c.Spec.RenewToken = "again" }, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"another VM is shown":             {issued, func(s *state) { s.f.Instance.Status.UUID = "rescue-vm" }, End, "Revoked", reconcile.KindDone, false, true, 0},
		"another VM is shown, renewal": {issued, func(s *state) {
			s.f.Instance.Status.UUID, s.c.Spec.Renewal = "rescue-vm", v1alpha1.RenewalWhileRequested
		}, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"the pool let nobody else in": {issued, func(s *state) {
			s.c.Status.Sessions = []v1alpha1.ConsoleSessions{{Gateway: "a", BusyAt: &metav1.Time{Time: s.f.Now.Add(-20 * time.Second)}, RenewedAt: metav1.NewTime(s.f.Now)}}
		}, Keep, "ConsoleBusy", reconcile.KindDone, true, false, 40 * time.Second},
		"deletion at once, but somebody looks": {issued, func(s *state) {
			s.f.Now, s.c.Spec.DeleteAfterExpirySeconds = now.Add(time.Hour), ptr.To[int32](0)
			s.c.Status.Sessions = []v1alpha1.ConsoleSessions{{Gateway: "a", Open: 1, RenewedAt: metav1.NewTime(s.f.Now)}}
		}, End, "Expired", reconcile.KindDone, false, true, v1alpha1.ConsoleSessionsCountFor + time.Second},
		"the Secret was removed": {issued, func(s *state) { s.f.TokenKept = false }, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"restored from a backup": {fresh, func(s *state) { s.c.Annotations = map[string]string{v1alpha1.AnnotationURLIssued: ""} }, Keep, "RestoredWithoutRecord", reconcile.KindDone, false, true, 0},
		"restored, and asked anew": {fresh, func(s *state) {
			s.c.Annotations = map[string]string{v1alpha1.AnnotationURLIssued: ""}
			s.c.Spec.RenewToken = "x"
		}, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"restored, renewal": {fresh, func(s *state) {
			s.c.Annotations = map[string]string{v1alpha1.AnnotationURLIssued: ""}
			s.c.Spec.Renewal = v1alpha1.RenewalWhileRequested
		}, Issue, "Issued", reconcile.KindDone, true, false, 600 * time.Second},
		"a status that does not say when it ends": {issued, func(s *state) { s.c.Status.ExpiresAt = "soon" }, End, "Expired", reconcile.KindDone, false, true, 0},
		"deletion after expiry":                   {issued, func(s *state) { s.f.Now = now.Add(time.Hour); s.c.Spec.DeleteAfterExpirySeconds = ptr.To[int32](30) }, End, "Expired", reconcile.KindDone, false, true, 30 * time.Second},
		"deletion at once":                        {issued, func(s *state) { s.f.Now = now.Add(time.Hour); s.c.Spec.DeleteAfterExpirySeconds = ptr.To[int32](0) }, Delete, "Expired", reconcile.KindDone, true, false, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := c.given()
			if c.when != nil {
				c.when(s)
			}
			d := s.step()
			reason := d.Outcome.Reason()
			if d.Act != c.act || reason != c.ready || d.Outcome.Kind() != c.kind || d.Outcome.Deadline() != c.within {
				t.Fatalf("wanted act %d, %s %s, deadline %s; found act %d, %s, deadline %s", c.act, c.kind, c.ready, c.within, d.Act, d.Outcome, d.Outcome.Deadline())
			}
			if d.Act == Delete {
				return
			}
			if opens := s.c.Status.TokenSHA256 != ""; opens != c.opens || (s.c.Status.URL != "") != c.opens {
				t.Fatalf("opens %v, url %q; wanted %v", opens, s.c.Status.URL, c.opens)
			}
			for kind, want := range map[string]bool{v1alpha1.ConditionURLIssued: c.opens, v1alpha1.ConditionExpired: c.expire} {
				for _, condition := range s.c.Status.Conditions {
					if condition.Type == kind && (condition.Status == metav1.ConditionTrue) != want {
						t.Errorf("%s is %s, wanted %v", kind, condition.Status, want)
					}
				}
			}
			s.f.TokenKept = true
			again := Decide(s.c, s.f)
			if again.Act != Keep || again.Outcome.Reason() != reason {
				t.Fatalf("a second pass does something else: act %d, %s; the first was %s", again.Act, again.Outcome, d.Outcome)
			}
		})
	}
}

// TestOneURLOverAGuestsLife walks a console that is kept in Git through stop, start, expiry and the end.
func TestOneURLOverAGuestsLife(t *testing.T) {
	s := fresh()
	s.c.Spec.Renewal = v1alpha1.RenewalWhileRequested
	s.step()
	first := s.c.Status.TokenSHA256
	s.f.Now, s.f.Instance.Status.PowerState = now.Add(time.Minute), v1alpha1.PowerStateHalted
	s.step()
	s.f.Now, s.f.Instance.Status.PowerState = now.Add(2*time.Minute), v1alpha1.PowerStateRunning
	s.step()
	second := s.c.Status.TokenSHA256
	s.f.Now = now.Add(time.Hour)
	s.step()
	third := s.c.Status.TokenSHA256
	if first == "" || second == "" || third == "" || first == second || second == third {
		t.Fatalf("wanted three tokens, found %q %q %q", first, second, third)
	}
}

// TestSessionsOutliveTheTimeToConnectOnly: the series, by which gateways let sessions live, goes on over expiry and renewal alone.
func TestSessionsOutliveTheTimeToConnectOnly(t *testing.T) {
	over := func(s *state) { s.f.Now = now.Add(time.Hour) }
	renewal := func(s *state) { s.c.Spec.Renewal = v1alpha1.RenewalWhileRequested }
	cases := map[string]struct {
		steps []func(*state)
		live  bool
	}{
		"nothing happens":                 {nil, true},
		"time to connect over":            {[]func(*state){over}, true},
		"over and renewed":                {[]func(*state){renewal, over, func(s *state) { s.f.Now = now.Add(2 * time.Hour) }}, true},
		"asked anew":                      {[]func(*state){func(s *state) { s.c.Spec.RenewToken = "x" }}, false},
		"over, then asked anew":           {[]func(*state){over, func(s *state) { s.c.Spec.RenewToken = "x" }}, false},
		"over and asked anew in one":      {[]func(*state){func(s *state) { over(s); renewal(s); s.c.Spec.RenewToken = "x" }}, false},
		"the guest stops":                 {[]func(*state){func(s *state) { s.f.Instance.Status.PowerState = v1alpha1.PowerStateHalted }}, false},
		"over, then the guest stops":      {[]func(*state){over, func(s *state) { s.f.Instance.Status.PowerState = v1alpha1.PowerStateHalted }}, false},
		"over, then another VM":           {[]func(*state){over, func(s *state) { s.f.Instance.Status.UUID = "rescue-vm" }}, false},
		"over, then the instance is gone": {[]func(*state){over, func(s *state) { s.f.Instance = nil }}, false},
		"over, then forbidden": {[]func(*state){over, func(s *state) {
			s.f.Policy = &v1alpha1.PoolConsole{AllowedAccess: []v1alpha1.ConsoleAccess{"SecretToken"}}
		}}, false},
		"the Secret was removed": {[]func(*state){func(s *state) { s.f.TokenKept = false }}, false},
		"notAfter":               {[]func(*state){func(s *state) { s.c.Spec.NotAfter = &metav1.Time{Time: now.Add(time.Minute)} }}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := issued()
			series := s.c.Status.Series
			for _, step := range c.steps {
				step(s)
				s.step()
			}
			if lives := s.c.Status.Series == series; lives != c.live || series == "" {
				t.Fatalf("the series was %q and is %q; sessions are to live: %v", series, s.c.Status.Series, c.live)
			}
		})
	}
}

func TestShows(t *testing.T) {
	const gateway = "https://gw.example"
	s := issued()
	if !Shows(s.c, gateway) {
		t.Fatalf("%s is what was issued", s.c.Status.URL)
	}
	for name, change := range map[string]func(*v1alpha1.XenConsole){
		"another client": func(c *v1alpha1.XenConsole) { c.Spec.Client = v1alpha1.ConsoleClientXVP },
		"another access": func(c *v1alpha1.XenConsole) { c.Spec.Access = v1alpha1.AccessSecretToken },
		"another token":  func(c *v1alpha1.XenConsole) { c.Status.TokenSHA256 = v1alpha1.ConsoleTokenDigest("u") },
	} {
		other := s.c.DeepCopy()
		if change(other); Shows(other, gateway) {
			t.Errorf("%s: %s is not what the spec asks for", name, other.Status.URL)
		}
	}
	if Shows(s.c, "https://moved.example") {
		t.Error("the gateway has moved")
	}
}

func TestSessionsOfDeadGatewaysAreNotCounted(t *testing.T) {
	s := issued()
	at := func(ago time.Duration) metav1.Time { return metav1.NewTime(s.f.Now.Add(-ago)) }
	s.c.Status.Sessions = []v1alpha1.ConsoleSessions{
		{Gateway: "a", Open: 2, RenewedAt: at(time.Minute), LastConnectedAt: ptr.To(at(time.Minute))},
		{Gateway: "b", Open: 3, RenewedAt: at(time.Hour), LastConnectedAt: ptr.To(at(time.Hour))},
	}
	s.step()
	if s.c.Status.ActiveSessions != 2 || !s.c.Status.LastConnectedAt.Equal(ptr.To(at(time.Minute))) {
		t.Fatalf("found %d sessions, the last at %s", s.c.Status.ActiveSessions, s.c.Status.LastConnectedAt)
	}
	if n := s.c.Status.OpenSessions("a", s.f.Now); n != 0 {
		t.Fatalf("beside a nobody lives, found %d", n)
	}
	if n := s.c.Status.OpenSessions("c", s.f.Now); n != 2 {
		t.Fatalf("c sees the two of a, found %d", n)
	}
}

func TestURLs(t *testing.T) {
	for want, got := range map[string]string{
		"https://gw/console/#token=t":     URL("https://gw/", v1alpha1.ConsoleClientBrowser, "t"),
		"https://gw/console/":             URL("https://gw", v1alpha1.ConsoleClientBrowser, ""),
		"https://gw/console?token=t":      URL("https://gw", v1alpha1.ConsoleClientXVP, "t"),
		"https://gw/console":              URL("https://gw", v1alpha1.ConsoleClientVNC, ""),
		"https://gw/base/console/":        URL("https://gw/base", v1alpha1.ConsoleClientBrowser, ""),
		"https://gw:8443/console?token=t": URL("https://gw:8443", v1alpha1.ConsoleClientVNC, "t"),
	} {
		if got != want {
			t.Errorf("wanted %s, found %s", want, got)
		}
	}
}

func TestTokens(t *testing.T) {
	one, other := NewToken(), NewToken()
	if one == other || len(one) != 43 || len(v1alpha1.ConsoleTokenDigest(one)) != 64 {
		t.Fatalf("tokens %q, %q, digest %q", one, other, v1alpha1.ConsoleTokenDigest(one))
	}
	if raw, err := base64.RawURLEncoding.DecodeString(one); err != nil || len(raw) < 16 {
		t.Fatalf("a token has %d bytes of chance (%v), wanted at least 16", len(raw), err)
	}
}

// TestSealedTokensOpenAsDocumented runs the commands of the documentation.
func TestSealedTokensOpenAsDocumented(t *testing.T) {
	dir := t.TempDir()
	openssl := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), "openssl", args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem")
	forms := map[string]string{
		"PKIX":   openssl("pkey", "-in", "key.pem", "-pubout"),
		"PKCS#1": openssl("rsa", "-in", "key.pem", "-RSAPublicKey_out"),
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			form = form[strings.Index(form, "-----BEGIN"):] // openssl rsa says "writing RSA key" before it
			sealed, err := Seal("the token", form)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := base64.StdEncoding.DecodeString(sealed)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "sealed"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
			opened := openssl("pkeyutl", "-decrypt", "-inkey", "key.pem", "-in", "sealed", "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
			if opened != "the token" {
				t.Fatalf("opened to %q", opened)
			}
		})
	}
}

// TestTheManualsCommands runs the commands of docs/consoles.md as they stand there, with a kubectl that knows one console.
func TestTheManualsCommands(t *testing.T) {
	manual, err := os.ReadFile("../../docs/consoles.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var blocks []string
	for _, rest := range strings.Split(string(manual), "```sh\n")[1:] {
		block, _, _ := strings.Cut(rest, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 2 {
		t.Fatalf("the manual has %d blocks of commands, wanted how to make a key and how to open a token", len(blocks))
	}
	run := func(commands string) string {
		t.Helper()
		shell := exec.CommandContext(t.Context(), "sh", "-e", "-c", commands)
		shell.Dir, shell.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := shell.Output()
		if err != nil {
			t.Fatalf("%s: %v", commands, err)
		}
		return string(out)
	}
	run(blocks[0])
	public, err := os.ReadFile(filepath.Join(dir, "console.pub"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal("the token", string(public))
	if err != nil {
		t.Fatal(err)
	}
	kubectl := "#!/bin/sh\n[ \"$*\" = 'get xenconsole web -o jsonpath={.status.encryptedToken}' ] && printf %s " + sealed + "\n"
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectl), 0o700); err != nil {
		t.Fatal(err)
	}
	if opened := run(blocks[1]); opened != "the token" {
		t.Fatalf("opened to %q", opened)
	}
}

func TestBadPublicKeys(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	small := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	for name, c := range map[string]struct{ key, says string }{
		"nothing":       {"", "no PEM block"},
		"a private key": {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", `type "PRIVATE KEY"`},
		"rubbish":       {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "PKIX"},
		"too small":     {string(small), "1024 bits"},
		"two blocks":    {string(small) + string(small), "after its first PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParsePublicKey(c.key); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("wanted an error that says %q, found %v", c.says, err)
			}
		})
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := ParsePublicKey(text); (key == nil) == (err == nil) {
			t.Fatalf("a key or an error was wanted, found %v and %v", key, err)
		}
	})
}
