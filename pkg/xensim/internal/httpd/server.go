package httpd

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
)

// Handler answers a request. An error it returns becomes an html page of status 500 with its text.
type Handler func(r *Request) error

// Server serves the connections of one host.
type Server struct {
	routes map[string]map[string]Handler // method, path prefix

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	work   sync.WaitGroup
}

// NewServer makes a server without paths.
func NewServer() *Server {
	return &Server{routes: map[string]map[string]Handler{}, conns: map[net.Conn]struct{}{}}
}

// Handle registers what answers a method under a path. The longest prefix of the path that is registered wins.
func (s *Server) Handle(method, prefix string, h Handler) {
	if s.routes[method] == nil {
		s.routes[method] = map[string]Handler{}
	}
	s.routes[method][prefix] = h
}

// Serve accepts connections until the listener is closed.
func (s *Server) Serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = conn.Close()
			continue
		}
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.work.Go(func() {
			defer s.forget(conn)
			s.serve(conn)
		})
	}
}

func (s *Server) forget(conn net.Conn) {
	_ = conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
}

// DropConnections breaks all connections, as the death of the process does.
func (s *Server) DropConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

// Close breaks all connections and waits until nobody serves one.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.DropConnections()
	s.work.Wait()
}

func (s *Server) serve(conn net.Conn) {
	reader := bufio.NewReader(conn)
	for {
		r, err := readRequest(conn, reader)
		if errors.Is(err, errHeaderTooLong) {
			(&Request{Version: "1.1", Conn: conn}).headerTooLong()
			return
		}
		if err != nil {
			return // the real one says nothing to what is no request
		}
		s.answer(r)
		if r.Close {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body()); err != nil {
			return
		}
	}
}

func (s *Server) answer(r *Request) {
	paths := s.routes[r.Method]
	if paths == nil {
		r.NotImplemented()
		return
	}
	var found Handler
	longest := -1
	for prefix, h := range paths {
		if strings.HasPrefix(r.Path, prefix) && len(prefix) > longest {
			found, longest = h, len(prefix)
		}
	}
	if found == nil {
		r.Forbidden()
		return
	}
	if err := found(r); err != nil {
		r.Internal(err.Error())
	}
}
