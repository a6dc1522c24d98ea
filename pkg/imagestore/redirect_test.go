package imagestore_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/kubexen/kubexen/pkg/imagestore"
)

// eavesdropper is a server that requests are led to, and what it is told.
type eavesdropper struct {
	*httptest.Server
	mu   sync.Mutex
	told []string
}

func newEavesdropper(t *testing.T) *eavesdropper {
	t.Helper()
	e := &eavesdropper{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.told = append(e.told, fmt.Sprint(r.Header, " ", string(body)))
		e.mu.Unlock()
		w.Header().Set("Content-Length", "5")
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, "bytes")
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// heard is all that it was told.
func (e *eavesdropper) heard() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.told, "\n")
}

// leading is a store that leads every request elsewhere; an image service that knows one image and leads on for its bytes alone.
func leading(t *testing.T, status int, to string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/v3/auth/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", "secret-token")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"token":{"expires_at":"2999-01-01T00:00:00.000000Z","catalog":[]}}`)
	})
	mux.HandleFunc("/v2/images/an-image", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"an-image","status":"active","size":5}`)
	})
	mux.Handle("/", http.RedirectHandler(to, status))
	return server
}

// TestCredentialsStayAtTheirStore: another server, be it on the same host, is not told what the store is told.
func TestCredentialsStayAtTheirStore(t *testing.T) {
	for name, open := range map[string]func(url string) (imagestore.Store, error){
		"a bearer token": func(url string) (imagestore.Store, error) {
			return imagestore.NewHTTP(imagestore.HTTPOptions{URL: url + "/file?signature=secret", Network: loopback(t), Credentials: imagestore.HTTPCredentials{Token: "secret-token"}})
		},
		"a password": func(url string) (imagestore.Store, error) {
			return imagestore.NewHTTP(imagestore.HTTPOptions{URL: url + "/file", Network: loopback(t), Credentials: imagestore.HTTPCredentials{Username: "me", Password: "secret"}})
		},
		"a token of OpenStack": func(url string) (imagestore.Store, error) {
			return imagestore.NewGlance(imagestore.GlanceOptions{Endpoint: url, ImageID: "an-image", Network: loopback(t), Cloud: &imagestore.Cloud{
				Auth: gophercloud.AuthOptions{IdentityEndpoint: url + "/v3/", UserID: "me", Password: "secret"},
			}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			other := newEavesdropper(t)
			store, err := open(leading(t, http.StatusFound, other.URL+"/file").URL)
			if err != nil {
				t.Fatal(err)
			}
			if got := get(t, store, "", 0, -1); string(got) != "bytes" {
				t.Errorf("it reads %q", got)
			}
			for _, secret := range []string{"secret", "Authorization", "Token", "Referer"} {
				if heard := other.heard(); heard == "" || strings.Contains(heard, secret) {
					t.Errorf("the other server was told %s", heard)
				}
			}
		})
	}
}

// TestWhatIsBroughtIsNotLedElsewhere: a redirected upload would become a download that succeeds, a redirected login would tell
// another server the password.
func TestWhatIsBroughtIsNotLedElsewhere(t *testing.T) {
	for _, status := range []int{http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		other := newEavesdropper(t)
		from := httptest.NewServer(http.RedirectHandler(other.URL+"/login", status))
		t.Cleanup(from.Close)
		plain := webStore(t, from.URL+"/{file}")
		wantKind(t, fmt.Sprint("upload, ", status), tryPut(t.Context(), t, plain, "file", []byte("bytes")), imagestore.Refused)
		wantKind(t, fmt.Sprint("delete, ", status), plain.Remove(t.Context(), "file"), imagestore.Refused)
		images, err := imagestore.NewGlance(imagestore.GlanceOptions{Endpoint: from.URL, ImageID: "an-image", Network: loopback(t), Cloud: &imagestore.Cloud{
			Auth: gophercloud.AuthOptions{IdentityEndpoint: from.URL + "/v3/", UserID: "me", Password: "secret"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = images.Stat(t.Context(), "")
		wantKind(t, fmt.Sprint("log in, ", status), err, imagestore.Refused)
		if heard := other.heard(); heard != "" {
			t.Errorf("%d: the other server was told %s", status, heard)
		}
	}
}

// TestNoWayBackToPlainHTTP: who asked over https is not led to http.
func TestNoWayBackToPlainHTTP(t *testing.T) {
	other := newEavesdropper(t)
	from := httptest.NewTLSServer(http.RedirectHandler(other.URL+"/file", http.StatusFound))
	t.Cleanup(from.Close)
	network := loopback(t)
	network.CABundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: from.Certificate().Raw})
	store, err := imagestore.NewHTTP(imagestore.HTTPOptions{URL: from.URL + "/file", Network: network})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Stat(t.Context(), "")
	wantKind(t, "stat", err, imagestore.Forbidden)
	if heard := other.heard(); heard != "" {
		t.Errorf("the other server was told %s", heard)
	}
}
