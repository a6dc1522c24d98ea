package imagestore

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/kubexen/kubexen/pkg/egress"
)

const maxRedirects = 10

// secretHeaders are what only the store that the user named is told. net/http keeps some of them to itself, but knows neither
// OpenStack's token nor ports: to it all servers of a host are one.
var secretHeaders = []string{"Authorization", "X-Auth-Token", "Cookie", "X-Amz-Security-Token"}

// checkRedirect follows redirects as far as the guard lets, and never from https to http. Who asks for something is sent on, to
// another server without credentials; who brings something is not: as a GET the request would succeed and nothing be stored, and
// what it brings may be a password.
func (n Network) checkRedirect(request *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	elsewhere := !sameServer(first.URL, request.URL)
	for _, hop := range via {
		elsewhere = elsewhere || !sameServer(first.URL, hop.URL)
	}
	brings := first.Method != http.MethodGet && first.Method != http.MethodHead
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("%d redirects lead nowhere", maxRedirects)
	case last.URL.Scheme == "https" && request.URL.Scheme != "https":
		return fmt.Errorf("%w: a redirect leads from https to %s", egress.ErrForbidden, request.URL.Scheme)
	case request.Method != first.Method || brings && elsewhere:
		return http.ErrUseLastResponse // which is no answer that anybody wants
	}
	request.Header.Del("Referer") // a query may hold a signature
	if elsewhere {
		for _, header := range secretHeaders {
			request.Header.Del(header)
		}
	}

	return n.checkURL(withoutQuery(request.URL))
}

// sameServer reports whether two URLs lead to one server; one that also speaks https on the usual port is the same.
func sameServer(from, to *url.URL) bool {
	if from.Hostname() != to.Hostname() {
		return false
	}

	return from.Scheme == to.Scheme && portOf(from) == portOf(to) ||
		from.Scheme == "http" && to.Scheme == "https" && portOf(from) == "80" && portOf(to) == "443"
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}

	return "80"
}
