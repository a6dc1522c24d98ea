package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// environmentVariable turns the test binary into "dev up" in the directory that it names.
const environmentVariable = "KUBEXEN_TEST_DEV_UP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(environmentVariable); dir != "" {
		if err := up(context.Background(), options{dir: dir, samples: true, tour: true, timeout: time.Minute}); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// TestUp lives through a whole demo as a user does: it comes up, all samples become Ready, kubectl and a XenAPI client
// find the way in, and when it is killed nothing of it goes on.
func TestUp(t *testing.T) {
	dir := t.TempDir()
	var output lockedBuffer
	demo := exec.CommandContext(t.Context(), os.Args[0])
	demo.Env = append(os.Environ(), environmentVariable+"="+dir)
	demo.Stdout, demo.Stderr = &output, &output
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- demo.Wait() }()
	waitForLine := func(line string) {
		t.Helper()
		testkit.Eventually(t, "the demo says "+line, func(context.Context) error {
			select {
			case err := <-ended:
				t.Fatalf("the demo ended: %v\n%s", err, output.String())
			default:
			}
			if strings.Contains(output.String(), line) {
				return nil
			}
			return fmt.Errorf("%w; it has said\n%s", errNotYet, output.String())
		})
	}
	waitForLine("\nready\n")
	waitForLine("every sample is Ready")
	for _, scene := range new(environment).tour() {
		waitForLine(scene.title)
	}
	waitForLine("it is over; what was uploaded is in")

	var access simulator
	text, err := os.ReadFile(filepath.Join(dir, "xenserver.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &access); err != nil {
		t.Fatal(err)
	}
	if access.Endpoint == "" || access.User == "" || access.Password == "" || !strings.Contains(access.CA, "BEGIN CERTIFICATE") {
		t.Errorf("xenserver.json is not complete: %s", text)
	}
	if strings.Contains(output.String(), access.Password) {
		t.Error("the demo tells the pool's password")
	}
	children := childrenOf(t, demo.Process.Pid)
	if len(children) < 6 {
		t.Errorf("%d children run, want etcd, kube-apiserver, kube-controller-manager, xensim, manager and gateway", len(children))
	}
	if err := demo.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the children of the killed demo are gone", func(context.Context) error {
		for _, pid := range children {
			if runs(pid) {
				return errNotYet
			}
		}
		return nil
	})
}

var errNotYet = errors.New("not yet")

// lockedBuffer is written by a child's output and read by the test.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, strings.Fields(string(text))...)
	}
	return children
}

// runs is false for a zombie, which nobody may be there to reap.
func runs(pid string) bool {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	_, afterName, _ := bytes.Cut(text, []byte(") "))
	return !bytes.HasPrefix(afterName, []byte("Z"))
}

func TestParse(t *testing.T) {
	tests := map[string]struct {
		arguments string
		want      options
		refused   bool
	}{
		"defaults":        {"up", options{dir: ".dev", timeout: 3 * time.Minute}, false},
		"all":             {"up --dir x --samples --tour --exit --timeout 1s", options{dir: "x", samples: true, tour: true, exit: true, timeout: time.Second}, false},
		"no subcommand":   {"", options{}, true},
		"unknown":         {"down", options{}, true},
		"too much":        {"up now", options{}, true},
		"exit without it": {"up --exit", options{}, true},
		"tour without it": {"up --tour", options{}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse(strings.Fields(test.arguments))
			if (err != nil) != test.refused {
				t.Fatalf("error %v, want one: %v", err, test.refused)
			}
			if err == nil && got != test.want {
				t.Errorf("parsed %+v, want %+v", got, test.want)
			}
		})
	}
}
