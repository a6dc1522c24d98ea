package stores

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Fault is how one request fails.
type Fault struct {
	// Method and Path (a part of the path with its query) choose the requests; empty takes all.
	Method, Path string
	// Times is how many requests fail; 0 is one, −1 all.
	Times int

	// Status is answered at once, with Body, if it is set.
	Status int
	Body   string
	// RetryAfter in seconds stands in that answer if it is set.
	RetryAfter int
	// CloseAfter breaks the connection when that many bytes of the answer's body are through, if it is set.
	CloseAfter int64
	// Stall lets nothing through until the client gives up: of the answer's body after CloseAfter bytes if that is set,
	// otherwise of the request.
	Stall bool
	// Lost answers nothing, though the store did what was asked: the connection breaks.
	Lost bool
	// Flip changes one bit of the request's body.
	Flip bool
}

// Faulty is a proxy before a store that lets requests fail.
type Faulty struct {
	URL string

	mu     sync.Mutex
	faults []Fault
	seen   []string
}

// NewFaulty starts a proxy before a URL. The Host header is passed on as it came: signatures cover it.
func NewFaulty(t testing.TB, target string) *Faulty {
	t.Helper()
	parsed, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	f := &Faulty{}
	transport := &http.Transport{DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(parsed); r.Out.Host = r.In.Host },
		Transport: transport, FlushInterval: -1,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	stopped := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		f.serve(proxy, answer, request, stopped)
	}))
	t.Cleanup(func() {
		close(stopped)
		server.Close()
		transport.CloseIdleConnections()
	})
	f.URL = server.URL

	return f
}

// Set replaces the faults.
func (f *Faulty) Set(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range faults {
		if faults[i].Times == 0 {
			faults[i].Times = 1
		}
	}
	f.faults, f.seen = faults, nil
}

// Seen are the methods and paths of the requests since Set.
func (f *Faulty) Seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()

	return append([]string(nil), f.seen...)
}

func (f *Faulty) next(request *http.Request) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := request.URL.RequestURI()
	f.seen = append(f.seen, request.Method+" "+path)
	for i := range f.faults {
		fault := &f.faults[i]
		if fault.Times == 0 || fault.Method != "" && fault.Method != request.Method || !strings.Contains(path, fault.Path) {
			continue
		}
		fault.Times-- // −1 goes on for ever
		chosen := *fault

		return &chosen
	}

	return nil
}

func (f *Faulty) serve(proxy http.Handler, answer http.ResponseWriter, request *http.Request, stopped <-chan struct{}) {
	fault := f.next(request)
	switch {
	case fault == nil:
		proxy.ServeHTTP(answer, request)
	case fault.Status != 0:
		if fault.RetryAfter != 0 {
			answer.Header().Set("Retry-After", strconv.Itoa(fault.RetryAfter))
		}
		answer.WriteHeader(fault.Status)
		_, _ = io.WriteString(answer, fault.Body) // the client may have gone
	case fault.Lost:
		proxy.ServeHTTP(httptest.NewRecorder(), request)
		panic(http.ErrAbortHandler)
	case fault.Flip:
		request.Body = &flipped{ReadCloser: request.Body}
		proxy.ServeHTTP(answer, request)
	case fault.CloseAfter == 0:
		hang(fault.Stall, request, stopped)
	default:
		proxy.ServeHTTP(&cut{ResponseWriter: answer, left: fault.CloseAfter, stall: fault.Stall, request: request, stopped: stopped}, request)
	}
}

// flipped changes a bit of the first byte.
type flipped struct {
	io.ReadCloser
	done bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 && !f.done {
		p[0] ^= 1
		f.done = true
	}

	return n, err
}

// cut ends an answer, or lets it hang, in the middle of its body.
type cut struct {
	http.ResponseWriter
	left    int64
	stall   bool
	request *http.Request
	stopped <-chan struct{}
}

func (c *cut) Write(p []byte) (int, error) {
	if int64(len(p)) < c.left {
		c.left -= int64(len(p))
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left]) // the client may have gone
	c.Flush()
	hang(c.stall, c.request, c.stopped)

	return 0, http.ErrAbortHandler
}

// hang breaks the connection; if it is to stall, not before the client or the test gave up.
func hang(stall bool, request *http.Request, stopped <-chan struct{}) {
	if stall {
		select {
		case <-request.Context().Done():
		case <-stopped:
		}
	}
	panic(http.ErrAbortHandler)
}

// Flush implements http.Flusher.
func (c *cut) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() }
