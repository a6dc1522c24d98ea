package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
)

// startTimeout bounds how long one program may take until it serves. It is seconds on an idle machine.
const startTimeout = 2 * time.Minute

// Options say what to start.
type Options struct {
	// Dir keeps keys, logs and the kubeconfig; empty means a temporary directory that Stop removes.
	Dir string
	// Progress hears about the one-time build of the programs; nil means standard error.
	Progress io.Writer
	// APIServerArgs are added to kube-apiserver's command line.
	APIServerArgs []string
}

// ControlPlane is a running etcd and kube-apiserver, and kube-controller-manager once that was started.
type ControlPlane struct {
	// Config is the administrator's access.
	Config *rest.Config
	// KubeconfigPath is a file with the same access, for kubectl.
	KubeconfigPath string
	// Kubectl is the path of a kubectl of the server's version.
	Kubectl string
	// Dir has the logs of all programs, one file each.
	Dir string

	binaries  Binaries
	arguments []string
	authority *authority
	port      *reservedPort
	scratch   scratchDir // sockets and etcd's data: a unix socket's name has at most 108 bytes

	etcd, apiServer, controllerManager *Process
}

// Start brings up etcd and kube-apiserver and returns when the API server says that it is ready.
func Start(ctx context.Context, options Options) (_ *ControlPlane, err error) {
	if options.Progress == nil {
		options.Progress = os.Stderr
	}
	binaries, err := Find(ctx, options.Progress)
	if err != nil {
		return nil, fmt.Errorf("find the programs of the control plane: %w", err)
	}
	c := &ControlPlane{binaries: binaries, Kubectl: binaries.Kubectl, Dir: options.Dir, arguments: options.APIServerArgs}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if err := c.startEtcd(); err != nil {
		return nil, err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare makes the directories, reserves the port and issues all certificates.
func (c *ControlPlane) prepare() (err error) {
	if c.scratch, err = newScratchDir(); err != nil {
		return err
	}
	if c.Dir == "" {
		c.Dir = c.scratch.path
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	if c.port, err = reservePort(); err != nil {
		return err
	}
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	serving, err := c.authority.server("kubernetes.default.svc")
	if err != nil {
		return err
	}
	tokens, err := c.authority.client("service-account-tokens") // only its key is used
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"ca.crt": c.authority.PEM, "server.crt": serving.Certificate, "server.key": serving.Key, "service-account.key": tokens.Key,
	} {
		if err := os.WriteFile(c.file(name), text, 0o600); err != nil {
			return err
		}
	}
	if c.Config, err = c.User("kubexen-developer", "system:masters"); err != nil {
		return err
	}
	c.KubeconfigPath = c.file("kubeconfig")
	return WriteKubeconfig(c.KubeconfigPath, c.Config, "")
}

func (c *ControlPlane) file(name string) string { return filepath.Join(c.Dir, name) }

// startEtcd runs etcd on a unix socket in a directory that only this user can open: no port, and no other client.
// Nothing needs to survive a power cut, so it does not wait for the disk.
func (c *ControlPlane) startEtcd() (err error) {
	socket := func(name string) string { return "unix://" + filepath.Join(c.scratch.path, name) }
	// The advertised addresses are never dialled in a cluster of one; etcd wants them in the form host:port.
	c.etcd, err = StartProcess("etcd", c.file("etcd.log"), exec.Command(c.binaries.Etcd,
		"--data-dir="+filepath.Join(c.scratch.path, "etcd"),
		"--unsafe-no-fsync",
		"--log-level=warn",
		"--listen-client-urls="+socket("etcd.sock"), "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls="+socket("peer.sock"), "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=default=http://127.0.0.1:2380",
	))
	return err
}

// StartAPIServer runs kube-apiserver and waits until it is ready. Start calls it; a test calls it again after StopAPIServer.
func (c *ControlPlane) StartAPIServer(ctx context.Context) (err error) {
	c.apiServer, err = StartProcess("kube-apiserver", c.file("kube-apiserver.log"), exec.Command(c.binaries.APIServer, append([]string{
		"--etcd-servers=unix://" + filepath.Join(c.scratch.path, "etcd.sock"),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.port.Port), "--permit-port-sharing=true",
		"--tls-cert-file=" + c.file("server.crt"), "--tls-private-key-file=" + c.file("server.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + c.file("service-account.key"),
		"--service-account-key-file=" + c.file("service-account.key"),
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none", // nothing dials the kubernetes Service here
		"--enable-priority-and-fairness=false",
		"--profiling=false",
		"--shutdown-delay-duration=0s",
	}, c.arguments...)...))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return c.apiServer.WaitUntil(ctx, "is ready", func(ctx context.Context) error {
		return get(ctx, client, c.Config.Host+"/readyz")
	})
}

// StopAPIServer kills kube-apiserver; etcd keeps what was stored.
func (c *ControlPlane) StopAPIServer() { c.apiServer.Kill() }

// Processes are all children that run now.
func (c *ControlPlane) Processes() []*Process {
	var running []*Process
	for _, p := range []*Process{c.etcd, c.apiServer, c.controllerManager} {
		if p != nil {
			running = append(running, p)
		}
	}
	return running
}

// Stop kills all children, from the last started to the first, and removes what they stored. Nothing here is worth a
// graceful end: the store dies with its server.
func (c *ControlPlane) Stop() {
	for _, p := range []*Process{c.controllerManager, c.apiServer, c.etcd} {
		if p != nil {
			p.Kill()
		}
	}
	if c.port != nil {
		c.port.release()
	}
	c.scratch.remove()
}

func get(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
