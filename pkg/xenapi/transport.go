package xenapi

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// maxRequestHeaders is what a XenAPI reads of a request's line and headers together (xapi_globs.ml); beyond that it answers 431.
	maxRequestHeaders = 1024
	// idleTimeout is shorter than the 10 s that a XenAPI waits for a request's headers, so that a write is not sent into a closing connection.
	idleTimeout    = 8 * time.Second
	connectTimeout = 10 * time.Second
)

// newTransport makes an HTTP transport of its own, with connections that nothing else shares.
func newTransport(cfg Config) (http.RoundTripper, *http.Transport, error) {
	tlsConfig, err := tlsConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}
	base := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: connectTimeout,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // a XenAPI speaks HTTP/1.1
		MaxIdleConnsPerHost: cfg.MaxInFlight,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // never offered, and each header counts
	}
	var rt http.RoundTripper = headerLimit{base}
	if cfg.WrapTransport != nil {
		rt = cfg.WrapTransport(rt)
	}
	return rt, base, nil
}

func tlsConfig(cfg Config) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case len(cfg.CABundle) > 0:
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(cfg.CABundle) {
			return nil, fmt.Errorf("%w: the CA bundle holds no PEM certificate", ErrConfig)
		}
	case len(cfg.FingerprintsSHA256) > 0:
		pins, err := parseFingerprints(cfg.FingerprintsSHA256)
		if err != nil {
			return nil, err
		}
		out.InsecureSkipVerify = true // the pin below takes the chain's place
		out.VerifyConnection = func(state tls.ConnectionState) error { return checkPin(pins, state) }
	case cfg.InsecureSkipVerify:
		out.InsecureSkipVerify = true
	}
	return out, nil
}

func parseFingerprints(texts []string) (map[[sha256.Size]byte]struct{}, error) {
	pins := make(map[[sha256.Size]byte]struct{}, len(texts))
	for _, text := range texts {
		raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
		if err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("%w: a SHA-256 fingerprint has 64 hexadecimal digits", ErrConfig)
		}
		pins[[sha256.Size]byte(raw)] = struct{}{}
	}
	return pins, nil
}

func checkPin(pins map[[sha256.Size]byte]struct{}, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: the server showed none", ErrTLSVerification)
	}
	have := sha256.Sum256(state.PeerCertificates[0].Raw)
	if _, ok := pins[have]; !ok {
		return fmt.Errorf("%w: its SHA-256 fingerprint is %s", ErrTLSVerification, hex.EncodeToString(have[:]))
	}
	return nil
}

// tlsError marks certificate errors of the standard library as ours.
func tlsError(err error) error {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	if errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) {
		return fmt.Errorf("%w: %w", ErrTLSVerification, err)
	}
	return err
}

// headerLimit refuses requests whose headers a XenAPI would not read, before they are sent.
type headerLimit struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (h headerLimit) RoundTrip(req *http.Request) (*http.Response, error) {
	if size := headerSize(req); size > maxRequestHeaders {
		return nil, fmt.Errorf("%w: request headers of %d bytes, a XenAPI reads at most %d", ErrBadArgument, size, maxRequestHeaders)
	}
	return h.next.RoundTrip(req)
}

// headerSize is the size of the request line and the headers as net/http writes them.
func headerSize(req *http.Request) int {
	size := len(req.Method) + len(" ") + len(req.URL.RequestURI()) + len(" HTTP/1.1\r\n") + len("Host: \r\n") + len(req.URL.Host) + len("\r\n")
	if req.ContentLength != 0 {
		size += len("Content-Length: \r\n") + 19
	}
	for name, values := range req.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return size
}
