package transfer

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// webSocketConsole answers GET /console, which upgrades to a WebSocket that carries the console's bytes. A server without
// the proxy for it says 501 (recording 2105), and one that limits console sessions 503 to everybody: it cannot count those
// that the proxy serves.
func (s *service) webSocketConsole(x *xapi.Exchange) error {
	s.Lock()
	console, vm, ref, err := s.consoleOf(x)
	limited := s.limited()
	user := s.userOf(x.Session)
	s.Unlock()
	switch {
	case err != nil:
		x.Close = true
		return err
	case limited:
		return respondBare(x, 503, "Service Unavailable")
	case !s.WebSocket, !strings.EqualFold(x.Header["upgrade"], "websocket"):
		x.Version = "1.0"
		return respondBare(x, 501, "Method Not Implemented")
	}
	x.Close = true
	socket, err := upgrade(x)
	if err != nil {
		s.Logf("console WebSocket: %v", err)
		return nil // it was answered
	}
	s.enter(ref, user, false)
	defer s.leave(ref, user)
	socket.SetReadLimit(-1)
	s.show(x, websocket.NetConn(x.Context, socket, websocket.MessageBinary), console, vm, ref)
	return nil
}

// upgrade does the handshake. The answer always names the sub-protocol binary, whether it was asked for or not, as the
// real one's does.
func upgrade(x *xapi.Exchange) (*websocket.Conn, error) {
	request := &http.Request{Method: x.Method, Proto: "HTTP/" + x.Version, ProtoMajor: 1, Host: x.Header["host"], Header: http.Header{}}
	if x.Version == "1.1" {
		request.ProtoMinor = 1
	}
	for name, value := range x.Header {
		request.Header.Set(name, value)
	}
	w := &upgradeWriter{x: x, header: http.Header{"Sec-Websocket-Protocol": {"binary"}}}
	return websocket.Accept(w, request, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the origin: a XenServer's console is embedded by whoever holds a session
		Subprotocols:       []string{"binary"},
		CompressionMode:    websocket.CompressionDisabled,
	})
}

// upgradeWriter lets the WebSocket library answer on a connection that net/http does not know.
type upgradeWriter struct {
	x      *xapi.Exchange
	header http.Header
}

// Header implements http.ResponseWriter.
func (w *upgradeWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *upgradeWriter) WriteHeader(status int) {
	var out strings.Builder
	fmt.Fprintf(&out, "HTTP/%s %d %s\r\n", w.x.Version, status, http.StatusText(status))
	_ = w.header.Write(&out) // a strings.Builder takes everything
	_, _ = w.x.Conn.Write([]byte(out.String() + "\r\n"))
}

// Write implements http.ResponseWriter.
func (w *upgradeWriter) Write(p []byte) (int, error) { return w.x.Conn.Write(p) }

// Hijack implements http.Hijacker.
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.x.Conn, bufio.NewReadWriter(w.x.Reader, bufio.NewWriter(w.x.Conn)), nil
}
