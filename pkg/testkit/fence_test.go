package testkit_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// served counts what arrives at a server behind a fence.
func served(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var arrived atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	return server, &arrived
}

func call(t *testing.T, client *http.Client, url, method string) (string, error) {
	t.Helper()
	body := "<?xml version='1.0'?><methodCall><methodName>" + method + "</methodName><params/></methodCall>"
	response, err := client.Post(url, "text/xml", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && string(answer) != body {
		t.Errorf("the body on its way became %q", answer)
	}
	return string(answer), err
}

func TestFenceKillsAfterTheEffect(t *testing.T) {
	server, arrived := served(t)
	fence := testkit.NewFence()
	client := &http.Client{Transport: fence.WrapXenAPI(http.DefaultTransport)}
	fence.Arm(2)

	for _, method := range []string{"session.login_with_password", "VM.clone", "event.from"} {
		if _, err := call(t, client, server.URL, method); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	if _, err := call(t, client, server.URL, "VM.start"); err == nil {
		t.Error("the manager heard the answer to the call after which it was killed")
	}
	if got := arrived.Load(); got != 4 {
		t.Errorf("%d requests arrived, want 4: the last call takes effect", got)
	}
	if _, err := call(t, client, server.URL, "VM.destroy"); err == nil {
		t.Error("a call left the manager after its death")
	}
	if got := arrived.Load(); got != 4 {
		t.Errorf("%d requests arrived after the death, want 4", got)
	}
	select {
	case <-fence.Killed():
	default:
		t.Error("nobody is told of the death")
	}
	want := []testkit.Action{{To: "XenAPI", What: "VM.clone"}, {To: "XenAPI", What: "VM.start"}}
	if got := fence.Actions(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestFenceCountsWrites(t *testing.T) {
	tests := map[string]struct {
		method, path string
		want         string // empty: not counted
	}{
		"status":         {"PATCH", "/apis/kubexen.io/v1alpha1/namespaces/a/xeninstances/web/status", "PATCH xeninstances/web/status"},
		"cluster scope":  {"PUT", "/apis/kubexen.io/v1alpha1/xenpools/lab", "PUT xenpools/lab"},
		"secret":         {"POST", "/api/v1/namespaces/a/secrets", "POST secrets"},
		"read":           {"GET", "/apis/kubexen.io/v1alpha1/xenpools/lab", ""},
		"lease":          {"PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", ""},
		"event":          {"POST", "/apis/events.k8s.io/v1/namespaces/a/events", ""},
		"the namespaces": {"POST", "/api/v1/namespaces", ""},
	}
	server, _ := served(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fence := testkit.NewFence()
			request, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, bytes.NewReader(nil))
			if err != nil {
				t.Fatal(err)
			}
			response, err := fence.WrapKubernetes(http.DefaultTransport).RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			got := ""
			if actions := fence.Actions(); len(actions) > 0 {
				got = actions[0].What
			}
			if got != test.want {
				t.Errorf("counted %q, want %q", got, test.want)
			}
		})
	}
}
