package xensim

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// xenAPIPackage is the client of Xen Orchestra, at the version that was last seen to work.
const xenAPIPackage = "xen-api@4.7.6"

// foreignPool serves the demonstration pool over TLS, as a client of the world expects it.
func foreignPool(t *testing.T) (url, ca string) {
	t.Helper()
	dir := t.TempDir()
	p, err := New(Options{Password: "secret", DataDir: dir, ClockScale: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if url, err = p.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return url, filepath.Join(dir, "ca.pem")
}

// program finds a program that the test cannot do without.
func program(t *testing.T, name, purpose string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed, but is needed to %s", name, purpose)
	}
	return path
}

func runForeign(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(output)), "ok") {
		t.Fatalf("%s: %v\n%s", filepath.Base(name), err, output)
	}
}

func TestPythonXMLRPCClient(t *testing.T) {
	python := program(t, "python3", "drive the simulator with xmlrpc.client")
	url, ca := foreignPool(t)
	script, err := filepath.Abs("testdata/foreign/client.py")
	if err != nil {
		t.Fatal(err)
	}
	runForeign(t, t.TempDir(), python, script, url, "secret", ca)
}

// TestXenOrchestraClient installs the npm package and drives the simulator with it.
func TestXenOrchestraClient(t *testing.T) {
	npm := program(t, "npm", "install "+xenAPIPackage)
	node := program(t, "node", "run "+xenAPIPackage)
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), npm, "install", "--no-audit", "--no-fund", "--prefix", dir, xenAPIPackage)
	if output, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install %s: %v\n%s", xenAPIPackage, err, output)
	}
	script, err := os.ReadFile("testdata/foreign/xen-api.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "client.mjs"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	url, _ := foreignPool(t)
	runForeign(t, dir, node, "client.mjs", url, "secret")
}
