package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// The page and the gateway speak over one WebSocket. Text frames are control, binary frames are the console's bytes.
//
//	page    {"token":"…"}                       first, within limits.hello; nothing else is read before it
//	gateway {"state":"Accepted", "instance":…}  or a close with the cause
//	gateway {"state":"Waiting", "cause":…}      the guest does not answer yet
//	gateway {"state":"Connected", "stream":1}   then binary frames of stream 1
//	page    {"stream":1}                        then binary frames for stream 1; frames sent before it belonged to an older stream and are dropped
//	gateway {"state":"Detached", "stream":1}    the guest closed (a reboot); then Waiting or Connected with stream 2
//
// So a reboot starts a new RFB conversation inside the same session, and the token is needed once.

// hello is the first thing that the page says.
type hello struct {
	Token string `json:"token"`
}

// fromPage is what the page says afterwards.
type fromPage struct {
	Stream int `json:"stream"`
}

// toPage is what the gateway says.
type toPage struct {
	State     string     `json:"state"`
	Cause     Cause      `json:"cause,omitempty"`
	Message   string     `json:"message,omitempty"`
	Stream    int        `json:"stream,omitempty"`
	Namespace string     `json:"namespace,omitempty"`
	Instance  string     `json:"instance,omitempty"`
	Type      string     `json:"type,omitempty"`
	ViewOnly  bool       `json:"viewOnly,omitempty"`
	NotAfter  *time.Time `json:"notAfter,omitempty"`
}

const (
	stateAccepted  = "Accepted"
	stateWaiting   = "Waiting"
	stateConnected = "Connected"
	stateDetached  = "Detached"
	stateEnded     = "Ended"
)

// serveWebSocket lets a page in and serves it until the session ends.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: s.origins, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		s.metrics.refused(CauseProtocol)
		return // Accept has answered
	}
	defer ws.CloseNow() //nolint:errcheck // the connection is gone either way
	p := &page{ws: ws, limits: s.limits}
	if err := s.servePage(r.Context(), p, clientOf(r, s.proxies)); err != nil {
		cause := causeOf(r.Context(), err)
		p.end(cause)
	}
}

func (s *Server) servePage(ctx context.Context, p *page, from string) error {
	token, err := p.hello()
	if err != nil {
		s.metrics.refused(CauseProtocol)
		return &Ended{Cause: CauseProtocol, Err: err}
	}
	v, ctx, leave, err := s.enter(ctx, token, from, clientBrowser)
	if err != nil {
		return &Ended{Cause: s.refuse(err, from), Err: err}
	}
	defer p.hurry(ctx)()
	err = p.serve(ctx, v)
	cause := causeOf(ctx, err)
	leave(err)
	return &Ended{Cause: cause, Err: err}
}

// hurry closes a page that does not take its farewell in time once the session is over: a slow reader must not hold it open.
func (p *page) hurry(ctx context.Context) (stop func()) {
	var timer *time.Timer
	started := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		timer = time.AfterFunc(p.limits.farewell, func() { _ = p.ws.CloseNow() })
		close(started)
	})
	return func() {
		if !undo() {
			<-started
			timer.Reset(p.limits.farewell)
		}
	}
}

// page is one browser at the other end of a WebSocket.
type page struct {
	ws     *websocket.Conn
	limits limits

	mu     sync.Mutex
	guest  net.Conn  // where input goes; nil between two streams
	input  io.Writer // guest, filtered
	stream int       // the stream that guest is
	ready  int       // the stream that the page has told us it writes to
}

// hello reads the first frame, which must be small, soon and a token. The wait has a clock of its own: a context that ends would close
// the WebSocket before the page is told what was wanted.
func (p *page) hello() (string, error) {
	p.ws.SetReadLimit(p.limits.helloBytes)
	type frame struct {
		token string
		err   error
	}
	heard := make(chan frame, 1)
	go func() {
		kind, body, err := p.ws.Read(context.Background())
		var h hello
		if err == nil && (kind != websocket.MessageText || json.Unmarshal(body, &h) != nil || h.Token == "") {
			err = errors.New("wanted a text frame {\"token\":…} first")
		}
		heard <- frame{h.Token, err}
	}()
	timer := time.NewTimer(p.limits.hello)
	defer timer.Stop()
	select {
	case f := <-heard:
		p.ws.SetReadLimit(p.limits.frameBytes)
		return f.token, f.err
	case <-timer.C:
		return "", fmt.Errorf("wanted a token within %s", p.limits.hello)
	}
}

