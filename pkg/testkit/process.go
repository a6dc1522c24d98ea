package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

// RunProcess runs a real manager process, and ends it with SIGKILL. Everything that it says to the API server and to the
// pool goes through proxies of ours, so that a fence stands around the process as around a manager in this one: the
// XenPool's endpoint is changed to the proxy's address each time that a manager starts.
//
// The command runs the manager with a kubeconfig and an installation id; it writes its log to its standard error.
func RunProcess(directory string, command func(kubeconfig, installation string) *exec.Cmd) RunManager {
	return func(ctx context.Context, config *rest.Config, options ManagerOptions) error {
		apiServer, err := proxyToAPIServer(config)
		if err != nil {
			return err
		}
		defer apiServer.Close()
		pool, err := proxyToPool(ctx, config, options)
		if err != nil {
			return err
		}
		defer pool.Close()
		kubeconfig := filepath.Join(directory, "manager.kubeconfig")
		if err := controlplane.WriteKubeconfig(kubeconfig, &rest.Config{Host: apiServer.URL}, SystemNamespace); err != nil {
			return err
		}
		return runUntil(ctx, filepath.Join(directory, "manager.log"), command(kubeconfig, options.Installation), options.Log)
	}
}

// runUntil runs a process until the context is done, and kills it then.
func runUntil(ctx context.Context, logPath string, command *exec.Cmd, output io.Writer) error {
	process, err := controlplane.StartProcess("manager", logPath, command)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		process.Kill()
	case <-process.Ended():
		err = process.Err()
	}
	text, readErr := os.ReadFile(logPath)
	_, writeErr := output.Write(text)
	return errors.Join(err, readErr, writeErr)
}

// proxy is a plain HTTP server on loopback that passes everything on.
type proxy struct {
	URL    string
	server *http.Server
}

func newProxy(target string, transport http.RoundTripper) (*proxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	handler := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     transport,
		FlushInterval: -1, // watches and consoles do not wait for a full buffer
		ErrorLog:      log.New(io.Discard, "", 0),
		// A dead manager's requests end without an answer.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p := &proxy{
		URL:    "http://" + listener.Addr().String(),
		server: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)},
	}
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

// Close ends all connections.
func (p *proxy) Close() { _ = p.server.Close() }

func proxyToAPIServer(config *rest.Config) (*proxy, error) {
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	return newProxy(config.Host, transport)
}

// proxyToPool stands where the pool is, and tells the XenPool so. The pool itself must serve plain HTTP.
func proxyToPool(ctx context.Context, config *rest.Config, options ManagerOptions) (*proxy, error) {
	administrator, err := client.New(config, client.Options{Scheme: NewScheme()})
	if err != nil {
		return nil, err
	}
	pool := &v1alpha1.XenPool{}
	if err := administrator.Get(ctx, client.ObjectKey{Name: PoolName}, pool); err != nil {
		return nil, err
	}
	const realEndpoint = "kubexen-testkit/endpoint" // remembered for the next manager's proxy
	endpoint := pool.Annotations[realEndpoint]
	if endpoint == "" {
		endpoint = pool.Spec.Endpoints[0]
	}
	p, err := newProxy(endpoint, options.WrapXenAPI(http.DefaultTransport))
	if err != nil {
		return nil, err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{realEndpoint: endpoint}},
		"spec":     map[string]any{"endpoints": []string{p.URL}},
	})
	if err != nil {
		return nil, err
	}
	if err := administrator.Patch(ctx, pool, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		p.Close()
		return nil, fmt.Errorf("point the pool at a proxy: %w", err)
	}
	return p, nil
}
