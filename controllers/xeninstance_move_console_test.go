package controllers_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestConsoleThroughAMove: a text console goes on after its guest has moved to another host, where its console is another one.
func TestConsoleThroughAMove(t *testing.T) {
	t.Parallel()
	c, instance := newConsoleWorldOn(t, twoHosts)
	waitAgent(t, c.World, instance)
	target := otherHost(instance.Status.HostName)
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	said := &lockedBuffer{}
	text := exec.CommandContext(t.Context(), filepath.Join(dir, "kubectl-xen"), "text", "web", "--kubeconfig", c.KubeconfigPath, "-n", c.Namespace)
	text.Stdout, text.Stderr = io.Discard, said
	text.Cancel = func() error { return text.Process.Signal(os.Interrupt) }
	keys, err := text.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := text.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close(); _ = text.Wait() })
	connected := func(times int) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("it is connected %d times", times), func(context.Context) error {
			if all := said.String(); strings.Count(all, "[connected") < times {
				return fmt.Errorf("it says %q", all)
			}
			return nil
		})
	}
	connected(1)
	edit(t, c.World, fresh(t, c.World, instance), toHost(target))
	waitOn(t, c.World, instance, target)
	connected(2)
	if _, err := keys.Write([]byte{0x1d}); err != nil { // Ctrl-]
		t.Fatal(err)
	}
}
