package rfb

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
)

// Relay joins a viewer with a VNC server elsewhere until either leaves or the context ends. The address is host:port, or
// the absolute path of a unix socket, with or without unix: before it. It closes both connections.
func Relay(ctx context.Context, viewer io.ReadWriteCloser, address string) error {
	defer func() { _ = viewer.Close() }()
	network := "tcp"
	if path := strings.TrimPrefix(address, "unix:"); path != address || strings.HasPrefix(path, "/") {
		network, address = "unix", path
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("relay console: %w", err)
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = server.Close(), viewer.Close() })
	defer stop()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]io.ReadWriter{{viewer, server}, {server, viewer}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // whoever hangs up ends it, and nobody is there to be told why
			ended <- struct{}{}
		}()
	}
	<-ended
	return nil
}