// serve runs the session: one goroutine reads from the page, one pings it, and this one brings the guest's bytes.
func (p *page) serve(ctx context.Context, v *session) error {
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	go func() { cut(p.read(v)) }()
	go func() { cut(p.ping(ctx)) }()
	err := p.streams(ctx, v)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// streams attaches the page to the guest, again after each reboot.
func (p *page) streams(ctx context.Context, v *session) error {
	accepted := toPage{State: stateAccepted, Namespace: v.console.Namespace, Instance: v.console.Instance, Type: "Graphical", ViewOnly: v.console.ViewOnly}
	if v.console.Text {
		accepted.Type = "Text"
	}
	if !v.console.NotAfter.IsZero() {
		accepted.NotAfter = &v.console.NotAfter
	}
	if err := p.tell(accepted); err != nil {
		return err
	}
	for {
		conn, err := v.dial(ctx, p.limits.guestReturns, func(c Cause) { _ = p.tell(toPage{State: stateWaiting, Cause: c, Message: c.message()}) })
		if err != nil {
			return err
		}
		if err := p.attach(ctx, v, conn); err != nil {
			return err
		}
	}
}

// attach carries one stream until the guest closes it (nil) or the session ends.
func (p *page) attach(ctx context.Context, v *session, conn net.Conn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	stream := p.become(conn, v.input(conn))
	defer p.become(nil, nil)
	defer conn.Close()
	if err := p.tell(toPage{State: stateConnected, Stream: stream}); err != nil {
		return err
	}
	buffer := newBuffer()
	defer buffer.free()
	for {
		n, err := buffer.read(conn)
		if n > 0 {
			v.fromGuest.Add(int64(n))
			if err := p.write(websocket.MessageBinary, buffer.bytes[:n]); err != nil {
				return &Ended{Cause: CauseIdle, Err: err}
			}
			buffer.fit(n)
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			return p.tell(toPage{State: stateDetached, Stream: stream})
		}
	}
}

// become makes conn the guest that input goes to and returns the number of its stream.
func (p *page) become(conn net.Conn, input io.Writer) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guest, p.input = conn, input
	if conn != nil {
		p.stream++
	}
	return p.stream
}

// read carries the page's frames to the guest until the page is gone. It takes no context: one that ends would close the WebSocket
// before the page is told why.
func (p *page) read(v *session) error {
	buffer := newBuffer()
	defer buffer.free()
	for {
		kind, reader, err := p.ws.Reader(context.Background())
		if err != nil {
			return &Ended{Cause: CauseClosed, Err: err}
		}
		if kind == websocket.MessageText {
			if err := p.hear(reader); err != nil {
				return err
			}
			continue
		}
		if err := p.carry(v, reader, buffer); err != nil {
			return err
		}
	}
}

// hear takes a control frame.
func (p *page) hear(frame io.Reader) error {
	body, err := io.ReadAll(frame)
	if err != nil {
		return &Ended{Cause: CauseClosed, Err: err}
	}
	var said fromPage
	if err := json.Unmarshal(body, &said); err != nil {
		return &Ended{Cause: CauseProtocol, Err: err}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = said.Stream
	return nil
}

// carry brings one frame to the guest as it arrives.
func (p *page) carry(v *session, frame io.Reader, buffer *buffer) error {
	for {
		n, err := buffer.read(frame)
		if n > 0 {
			if err := p.toGuest(v, buffer.bytes[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &Ended{Cause: CauseClosed, Err: err}
		}
	}
}

// toGuest writes to the guest. A guest that no longer listens is found by the reader of its stream; a client that does not speak
// the protocol ends the session.
func (p *page) toGuest(v *session, body []byte) error {
	p.mu.Lock()
	conn, input := p.guest, p.input
	current := p.ready == p.stream
	p.mu.Unlock()
	if conn == nil || !current {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(p.limits.write)); err != nil {
		return nil //nolint:nilerr // closed: the stream's reader says so
	}
	n, err := input.Write(body)
	v.toGuest.Add(int64(n))
	if errors.Is(err, errRFB) {
		return &Ended{Cause: CauseProtocol, Err: err}
	}
	if err != nil {
		_ = conn.Close()
	}
	return nil
}

// ping finds peers that vanished without a word.
func (p *page) ping(ctx context.Context) error {
	ticker := time.NewTicker(p.limits.ping)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		pinging, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.limits.pong)
		err := p.ws.Ping(pinging)
		cancel()
		if err != nil {
			return &Ended{Cause: CauseIdle, Err: err}
		}
	}
}

func (p *page) tell(m toPage) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return p.write(websocket.MessageText, body)
}

// write sends one frame. Like read, it is not cut by the session's end but by hurry, after the farewell had its chance. Its deadline is a
// timer, not a context, because a context a frame costs more than the frame.
func (p *page) write(kind websocket.MessageType, body []byte) error {
	late := time.AfterFunc(p.limits.write, func() { _ = p.ws.CloseNow() })
	defer late.Stop()
	return p.ws.Write(context.Background(), kind, body)
}

// end tells the page why it is over and closes. The session's own context has ended by now.
func (p *page) end(cause Cause) {
	_ = p.tell(toPage{State: stateEnded, Cause: cause, Message: cause.message()})
	_ = p.ws.Close(cause.closeStatus(), string(cause))
}
