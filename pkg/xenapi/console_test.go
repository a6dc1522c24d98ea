package xenapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

const consolePath = "/console?uuid=9b8a3c52-0000-4000-8000-000000000001"

// echo sends a greeting and then back what comes.
func echo(conn io.ReadWriter) {
	fmt.Fprint(conn, "RFB 003.008\n")
	io.Copy(conn, conn)
}

func greet(t *testing.T, conn net.Conn) {
	t.Helper()
	got := make([]byte, 12)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "RFB 003.008\n" {
		t.Fatalf("greeting %q, %v", got, err)
	}
	want := bytes.Repeat([]byte("\x00\xff pixels "), 20_000)
	go conn.Write(want)
	back := make([]byte, len(want))
	if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(back, want) {
		t.Fatalf("echo: %v", err)
	}
}

func TestAConsoleIsDialledWithCONNECT(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	h.handle(func(conn net.Conn, r *bufio.Reader, _ *http.Request) {
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n")
		echo(struct {
			io.Reader
			io.Writer
		}{r, conn})
	})
	c := h.client()
	ctx, cancel := context.WithCancel(context.Background())
	for _, location := range []string{"https://127.0.0.1" + consolePath, "https:///console?uuid=9b8a3c52&session_id=stale", ConsoleLocation("127.0.0.1", "9b8a3c52")} {
		conn, err := c.DialConsole(ctx, location)
		if err != nil {
			t.Fatalf("%s: %v", location, err)
		}
		defer conn.Close()
		greet(t, conn)
	}
	conn, err := c.DialConsole(ctx, "https://127.0.0.1"+consolePath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel() // bounds the dialling only
	greet(t, conn)
	for _, r := range h.requests {
		if r.Method == http.MethodConnect && (!strings.HasPrefix(r.Header.Get("Cookie"), "session_id=OpaqueRef:session-1") || strings.Contains(r.RequestURI, "session_id")) {
			t.Errorf("request %s, cookie %s", r.RequestURI, r.Header.Get("Cookie"))
		}
	}
}

func TestAWebSocketIsTriedWhereCONNECTIsRefused(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie("session_id"); err != nil || cookie.Value != "OpaqueRef:session-1" {
			t.Errorf("cookie %v, %v", cookie, err)
		}
		socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}})
		if err != nil {
			t.Error(err)
			return
		}
		socket.SetReadLimit(-1)
		echo(websocket.NetConn(context.Background(), socket, websocket.MessageBinary))
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(listener)
	t.Cleanup(func() { web.Close() })
	c := h.client()
	for name, refusal := range map[string]string{"501": "HTTP/1.0 501 Method Not Implemented\r\nConnection: close\r\n\r\n", "closed": ""} {
		h.handle(func(conn net.Conn, r *bufio.Reader, request *http.Request) {
			if request.Method == http.MethodConnect {
				fmt.Fprint(conn, refusal)
				return
			}
			upstream, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer upstream.Close()
			request.Write(upstream)
			go io.Copy(upstream, r)
			io.Copy(conn, upstream)
		})
		conn, err := c.DialConsole(context.Background(), "https://127.0.0.1"+consolePath)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		greet(t, conn)
		conn.Close()
	}
}

func TestConsolesThatCannotBeHad(t *testing.T) {
	t.Parallel()
	h := newHandlers(t)
	c := h.client()
	cases := map[string]struct {
		answer string
		is     error
	}{
		"taken by another":      {"HTTP/1.1 503 Connection Limit Exceeded\r\nContent-Length: 5\r\n\r\nalice", ErrConsoleLimit},
		"VM not running there":  {"HTTP/1.0 500 Internal Error\r\ncontent-length: 3\r\n\r\nbad", nil},
		"not an HTTP answer":    {"RFB 003.008\n\n", ErrMalformed},
		"a status line of four": {"HTTP/1.1 2000 OK\r\n\r\n", ErrMalformed},
		"a head without an end": {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHead), ErrTooLarge},
	}
	for name, test := range cases {
		h.handle(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { fmt.Fprint(conn, test.answer) })
		conn, err := c.DialConsole(context.Background(), "https://127.0.0.1"+consolePath)
		if err == nil {
			conn.Close()
		}
		if err == nil || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "taken by another" && !strings.Contains(err.Error(), "alice") {
			t.Errorf("by whom is not said: %v", err)
		}
	}
	for _, location := range []string{"", "https://127.0.0.1/", "https://127.0.0.1/console", "://"} {
		if _, err := c.DialConsole(context.Background(), location); !errors.Is(err, ErrBadArgument) {
			t.Errorf("%q: %v", location, err)
		}
	}
}

func TestConsoleLocation(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"192.0.2.7": "https://192.0.2.7/console?uuid=u", "2001:db8::7": "https://[2001:db8::7]/console?uuid=u", "127.0.0.1:8443": "https://127.0.0.1:8443/console?uuid=u",
		"[2001:db8::7]:443": "https://[2001:db8::7]:443/console?uuid=u",
	} {
		if got := ConsoleLocation(host, "u"); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}
