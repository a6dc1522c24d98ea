package xensim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// testClient speaks JSON-RPC to a pool, as plainly as can be.
type testClient struct {
	t       testing.TB
	url     string
	session string
	http    *http.Client
}

// apiError is a failure that the pool answered.
type apiError struct {
	Code   string
	Params []string
}

func (e *apiError) Error() string { return e.Code + " " + strings.Join(e.Params, " ") }

// newTestPool starts a demonstration pool over plain HTTP and logs in.
func newTestPool(t testing.TB, o Options) (*Pool, *testClient) {
	t.Helper()
	o.HTTP, o.Password, o.DataDir = true, "secret", t.TempDir()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	url, err := p.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := newTestClient(t, url)
	c.login()
	return p, c
}

func newTestClient(t testing.TB, url string) *testClient {
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &testClient{t: t, url: url, http: &http.Client{Timeout: 20 * time.Second, Transport: transport}}
}

func (c *testClient) login() {
	c.t.Helper()
	v, err := c.raw("session.login_with_password", "root", "secret", "1.0", "test")
	if err != nil {
		c.t.Fatalf("login: %v", err)
	}
	c.session = v.(string)
}

// call makes a call with the session.
func (c *testClient) call(method string, params ...any) (any, error) {
	return c.raw(method, append([]any{c.session}, params...)...)
}

func (c *testClient) raw(method string, params ...any) (any, error) {
	request, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Post(c.url+"/jsonrpc", "application/json", bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Result any
		Error  *struct {
			Message string
			Data    []string
		}
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, fmt.Errorf("%s: %.200s", answer.Status, body)
	}
	if reply.Error != nil {
		return nil, &apiError{reply.Error.Message, reply.Error.Data}
	}
	return reply.Result, nil
}

// must makes a call that has to succeed.
func (c *testClient) must(method string, params ...any) any {
	c.t.Helper()
	v, err := c.call(method, params...)
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	return v
}

// failure gives the error code of a call that has to fail with one.
func (c *testClient) failure(method string, params ...any) string {
	c.t.Helper()
	v, err := c.call(method, params...)
	var failed *apiError
	if !errors.As(err, &failed) {
		c.t.Fatalf("%s: %v, %v instead of an error code", method, v, err)
	}
	return failed.Code
}

// one gives the only object of a class with the name.
func (c *testClient) one(class, name string) string {
	c.t.Helper()
	refs := c.must(class+".get_by_name_label", name).([]any)
	if len(refs) != 1 {
		c.t.Fatalf("%d objects of class %s named %q", len(refs), class, name)
	}
	return refs[0].(string)
}

// waitASecond is an operation that only takes time.
func waitASecond(c *xapi.Call) (any, error) { return nil, c.Wait(time.Second) }
