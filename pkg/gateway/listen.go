package gateway

import (
	"io"
	"log"
	"net"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
)

// counting counts what passes.
type counting struct {
	io.Writer
	bytes *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// limitConnections accepts at most n connections at a time; more wait in the kernel's queue.
func limitConnections(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: conn, leave: func() { <-l.places }}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once  sync.Once
	leave func()
}

func (c *limitedConn) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}

// NetConn is the connection beneath, as crypto/tls names it.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// quietLog takes what net/http has to say about peers (a scanner's bad TLS, say) at a level that is off by default. What it says may
// quote a request line, and so a token: the text is not kept.
func quietLog(l logr.Logger) *log.Logger {
	return log.New(writerFunc(func(p []byte) (int, error) {
		l.V(2).Info("A peer's connection failed before it was let in", "bytes", len(p))
		return len(p), nil
	}), "", 0)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
