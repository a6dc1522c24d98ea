package xenapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// XenAPI's HTTP handlers (disks, VMs, consoles) are spoken here on connections of our own. net/http does not fit them: the answer to an upload comes
// before the data, which makes it close the connection under the writer, and a console's answer is followed by another protocol.

const (
	maxRedirects = 4
	maxHead      = 16 << 10
	// defaultHeadWait is how long an upload waits for the server's answer before it sends its data all the same.
	defaultHeadWait = 10 * time.Second
)

// handlerRequest is a request to one of the HTTP handlers.
type handlerRequest struct {
	op     string // for errors
	method string
	path   string
	query  url.Values
	// length is the body's, or negative for none.
	length int64
	// via is the member to ask, or nil for the coordinator.
	via *url.URL
	// read says that the request changes nothing on the pool.
	read bool
}

// handlerConn is a connection whose request has been sent and whose answer's head, if there is one yet, has been read.
type handlerConn struct {
	net.Conn
	endpoint *url.URL
	status   int // 0 while the head has not come
	header   textproto.MIMEHeader
}

// body is what follows the head.
func (h *handlerConn) body() (io.Reader, int64) {
	if strings.EqualFold(h.header.Get("Transfer-Encoding"), "chunked") {
		return httputil.NewChunkedReader(bufio.NewReader(h.Conn)), -1
	}
	size, err := strconv.ParseInt(h.header.Get("Content-Length"), 10, 64)
	if err != nil || size < 0 {
		return h.Conn, -1
	}
	return io.LimitReader(h.Conn, size), size
}

// openHandler sends a request, following redirects to other members, and renews the session once where it has been lost. The answer is 200, or has not
// come yet to an upload.
func (c *Client) openHandler(ctx context.Context, r handlerRequest) (*handlerConn, error) {
	target, renewed := r.via, false
	for range maxRedirects {
		s, err := c.currentSession(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.op, err)
		}
		endpoint := s.endpoint
		if target != nil {
			endpoint = target
		}
		h, err := c.sendHandler(ctx, r, s, endpoint)
		if err != nil {
			return nil, err
		}
		switch {
		case h.status == http.StatusOK || h.status == 0:
			return h, nil
		case h.status == http.StatusUnauthorized && !renewed:
			renewed = true
			c.discard(h)
			c.dropSession(s)
		case h.status == http.StatusFound || h.status == http.StatusMovedPermanently || h.status == http.StatusTemporaryRedirect:
			c.discard(h)
			if target, err = redirectTarget(endpoint, h.header.Get("Location")); err != nil {
				return nil, fmt.Errorf("%s: %w", r.op, err)
			}
		default:
			return nil, c.handlerError(r, h)
		}
	}
	return nil, &TransportError{Op: r.op, Phase: PhaseConnect, Read: r.read, Endpoint: "the pool", Err: errors.New("redirected from member to member")}
}

// redirectTarget is the member that a redirect names; only its address is taken.
func redirectTarget(from *url.URL, location string) (*url.URL, error) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: a redirect without an address", ErrMalformed)
	}
	if u.Scheme == "http" && from.Scheme == "https" {
		return nil, fmt.Errorf("%w: a redirect from https to http", ErrMalformed)
	}
	return checkEndpoint(&url.URL{Scheme: u.Scheme, Host: u.Host})
}

// discard closes a connection whose answer has served its purpose.
func (c *Client) discard(h *handlerConn) {
	if err := h.Close(); err != nil {
		c.log.V(1).Info("closing a connection", "reason", c.redact.text(err.Error()))
	}
}

func (c *Client) handlerError(r handlerRequest, h *handlerConn) error {
	body, _ := h.body()
	err := c.statusError(&http.Response{StatusCode: h.status, Body: io.NopCloser(body)})
	c.discard(h)
	// A refusal came before anything was done.
	return &TransportError{Op: r.op, Endpoint: h.endpoint.Host, Phase: PhaseAnswer, Read: true, Err: err}
}

// sendHandler dials, sends the request's head, and reads the answer's.
func (c *Client) sendHandler(ctx context.Context, r handlerRequest, s session, endpoint *url.URL) (*handlerConn, error) {
	phase := PhaseConnect
	wrap := func(err error) error {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &TransportError{Op: r.op, Endpoint: endpoint.Host, Phase: phase, Read: r.read, Err: tlsError(err)}
	}
	head, err := requestHead(r, s, endpoint, c.cfg.UserAgent)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.op, err)
	}
	conn, err := c.dial(ctx, endpoint)
	if err != nil {
		return nil, wrap(err)
	}
	phase = PhaseSend
	stop := interruptWhenDone(ctx, conn)
	h := &handlerConn{Conn: conn, endpoint: endpoint}
	patience := time.Duration(0)
	if r.length >= 0 {
		patience = c.headWait
	}
	if _, err = conn.Write(head); err == nil {
		err = h.readHead(ctx, patience)
	}
	// A context that ended just now has spoilt the connection's deadlines.
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(wrap(err), conn.Close())
	}
	return h, nil
}

