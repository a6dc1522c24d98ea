package controllers_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestCrashProcess ends the real program with SIGKILL while it creates an instance.
func TestCrashProcess(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	program := filepath.Join(directory, "kubexen")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the manager: %v\n%s", err, output)
	}
	run := testkit.RunProcess(directory, func(kubeconfig, installation string) *exec.Cmd {
		return exec.Command(program, "manager", "--kubeconfig", kubeconfig, "--installation", installation,
			"--leader-elect=false", "--health-probe-bind-address", "0", "--metrics-bind-address", "0")
	})
	workflow := testkit.Workflow{
		Name: "create", VMs: 1,
		Setup: func(t testing.TB, w *testkit.World) { addFlavors(t, w) },
		Drive: func(t testing.TB, w *testkit.World) {
			create(t, w, web(w).Disk("data", "2Gi").With(withBootstrap).Object())
		},
		Converged: isReady(isRunning),
		Simulator: func(testing.TB) xensim.Options {
			options := withAgents
			options.HTTP = true // a proxy stands between
			return options
		},
	}
	environment := testkit.Start(t)
	undisturbed, err := workflow.Undisturbed(t, environment, run)
	if err != nil {
		t.Fatal(err)
	}
	last := len(undisturbed.Actions)
	for _, k := range []int{2, last / 3, 2 * last / 3, last} {
		t.Run(fmt.Sprintf("after action %d of %d, %s", k, last, undisturbed.Actions[k-1].What), func(t *testing.T) {
			if err := workflow.KilledAfter(t, environment, run, k, undisturbed); err != nil {
				t.Error(err)
			}
		})
	}
}
