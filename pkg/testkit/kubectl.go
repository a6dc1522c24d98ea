package testkit

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Kubectl runs kubectl as an administrator and returns what it prints. The test fails when kubectl does.
func (e *Environment) Kubectl(t testing.TB, arguments ...string) string {
	t.Helper()
	output, err := e.TryKubectl(t.Context(), "", arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// Apply applies manifests into a namespace with kubectl, server-side, as a GitOps tool would.
func (e *Environment) Apply(t testing.TB, namespace, manifests string) string {
	t.Helper()
	output, err := e.TryApply(t.Context(), namespace, manifests)
	if err != nil {
		t.Fatalf("%v\n%s", err, manifests)
	}
	return output
}

// TryApply is Apply for those who expect to be refused.
func (e *Environment) TryApply(ctx context.Context, namespace, manifests string) (string, error) {
	return e.TryKubectl(ctx, manifests, "apply", "--server-side", "--namespace", namespace, "--filename", "-")
}

// TryKubectl runs kubectl with a text as its standard input. An error has what kubectl complained of.
func (e *Environment) TryKubectl(ctx context.Context, input string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, e.ControlPlane.Kubectl, append([]string{"--kubeconfig", e.KubeconfigPath}, arguments...)...)
	var output, complaints bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &output, &complaints
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(complaints.String()))
	}
	return output.String(), nil
}
