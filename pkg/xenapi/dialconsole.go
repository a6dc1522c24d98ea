package xenapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
)

// ErrConsoleLimit says that the pool allows one console connection a VM, and that it is taken. The HTTPError in the chain may name by whom.
var ErrConsoleLimit = errors.New("console connection limit reached")

// ConsoleLocation is the address of a VM's graphical console by the VM's uuid, which outlives reboots and migrations, unlike the console objects:
// host is the address of the host that the VM runs on.
func ConsoleLocation(host, vmUUID string) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = "[" + host + "]"
		}
	}
	return "https://" + host + "/console?" + url.Values{"uuid": {vmUUID}}.Encode()
}

// DialConsole connects to a console, as Console.Location or [ConsoleLocation] give its address, and returns the bare stream: RFB, or a terminal's bytes
// for a vt100 console. The VM must run on the host that location names. Where a proxy or a server refuses CONNECT, a WebSocket is tried.
//
// The connection does not end with ctx, which bounds the dialling only.
func (c *Client) DialConsole(ctx context.Context, location string) (net.Conn, error) {
	r, err := c.consoleRequest(location)
	if err != nil {
		return nil, err
	}
	h, err := c.openHandler(ctx, r)
	if err == nil {
		return h.Conn, nil
	}
	if err = consoleLimit(err); !connectRefused(err) || ctx.Err() != nil {
		return nil, err
	}
	conn, webErr := c.dialWebSocket(ctx, r)
	if webErr != nil {
		return nil, errors.Join(err, consoleLimit(webErr))
	}
	return conn, nil
}

func (c *Client) consoleRequest(location string) (handlerRequest, error) {
	u, err := url.Parse(location)
	if err != nil || u.Path == "" || u.Query().Get("uuid") == "" && u.Query().Get("ref") == "" {
		return handlerRequest{}, fmt.Errorf("%w: not a console's address", ErrBadArgument)
	}
	query := u.Query()
	query.Del("session_id") // ours goes as a cookie
	r := handlerRequest{op: "console", method: http.MethodConnect, path: u.Path, query: query, length: -1, read: true}
	if u.Hostname() == "" {
		return r, nil
	}
	c.mu.Lock()
	of := c.endpoints[0]
	c.mu.Unlock()
	r.via, err = member(of, u.Host)
	return r, err
}

// connectRefused says that the failure is about CONNECT, not about the console or the session.
func connectRefused(err error) bool {
	var status *HTTPError
	if errors.As(err, &status) {
		switch status.Status {
		case http.StatusUnauthorized, http.StatusInternalServerError, http.StatusServiceUnavailable:
			return false
		default:
			return true
		}
	}
	var transport *TransportError
	return errors.As(err, &transport) && transport.Phase > PhaseConnect
}

func consoleLimit(err error) error {
	var status *HTTPError
	if errors.As(err, &status) && status.Status == http.StatusServiceUnavailable {
		return fmt.Errorf("%w: %w", ErrConsoleLimit, err)
	}
	return err
}

// dialWebSocket connects as noVNC does: sub-protocol binary, one byte stream in binary messages.
func (c *Client) dialWebSocket(ctx context.Context, r handlerRequest) (net.Conn, error) {
	s, err := c.currentSession(ctx)
	if err != nil {
		return nil, err
	}
	endpoint := s.endpoint
	if r.via != nil {
		endpoint = r.via
	}
	target := url.URL{Scheme: endpoint.Scheme, Host: endpoint.Host, Path: r.path, RawQuery: r.query.Encode()}
	header := http.Header{"User-Agent": {c.cfg.UserAgent}, "Cookie": {"session_id=" + string(s.ref)}}
	//nolint:bodyclose // the library closes it, and asks that nobody else does
	conn, resp, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		HTTPClient: c.transfers, HTTPHeader: header, Subprotocols: []string{"binary"}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		phase := PhaseConnect
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			phase, err = PhaseAnswer, c.statusError(resp)
		}
		return nil, &TransportError{Op: "console", Endpoint: endpoint.Host, Phase: phase, Read: true, Err: tlsError(stripURL(err))}
	}
	conn.SetReadLimit(-1) // the stream is passed on, not held
	return websocket.NetConn(context.WithoutCancel(ctx), conn, websocket.MessageBinary), nil
}
