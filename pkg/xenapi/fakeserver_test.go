package xenapi

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// script is a small XenAPI that answers calls as a test tells it to, in the bytes' form of a real one.
type script struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	answers map[string]func(params []node) string // method → methodResponse
	calls   []string
	headers []http.Header
	logins  int
}

func newScript(t testing.TB) *script {
	t.Helper()
	s := &script{t: t, answers: map[string]func([]node) string{}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.server.Close)
	s.on("session.login_with_password", func([]node) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logins++
		return success(fmt.Sprintf("<value>OpaqueRef:session-%d</value>", s.logins))
	})
	s.on("session.logout", func([]node) string { return success("<value></value>") })
	return s
}

func (s *script) on(method string, answer func(params []node) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[method] = answer
}

func (s *script) serve(w http.ResponseWriter, req *http.Request) {
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	method, params := parseCall(s.t, string(raw))
	s.mu.Lock()
	s.calls = append(s.calls, method)
	s.headers = append(s.headers, req.Header.Clone())
	answer := s.answers[method]
	s.mu.Unlock()
	if answer == nil {
		fmt.Fprint(w, failure("MESSAGE_METHOD_UNKNOWN", method))
		return
	}
	switch text := answer(params); {
	case text == "drop":
		panic(http.ErrAbortHandler)
	case strings.HasPrefix(text, "status "):
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, strings.TrimPrefix(text, "status "))
	default:
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprint(w, text)
	}
}

// count returns how often method was called.
func (s *script) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, call := range s.calls {
		if call == method {
			n++
		}
	}
	return n
}

// parseCall reads a methodCall with encoding/xml.
func parseCall(t testing.TB, body string) (string, []node) {
	d := xml.NewDecoder(strings.NewReader(body))
	var method string
	var params []node
	for {
		token, err := d.Token()
		if err != nil {
			return method, params
		}
		start, ok := token.(xml.StartElement)
		switch {
		case !ok:
		case start.Name.Local == "methodName":
			if err := d.DecodeElement(&method, &start); err != nil {
				t.Error(err)
			}
		case start.Name.Local == "value":
			one, err := independentValue(d)
			if err != nil {
				t.Error(err)
			}
			params = append(params, one)
		}
	}
}

func inEnvelope(members string) string {
	return `<?xml version="1.0"?><methodResponse><params><param><value><struct>` + members + `</struct></value></param></params></methodResponse>`
}

func success(value string) string {
	return inEnvelope("<member><name>Status</name><value>Success</value></member><member><name>Value</name>" + value + "</member>")
}

func failure(description ...string) string {
	var b strings.Builder
	for _, text := range description {
		b.WriteString("<value>")
		_ = xml.EscapeText(&b, []byte(text))
		b.WriteString("</value>")
	}
	return inEnvelope("<member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription</name><value><array><data>" + b.String() + "</data></array></value></member>")
}

// connect opens a client on the script that does not pause between attempts.
func (s *script) connect(change func(*Config)) *Client {
	s.t.Helper()
	c, err := s.tryConnect(change)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			s.t.Logf("close: %v", err)
		}
	})
	return c
}

func (s *script) tryConnect(change func(*Config)) (*Client, error) {
	cfg := Config{Endpoints: []string{s.server.URL}, Username: "root", Password: "s3cr3t-password", UserAgent: "kubexen/test"}
	if change != nil {
		change(&cfg)
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	c.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	if _, err := c.currentSession(context.Background()); err != nil {
		return nil, err
	}
	return c, nil
}
