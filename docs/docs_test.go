// Package docs holds the guides. It has no code but the test that keeps them true to the rest.
package docs

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guides are the texts for people, from the top of the repository.
func guides(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../*.md", "*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("no guide is %s: %v", pattern, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(text)
		}
	}
	return texts
}

var link = regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`)

// TestLinks follows every link within the repository.
func TestLinks(t *testing.T) {
	followed := 0
	for path, text := range guides(t) {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			followed++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), match[1])); err != nil {
				t.Errorf("%s: there is no %s", path, match[1])
			}
		}
	}
	if followed < 10 {
		t.Errorf("only %d links were found", followed)
	}
}

var (
	metricMade = regexp.MustCompile(`Name:\s+"(kubexen_[a-z_]+)"`)
	metricTold = regexp.MustCompile("(?m)^\\| `(kubexen_[a-z_]+)` \\|")
)

// TestMetrics compares the table of metrics with those that the programs have.
func TestMetrics(t *testing.T) {
	made := map[string]bool{}
	for _, room := range []string{"../pkg", "../controllers"} {
		err := filepath.WalkDir(room, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range metricMade.FindAllStringSubmatch(string(text), -1) {
				made[match[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, match := range metricTold.FindAllStringSubmatch(string(text), -1) {
		told[match[1]] = true
	}
	if got, wanted := slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(made)); !slices.Equal(got, wanted) {
		t.Errorf("operations.md tells of\n%v\nthe programs have\n%v", got, wanted)
	}
}
