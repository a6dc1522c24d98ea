package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/egress"
)

// managerFlags are what the command line of the manager sets.
type managerFlags struct {
	controllers.Options
	process               processFlags
	installationConfigMap string
	privateEndpoints      []string
	scratchLimit          string
}

func newManagerCommand() *cobra.Command {
	flags := &managerFlags{}
	return processCommand("manager", "Run the controllers (the default)", &flags.process, flags.register,
		func(cmd *cobra.Command, p process) error { return runManager(cmd.Context(), *flags, p) })
}

func (f *managerFlags) register(set *pflag.FlagSet) {
	set.StringVar(&f.Installation, "installation", "", "id in the marks on the pools; it must never change (default: from the ConfigMap)")
	set.StringVar(&f.installationConfigMap, "installation-configmap", "kubexen-installation", "ConfigMap in --namespace that holds the installation id; made if it is not there")
	set.StringVar(&f.Namespace, "namespace", envOr("POD_NAMESPACE", "kubexen-system"), "namespace of the lease and of the installation's ConfigMap (default: $POD_NAMESPACE)")
	set.BoolVar(&f.LeaderElection, "leader-elect", true, "let one of several replicas work")
	set.StringVar(&f.MetricsAddress, "metrics-bind-address", ":8080", "address that serves /metrics; 0 is off")
	set.StringVar(&f.HealthAddress, "health-probe-bind-address", ":8081", "address that serves /healthz and /readyz; 0 is off")
	set.IntVar(&f.Concurrency, "concurrency", controllers.DefaultConcurrency, "instances that are worked on at a time")
	set.Float32Var(&f.QPS, "kube-api-qps", controllers.DefaultQPS, "requests to the API server in a second, in the long run")
	set.IntVar(&f.Burst, "kube-api-burst", controllers.DefaultBurst, "requests to the API server in a second, for a moment")
	set.StringVar(&f.ConsoleURL, "console-url", "", "https URL at which users reach the console gateway; without it no XenConsole gets a URL")
	set.StringSliceVar(&f.privateEndpoints, "allow-private-endpoints", nil, "addresses and CIDRs, other than public ones, that tenants may name as endpoints of images and stores")
	set.StringVar(&f.ScratchDir, "scratch-dir", "", "directory where disks are kept while they are made smaller (rootDisk.shrinkTo): up to the data of one such disk at a time (default: $TMPDIR)")
	set.StringVar(&f.scratchLimit, "scratch-limit", "0", "how much of --scratch-dir may be used, 50Gi for instance; 0 is all that is free")
	set.IntVar(&f.MaxShrinks, "max-shrinks", 1, "disks that are made smaller at a time")
	set.DurationVar(&f.ShutdownTimeout, "shutdown-timeout", 0, "how long a stopping manager waits for what is under way (default 15s)")
}

func runManager(ctx context.Context, flags managerFlags, p process) error {
	var err error
	flags.Logger = p.logger
	if flags.Endpoints, err = egress.New(flags.privateEndpoints); err != nil {
		return fmt.Errorf("--allow-private-endpoints: %w", err)
	}
	limit, err := resource.ParseQuantity(flags.scratchLimit)
	if err != nil || limit.Sign() < 0 {
		return fmt.Errorf("--scratch-limit: wanted a size like 50Gi, found %q", flags.scratchLimit)
	}
	flags.ScratchLimit = limit.Value()
	if flags.Installation == "" {
		if flags.Installation, err = installation(ctx, p.kube, flags); err != nil {
			return err
		}
	}
	manager, err := controllers.NewManager(p.kube, flags.Options)
	if err != nil {
		return err
	}
	p.logger.Info("starting", "version", version(), "installation", flags.Installation)
	if err := manager.Start(logr.NewContext(ctx, p.logger)); err != nil {
		return fmt.Errorf("run the manager: %w", err)
	}
	p.logger.Info("stopped")
	return nil
}

// installation reads the installation's id, or chooses it.
func installation(ctx context.Context, config *rest.Config, flags managerFlags) (string, error) {
	direct, err := client.New(config, client.Options{Scheme: controllers.NewScheme()})
	if err != nil {
		return "", fmt.Errorf("make a client of the API server: %w", err)
	}
	return controllers.Installation(ctx, direct, flags.Namespace, flags.installationConfigMap)
}
