package xenapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// handlers is a XenAPI whose HTTP handlers are a test's; calls go to its script.
type handlers struct {
	*script
	listener net.Listener

	mu       sync.Mutex
	handler  func(conn net.Conn, r *bufio.Reader, request *http.Request)
	requests []*http.Request
}

// handle says what becomes of a request to an HTTP handler.
func (h *handlers) handle(handler func(conn net.Conn, r *bufio.Reader, request *http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handler = handler
}

// newHandlers speaks HTTP by hand, as the handlers do: the answer before the data, no length, and the connection for other protocols.
func newHandlers(t *testing.T) *handlers {
	t.Helper()
	h := &handlers{script: newScript(t)}
	var err error
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.listener.Close() })
	h.on("task.create", func([]node) string { return success("<value>OpaqueRef:t</value>") })
	h.on("task.destroy", func([]node) string { return success("<value></value>") })
	h.on("task.cancel", func([]node) string { return success("<value></value>") })
	h.on("task.set_status", func([]node) string { return success("<value></value>") })
	h.endsWith(taskRecord(TaskStatusSuccess, 1, ""))
	go h.accept()
	return h
}

// endsWith makes the transfer's task end with a record.
func (h *handlers) endsWith(record string) {
	h.on("event.from", func([]node) string { return taskEvents("1", record) })
	h.on("task.get_record", func([]node) string { return success(record) })
}

func (h *handlers) accept() {
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		go h.serveConn(conn)
	}
}

func (h *handlers) serveConn(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	request, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	h.mu.Lock()
	h.requests = append(h.requests, request)
	handler := h.handler
	h.mu.Unlock()
	if request.Method == http.MethodPost {
		h.relay(conn, request)
		return
	}
	handler(conn, r, request)
}

// relay passes a call on to the script.
func (h *handlers) relay(conn net.Conn, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	resp, err := http.Post(h.server.URL, "text/xml", bytes.NewReader(body))
	if err != nil {
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 %d OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", resp.StatusCode, len(answer), answer)
}

func (h *handlers) client() *Client {
	h.t.Helper()
	return h.connect(func(cfg *Config) { cfg.Endpoints = []string{"http://" + h.listener.Addr().String()} })
}

func (h *handlers) request(method string) *http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		if r.Method == method {
			return r
		}
	}
	return nil
}

const okHead = "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\ntask-id: OpaqueRef:t\r\n\r\n"

