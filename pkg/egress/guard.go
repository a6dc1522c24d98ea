package egress

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// ErrForbidden says that an endpoint lies where tenants may not send the operator.
var ErrForbidden = errors.New("the endpoint is not allowed")

// Guard knows which addresses are open to tenants: all public ones, and those that the administrator opened.
type Guard struct {
	opened []netip.Prefix
}

// New returns a guard that opens, besides public addresses, those in the list: addresses or CIDRs.
func New(open []string) (*Guard, error) {
	g := &Guard{}
	for _, text := range open {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil {
				return nil, fmt.Errorf("%q is neither an address nor a CIDR", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		g.opened = append(g.opened, prefix.Masked())
	}
	return g, nil
}

// closed are the ranges that netip has no word for (RFC 6890 and what came after).
var closed = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network
	netip.MustParsePrefix("100.64.0.0/10"),   // carrier-grade NAT, which clusters use inside
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, broadcast
	netip.MustParsePrefix("100::/64"),        // discard
	netip.MustParsePrefix("2001:db8::/32"),   // documentation
	netip.MustParsePrefix("fec0::/10"),       // site-local
}

// nat64 and sixToFour carry an IPv4 address inside, which is where they lead.
var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
)

// Check refuses an address that is not open to tenants.
func (g *Guard) Check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range g.opened {
		if prefix.Contains(addr) {
			return nil
		}
	}
	if inner, embedded := inside(addr); embedded {
		return g.Check(inner)
	}
	if !public(addr) {
		return fmt.Errorf("%w: %s is no public address; an administrator may open it with --allow-private-endpoints", ErrForbidden, addr)
	}
	return nil
}

func public(addr netip.Addr) bool {
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, prefix := range closed {
		if prefix.Contains(addr) {
			return false
		}
	}
	return true
}

// inside returns the IPv4 address that an IPv6 address leads to through a translator.
func inside(addr netip.Addr) (netip.Addr, bool) {
	bytes := addr.As16()
	switch {
	case !addr.Is6():
		return netip.Addr{}, false
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(bytes[12:16])), true
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(bytes[2:6])), true
	}
	return netip.Addr{}, false
}

// CheckURL refuses a URL that can be seen to be wrong without resolving a name: another scheme than https, a user or
// password in it, a forbidden literal address. http is taken for addresses that the administrator opened.
func (g *Guard) CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%w: it is no URL with a host", ErrForbidden)
	}
	if u.User != nil {
		return fmt.Errorf("%w: it holds a user name or password; credentials belong in a Secret", ErrForbidden)
	}
	addr, addrErr := netip.ParseAddr(u.Hostname())
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%w: its scheme is %q, not https", ErrForbidden, u.Scheme)
	case addrErr == nil:
		if err := g.Check(addr); err != nil {
			return err
		}
	case u.Hostname() == "localhost":
		if err := g.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1})); err != nil {
			return err
		}
	}
	if u.Scheme == "http" && (addrErr != nil || public(addr.Unmap())) {
		return fmt.Errorf("%w: plain http is for addresses that an administrator opened", ErrForbidden)
	}
	return nil
}

// Timeouts of connections on a tenant's word.
const (
	dialTimeout = 15 * time.Second
	tlsTimeout  = 15 * time.Second
	idleTimeout = 90 * time.Second
)

// Transport returns a transport that connects to open addresses alone, whatever names and redirects say. It takes no
// proxy: to a proxy every address looks open.
func (g *Guard) Transport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: g.control}
	return &http.Transport{
		Proxy:                 nil,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   tlsTimeout,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: time.Minute,
		ForceAttemptHTTP2:     true,
	}
}

// control is called with the address that a name was resolved to, just before the connection is made.
func (g *Guard) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrForbidden, address)
	}
	return g.Check(target.Addr())
}
