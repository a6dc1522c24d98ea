package stores

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Web is a web server that behaves as nginx does with its DAV module: ranges, strong ETags, conditions, PUT and DELETE;
// a PUT whose body breaks off leaves nothing.
type Web struct {
	URL string
	// Username and Password are demanded when they are set.
	Username, Password string
	// Digests lets answers tell the SHA-256 of a file.
	Digests bool

	mu    sync.Mutex
	files map[string][]byte
}

// NewWeb starts a web server without files.
func NewWeb(t testing.TB) *Web {
	t.Helper()
	web := &Web{files: map[string][]byte{}}
	server := httptest.NewServer(web)
	t.Cleanup(server.Close)
	web.URL = server.URL

	return web
}

// Put stores a file under a path.
func (w *Web) Put(path string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[path] = data
}

// Get returns the file under a path, nil if there is none.
func (w *Web) Get(path string) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.files[path]
}

// ServeHTTP implements http.Handler.
func (w *Web) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	if username, password, _ := request.BasicAuth(); w.Username != "" && (username != w.Username || password != w.Password) {
		http.Error(answer, "who are you?", http.StatusUnauthorized)
		return
	}
	switch request.Method {
	case http.MethodGet, http.MethodHead:
		w.get(answer, request)
	case http.MethodPut:
		data, err := io.ReadAll(request.Body)
		if err != nil {
			return // the connection broke
		}
		w.Put(request.URL.Path, data)
		answer.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		w.mu.Lock()
		_, there := w.files[request.URL.Path]
		delete(w.files, request.URL.Path)
		w.mu.Unlock()
		if !there {
			http.NotFound(answer, request)
			return
		}
		answer.WriteHeader(http.StatusNoContent)
	default:
		http.Error(answer, "no such method", http.StatusMethodNotAllowed)
	}
}

func (w *Web) get(answer http.ResponseWriter, request *http.Request) {
	data := w.Get(request.URL.Path)
	if data == nil {
		http.NotFound(answer, request)
		return
	}
	digest := sha256.Sum256(data)
	answer.Header().Set("ETag", `"`+hex.EncodeToString(digest[:8])+`"`)
	answer.Header().Set("Content-Type", "application/octet-stream")
	if w.Digests {
		answer.Header().Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(digest[:])+":")
	}
	http.ServeContent(answer, request, strings.TrimPrefix(request.URL.Path, "/"), time.Time{}, bytes.NewReader(data))
}