func noise(t *testing.T, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestExportedBytesAreTheDisks(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	data := noise(t, 3<<20)
	h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { fmt.Fprint(conn, okHead); conn.Write(data) })
	c := h.client()
	var noticed TaskRef
	d, err := c.ExportVDI(context.Background(), ExportVDI{
		VDI: "OpaqueRef:vdi", Format: FormatVHD, Base: "OpaqueRef:base", Transfer: Transfer{OnTask: func(r TaskRef) { noticed = r }},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(d)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	r := h.request(http.MethodGet)
	q := r.URL.Query()
	if q.Get("vdi") != "OpaqueRef:vdi" || q.Get("format") != "vhd" || q.Get("base") != "OpaqueRef:base" || q.Get("task_id") != "OpaqueRef:t" || q.Has("session_id") {
		t.Errorf("query %v", q)
	}
	if cookie, err := r.Cookie("session_id"); err != nil || cookie.Value != "OpaqueRef:session-1" {
		t.Errorf("cookie %v, %v", cookie, err)
	}
	if noticed != "OpaqueRef:t" || h.count("task.destroy") != 1 || h.count("task.cancel") != 0 {
		t.Error("the task was not told, or not destroyed, or cancelled")
	}
}

// However an export fails after its 200, a reader that reads to the end learns it.
func TestAFailedExportNeverEndsCleanly(t *testing.T) {
	t.Parallel()
	failed := taskRecord(TaskStatusFailure, 1, "", "VDI_IO_ERROR", "Device I/O errors")
	cases := map[string]struct {
		answer, task string
		is           error
	}{
		"cut short, task failed":         {okHead + "some data", failed, ErrVDIIOError},
		"another head in the body":       {okHead + "HTTP/1.1 500 Internal Error\r\ncontent-length: 3\r\n\r\nbad", failed, ErrVDIIOError},
		"shorter than its length":        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome data", taskRecord(TaskStatusSuccess, 1, ""), io.ErrUnexpectedEOF},
		"empty, task cancelled":          {okHead, taskRecord(TaskStatusCancelled, 1, ""), ErrTaskCancelled},
		"chunks that stop in the middle": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nsome", taskRecord(TaskStatusSuccess, 1, ""), io.ErrUnexpectedEOF},
	}
	for name, test := range cases {
		h := newHandlers(t)
		h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { fmt.Fprint(conn, test.answer) })
		h.endsWith(test.task)
		d, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = io.ReadAll(d)
		if !errors.Is(err, test.is) || OutcomeUnknown(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := d.Read(make([]byte, 1)); !errors.Is(again, test.is) {
			t.Errorf("%s: the next Read says %v", name, again)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestADiskMayBeginLikeAnAnswer(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		fmt.Fprint(conn, okHead+"HTTP/1.1 500 is how this disk begins")
	})
	d, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(d)
	if err != nil || string(got) != "HTTP/1.1 500 is how this disk begins" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAnExportThatIsClosedEarlyIsCancelled(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	gone := make(chan struct{})
	h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		fmt.Fprint(conn, okHead)
		for {
			if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
				close(gone)
				return
			}
		}
	})
	h.endsWith(taskRecord(TaskStatusPending, 0.1, ""))
	d, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(d, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	<-gone
	if h.count("task.cancel") != 1 || h.count("task.destroy") != 1 {
		t.Error("the task was not cancelled and destroyed")
	}
	if _, err := d.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("reading on: %v", err)
	}
}

func TestAnExportEndsWithItsContext(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		fmt.Fprint(conn, okHead+strings.Repeat("x", 100))
		io.Copy(io.Discard, conn)
	})
	ctx, cancel := context.WithCancel(context.Background())
	d, err := h.client().ExportVDI(ctx, ExportVDI{VDI: "OpaqueRef:vdi"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := io.ReadFull(d, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := d.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

func TestRedirectsLeadToTheMemberThatSeesTheDisk(t *testing.T) {
	t.Parallel()
	h, other := newHandlers(t), newHandlers(t)
	h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		fmt.Fprintf(conn, "HTTP/1.1 302 Found\r\nLocation: http://%s/import_raw_vdi?elsewhere=1\r\n\r\n", other.listener.Addr())
	})
	arrived := make(chan []byte, 1)
	other.handle(func(conn net.Conn, r *bufio.Reader, request *http.Request) {
		fmt.Fprint(conn, okHead)
		data, _ := io.ReadAll(io.LimitReader(r, request.ContentLength))
		arrived <- data
	})
	err := h.client().ImportVDI(context.Background(), ImportVDI{VDI: "OpaqueRef:vdi", Body: strings.NewReader("disk"), Size: 4})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-arrived; string(got) != "disk" {
		t.Fatalf("%q arrived", got)
	}
	r := other.request(http.MethodPut)
	if cookie, err := r.Cookie("session_id"); err != nil || cookie.Value == "" || r.URL.Query().Get("vdi") != "OpaqueRef:vdi" || r.URL.Query().Has("elsewhere") {
		t.Errorf("redirected to %v, cookie %v, %v", r.URL, cookie, err)
	}

	for _, bad := range []string{"", "http://192.0.2.1/x", "ftp://127.0.0.1/x", "/relative"} {
		h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			fmt.Fprintf(conn, "HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n", bad)
		})
		if _, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi"}); err == nil {
			t.Errorf("a redirect to %q was followed", bad)
		}
	}
	h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
		fmt.Fprintf(conn, "HTTP/1.1 302 Found\r\nLocation: http://%s/x\r\n\r\n", h.listener.Addr())
	})
	if _, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi"}); err == nil || !RetrySafe(err) {
		t.Errorf("an endless redirect: %v", err)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	data := noise(t, 2<<20+17)
	arrived := make(chan []byte, 1)
	answered := make(chan struct{})
	h.handle(func(conn net.Conn, r *bufio.Reader, request *http.Request) {
		if request.ContentLength != int64(len(data)) || len(request.TransferEncoding) > 0 {
			t.Errorf("length %d, encoding %v", request.ContentLength, request.TransferEncoding)
		}
		if r.Buffered() > 0 {
			t.Error("data came before the answer")
		}
		fmt.Fprint(conn, okHead)
		close(answered)
		got, _ := io.ReadAll(io.LimitReader(r, request.ContentLength))
		arrived <- got
	})
	h.endsWith(taskRecord(TaskStatusSuccess, 1, "&lt;value&gt;&lt;array&gt;&lt;data&gt;&lt;value&gt;OpaqueRef:a&lt;/value&gt;&lt;value&gt;OpaqueRef:b&lt;/value&gt;&lt;/data&gt;&lt;/array&gt;&lt;/value&gt;"))
	body := readerFunc(func(p []byte) (int, error) { <-answered; return 0, io.EOF })
	vms, err := h.client().ImportVM(context.Background(), ImportVM{SR: "OpaqueRef:sr", Force: true, Body: io.MultiReader(body, bytes.NewReader(data)), Size: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-arrived; !bytes.Equal(got, data) {
		t.Fatalf("%d bytes arrived, want %d", len(got), len(data))
	}
	if fmt.Sprint(vms) != "[OpaqueRef:a OpaqueRef:b]" {
		t.Errorf("VMs %v", vms)
	}
	if q := h.request(http.MethodPut).URL.Query(); q.Get("sr_id") != "OpaqueRef:sr" || q.Get("force") != "true" || q.Has("restore") {
		t.Errorf("query %v", q)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFailedImports(t *testing.T) {
	t.Parallel()
	broken := errors.New("source broke")
	failed := taskRecord(TaskStatusFailure, 1, "", "VDI_IO_ERROR", "Device I/O errors")
	ok := taskRecord(TaskStatusSuccess, 1, "")
	swallow := func(conn net.Conn, r *bufio.Reader, request *http.Request) {
		fmt.Fprint(conn, okHead)
		io.Copy(io.Discard, io.LimitReader(r, request.ContentLength))
	}
	cases := map[string]struct {
		handle  func(net.Conn, *bufio.Reader, *http.Request)
		body    io.Reader
		task    string
		is      error
		stopped string // by which call the task is ended before it is destroyed
		safe    bool
	}{
		"the task says no": {swallow, strings.NewReader(strings.Repeat("x", 1000)), failed, ErrVDIIOError, "", false},
		"the server stops reading": {func(conn net.Conn, r *bufio.Reader, _ *http.Request) {
			fmt.Fprint(conn, okHead+"HTTP/1.1 500 Internal Error\r\n\r\n")
		}, strings.NewReader(strings.Repeat("x", 1000)), failed, ErrVDIIOError, "", false},
		"the source breaks":   {swallow, io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken)), ok, broken, "task.cancel", false},
		"the source is short": {swallow, strings.NewReader("x"), ok, io.ErrUnexpectedEOF, "task.cancel", false},
		"refused before data": {func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			fmt.Fprint(conn, "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n")
		}, strings.NewReader(strings.Repeat("x", 1000)), ok, nil, "task.set_status", true},
	}
	for name, test := range cases {
		h := newHandlers(t)
		h.handle(test.handle)
		h.endsWith(test.task)
		switch test.stopped {
		case "task.cancel":
			h.endsWith(taskRecord(TaskStatusPending, 0, ""))
		case "task.set_status":
			h.endsWith(unattended())
		}
		err := h.client().ImportVDI(context.Background(), ImportVDI{VDI: "OpaqueRef:vdi", Body: test.body, Size: 1000})
		if err == nil || test.is != nil && !errors.Is(err, test.is) || RetrySafe(err) != test.safe {
			t.Errorf("%s: %v", name, err)
		}
		for _, call := range []string{"task.cancel", "task.set_status"} {
			if got := h.count(call) == 1; got != (call == test.stopped) {
				t.Errorf("%s: %s %v, want it stopped by %q", name, call, got, test.stopped)
			}
		}
		if h.count("task.destroy") != 1 {
			t.Errorf("%s: the task was left behind", name)
		}
	}
}

