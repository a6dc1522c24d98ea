package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// errKilled is what a manager gets for everything that it tries after its death.
var errKilled = errors.New("the manager was killed: nothing leaves it any more")

// Action is a XenAPI call or a write to the API server that a manager made.
type Action struct {
	To   string // XenAPI or Kubernetes
	What string // "Async.VM.clone", "PATCH xeninstances/web/status"
}

func (a Action) String() string { return a.To + " " + a.What }

// Fence stands between a manager and the world. It counts the manager's actions, and after a given one it lets nothing
// more out and no answer in, as if the process had been killed there.
type Fence struct {
	mutex     sync.Mutex
	actions   []Action
	killAfter int // 0: never
	killed    chan struct{}
	down      bool
}

// NewFence is a fence that lets everything pass until it is armed.
func NewFence() *Fence { return &Fence{killed: make(chan struct{})} }

// Arm forgets what was counted and kills after so many further actions; 0 only counts.
func (f *Fence) Arm(killAfter int) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.actions, f.killAfter = nil, killAfter
}

// Kill lets nothing more pass from now on.
func (f *Fence) Kill() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.kill()
}

func (f *Fence) kill() {
	if !f.down {
		f.down = true
		close(f.killed)
	}
}

// Killed is closed at the moment of death.
func (f *Fence) Killed() <-chan struct{} { return f.killed }

// Actions are those since the fence was armed.
func (f *Fence) Actions() []Action {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return slices.Clone(f.actions)
}

func (f *Fence) isDown() bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.down
}

// done counts an action that has taken effect, and tells whether the manager still lives to hear of it.
func (f *Fence) done(action Action) (alive bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.down {
		return false
	}
	f.actions = append(f.actions, action)
	if len(f.actions) == f.killAfter {
		f.kill()
		return false
	}
	return true
}

// WrapXenAPI fences a transport to the pool.
func (f *Fence) WrapXenAPI(next http.RoundTripper) http.RoundTripper {
	return f.wrap(next, func(request *http.Request) (Action, bool, error) {
		method, err := xenAPIMethod(request)
		return Action{To: "XenAPI", What: method}, countsAsCall(method), err
	})
}

// WrapKubernetes fences a transport to the API server (rest.Config.Wrap).
func (f *Fence) WrapKubernetes(next http.RoundTripper) http.RoundTripper {
	return f.wrap(next, func(request *http.Request) (Action, bool, error) {
		what, write := kubernetesWrite(request)
		return Action{To: "Kubernetes", What: what}, write, nil
	})
}

func (f *Fence) wrap(next http.RoundTripper, recognize func(*http.Request) (Action, bool, error)) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		if f.isDown() {
			return nil, errKilled
		}
		action, counted, err := recognize(request)
		if err != nil {
			return nil, err
		}
		response, err := next.RoundTrip(request)
		if err != nil || !counted {
			return response, err
		}
		// The action has taken effect when the answer's body is there, not when its head is.
		body, err := io.ReadAll(response.Body)
		err = errors.Join(err, response.Body.Close())
		if !f.done(action) {
			return nil, errKilled
		}
		response.Body = io.NopCloser(bytes.NewReader(body))
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

var methodName = regexp.MustCompile(`<methodName>\s*([A-Za-z0-9_.]+)\s*</methodName>|"method"\s*:\s*"([A-Za-z0-9_.]+)"`)

// xenAPIMethod finds the called method in a request's body and leaves the body as it was. HTTP handlers have none.
func xenAPIMethod(request *http.Request) (string, error) {
	if request.Method != http.MethodPost || request.Body == nil {
		return "", nil
	}
	body, err := io.ReadAll(request.Body)
	if err := errors.Join(err, request.Body.Close()); err != nil {
		return "", fmt.Errorf("read the request: %w", err)
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	found := methodName.FindSubmatch(body)
	if found == nil {
		return "", nil
	}
	return string(found[1]) + string(found[2]), nil
}

// countsAsCall says what the budgets count: everything but logging in and out, and waiting for events.
func countsAsCall(method string) bool {
	switch {
	case method == "", method == "event.from", strings.HasPrefix(method, "session."):
		return false
	default:
		return true
	}
}

// kubernetesWrite recognizes a write to an object of ours or to a Secret. Leases and Events do not count.
func kubernetesWrite(request *http.Request) (what string, write bool) {
	switch request.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return "", false
	}
	parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
	if len(parts) < 3 {
		return "", false
	}
	group, rest := parts[1], parts[3:]
	if parts[0] == "api" {
		group, rest = "", parts[2:]
	}
	if len(rest) >= 2 && rest[0] == "namespaces" {
		rest = rest[2:]
	}
	if len(rest) == 0 || (group != "kubexen.io" && rest[0] != "secrets") {
		return "", false
	}
	return request.Method + " " + strings.Join(rest, "/"), true
}
