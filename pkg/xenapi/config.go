package xenapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
)

// ErrConfig says that a [Config] cannot be used.
var ErrConfig = errors.New("configuration")

// Config says how to reach a pool and as whom.
type Config struct {
	// Endpoints are addresses of the pool's members: https://host[:port], or a bare host. The coordinator is followed, so one suffices; more help
	// when that one is down. Plain http is taken on loopback only.
	Endpoints []string
	// Username and Password are those of a local or directory user with a sufficient role.
	Username, Password string

	// At most one of the next three says which server certificates are accepted; without any, those that the system trusts.

	// CABundle holds PEM certificates of the authorities that may have signed a member's certificate.
	CABundle []byte
	// FingerprintsSHA256 are the SHA-256 digests of the members' certificates in hexadecimal, with or without colons.
	FingerprintsSHA256 []string
	// InsecureSkipVerify takes any certificate: whoever sits in between can read the password.
	InsecureSkipVerify bool

	// Originator is what a XenAPI counts sessions by. A random part is added, so that no other client's sessions can push ours out.
	Originator string
	// UserAgent identifies the client to rate limits and logs; by default kubexen/<version>.
	UserAgent string

	// MaxInFlight bounds how many calls are under way at a time; 20 by default. Blocking on events is not counted.
	MaxInFlight int
	// MaxTasks bounds how many tasks begun by Async calls may be unfinished; 0 is no bound. See [ErrTooManyTasks].
	MaxTasks int
	// CallTimeout bounds a call whose context has no deadline; 3 minutes by default.
	CallTimeout time.Duration
	// Limits bound what an answer may cost.
	Limits Limits

	// WrapTransport wraps the HTTP transport, for measuring or tracing. Request bodies and the Cookie header hold secrets.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// Logger takes what is worth knowing about sessions and retries. The zero Logger discards.
	Logger logr.Logger
	// OnCall is told about each request of a call when it has ended. It must not block.
	OnCall func(CallInfo)
}

// CallInfo is one request of a call.
type CallInfo struct {
	// Method is the message, such as VM.start or Async.VM.start.
	Method string
	// Endpoint is the host:port asked.
	Endpoint string
	// Attempt counts from 1.
	Attempt int
	// Duration is the time from sending to the decoded answer.
	Duration time.Duration
	// RequestBytes and ResponseBytes are the sizes of the bodies.
	RequestBytes, ResponseBytes int64
	// Err is nil for success.
	Err error
}

// String names the pool and the user, and keeps the password out of whatever formats a Config.
func (c Config) String() string {
	return fmt.Sprintf("%s@%s", c.Username, strings.Join(c.Endpoints, ","))
}

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

// MarshalLog is String, for structured logs.
func (c Config) MarshalLog() any { return c.String() }

const (
	defaultMaxInFlight = 20
	defaultCallTimeout = 3 * time.Minute
)

// withDefaults checks the configuration and fills in what is left open.
func (c Config) withDefaults() (Config, error) {
	if len(c.Endpoints) == 0 {
		return c, fmt.Errorf("%w: no endpoint", ErrConfig)
	}
	if c.Username == "" {
		return c, fmt.Errorf("%w: no user name", ErrConfig)
	}
	ways := 0
	for _, given := range []bool{len(c.CABundle) > 0, len(c.FingerprintsSHA256) > 0, c.InsecureSkipVerify} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return c, fmt.Errorf("%w: at most one of CA bundle, fingerprints and skipping verification", ErrConfig)
	}
	if c.Originator == "" {
		c.Originator = "kubexen"
	}
	suffix := make([]byte, 6)
	if _, err := rand.Read(suffix); err != nil {
		return c, fmt.Errorf("originator: %w", err)
	}
	c.Originator += "/" + hex.EncodeToString(suffix)
	if c.UserAgent == "" {
		c.UserAgent = "kubexen/" + moduleVersion()
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = defaultCallTimeout
	}
	c.Limits = c.Limits.withDefaults()
	return c, nil
}

func moduleVersion() string {
	build, ok := debug.ReadBuildInfo()
	if !ok || build.Main.Version == "" || build.Main.Version == "(devel)" {
		return "devel"
	}
	return build.Main.Version
}

// parseEndpoint reads an endpoint and checks that plain http stays on this machine.
func parseEndpoint(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%w: endpoint is not https://host[:port]", ErrConfig)
	}
	return checkEndpoint(&url.URL{Scheme: u.Scheme, Host: u.Host})
}

func checkEndpoint(u *url.URL) (*url.URL, error) {
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%w: an endpoint without a host", ErrConfig)
	}
	switch u.Scheme {
	case "https":
		return u, nil
	case "http":
		if isLoopback(u.Hostname()) {
			return u, nil
		}
		return nil, fmt.Errorf("%w: plain http to %s, which is not loopback", ErrConfig, u.Host)
	default:
		return nil, fmt.Errorf("%w: endpoint scheme %q", ErrConfig, u.Scheme)
	}
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// member is the endpoint of another member of the same pool: the address as the pool names it, scheme and port as they were.
func member(of *url.URL, address string) (*url.URL, error) {
	address = strings.Trim(address, "[]")
	host := address
	if _, _, err := net.SplitHostPort(address); err != nil {
		if strings.Contains(address, ":") {
			host = "[" + address + "]"
		}
		if port := of.Port(); port != "" {
			host = net.JoinHostPort(address, port)
		}
	}
	return checkEndpoint(&url.URL{Scheme: of.Scheme, Host: host})
}
