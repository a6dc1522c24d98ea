package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

// program is the operator, built as users build it.
type program struct {
	directory string
	started   int
}

func buildProgram(ctx context.Context) (*program, error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "kubexen-bench-")
	if err != nil {
		return nil, err
	}
	p := &program{directory: directory}
	build := exec.CommandContext(ctx, "go", "build", "-o", p.path("kubexen"), ".")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		p.remove()
		return nil, fmt.Errorf("build the operator: %w\n%s", err, output)
	}
	return p, nil
}

func (p *program) path(name string) string { return filepath.Join(p.directory, name) }

func (p *program) remove() { _ = os.RemoveAll(p.directory) }

// start runs a manager in a process of its own.
func (p *program) start(o *operator, arguments ...string) (*controlplane.Process, error) {
	p.started++
	return controlplane.StartProcess("manager", p.lastLog(), exec.Command(p.path("kubexen"), append([]string{
		"manager", "--kubeconfig", o.plane.KubeconfigPath, "--installation", "bench",
		"--health-probe-bind-address", "0", "--metrics-bind-address", "0",
	}, arguments...)...))
}

// lastLog is the log of the manager that was started last.
func (p *program) lastLog() string { return p.path(fmt.Sprintf("manager-%d.log", p.started)) }
