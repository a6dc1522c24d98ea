// Command xensim serves a simulated XenServer pool for developers, tests and demonstrations.
//
// It prints one line, "ready https://127.0.0.1:PORT", when it serves, and runs until it is interrupted. Any XenAPI
// client can be pointed at it; the certificate authority is in ca.pem in the data directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/kubexen/kubexen/pkg/xensim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "xensim:", err)
		os.Exit(1)
	}
}

type settings struct {
	options                    xensim.Options
	listen, state, dump, fault string
	pace                       string
}

func parse(args []string, stderr io.Writer) (*settings, error) {
	var s settings
	flags := flag.NewFlagSet("xensim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.listen, "listen", "127.0.0.1:0", "address of the coordinator; port 0 takes any, further hosts listen on the addresses after it")
	flags.BoolVar(&s.options.HTTP, "http", false, "plain HTTP instead of TLS")
	flags.StringVar(&s.options.User, "user", "root", "name of the one user")
	flags.StringVar(&s.options.Password, "password", "", "the user's password")
	flags.StringVar(&s.state, "state", "", "JSON file {class: {ref: record}} to start from; a demonstration pool without it")
	flags.StringVar(&s.dump, "dump", "", "file to write the pool's objects to at the end, in the form that -state reads")
	flags.StringVar(&s.fault, "faults", "", "JSON file with a fault plan")
	flags.Float64Var(&s.options.ClockScale, "clock", 1, "how many times faster than the wall clock the pool's time passes")
	flags.StringVar(&s.options.DataDir, "data", "", "directory for disks and ca.pem; a temporary one without it")
	flags.StringVar(&s.options.Profile, "profile", "24.19", "version of the server: 24.19 or 26.17")
	flags.IntVar(&s.options.Hosts, "hosts", 3, "number of hosts of the demonstration pool")
	flags.BoolVar(&s.options.Guests.Agent, "agents", true, "every guest has an agent; with -state the default is that only those do that ask for one")
	flags.DurationVar(&s.options.Guests.BootDelay, "agent-delay", 0, "how long after its start a guest's agent reports; a usual boot without it")
	flags.StringVar(&s.pace, "pace", "", "how long operations take: usual, as in a small idle pool (the default), or recorded, about 0.1 s (with -state)")
	flags.StringVar(&s.options.VNC, "vnc", "", "VNC server (host:port or path of a unix socket) that all consoles show")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if s.state != "" && !given["agents"] {
		s.options.Guests.Agent = false
	}
	switch s.pace {
	case "":
	case "usual":
		s.options.Durations = xensim.DefaultDurations
	case "recorded":
		s.options.Durations = xensim.RecordedDurations
	default:
		return nil, fmt.Errorf("unknown pace %q: usual or recorded", s.pace)
	}
	return &s, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if s.fault != "" {
		if s.options.Faults, err = readFaults(s.fault); err != nil {
			return err
		}
	}
	if s.state != "" {
		file, err := os.Open(s.state)
		if err != nil {
			return fmt.Errorf("open state: %w", err)
		}
		defer file.Close()
		s.options.State = file
	}
	s.options.Logf = func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	pool, err := xensim.New(s.options)
	if err != nil {
		return err
	}
	defer pool.Close()
	url, err := pool.Start(s.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "ready %s\n", url)
	<-ctx.Done()
	if s.dump == "" {
		return nil
	}
	return dump(pool, s.dump)
}

func readFaults(path string) ([]xensim.Fault, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open fault plan: %w", err)
	}
	defer file.Close()
	return xensim.ReadFaults(file)
}

func dump(pool *xensim.Pool, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create dump: %w", err)
	}
	return errors.Join(pool.Dump(file), file.Close())
}
