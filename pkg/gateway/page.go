package gateway

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// The page and its parts: ours (page.*, session.js, screen.js, terminal.js), noVNC 1.7.0 (MPL-2.0) and xterm.js 6.0.0 (MIT), as their
// packages ship them. THIRD_PARTY_NOTICES names their licences.
//
//go:embed web
var web embed.FS

// pageFile is one file, ready to serve.
type pageFile struct {
	kind, etag string
	body       []byte
}

// pageFiles serves the embedded files below /console/. A browser keeps them and asks whether they are still the same.
func pageFiles() http.Handler {
	files := map[string]pageFile{}
	err := fs.WalkDir(web, "web", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := web.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		files["/console/"+strings.TrimPrefix(name, "web/")] = pageFile{kind: kindOf(name), etag: `"` + hex.EncodeToString(sum[:8]) + `"`, body: body}
		return nil
	})
	if err != nil {
		panic(err) // an embedded file system does not fail to read
	}
	files["/console/"] = files["/console/index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", file.kind)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", file.etag)
		if r.Header.Get("If-None-Match") == file.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(file.body)
	})
}

// kindOf is a file's media type; it does not depend on what the machine has in its own tables.
func kindOf(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		if kind := mime.TypeByExtension(ext); kind != "" {
			return kind
		}
		return "text/plain; charset=utf-8"
	}
}
