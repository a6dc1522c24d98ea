package main

import (
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// processFlags are what every long-running subcommand has: how it reaches the API server, and how it logs.
type processFlags struct {
	kubeconfig string
	log        logFlags
}

func (f *processFlags) register(set *pflag.FlagSet) {
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the service account of the pod, $KUBECONFIG)")
	f.log.register(set)
}

// process is what a long-running subcommand begins with.
type process struct {
	logger logr.Logger
	kube   *rest.Config
}

// processCommand makes a subcommand that begins with what the flags say and runs until its context ends.
func processCommand(use, short string, flags *processFlags, register func(*pflag.FlagSet), run func(*cobra.Command, process) error) *cobra.Command {
	command := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, flush, err := flags.log.logger(os.Stderr)
			if err != nil {
				return err
			}
			defer flush()
			ctrl.SetLogger(logger)
			klog.SetLogger(logger.WithName("kube"))
			kube, err := restConfig(flags.kubeconfig)
			if err != nil {
				return err
			}
			return run(cmd, process{logger: logger, kube: kube})
		},
	}
	flags.register(command.Flags())
	register(command.Flags())
	return command
}

// restConfig reads how to reach the API server: a file that is named, else what the pod or the environment offers.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := ctrl.GetConfig()
		if err != nil {
			return nil, fmt.Errorf("find the API server: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
