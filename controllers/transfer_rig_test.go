package controllers_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// webStore is a web server that takes PUT, and whose answers a test can spoil.
type webStore struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	// spoil answers a request in place of the store, if it returns true.
	spoil func(http.ResponseWriter, *http.Request) bool
	puts  int
}

func newWebStore(t testing.TB) *webStore {
	t.Helper()
	s := &webStore{files: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP implements http.Handler.
func (s *webStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	spoil := s.spoil
	s.mu.Unlock()
	if spoil != nil && spoil(w, r) {
		return
	}
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // half of a file is none
		}
		s.mu.Lock()
		s.files[r.URL.Path] = body
		s.puts++
		s.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		s.mu.Lock()
		delete(s.files, r.URL.Path)
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		body, found := s.file(r.URL.Path)
		if !found {
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256(body)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

func (s *webStore) file(path string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, found := s.files[path]
	return body, found
}

func (s *webStore) put(path string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = body
}

func (s *webStore) remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, path)
}

// answer spoils the store's answers from now on; nil spoils them no more.
func (s *webStore) answer(spoil func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = spoil
}

// refusePuts answers every file that is sent with a status from now on.
func (s *webStore) refusePuts(status int) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			http.Error(w, http.StatusText(status), status)
		}
		return r.Method == http.MethodPut
	})
}

// paths lists what the store has.
func (s *webStore) paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for path := range s.files {
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// run runs a program, and ends the test if it fails.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ext4 is a file system with files in it, as a raw disk. It returns the files' directory, too.
func ext4(t testing.TB, mebibytes int) (raw []byte, tree string) {
	t.Helper()
	tree, path := t.TempDir(), filepath.Join(t.TempDir(), "disk.raw")
	for name, content := range map[string]string{"etc/hostname": "web\n", "data/large": strings.Repeat("kubexen ", 200_000), "empty": ""} {
		file := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, path, fmt.Sprintf("%dM", mebibytes))
	raw, err := os.ReadFile(path) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	return raw, tree
}

// sameFiles checks a file system and compares its files with those of a directory.
func sameFiles(t testing.TB, raw []byte, tree string) {
	t.Helper()
	path, out := filepath.Join(t.TempDir(), "disk.raw"), t.TempDir()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "e2fsck", "-fn", path)
	run(t, "debugfs", "-R", "rdump / "+out, path)
	run(t, "diff", "-r", "--exclude=lost+found", tree, out)
}

// asRaw turns a file of another format into a raw disk, with qemu's own tools.
func asRaw(t testing.TB, body []byte, format string) []byte {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, body, 0o600); err != nil {
		t.Fatal(err)
	}
	if format == "qcow2" {
		run(t, "qemu-img", "check", "-f", format, from)
	}
	run(t, "qemu-img", "convert", "-f", format, "-O", "raw", from, to)
	raw, err := os.ReadFile(to) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// secondPool is another simulated pool that the cluster knows.
func secondPool(t testing.TB, w *testkit.World, name string) *testkit.Simulator {
	t.Helper()
	simulator := testkit.StartSimulator(t, withAgents)
	for ref := range simulator.Records("pool") {
		if err := simulator.Update("pool", ref, map[string]any{"uuid": "00000000-0000-4000-8000-000000000002"}); err != nil {
			t.Fatal(err)
		}
	}
	create(t, w, testkit.PoolSecret(name, simulator.User, simulator.Password, simulator.CACert()))
	xenPool := testkit.Pool(name, simulator.Endpoint).TrustingSecret(name).Object()
	create(t, w, xenPool)
	w.WaitReady(t, xenPool)
	return simulator
}

// httpImage is an image that is a file in a store.
func httpImage(name, url string, body []byte, pools ...string) *v1alpha1.XenClusterImage {
	image := &v1alpha1.XenClusterImage{}
	image.Name = name
	image.Spec.Source.HTTP = &v1alpha1.HTTPObject{URL: url}
	image.Spec.Checksum = &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: digest(body)}
	for _, p := range pools {
		image.Spec.Pools = append(image.Spec.Pools, v1alpha1.ImagePool{Name: p})
	}
	return image
}

// toStore sends a snapshot to a web server.
func toStore(s *webStore, change func(*v1alpha1.SnapshotDestination)) func(*v1alpha1.XenSnapshotSpec) {
	return func(spec *v1alpha1.XenSnapshotSpec) {
		spec.Destination = &v1alpha1.SnapshotDestination{HTTP: &v1alpha1.HTTPDestination{URLTemplate: s.URL + "/{namespace}/{snapshot}/{file}"}}
		if change != nil {
			change(spec.Destination)
		}
	}
}

// disksWithRole counts the disks on a pool that carry a role of ours as their own.
func disksWithRole(pool *testkit.Simulator, wanted string) int {
	n := 0
	for _, vdi := range pool.Records("VDI") {
		config, _ := vdi["other_config"].(map[string]string)
		if config["kubexen.io/role"] == wanted && (config["kubexen.io/self"] == "" || config["kubexen.io/self"] == vdi["uuid"]) {
			n++
		}
	}
	return n
}

// controlDomainHoldsNothing complains of disks that a transfer left attached.
func controlDomainHoldsNothing(ctx context.Context, pools ...*testkit.Simulator) error {
	for _, pool := range pools {
		vms := pool.Records("VM")
		for _, vbd := range pool.Records("VBD") {
			if vms[fmt.Sprint(vbd["VM"])]["is_control_domain"] == true {
				return errors.New("a disk is still attached to the control domain")
			}
		}
	}
	return ctx.Err()
}
