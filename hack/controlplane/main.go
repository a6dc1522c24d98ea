// Command controlplane builds the programs of the local control plane if they are not there yet, and prints where they are.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	binaries, err := controlplane.Find(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(binaries.Etcd, binaries.APIServer, binaries.ControllerManager, binaries.Kubectl)
}
