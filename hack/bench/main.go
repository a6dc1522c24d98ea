// Command bench measures what the project promises, prints tables, and writes bin/bench.json.
//
//	go run ./hack/bench            all groups
//	go run ./hack/bench wire ...   some
//
// A group is one file with a variable of type group; list it in groups. Names, units and goals are the project's contract with its readers: a row that
// misses its goal is printed as such, and the program still ends well, since a number on a busy machine is not a test.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

// group is a set of rows that are measured together.
type group struct {
	name  string
	about string
	run   func(ctx context.Context, r *report) error
}

var groups = []group{wire, calls, scale, failover, console, diskGroup}

func main() {
	log.SetFlags(0)
	out := flag.String("out", "bin/bench.json", "the file to write")
	rounds := flag.Int("rounds", 7, "how often each side of a comparison is run")
	flag.Usage = usage
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if served, err := asGateway(ctx); served {
		if err != nil {
			log.Fatal("bench gateway: ", err)
		}
		return
	}
	if converted, err := asConverter(); converted {
		if err != nil {
			log.Fatal("bench convert: ", err)
		}
		return
	}
	if shrunk, err := asShrinker(); shrunk {
		if err != nil {
			log.Fatal("bench shrink: ", err)
		}
		return
	}
	if err := run(ctx, *out, *rounds, flag.Args()); err != nil {
		log.Fatal("bench: ", err)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: bench [flags] [group ...]\n\ngroups:")
	for _, g := range groups {
		fmt.Fprintf(os.Stderr, "  %-10s %s\n", g.name, g.about)
	}
	fmt.Fprintln(os.Stderr, "\nflags:")
	flag.PrintDefaults()
}

func run(ctx context.Context, out string, rounds int, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	r := newReport(rounds)
	for _, g := range chosen {
		first := len(r.rows)
		if err := g.run(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		r.print(os.Stdout, g, r.rows[first:])
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return r.write(out)
}

func choose(names []string) ([]group, error) {
	if len(names) == 0 {
		return groups, nil
	}
	var chosen []group
	for _, name := range names {
		found := false
		for _, g := range groups {
			if g.name == name {
				chosen = append(chosen, g)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("no group %q; there are %s", name, groupNames())
		}
	}
	return chosen, nil
}

func groupNames() string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	return strings.Join(names, ", ")
}
