package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

const (
	systemNamespace = "kubexen-system"
	// programGrace is how long the manager and the gateway may take to finish what is in their hands.
	programGrace = 10 * time.Second
	serveTimeout = time.Minute
)

// simulator is the running XenServer pool and the way in.
type simulator struct {
	process *controlplane.Process

	Endpoint string `json:"endpoint"`
	User     string `json:"user"`
	Password string `json:"password"`
	CA       string `json:"ca"`     // PEM
	CAFile   string `json:"caFile"` // the same, as a file
}

// buildPrograms builds the operator and the simulator from the working tree.
func (e *environment) buildPrograms(ctx context.Context) error {
	for name, source := range map[string]string{"kubexen": ".", "kubectl-xen": "./cmd/kubectl-xen", "xensim": "./hack/xensim"} {
		e.story.tell("build", "%s from %s", name, source)
		command := exec.CommandContext(ctx, "go", "build", "-o", e.file(filepath.Join("bin", name)), source)
		command.Dir = e.root
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, output)
		}
	}
	e.story.tell("build", "done")
	return nil
}

func (e *environment) startSimulator(ctx context.Context) error {
	data := e.file("xenserver")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	s := &simulator{User: "root", Password: rand.Text(), CAFile: filepath.Join(data, "ca.pem")}
	var err error
	s.process, err = controlplane.StartProcess("xensim", e.file("xensim.log"), exec.Command(e.file("bin/xensim"),
		"--listen", "127.0.0.1:0", "--user", s.User, "--password", s.Password, "--data", data))
	if err != nil {
		return err
	}
	e.simulator = s
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	err = s.process.WaitUntil(ctx, "serves", func(context.Context) (err error) {
		s.Endpoint, err = readyLine(s.process.LogPath)
		return err
	})
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		return err
	}
	s.CA = string(ca)
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	e.story.tell("pool", "a simulated XenServer pool serves at %s", s.Endpoint)
	return os.WriteFile(e.file("xenserver.json"), append(text, '\n'), 0o600)
}

// readyLine finds "ready URL" in what the simulator printed.
func readyLine(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if url, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "ready "); found && strings.HasSuffix(line, "\n") {
			return url, nil
		}
	}
	return "", errors.New("it has not said ready yet")
}

// writeSecrets gives the operator the way into the pool.
func (e *environment) writeSecrets(ctx context.Context) error {
	for name, data := range map[string]map[string][]byte{
		"lab-credentials": {"username": []byte(e.simulator.User), "password": []byte(e.simulator.Password)},
		"lab-ca":          {"ca.crt": []byte(e.simulator.CA)},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: name}, Data: data}
		if err := e.client.Create(ctx, secret); err != nil {
			return fmt.Errorf("secret %s/%s: %w", systemNamespace, name, err)
		}
	}
	return nil
}

// startOperator runs the manager and the console gateway, each as the service account that it has in a real cluster,
// with no more rights than there.
func (e *environment) startOperator(ctx context.Context) (err error) {
	health, err := freeAddress()
	if err != nil {
		return err
	}
	if e.consoles, err = freeAddress(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	e.manager, err = e.startProgram(ctx, "manager", "kubexen-manager", "--installation", "dev", "--leader-elect=false",
		"--health-probe-bind-address", health, "--metrics-bind-address", "0", "--console-url", "https://"+e.consoles, "--allow-private-endpoints", "127.0.0.1")
	if err != nil {
		return err
	}
	e.gateway, err = e.startProgram(ctx, "gateway", "kubexen-gateway", "--bind-address", e.consoles, "--metrics-bind-address", "0")
	if err != nil {
		return err
	}
	if err := e.manager.WaitUntil(ctx, "serves", func(ctx context.Context) error { return probe(ctx, "http://"+health+"/readyz") }); err != nil {
		return err
	}
	e.story.tell("operator", "the manager serves")
	err = e.gateway.WaitUntil(ctx, "serves", func(ctx context.Context) error { return connects(ctx, e.consoles) })
	if err != nil {
		return err
	}
	e.story.tell("operator", "the console gateway serves at https://%s", e.consoles)
	return nil
}

// startProgram runs a subcommand of kubexen with the kubeconfig of a service account.
func (e *environment) startProgram(ctx context.Context, subcommand, serviceAccount string, arguments ...string) (*controlplane.Process, error) {
	config, err := e.plane.ServiceAccount(ctx, systemNamespace, serviceAccount)
	if err != nil {
		return nil, err
	}
	kubeconfig := e.file(subcommand + ".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config, systemNamespace); err != nil {
		return nil, err
	}
	e.story.tell("operator", "starting the %s, as the service account %s/%s", subcommand, systemNamespace, serviceAccount)
	arguments = append([]string{subcommand, "--kubeconfig", kubeconfig}, arguments...)
	return controlplane.StartProcess("kubexen "+subcommand, e.file(subcommand+".log"), exec.Command(e.file("bin/kubexen"), arguments...))
}

func connects(ctx context.Context, address string) error {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func probe(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// kubectl runs kubectl as the developer, with our plug-in.
func (e *environment) kubectl(ctx context.Context, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, e.plane.Kubectl, arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+e.plane.KubeconfigPath,
		"PATH="+e.file("bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, complaints.String())
	}
	return output.String(), nil
}
