package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"text/tabwriter"
)

// row is one measurement of bin/bench.json.
type row struct {
	Name string `json:"name"`
	// Value is ours, in Unit.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Against is what the same cost theirs, in Unit; 0 where there is nothing to compare with.
	Against float64 `json:"against"`
	// Ratio is the number that the goal is about, where the goal is a ratio.
	Ratio float64 `json:"ratio"`
	// N is how many runs the medians are of.
	N    int    `json:"n"`
	Note string `json:"note"`

	goal goal
}

// goal is what a row's ratio, or its value where it has none, should be.
type goal struct {
	atLeast, atMost float64
	set             bool
}

func atLeast(v float64) goal { return goal{atLeast: v, set: true} }
func atMost(v float64) goal  { return goal{atMost: v, set: true} }

func (g goal) met(v float64) bool {
	if g.atLeast > 0 {
		return v >= g.atLeast
	}
	return v <= g.atMost
}

func (g goal) String() string {
	switch {
	case !g.set:
		return ""
	case g.atLeast > 0:
		return fmt.Sprintf("≥ %g", g.atLeast)
	default:
		return fmt.Sprintf("≤ %g", g.atMost)
	}
}

// report gathers rows.
type report struct {
	rounds int
	rows   []row
}

func newReport(rounds int) *report {
	return &report{rounds: rounds, rows: []row{{
		Name: "host", Value: float64(runtime.NumCPU()), Unit: "cores", N: 1,
		Note: fmt.Sprintf("%s; %s/%s; %s; %s", cpuModel(), runtime.GOOS, runtime.GOARCH, runtime.Version(), revision()),
	}}}
}

func (r *report) add(one row) { r.rows = append(r.rows, one) }

// write stores all rows.
func (r *report) write(path string) error {
	raw, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// print shows a group's rows as a table.
func (r *report) print(w io.Writer, g group, rows []row) {
	fmt.Fprintf(w, "\n%s: %s\n", g.name, g.about)
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(table, "name\tours\ttheirs\tratio\tgoal\t\tnote")
	for _, one := range rows {
		judged, theirs, ratio := one.Value, "", ""
		if one.Against != 0 {
			theirs = quantity(one.Against, one.Unit)
		}
		if one.Ratio != 0 {
			judged, ratio = one.Ratio, fmt.Sprintf("%.2f", one.Ratio)
		}
		verdict := ""
		if one.goal.set {
			verdict = "met"
			if !one.goal.met(judged) {
				verdict = "MISSED"
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", one.Name, quantity(one.Value, one.Unit), theirs, ratio, one.goal, verdict, one.Note)
	}
	_ = table.Flush() // to the same writer as above
}

func quantity(v float64, unit string) string {
	text := fmt.Sprintf("%.3g", v)
	if v >= 100 || v == float64(int64(v)) {
		text = fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSpace(text + " " + unit)
}

// median returns the middle of values, which it sorts.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sort.Float64s(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

func revision() string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown revision"
	}
	for _, setting := range build.Settings {
		if setting.Key == "vcs.revision" {
			return "kubexen " + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return "kubexen, unknown revision"
}
