package xensim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const mib = 1 << 20

// rig is a pool of one's own and a session with it.
type rig struct {
	*Pool
	t       *testing.T
	base    string // URL of the coordinator
	session string
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	o.Password, o.HTTP, o.DataDir = "secret", true, t.TempDir()
	if o.ClockScale == 0 {
		o.ClockScale = 100
	}
	pool, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	base, err := pool.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Pool: pool, t: t, base: base}
	r.session = r.ref("session.login_with_password", "root", "secret")
	return r
}

// try calls a message. The session is added, except for the login itself; a failure is the code and its parameters.
func (r *rig) try(method string, params ...any) (any, []string) {
	r.t.Helper()
	if r.session != "" {
		params = append([]any{r.session}, params...)
	}
	body, err := json.Marshal(map[string]any{"method": method, "params": params, "id": 1})
	if err != nil {
		r.t.Fatal(err)
	}
	answer, err := http.Post(r.base+"/jsonrpc", "application/json", bytes.NewReader(body))
	if err != nil {
		r.t.Fatalf("%s: %v", method, err)
	}
	defer func() { _ = answer.Body.Close() }()
	var envelope struct {
		Result any
		Error  []string
	}
	if err := json.NewDecoder(answer.Body).Decode(&envelope); err != nil {
		r.t.Fatalf("%s: %v", method, err)
	}
	return envelope.Result, envelope.Error
}

func (r *rig) call(method string, params ...any) any {
	r.t.Helper()
	result, failure := r.try(method, params...)
	if failure != nil {
		r.t.Fatalf("%s: %v", method, failure)
	}
	return result
}

func (r *rig) ref(method string, params ...any) string {
	r.t.Helper()
	text, _ := r.call(method, params...).(string)
	return text
}

// field reads one field of an object as the database has it.
func (r *rig) field(class, ref, name string) any {
	r.t.Helper()
	record, ok := r.Records(class)[ref]
	if !ok {
		r.t.Fatalf("no %s %s", class, ref)
	}
	return record[name]
}

// sr finds a storage repository by name.
func (r *rig) sr(name string) string {
	r.t.Helper()
	refs, _ := r.call("SR.get_by_name_label", name).([]any)
	if len(refs) == 0 {
		r.t.Fatalf("no storage repository %q", name)
	}
	return refs[0].(string)
}

func (r *rig) disk(sr, name string, size int) string {
	r.t.Helper()
	return r.ref("VDI.create", map[string]any{"name_label": name, "name_description": "", "SR": sr, "virtual_size": fmt.Sprint(size),
		"type": "user", "sharable": false, "read_only": false, "other_config": map[string]string{}})
}

// target is the URL of a handler, with the session and pairs of parameters.
func (r *rig) target(path string, pairs ...string) string {
	query := url.Values{"session_id": {r.session}}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return r.base + path + "?" + query.Encode()
}

// transferReply is an answer that was read to its end.
type transferReply struct {
	*http.Response
	content []byte
	err     error // of reading the body
}

// do sends a request on a connection of its own.
func (r *rig) do(method, target string, body io.Reader) transferReply {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, target, body)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Close = true
	answer, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
	if err != nil {
		return transferReply{err: err}
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	return transferReply{Response: answer, content: content, err: err}
}

func (r *rig) get(path string, pairs ...string) transferReply {
	r.t.Helper()
	return r.do(http.MethodGet, r.target(path, pairs...), nil)
}

func (r *rig) put(body []byte, path string, pairs ...string) transferReply {
	r.t.Helper()
	return r.do(http.MethodPut, r.target(path, pairs...), bytes.NewReader(body))
}

// good gives the body of an answer that went well.
func (a transferReply) good(t *testing.T) []byte {
	t.Helper()
	if a.err != nil || a.StatusCode != http.StatusOK || bytes.Contains(a.content, []byte("HTTP/1.1 500")) {
		t.Fatalf("%v %v: %.900s", a.Response, a.err, a.content)
	}
	return a.content
}

// newTask makes a task for a handler to complete.
func (r *rig) newTask() string {
	r.t.Helper()
	return r.ref("task.create", "transfer", "")
}

// ended waits until a task is not pending any more.
func (r *rig) ended(task string) (status string, failure []string, result string) {
	r.t.Helper()
	r.await(func() bool {
		status = r.DB().Get("task", task).Str("status")
		return status != "pending" && status != "cancelling"
	})
	failure, _ = r.field("task", task, "error_info").([]string)
	result, _ = r.field("task", task, "result").(string)
	return status, failure, result
}

// await waits until something holds of the database, which is locked while holds is asked.
func (r *rig) await(holds func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for {
		r.Lock()
		done, changed := holds(), r.Changed()
		r.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatal("it did not come true in 20 s")
		}
	}
}

func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// sparse is a disk of which little is written.
func sparse(size int) []byte {
	p := make([]byte, size)
	copy(p[size/2:], noise(9, 70000))
	copy(p[size-512:], noise(8, 512))
	return p
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatal("qemu-img is needed to hold disks against another implementation: apt-get install qemu-utils")
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

var errStopped = errors.New("the client went away")

// stopping is a body that breaks off.
type stopping struct{ content []byte }

func (s *stopping) Read(p []byte) (int, error) {
	if len(s.content) == 0 {
		return 0, errStopped
	}
	n := copy(p, s.content)
	s.content = s.content[n:]
	return n, nil
}
