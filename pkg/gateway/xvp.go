package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The dialogue of the ancestor's clients (XVP): any method, in practice CONNECT or GET, on /console?token=…; the answer is
// "HTTP/1.1 200 OK", a blank line, and then RFB both ways. Without a token it is 400, with one that opens nothing 401. A client that
// can send headers puts the token into Authorization: Bearer, where no proxy logs it.
const xvpGreeting = "HTTP/1.1 200 OK\r\n\r\n"

// The ways in, as metrics and Events name them.
const (
	clientBrowser = "Browser"
	clientRaw     = "Raw"
)

// bearer finds the token of a raw request.
func bearer(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return r.URL.Query().Get("token")
}

// serveRaw lets a viewer in and carries its bytes. A viewer cannot be told of a second RFB conversation, so the guest's reboot ends it.
func (s *Server) serveRaw(w http.ResponseWriter, r *http.Request) {
	token := bearer(r)
	if token == "" {
		s.metrics.refused(CauseBadToken)
		http.Error(w, "Invalid Request: wanted /console?token=… or an Authorization: Bearer header", http.StatusBadRequest)
		return
	}
	from := clientOf(r, s.proxies)
	v, ctx, leave, err := s.enter(r.Context(), token, from, clientRaw)
	if err != nil {
		s.answerRefusal(w, s.refuse(err, from))
		return
	}
	guest, err := v.dial(ctx, s.limits.guestAnswers, func(Cause) {})
	if err != nil {
		leave(err)
		s.answerRefusal(w, causeOf(ctx, err))
		return
	}
	leave(v.relay(ctx, w, guest))
}

// relay takes the connection over, greets the viewer and moves bytes until either end or the session is over.
func (v *session) relay(ctx context.Context, w http.ResponseWriter, guest net.Conn) error {
	defer guest.Close()
	viewer, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return &Ended{Cause: CauseProtocol, Err: err}
	}
	defer viewer.Close()
	defer context.AfterFunc(ctx, func() { _ = guest.Close(); _ = viewer.Close() })()
	limits := v.gateway.limits
	if err := errors.Join(viewer.SetDeadline(time.Time{}), keepAlive(viewer, limits.ping)); err != nil {
		return &Ended{Cause: CauseIdle, Err: err}
	}
	if _, err := io.WriteString(viewer, xvpGreeting); err != nil {
		return &Ended{Cause: CauseIdle, Err: err}
	}
	ended := make(chan error, 2)
	go func() {
		err := pump(counting{v.input(bounded{guest, limits.write}), &v.toGuest}, unread(buffered.Reader, viewer))
		_ = guest.Close()
		ended <- err
	}()
	go func() {
		err := pump(counting{bounded{viewer, limits.write}, &v.fromGuest}, guest)
		_ = viewer.Close()
		ended <- err
	}()
	err = errors.Join(<-ended, <-ended) // one way ends with the other
	if errors.Is(err, errRFB) {
		return &Ended{Cause: CauseProtocol, Err: err}
	}
	return &Ended{Cause: causeOf(ctx, nil), Err: err}
}

// pump copies until the source ends.
func pump(to io.Writer, from io.Reader) error {
	buffer := newBuffer()
	defer buffer.free()
	for {
		n, err := buffer.read(from)
		if n > 0 {
			if _, err := to.Write(buffer.bytes[:n]); err != nil {
				return err
			}
			buffer.fit(n)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// unread gives what the HTTP server had read ahead, then the connection itself.
func unread(ahead *bufio.Reader, conn net.Conn) io.Reader {
	n := ahead.Buffered()
	if n == 0 {
		return conn
	}
	return io.MultiReader(io.LimitReader(ahead, int64(n)), conn)
}

// bounded gives each write a deadline, so that a peer which stops reading does not hold the other one for ever.
type bounded struct {
	net.Conn
	limit time.Duration
}

func (b bounded) Write(p []byte) (int, error) {
	if err := b.SetWriteDeadline(time.Now().Add(b.limit)); err != nil {
		return 0, err
	}
	return b.Conn.Write(p)
}

// keepAlive lets the kernel find half-open peers.
func keepAlive(conn net.Conn, every time.Duration) error {
	for {
		wrapped, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = wrapped.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	return tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: every, Interval: every, Count: 3})
}
