package main

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/gateway"
)

// gatewayEnv makes this program a console gateway: the address to listen on and that of the guest.
const gatewayEnv = "KUBEXEN_BENCH_GATEWAY"

const benchToken = "a token for the benchmark"

// asGateway serves the product's gateway with one console that always runs, if the environment asks for it.
func asGateway(ctx context.Context) (bool, error) {
	address, target, ok := strings.Cut(os.Getenv(gatewayEnv), " ")
	if !ok {
		return false, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return true, err
	}
	one := oneConsole{target: target}
	server := gateway.NewServer(gateway.Options{Directory: one, Dialer: one, Ledger: one, Log: logr.Discard()})
	return true, server.Serve(ctx, listener, nil, time.Second)
}

// oneConsole is a directory, dialer and ledger without an API server.
type oneConsole struct{ target string }

func (o oneConsole) console() gateway.Console {
	return gateway.Console{
		Namespace: "bench", Name: "console", UID: "uid", Instance: "guest", TokenSHA256: v1alpha1.ConsoleTokenDigest(benchToken), Series: "bench", Running: true,
		ExpiresAt: time.Now().Add(time.Hour),
	}
}

func (o oneConsole) ByDigest(_ context.Context, digest string) (gateway.Console, bool) {
	return o.console(), o.console().OpenedBy(digest)
}
func (o oneConsole) Current(context.Context, string, string) (gateway.Console, bool) {
	return o.console(), true
}
func (o oneConsole) Changes(string) (<-chan struct{}, func()) { return nil, func() {} }
func (o oneConsole) DialConsole(ctx context.Context, _ gateway.Target) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", o.target)
}
func (o oneConsole) Opened(context.Context, gateway.Console, string) error { return nil }
func (o oneConsole) Closed(gateway.Console, gateway.Visit)                 {}
func (o oneConsole) Busy(context.Context, gateway.Console, bool)           {}
