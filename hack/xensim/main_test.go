package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestServesUntilInterrupted runs the command as its user does: wait for the ready line, trust ca.pem, make a call,
// look at the counts, interrupt, read the dump.
func TestServesUntilInterrupted(t *testing.T) {
	dir := t.TempDir()
	dumped := filepath.Join(dir, "dump.json")
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-listen", "127.0.0.1:0", "-password", "secret", "-data", dir, "-dump", dumped}, writer, io.Discard)
	}()
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok || !strings.HasPrefix(url, "https://127.0.0.1:") {
		t.Fatalf("first line is %q", line)
	}
	client := clientTrusting(t, filepath.Join(dir, "ca.pem"))
	answer, err := client.Post(url+"/jsonrpc", "application/json",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"session.login_with_password","params":["root","secret"]}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if !strings.Contains(string(body), `"result":"OpaqueRef:`) {
		t.Fatalf("login answered %s", body)
	}
	var counts struct{ Calls map[string]int }
	answer, err = client.Get(url + "/xensim/calls")
	if err != nil {
		t.Fatal(err)
	}
	err = json.NewDecoder(answer.Body).Decode(&counts)
	answer.Body.Close()
	if err != nil || counts.Calls["session.login_with_password"] != 1 {
		t.Fatalf("counts %v, %v", counts, err)
	}
	interrupt()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var state map[string]map[string]any
	content, err := os.ReadFile(dumped)
	if err != nil || json.Unmarshal(content, &state) != nil || len(state["host"]) != 3 {
		t.Fatalf("dump: %v, %d hosts", err, len(state["host"]))
	}
}

func clientTrusting(t *testing.T, path string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", path)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 10 * time.Second, Transport: transport}
}

func TestRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, args := range map[string][]string{
		"argument":         {"serve"},
		"profile":          {"-profile", "7.0"},
		"pace":             {"-pace", "hasty"},
		"missing state":    {"-state", "/nonexistent/state.json"},
		"missing faults":   {"-faults", "/nonexistent/faults.json"},
		"address":          {"-listen", "nowhere"},
		"IPv6 for members": {"-listen", "[::1]:0"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
				t.Error("it ran")
			}
		})
	}
}
