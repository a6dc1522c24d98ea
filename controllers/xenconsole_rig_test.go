package controllers_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	"k8s.io/client-go/rest"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// consoleWorld is a world with a running instance and a console gateway, which is a process of its own as in an installation.
type consoleWorld struct {
	*testkit.World
	t       *testing.T
	address string // of the gateway, host:port
	gateway *exec.Cmd
	log     *lockedBuffer
}

// programs are built once a test process, as a user would build them.
var programs = sync.OnceValues(func() (string, error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "kubexen-programs-")
	if err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{"kubexen": ".", "kubectl-xen": "./cmd/kubectl-xen"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

// newConsoleWorld starts the manager and the gateway, and an instance web that runs.
func newConsoleWorld(t *testing.T) (*consoleWorld, *v1alpha1.XenInstance) {
	t.Helper()
	return newConsoleWorldOn(t, xensim.Options{})
}

func newConsoleWorldOn(t *testing.T, options xensim.Options) (*consoleWorld, *v1alpha1.XenInstance) {
	t.Helper()
	c := &consoleWorld{t: t, address: freeAddress(t), log: &lockedBuffer{}}
	c.World = testkit.NewWorld(t, testkit.Start(t), c.runManager, options)
	c.StartManager()
	addFlavors(t, c.World)
	c.startGateway()
	t.Cleanup(func() {
		c.stopGateway(os.Interrupt)
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", c.log)
		}
	})
	instance := web(c.World).DeletedBy(v1alpha1.DeletionDelete).Object()
	create(t, c.World, instance)
	c.WaitReady(t, instance)
	return c, instance
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (c *consoleWorld) runManager(ctx context.Context, config *rest.Config, o testkit.ManagerOptions) error {
	m, err := controllers.NewManager(config, controllers.Options{
		Installation: o.Installation, WrapXenAPI: o.WrapXenAPI, Logger: zapr.NewLogger(jsonTo(o.Log)), ConsoleURL: "http://" + c.address,
	})
	if err != nil {
		return err
	}
	return m.Start(ctx)
}

// startGateway runs "kubexen gateway" and waits until it is ready.
func (c *consoleWorld) startGateway() {
	c.t.Helper()
	dir, err := programs()
	if err != nil {
		c.t.Fatal(err)
	}
	c.gateway = exec.Command(filepath.Join(dir, "kubexen"), "gateway", "--kubeconfig", c.KubeconfigPath, "--bind-address", c.address,
		"--metrics-bind-address", "0", "--plain-http", "--name", "gateway-0", "--log-level", "debug", "--shutdown-timeout", "5s")
	c.gateway.Stderr = c.log
	if err := c.gateway.Start(); err != nil {
		c.t.Fatal(err)
	}
	testkit.Eventually(c.t, "the gateway is ready", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// stopGateway ends the process by a signal and waits for its end.
func (c *consoleWorld) stopGateway(signal os.Signal) {
	c.t.Helper()
	if c.gateway == nil {
		return
	}
	if err := c.gateway.Process.Signal(signal); err != nil {
		c.t.Errorf("signal the gateway: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.gateway.Wait() }()
	select {
	case err := <-ended:
		if signal == os.Interrupt && err != nil {
			c.t.Errorf("the gateway ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		c.t.Error("the gateway does not end")
		_ = c.gateway.Process.Kill()
	}
	c.gateway = nil
}

// console applies a XenConsole of the instance web by kubectl and gives its URL, as a user would ask for it.
func (c *consoleWorld) console(name, spec string) string {
	c.t.Helper()
	c.Apply(c.t, c.Namespace, fmt.Sprintf("apiVersion: kubexen.io/v1alpha1\nkind: XenConsole\nmetadata: {name: %s}\nspec:\n  instanceRef: {name: web}\n%s", name, spec))
	return c.url(name, "")
}

// url waits until the console has another URL than one that is known, and gives it.
func (c *consoleWorld) url(name, other string) string {
	c.t.Helper()
	url := ""
	testkit.Eventually(c.t, "console "+name+" has a URL", func(context.Context) error {
		url = strings.TrimSpace(c.Kubectl(c.t, "get", "xenconsole", name, "-n", c.Namespace, "-o", "jsonpath={.status.url}"))
		if url == "" || url == other {
			return fmt.Errorf("status.url is %q", url)
		}
		return nil
	})
	return url
}

// get reads a console.
func (c *consoleWorld) get(name string) *v1alpha1.XenConsole {
	console := &v1alpha1.XenConsole{}
	console.Name, console.Namespace = name, c.Namespace
	return console
}

// xen runs the kubectl plug-in until it ends.
func (c *consoleWorld) xen(args ...string) (string, error) {
	c.t.Helper()
	return xen(c.t, c.World, args...)
}

// xen runs the kubectl plug-in until it ends.
func xen(t *testing.T, w *testkit.World, args ...string) (string, error) {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), filepath.Join(dir, "kubectl-xen"), append(args, "--kubeconfig", w.KubeconfigPath, "-n", w.Namespace)...)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return string(out), fmt.Errorf("%w: %s", err, said.String())
	}
	return string(out), nil
}

// vnc runs kubectl xen vnc in the background until the end of the test, and gives the host and display that it opened.
func (c *consoleWorld) vnc(args ...string) string {
	c.t.Helper()
	dir, err := programs()
	if err != nil {
		c.t.Fatal(err)
	}
	address := freeAddress(c.t)
	plugin := exec.CommandContext(c.t.Context(), filepath.Join(dir, "kubectl-xen"),
		append([]string{"vnc", "web", "--listen", address, "--kubeconfig", c.KubeconfigPath, "-n", c.Namespace}, args...)...)
	plugin.Cancel = func() error { return plugin.Process.Signal(os.Interrupt) }
	out, err := plugin.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := plugin.Start(); err != nil {
		c.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "vnc://"+address {
		c.t.Fatalf("kubectl xen vnc says %q, %v", line, err)
	}
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		c.t.Fatal(err)
	}
	port, err := strconv.Atoi(number)
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf("%s:%d", host, port-5900)
}

// capture takes a picture with a VNC client that nobody here wrote.
func (c *consoleWorld) capture(display string) image.Image {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "screen.png")
	if out, err := exec.CommandContext(c.t.Context(), "gvnccapture", display, path).CombinedOutput(); err != nil {
		c.t.Fatalf("gvnccapture: %v\n%s", err, out)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(body))
	if err != nil {
		c.t.Fatalf("the capture is no picture: %v", err)
	}
	return picture
}