// interruptWhenDone makes reads and writes of conn fail when ctx ends. The function that it returns ends that; false says that it was too late.
func interruptWhenDone(ctx context.Context, conn net.Conn) func() bool {
	return context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0)) // it fails on a closed connection, which is as good
	})
}

func requestHead(r handlerRequest, s session, endpoint *url.URL, userAgent string) ([]byte, error) {
	var b bytes.Buffer
	target := url.URL{Path: r.path, RawQuery: r.query.Encode()}
	version := "1.1"
	if r.method == http.MethodConnect {
		version = "1.0" // what a XenAPI's own clients send
	}
	fmt.Fprintf(&b, "%s %s HTTP/%s\r\nHost: %s\r\nCookie: session_id=%s\r\nUser-Agent: %s\r\n", r.method, target.RequestURI(), version, endpoint.Host, string(s.ref), userAgent)
	if r.length >= 0 {
		fmt.Fprintf(&b, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", r.length)
	}
	if r.method != http.MethodConnect {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	if b.Len() > maxRequestHeaders {
		return nil, fmt.Errorf("%w: request headers of %d bytes, a XenAPI reads at most %d", ErrBadArgument, b.Len(), maxRequestHeaders)
	}
	return b.Bytes(), nil
}

// dial opens a connection to a member, with TLS as the configuration asks for.
func (c *Client) dial(ctx context.Context, endpoint *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address := endpoint.Host
	if endpoint.Port() == "" {
		port := "443"
		if endpoint.Scheme == "http" {
			port = "80"
		}
		address = net.JoinHostPort(endpoint.Hostname(), port)
	}
	conn, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil || endpoint.Scheme == "http" {
		return conn, err
	}
	cfg := c.bases[0].TLSClientConfig.Clone()
	cfg.ServerName = endpoint.Hostname()
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// readHead reads the answer's head and not a byte more: what follows may be another protocol. An upload's answer may not come before its data:
// when patience ends (0 is endless) that is no error, and status stays 0.
func (h *handlerConn) readHead(ctx context.Context, patience time.Duration) error {
	upload := patience > 0
	if upload {
		if err := h.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // and has set another deadline, which is now gone
			return err
		}
	}
	raw, err := h.rawHead()
	var timeout net.Error
	if upload && len(raw) == 0 && ctx.Err() == nil && errors.As(err, &timeout) && timeout.Timeout() {
		return h.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return err
	}
	if upload && ctx.Err() == nil {
		if err := h.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	return h.parseHead(raw)
}

func (h *handlerConn) rawHead() ([]byte, error) {
	var raw []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(raw, []byte("\r\n\r\n")) && !bytes.HasSuffix(raw, []byte("\n\n")) {
		if _, err := io.ReadFull(h.Conn, one); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return raw, err
		}
		if raw = append(raw, one[0]); len(raw) > maxHead {
			return raw, fmt.Errorf("%w: the answer's head is longer than %d bytes", ErrTooLarge, maxHead)
		}
	}
	return raw, nil
}

// parseHead is strict about the status line, so that nothing but an HTTP answer is taken for one.
func (h *handlerConn) parseHead(raw []byte) error {
	reader := textproto.NewReader(bufio.NewReader(bytes.NewReader(raw)))
	line, err := reader.ReadLine()
	if err != nil {
		return err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if version != "HTTP/1.0" && version != "HTTP/1.1" || err != nil || len(code) != 3 {
		return fmt.Errorf("%w: not an HTTP status line", ErrMalformed)
	}
	h.header, err = reader.ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the answer's headers", ErrMalformed)
	}
	h.status = status
	return nil
}

// idleConn fails when nothing moves for a while, and when its context ends.
type idleConn struct {
	net.Conn
	ctx  context.Context //nolint:containedctx // it lives as long as the transfer that it bounds
	idle time.Duration
}

func (i idleConn) Read(p []byte) (int, error) {
	if err := i.extend(i.SetReadDeadline); err != nil {
		return 0, err
	}
	n, err := i.Conn.Read(p)
	return n, i.cause(err)
}

func (i idleConn) Write(p []byte) (int, error) {
	if err := i.extend(i.SetWriteDeadline); err != nil {
		return 0, err
	}
	n, err := i.Conn.Write(p)
	return n, i.cause(err)
}

func (i idleConn) extend(set func(time.Time) error) error {
	if err := set(time.Now().Add(i.idle)); err != nil {
		return err
	}
	return i.ctx.Err() // after the deadline: see readHead
}

func (i idleConn) cause(err error) error {
	if err != nil && i.ctx.Err() != nil {
		return i.ctx.Err()
	}
	return err
}
