// Command dev runs everything that KubeXen needs on this machine, on loopback only: a Kubernetes API, a simulated
// XenServer pool and the operator.
//
//	go run ./hack/dev up [--dir .dev] [--samples] [--tour] [--exit]
//
// It writes DIR/kubeconfig for kubectl and DIR/xenserver.json for XenAPI clients, prints one line "ready" when the
// operator serves, and tells what happens until it is interrupted. Nothing survives it: every start is a fresh one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command line's.
type options struct {
	dir     string
	samples bool
	tour    bool
	exit    bool
	timeout time.Duration
}

func main() {
	options, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ctx = untilParentIsGone(ctx)
	err = up(ctx, options)
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !interrupted {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(arguments []string) (options, error) {
	var o options
	if len(arguments) == 0 || arguments[0] != "up" {
		return o, errors.New("usage: dev up [--dir .dev] [--samples] [--tour] [--exit]")
	}
	flags := flag.NewFlagSet("dev up", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", ".dev", "where kubeconfig, xenserver.json, keys and logs are written")
	flags.BoolVar(&o.samples, "samples", false, "apply config/samples, connected to the simulated pool")
	flags.BoolVar(&o.tour, "tour", false, "then show the workflows on them: import, snapshot, resize, rescue, trash")
	flags.BoolVar(&o.exit, "exit", false, "end when every sample is Ready and the tour is over (status 0), or when --timeout is over (status 1)")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long --exit waits for the samples")
	if err := flags.Parse(arguments[1:]); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q?", flags.Arg(0))
	}
	if o.tour && !o.samples {
		return o, errors.New("--tour needs the samples: give --samples too")
	}
	if o.exit && !o.samples {
		return o, errors.New("--exit waits for the samples: give --samples too")
	}
	return o, nil
}
