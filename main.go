// The kubexen operator: XenServer and XCP-ng virtual machines as Kubernetes objects. Without a subcommand it runs the
// manager.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if err := newCommand().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "kubexen:", err)
		os.Exit(1)
	}
}

// newCommand puts the subcommands together. The manager is the default, so that a container needs no arguments.
func newCommand() *cobra.Command {
	run := newManagerCommand()
	root := &cobra.Command{
		Use:           "kubexen",
		Short:         "XenServer and XCP-ng virtual machines as Kubernetes objects",
		RunE:          run.RunE,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.Flags().AddFlagSet(run.Flags())
	root.AddCommand(run, newGatewayCommand(), newVersionCommand())
	return root
}
