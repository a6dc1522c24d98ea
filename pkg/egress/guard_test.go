package egress

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func guard(t *testing.T, open ...string) *Guard {
	t.Helper()
	g, err := New(open)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestWhichAddressesAreOpen(t *testing.T) {
	g := guard(t, "10.20.0.0/16", "192.168.7.7", "fd00:7::/32")
	for address, open := range map[string]bool{
		"93.184.216.34":      true,
		"2606:2800:220:1::1": true,
		"127.0.0.1":          false,
		"127.9.9.9":          false,
		"::1":                false,
		"::ffff:127.0.0.1":   false,
		"0.0.0.0":            false,
		"::":                 false,
		"169.254.169.254":    false, // metadata of clouds
		"fe80::1":            false,
		"fe80::1%eth0":       false,
		"10.96.0.1":          false,
		"172.16.0.1":         false,
		"192.168.1.1":        false,
		"100.64.0.1":         false,
		"fd00::1":            false,
		"224.0.0.1":          false,
		"ff02::1":            false,
		"255.255.255.255":    false,
		"64:ff9b::7f00:1":    false, // 127.0.0.1 through a translator
		"64:ff9b::5db8:d822": true,  // 93.184.216.34 through a translator
		"2002:a9fe:a9fe::1":  false, // 169.254.169.254 by 6to4
		"10.20.1.1":          true,  // opened
		"::ffff:10.20.1.1":   true,
		"192.168.7.7":        true,
		"192.168.7.8":        false,
		"fd00:7::1":          true,
		"64:ff9b::a14:101":   true, // 10.20.1.1 through a translator
		"2001:db8::1":        false,
		"198.18.0.1":         false,
	} {
		t.Run(address, func(t *testing.T) {
			err := g.Check(netip.MustParseAddr(address))
			if (err == nil) != open || err != nil && !errors.Is(err, ErrForbidden) {
				t.Errorf("open should be %t, got %v", open, err)
			}
		})
	}
}

func TestWhichURLsAreRefusedAtSight(t *testing.T) {
	g := guard(t, "10.20.0.0/16")
	for text, open := range map[string]bool{
		"https://images.example.com/debian.qcow2": true,
		"https://93.184.216.34/x":                 true,
		"https://[2606:2800:220:1::1]:8443/x":     true,
		"http://images.example.com/x":             false,
		"http://93.184.216.34/x":                  false,
		"http://10.20.1.1:9000/bucket":            true,
		"https://localhost/x":                     false,
		"https://127.0.0.1/x":                     false,
		"https://[::1]/x":                         false,
		"https://user:pass@images.example.com/x":  false,
		"file:///etc/passwd":                      false,
		"gopher://images.example.com":             false,
		"images.example.com/x":                    false,
		"":                                        false,
	} {
		t.Run(text, func(t *testing.T) {
			if err := g.CheckURL(text); (err == nil) != open {
				t.Errorf("open should be %t, got %v", open, err)
			}
		})
	}
}

func TestAConnectionIsRefusedWhateverTheNameSays(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(server.Close)
	get := func(g *Guard, url string) error {
		transport := g.Transport()
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	byName := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	for _, url := range []string{server.URL, byName} {
		if err := get(guard(t), url); !errors.Is(err, ErrForbidden) {
			t.Errorf("GET %s: %v, want %v", url, err, ErrForbidden)
		}
	}
	if err := get(guard(t, "127.0.0.0/8"), server.URL); err != nil {
		t.Errorf("an opened address is refused: %v", err)
	}
}

func TestBadListsAreRefused(t *testing.T) {
	for _, text := range []string{"example.com", "10.0.0.0/40", "", "10.0.0"} {
		if _, err := New([]string{text}); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
