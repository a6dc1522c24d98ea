package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/gateway"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// gatewayFlags are what the command line of the gateway sets.
type gatewayFlags struct {
	process           processFlags
	name              string
	listen            string
	metrics           string
	certFile, keyFile string
	plainHTTP         bool
	hosts             []string
	origins           []string
	proxies           []string
	grace             time.Duration
}

func newGatewayCommand() *cobra.Command {
	flags := &gatewayFlags{}
	return processCommand("gateway", "Serve the consoles of instances to browsers and viewers", &flags.process, flags.register,
		func(cmd *cobra.Command, p process) error { return runGateway(cmd.Context(), *flags, p) })
}

func (f *gatewayFlags) register(set *pflag.FlagSet) {
	host, _ := os.Hostname()
	set.StringVar(&f.name, "name", envOr("POD_NAME", host), "name of this replica (default: $POD_NAME, else the host's name)")
	set.StringVar(&f.listen, "bind-address", ":8443", "address that users reach")
	set.StringVar(&f.metrics, "metrics-bind-address", ":8080", "address that serves /metrics; 0 is off")
	set.StringVar(&f.certFile, "tls-cert-file", "", "certificate, PEM; read again when it changes (default: one is generated)")
	set.StringVar(&f.keyFile, "tls-private-key-file", "", "its key, PEM")
	set.BoolVar(&f.plainHTTP, "plain-http", false, "no TLS: an ingress before the gateway ends it")
	set.StringSliceVar(&f.hosts, "tls-host", []string{"localhost", "127.0.0.1"}, "names and addresses in a generated certificate")
	set.StringSliceVar(&f.origins, "allowed-origin", nil, "hosts, beside the one in the URL, whose pages may open sessions")
	set.StringSliceVar(&f.proxies, "trusted-proxy", nil, "addresses or CIDRs of ingresses that are trusted to name the client in X-Forwarded-For")
	set.DurationVar(&f.grace, "shutdown-timeout", 15*time.Second, "how long a stopping gateway waits for its sessions to take their leave")
}

func runGateway(ctx context.Context, flags gatewayFlags, p process) error {
	if (flags.certFile == "") != (flags.keyFile == "") {
		return errors.New("--tls-cert-file and --tls-private-key-file go together")
	}
	config := gateway.Config{
		Name: flags.name, CertFile: flags.certFile, KeyFile: flags.keyFile, PlainHTTP: flags.plainHTTP,
		Hosts: flags.hosts, Origins: flags.origins, Grace: flags.grace, Log: p.logger,
	}
	var err error
	if config.Proxies, err = proxies(flags.proxies); err != nil {
		return err
	}
	live, err := withObjects(&config, p.kube)
	if err != nil {
		return err
	}
	broadcaster, err := withEvents(ctx, &config, p.kube)
	if err != nil {
		return err
	}
	defer broadcaster.Shutdown()
	consoles := &pool.Consoles{Pools: config.Cache, Secrets: live, Gateway: flags.name, Logger: p.logger.WithName("xenapi")}
	defer consoles.Close()
	config.Dialer = poolDialer{consoles}
	if config.Listener, err = new(net.ListenConfig).Listen(ctx, "tcp", flags.listen); err != nil {
		return fmt.Errorf("--bind-address: %w", err)
	}
	if flags.metrics != "0" && flags.metrics != "" {
		if config.MetricsListener, err = new(net.ListenConfig).Listen(ctx, "tcp", flags.metrics); err != nil {
			return fmt.Errorf("--metrics-bind-address: %w", err)
		}
	}
	p.logger.Info("starting the console gateway", "version", version())
	return gateway.Run(ctx, config)
}

// proxies reads addresses and networks.
func proxies(texts []string) ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if address, single := netip.ParseAddr(text); single == nil {
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("--trusted-proxy: %q is no address and no network: %w", text, err)
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}

// withObjects gives the gateway its cache and its client, and returns a reader of Secrets, which are never cached.
func withObjects(config *gateway.Config, kube *rest.Config) (client.Reader, error) {
	scheme := controllers.NewScheme()
	objects, err := cache.New(kube, cache.Options{Scheme: scheme, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	live, err := client.New(kube, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	config.Cache, config.Client = objects, live
	return live, nil
}

func withEvents(ctx context.Context, config *gateway.Config, kube *rest.Config) (events.EventBroadcaster, error) {
	clientset, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: clientset.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("record events: %w", err)
	}
	config.Recorder = broadcaster.NewRecorder(controllers.NewScheme(), "kubexen-gateway")
	return broadcaster, nil
}

// poolDialer opens consoles with the sessions of pools, and says in the gateway's words why one does not open.
type poolDialer struct{ consoles *pool.Consoles }

func (d poolDialer) DialConsole(ctx context.Context, t gateway.Target) (net.Conn, error) {
	conn, err := d.consoles.Dial(ctx, t.Pool, t.Host, t.VMUUID, t.Text)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, xenapi.ErrConsoleLimit):
		return nil, &gateway.Ended{Cause: gateway.CauseBusy, Err: err}
	default:
		return nil, &gateway.Ended{Cause: gateway.CauseUnavailable, Err: err}
	}
}
