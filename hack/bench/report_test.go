package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	r := newReport(3)
	g := group{name: "g", about: "about"}
	r.add(row{Name: "fast", Value: 10, Unit: "ms", Against: 60, Ratio: 6, N: 3, goal: atLeast(5)})
	r.add(row{Name: "slow", Value: 10, Unit: "ms", Against: 40, Ratio: 4, N: 3, goal: atLeast(5)})
	r.add(row{Name: "calls", Value: 15, Unit: "calls", N: 1, goal: atMost(14)})
	r.add(row{Name: "idle", Value: 0, Unit: "calls", N: 1, goal: atMost(0)})
	var table bytes.Buffer
	r.print(&table, g, r.rows[1:])
	for _, want := range []string{"fast", "6.00", "≥ 5", "≤ 14", "≤ 0"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
	verdicts := map[string]bool{"fast": true, "slow": false, "calls": false, "idle": true}
	for _, line := range strings.Split(table.String(), "\n") {
		name, _, _ := strings.Cut(line, " ")
		if met, judged := verdicts[name]; judged && met == strings.Contains(line, "MISSED") {
			t.Errorf("wrong verdict: %s", line)
		}
	}
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) != 5 || rows[0]["name"] != "host" || rows[1]["ratio"] != 6.0 {
		t.Errorf("%v, %v", rows, err)
	}
	for _, key := range []string{"name", "value", "unit", "against", "ratio", "n", "note"} {
		if _, ok := rows[1][key]; !ok {
			t.Errorf("no %s", key)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := median(values); got != want {
			t.Errorf("%v: %v", values, got)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	if all, err := choose(nil); err != nil || len(all) != len(groups) {
		t.Errorf("%d groups, %v", len(all), err)
	}
	if one, err := choose([]string{"wire"}); err != nil || len(one) != 1 || one[0].name != "wire" {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := choose([]string{"nothing"}); err == nil || !strings.Contains(err.Error(), "wire") {
		t.Errorf("err %v", err)
	}
}
