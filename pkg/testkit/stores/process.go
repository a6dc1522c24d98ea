package stores

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

// startTimeout is for a server on a busy machine.
const startTimeout = time.Minute

// freeAddress is an address on loopback that nobody listens on now.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	return listener.Addr().String()
}

// serve runs a server until the test ends, and returns when its URL answers.
func serve(t testing.TB, name, logPath, url string, client *http.Client, command *exec.Cmd) {
	t.Helper()
	process, err := controlplane.StartProcess(name, logPath, command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Stop(5 * time.Second)
		if t.Failed() {
			if text, err := os.ReadFile(logPath); err == nil {
				t.Logf("%s said:\n%s", name, tail(text))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	err = process.WaitUntil(ctx, "answers", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		if response.StatusCode >= http.StatusInternalServerError {
			err = fmt.Errorf("it answers %s", response.Status)
		}
		_ = response.Body.Close() // nobody reads it
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tail is what of a log is worth showing.
func tail(text []byte) []byte {
	const most = 4000
	if len(text) > most {
		return text[len(text)-most:]
	}

	return text
}

// built returns the path of a program from a pinned module below hack/tools. It is built once, into the user's cache;
// processes that build it at the same time put the same program in the same place.
func built(t testing.TB, module, program string) string {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(root, "hack", "tools", module)
	key := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = key.Write(text) // a hash takes everything
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "kubexen", module+"-"+hex.EncodeToString(key.Sum(nil))[:16])
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	partial := fmt.Sprintf("%s.%d", path, os.Getpid())
	command := exec.CommandContext(t.Context(), "go", "build", "-o", partial, program)
	command.Dir = directory
	command.Env = append(os.Environ(), "GOWORK=off")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, output)
	}
	if err := os.Rename(partial, path); err != nil {
		t.Fatal(err)
	}

	return path
}

// write makes a file for a server.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
