package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// progressEvery is how often a long build says how far it is.
const progressEvery = 5 * time.Second

// module is one of the pinned modules under hack/controlplane.
type module struct {
	name     string
	title    string
	pinned   string   // the module whose version is the programs' version
	packages []string // the main packages
	stamp    []string // linker variables that carry the version
}

var modules = []module{
	{
		name: "kubernetes", title: "Kubernetes", pinned: "k8s.io/kubernetes",
		packages: []string{
			"k8s.io/kubernetes/cmd/kube-apiserver",
			"k8s.io/kubernetes/cmd/kube-controller-manager",
			"k8s.io/kubernetes/cmd/kubectl",
		},
		stamp: []string{"k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"},
	},
	{
		name: "etcd", title: "etcd", pinned: "go.etcd.io/etcd/server/v3",
		packages: []string{"go.etcd.io/etcd/server/v3"},
	},
}

func (m module) directory(root string) string {
	return filepath.Join(root, "hack", "controlplane", m.name)
}

// build makes all programs in a directory beside the wanted one and moves it there when it is complete, so that an
// interrupted build leaves nothing that looks finished.
func build(ctx context.Context, root, dir string, progress io.Writer) error {
	partial, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	for _, m := range modules {
		if err := m.build(ctx, root, partial, progress); err != nil {
			return fmt.Errorf("build %s: %w", m.title, err)
		}
	}
	// The etcd server's main package is called after its module; the program has a name of its own.
	if err := os.Rename(filepath.Join(partial, "server"), filepath.Join(partial, "etcd")); err != nil {
		return err
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(partial, dir)
}

func (m module) build(ctx context.Context, root, into string, progress io.Writer) error {
	version, err := m.output(ctx, root, "list", "-m", "-f", "{{.Version}}", m.pinned)
	if err != nil {
		return err
	}
	version = strings.TrimSpace(version)
	fmt.Fprintf(progress, "Building %s %s for the local control plane. This happens once and takes some minutes.\n", m.title, version)
	dependencies, err := m.output(ctx, root, append([]string{"list", "-deps"}, m.packages...)...)
	if err != nil {
		return err
	}
	flags := "-s -w"
	for _, variable := range m.stamp {
		flags += " -X " + variable + "=" + version
	}
	command := m.command(ctx, root, append([]string{"build", "-v", "-ldflags", flags, "-o", into + string(filepath.Separator)}, m.packages...)...)
	return follow(command, m.title, strings.Count(dependencies, "\n"), progress)
}

// follow runs "go build -v", which names each package that it has compiled, and tells from that how far it is.
func follow(command *exec.Cmd, title string, total int, progress io.Writer) error {
	output, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	started := time.Now()
	var compiled atomic.Int64
	ended := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				fmt.Fprintf(progress, "  %s: %d of at most %d packages compiled, %s\n",
					title, compiled.Load(), total, time.Since(started).Round(time.Second))
			}
		}
	}()
	var complaints []string
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		line := lines.Text()
		if strings.ContainsAny(line, " \t") { // a package's path has no space; whatever has one is a complaint
			complaints = append(complaints, line)
			continue
		}
		compiled.Add(1)
	}
	err = command.Wait()
	close(ended)
	<-told
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.Join(complaints, "\n"))
	}
	fmt.Fprintf(progress, "  %s: built in %s\n", title, time.Since(started).Round(time.Second))
	return nil
}

func (m module) command(ctx context.Context, root string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = m.directory(root)
	command.Env = append(os.Environ(), "GOWORK=off")
	return command
}

func (m module) output(ctx context.Context, root string, arguments ...string) (string, error) {
	command := m.command(ctx, root, arguments...)
	var complaints bytes.Buffer
	command.Stderr = &complaints
	text, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(arguments[:2], " "), err, complaints.String())
	}
	return string(text), nil
}
