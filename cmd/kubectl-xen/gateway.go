package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// trust is how the gateway's certificate is verified.
type trust struct {
	caFile   string
	insecure bool
}

func (t *trust) register(flags *pflag.FlagSet) {
	flags.StringVar(&t.caFile, "gateway-ca", "", "PEM file with the authorities that sign the gateway's certificate (default: the system's)")
	flags.BoolVar(&t.insecure, "gateway-insecure", false, "accept any certificate of the gateway: whoever sits in between sees and types with you")
}

func (t *trust) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.insecure, NextProtos: []string{"http/1.1"}} //nolint:gosec // asked for
	if t.caFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(t.caFile)
	if err != nil {
		return nil, fmt.Errorf("--gateway-ca: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--gateway-ca: %s holds no PEM certificate", t.caFile)
	}
	return config, nil
}

// dial opens a connection to the gateway.
func (t *trust) dial(ctx context.Context, gateway *url.URL) (net.Conn, error) {
	host := gateway.Host
	if gateway.Port() == "" {
		host = net.JoinHostPort(gateway.Hostname(), map[string]string{"http": "80"}[gateway.Scheme])
		if gateway.Scheme != "http" {
			host = net.JoinHostPort(gateway.Hostname(), "443")
		}
	}
	if gateway.Scheme == "http" {
		return new(net.Dialer).DialContext(ctx, "tcp", host)
	}
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", host)
}

// dialConsole asks the gateway for the bare stream of a console. The token goes in a header, where no proxy logs it.
func (t *trust) dialConsole(ctx context.Context, console opened) (net.Conn, error) {
	gateway, err := console.gateway()
	if err != nil {
		return nil, err
	}
	conn, err := t.dial(ctx, gateway)
	if err != nil {
		return nil, fmt.Errorf("reach the console gateway: %w", err)
	}
	path := strings.TrimSuffix(gateway.Path, "/")
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, gateway.Host, console.token)
	if err == nil {
		conn, err = greeted(conn)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the console: %w", err), conn.Close())
	}
	return conn, nil
}

// errTokenOver says that the token opens nothing any more.
var errTokenOver = errors.New("the URL opens no more")

// greeted reads the gateway's answer, and gives the connection with what came after it.
func greeted(conn net.Conn) (net.Conn, error) {
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // the body is the connection
	if err != nil {
		return conn, err
	}
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(reader, 512))
		err := fmt.Errorf("the gateway says %s: %s", response.Status, strings.TrimSpace(string(said)))
		if response.StatusCode == http.StatusUnauthorized {
			err = errors.Join(errTokenOver, err)
		}
		return conn, err
	}
	return &ahead{Conn: conn, reader: reader}, nil
}

// ahead is a connection of which something was read already.
type ahead struct {
	net.Conn
	reader *bufio.Reader
}

func (a *ahead) Read(p []byte) (int, error) { return a.reader.Read(p) }
