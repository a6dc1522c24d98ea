package gateway

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestClientsBehindProxies(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	cases := map[string]struct {
		remote    string
		forwarded []string
		want      string
	}{
		"nobody between":                 {"192.0.2.1:4711", nil, "192.0.2.1"},
		"somebody who pretends":          {"192.0.2.1:4711", []string{"198.51.100.9"}, "192.0.2.1"},
		"a proxy":                        {"10.1.2.3:4711", []string{"192.0.2.1"}, "192.0.2.1"},
		"a proxy that says nothing":      {"10.1.2.3:4711", nil, "10.1.2.3"},
		"two proxies, and a lie before":  {"10.1.2.3:4711", []string{"203.0.113.5, 192.0.2.1", "10.9.9.9"}, "192.0.2.1"},
		"a proxy, and no address before": {"10.1.2.3:4711", []string{"<script>"}, "10.1.2.3"},
		"IPv6":                           {"[2001:db8:1::5]:4711", []string{"2001:db8:2:3::4"}, "2001:db8:2:3::4"},
		"IPv4 written as IPv6":           {"[::ffff:10.1.2.3]:4711", []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
			if got := clientOf(r, proxies); got != c.want {
				t.Fatalf("wanted %s, found %s", c.want, got)
			}
		})
	}
}

func TestNetworksThatAreCountedTogether(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:2:3:4:5:6:7": "2001:db8:2:3::/64", "::ffff:192.0.2.1": "::ffff:192.0.2.1", "pipe": "pipe",
	} {
		if got := networkOf(address); got != want {
			t.Errorf("%s: wanted %s, found %s", address, want, got)
		}
	}
}
