package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// store is a web server on loopback that keeps what is put there in a directory: where the tour's image comes from, and
// where its snapshot goes.
type store struct {
	root    *os.Root
	dir     string
	address string // host:port
	server  *http.Server
}

func (e *environment) startStore() error {
	s := &store{dir: e.file("store")}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	var err error
	if s.root, err = os.OpenRoot(s.dir); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	files := http.FileServerFS(s.root.FS())
	routes := http.NewServeMux()
	routes.Handle("GET /", files)
	routes.HandleFunc("PUT /{name}", s.put)
	routes.HandleFunc("DELETE /{name}", s.remove)
	s.server = &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	e.store = s
	e.story.tell("store", "a web server for images and snapshots serves at http://%s", s.address)
	go s.server.Serve(listener) //nolint:errcheck // it ends when the environment does
	return nil
}

// put keeps a file under its name once all of it has come.
func (s *store) put(answer http.ResponseWriter, request *http.Request) {
	name := request.PathValue("name")
	if err := s.keep(name, request.Body); err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError)
		return
	}
	answer.WriteHeader(http.StatusCreated)
}

func (s *store) keep(name string, body io.Reader) error {
	part := name + ".part"
	file, err := s.root.Create(part)
	if err != nil {
		return fmt.Errorf("make %s: %w", part, err)
	}
	_, err = io.Copy(file, body)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", part, err)
	}
	return s.root.Rename(part, name)
}

func (s *store) remove(answer http.ResponseWriter, request *http.Request) {
	if err := s.root.Remove(request.PathValue("name")); err != nil {
		http.Error(answer, err.Error(), http.StatusNotFound)
		return
	}
	answer.WriteHeader(http.StatusNoContent)
}

// path is where a file lies.
func (s *store) path(name string) string { return filepath.Join(s.dir, name) }
