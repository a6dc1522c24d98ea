package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestViewersComeAgain: the port stays useful after the time to connect, with a token that is asked for anew.
func TestViewersComeAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			request, err := http.ReadRequest(bufio.NewReader(conn))
			answer := "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
			if err == nil && request.Header.Get("Authorization") == "Bearer new" {
				answer = "HTTP/1.1 200 OK\r\n\r\nRFB 003.008\n"
			}
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	}()
	url := "http://" + listener.Addr().String() + "/console"
	renewals := 0
	v := vncConsole{trust: &trust{}, console: opened{url: url, token: "old"}, renew: func(context.Context) (opened, error) {
		renewals++
		if renewals == 1 {
			return opened{}, io.ErrUnexpectedEOF // the cluster is away
		}
		return opened{url: url, token: "new"}, nil
	}}
	if _, err := v.dial(t.Context()); err == nil {
		t.Fatal("a viewer was let in without a token")
	}
	for range 2 {
		conn, err := v.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if said, err := io.ReadAll(conn); err != nil || string(said) != "RFB 003.008\n" {
			t.Fatalf("the viewer reads %q, %v", said, err)
		}
		_ = conn.Close()
	}
	if renewals != 2 {
		t.Fatalf("a token was asked for %d times, wanted twice: one failed", renewals)
	}
}
