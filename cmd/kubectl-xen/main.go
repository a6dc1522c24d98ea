// kubectl-xen is a kubectl plug-in for KubeXen: kubectl xen console web, kubectl xen undelete web. It writes nothing that kubectl could
// not write; it only spares the typing and the waiting.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"

	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if err := newCommand().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "kubectl xen:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	c := &cluster{}
	root := &cobra.Command{
		Use:           "kubectl-xen",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl xen"},
		Short:         "Work with XenServer and XCP-ng virtual machines",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	flags.StringVar(&rules.ExplicitPath, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, ~/.kube/config)")
	overrides := &clientcmd.ConfigOverrides{}
	clientcmd.BindOverrideFlags(overrides, flags, shortFlags())
	c.config = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	root.AddCommand(newConsoleCommand(c), newVNCCommand(c), newTextCommand(c), newUndeleteCommand(c), newRescueCommand(c), newUnrescueCommand(c),
		newResizeCommand(c), newConfirmCommand(c), newRevertCommand(c), newMigrateCommand(c))
	return root
}

// oneInstance takes the name of one XenInstance, and nothing else.
func oneInstance(cmd *cobra.Command, args []string) error {
	if len(args) == 1 && args[0] != "" {
		return nil
	}
	return fmt.Errorf("%s wants the name of one XenInstance and was given %q; %s --help shows how", cmd.Name(), args, cmd.CommandPath())
}

// shortFlags are kubectl's own names for where and as whom.
func shortFlags() clientcmd.ConfigOverrideFlags {
	all := clientcmd.RecommendedConfigOverrideFlags("")
	all.ContextOverrideFlags.Namespace.ShortName = "n"
	return all
}

// cluster is where the commands work.
type cluster struct {
	config clientcmd.ClientConfig
}

// open returns a client, and the namespace that is meant.
func (c *cluster) open() (client.WithWatch, string, error) {
	namespace, _, err := c.config.Namespace()
	if err != nil {
		return nil, "", err
	}
	config, err := c.config.ClientConfig()
	if err != nil {
		return nil, "", err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, "", err
		}
	}
	api, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, "", err
	}
	return api, namespace, nil
}
