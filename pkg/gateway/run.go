package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Config is what a gateway process is started with.
type Config struct {
	// Name tells replicas apart: the pod's name.
	Name string
	// Listener takes users' connections.
	Listener net.Listener
	// CertFile and KeyFile hold the certificate, which is read again when it changes; without them one is generated, unless PlainHTTP.
	CertFile, KeyFile string
	// PlainHTTP leaves TLS to whoever stands before the gateway.
	PlainHTTP bool
	// Hosts are the names and addresses in a generated certificate.
	Hosts []string
	// MetricsListener serves /metrics; nil is off.
	MetricsListener net.Listener
	// Origins are further hosts whose pages may open sessions.
	Origins []string
	// Proxies are trusted to name the client in X-Forwarded-For.
	Proxies []netip.Prefix
	// Grace is how long a stopping gateway waits for its sessions to take their leave.
	Grace time.Duration
	// Cache holds XenConsoles, XenInstances and XenPools; Run starts it.
	Cache cache.Cache
	// Client writes the status of consoles.
	Client client.Client
	// Recorder takes the audit Events.
	Recorder events.EventRecorder
	// Dialer opens consoles.
	Dialer Dialer
	Log    logr.Logger
}

// Run serves until ctx ends and everybody has left, or Grace is over.
func Run(ctx context.Context, c Config) error {
	objects, err := NewObjects(ctx, c.Cache, c.Name)
	if err != nil {
		return err
	}
	ledger := NewStatusLedger(c.Client, c.Recorder, c.Name, c.Log)
	registry := prometheus.NewRegistry()
	server := NewServer(Options{
		Directory: objects, Dialer: c.Dialer, Ledger: ledger, Origins: c.Origins, Proxies: c.Proxies, Log: c.Log, Metrics: NewMetrics(registry),
	})
	// What serves users outlives ctx by the grace; what it stands on ends after it.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, below := errgroup.WithContext(below)
	group.Go(func() error { return c.Cache.Start(below) })
	group.Go(func() error { return ledger.Run(below) })
	config, err := c.tlsConfig(below, group)
	if err != nil {
		return err
	}
	if c.MetricsListener != nil {
		group.Go(func() error { return serveMetrics(below, c.MetricsListener, registry) })
	}
	if !c.Cache.WaitForCacheSync(ctx) {
		stop()
		return errors.Join(errors.New("the objects of the API server did not arrive"), group.Wait())
	}
	c.Log.Info("Serving consoles", "address", c.Listener.Addr().String())
	// Without the objects below it a gateway would go on with what was true once: it stops serving when they do.
	ctx, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(below, end)()
	err = server.Serve(ctx, c.Listener, config, c.Grace)
	stop()
	return errors.Join(err, group.Wait())
}

// tlsConfig reads the certificate, and keeps reading it, or makes one.
func (c Config) tlsConfig(ctx context.Context, group *errgroup.Group) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	switch {
	case c.PlainHTTP:
		return nil, nil
	case c.CertFile != "":
		watcher, err := certwatcher.New(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the gateway's certificate: %w", err)
		}
		group.Go(func() error { return watcher.Start(ctx) })
		config.GetCertificate = watcher.GetCertificate
		return config, nil
	default:
		certificate, err := selfSigned(c.Hosts, time.Now())
		if err != nil {
			return nil, fmt.Errorf("generate a certificate: %w", err)
		}
		c.Log.Info("No certificate was given: browsers will warn of the generated one")
		config.Certificates = []tls.Certificate{certificate}
		return config, nil
	}
}

// selfSigned makes a certificate for hosts, good for a year.
func selfSigned(hosts []string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "kubexen gateway"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// serveMetrics answers on a listener of its own, which users do not reach.
func serveMetrics(ctx context.Context, listener net.Listener, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