func TestAnImportThatIsCancelledStops(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	h.endsWith(taskRecord(TaskStatusPending, 0, ""))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.handle(func(conn net.Conn, r *bufio.Reader, _ *http.Request) {
		fmt.Fprint(conn, okHead)
		io.ReadFull(r, make([]byte, 1000))
		cancel()
		io.Copy(io.Discard, r)
	})
	err := h.client().ImportVDI(ctx, ImportVDI{VDI: "OpaqueRef:vdi", Body: endless{}, Size: 1 << 40})
	if !errors.Is(err, context.Canceled) || !OutcomeUnknown(err) {
		t.Errorf("err %v", err)
	}
	if h.count("task.cancel") != 1 || h.count("task.destroy") != 1 {
		t.Error("the task was left behind")
	}
}

// TestACallerWhoGivesUpWhileTheTaskIsMadeLeavesNone: the pool has made it, and its reference is on the way.
func TestACallerWhoGivesUpWhileTheTaskIsMadeLeavesNone(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	h.endsWith(unattended())
	ctx, cancel := context.WithCancel(context.Background())
	h.on("task.create", func([]node) string {
		cancel()
		return success("<value>OpaqueRef:t</value>")
	})
	err := h.client().ImportVDI(ctx, ImportVDI{VDI: "OpaqueRef:vdi", Body: strings.NewReader("data"), Size: 4})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	if h.count("task.set_status") != 1 || h.count("task.destroy") != 1 {
		t.Errorf("%d task.set_status, %d task.destroy", h.count("task.set_status"), h.count("task.destroy"))
	}
}

// TestACallerWhoDoesNotWaitLeavesNoTask: the data is there, the task goes on, and nobody waits for its end any more.
func TestACallerWhoDoesNotWaitLeavesNoTask(t *testing.T) {
	t.Parallel()
	for name, transfer := range map[string]func(context.Context, *Client) error{
		"import": func(ctx context.Context, c *Client) error {
			return c.ImportVDI(ctx, ImportVDI{VDI: "OpaqueRef:vdi", Body: strings.NewReader("data"), Size: 4})
		},
		"export": func(ctx context.Context, c *Client) error {
			download, err := c.ExportVDI(ctx, ExportVDI{VDI: "OpaqueRef:vdi"})
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, download)
			return errors.Join(err, download.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHandlers(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			h.handle(func(conn net.Conn, r *bufio.Reader, request *http.Request) {
				fmt.Fprint(conn, okHead)
				io.CopyN(io.Discard, r, max(request.ContentLength, 0))
			})
			pending := taskRecord(TaskStatusPending, 0.5, "")
			h.on("event.from", func([]node) string {
				cancel() // while its end is waited for
				return taskEvents("1", pending)
			})
			h.on("task.get_record", func([]node) string { return success(pending) })
			if err := transfer(ctx, h.client()); err == nil {
				t.Error("it ends well")
			}
			if h.count("task.cancel") != 1 || h.count("task.destroy") != 1 {
				t.Errorf("%d task.cancel, %d task.destroy", h.count("task.cancel"), h.count("task.destroy"))
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestATransferRenewsALostSession(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	h.handle(func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("Cookie"), "session-1") {
			fmt.Fprint(conn, "HTTP/1.0 401 Unauthorised\r\ncontent-length: 0\r\n\r\n")
			return
		}
		fmt.Fprint(conn, okHead+"disk")
	})
	d, err := h.client().ExportVM(context.Background(), ExportVM{VM: "OpaqueRef:vm", Compression: "zstd"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(d); err != nil || string(got) != "disk" {
		t.Errorf("%q, %v", got, err)
	}
	if h.count("session.login_with_password") != 2 {
		t.Error("the session was not renewed once")
	}
}

// Not every server answers before the data; what it says afterwards counts all the same.
func TestAnImportWhoseAnswerComesLate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer string
		ok     bool
	}{
		"200": {okHead, true}, "404": {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false}, "none": {"", false},
	} {
		h := newHandlers(t)
		h.handle(func(conn net.Conn, r *bufio.Reader, request *http.Request) {
			io.Copy(io.Discard, io.LimitReader(r, request.ContentLength))
			fmt.Fprint(conn, test.answer)
		})
		c := h.client()
		c.headWait = 10 * time.Millisecond
		err := c.ImportVDI(context.Background(), ImportVDI{VDI: "OpaqueRef:vdi", Body: strings.NewReader("disk"), Size: 4})
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !OutcomeUnknown(err) {
			t.Errorf("%s: the data went out, so it may have been written: %v", name, err)
		}
	}
}

func TestATransferViaAMember(t *testing.T) {
	t.Parallel()
	h, other := newHandlers(t), newHandlers(t)
	other.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { fmt.Fprint(conn, okHead+"disk") })
	d, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi", Transfer: Transfer{Via: other.listener.Addr().String(), Label: "l"}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := io.ReadAll(d); err != nil || string(got) != "disk" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := h.client().ExportVDI(context.Background(), ExportVDI{VDI: "OpaqueRef:vdi", Transfer: Transfer{Via: "192.0.2.1"}}); !errors.Is(err, ErrConfig) {
		t.Errorf("plain http off loopback: %v", err)
	}
	if err := h.client().ImportVDI(context.Background(), ImportVDI{VDI: "OpaqueRef:vdi", Size: -1}); !errors.Is(err, ErrBadArgument) {
		t.Errorf("an import of unknown length: %v", err)
	}
}
