package testkit

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// Simulator is a simulated pool that serves on loopback, and the way in.
type Simulator struct {
	*xensim.Pool
	Endpoint string
	User     string
	Password string
}

// StartSimulator runs a simulated pool for one test. Its clock runs a hundred times as fast as ours unless the options
// say otherwise.
func StartSimulator(t testing.TB, options xensim.Options) *Simulator {
	t.Helper()
	if options.User == "" {
		options.User = "root"
	}
	if options.Password == "" {
		options.Password = rand.Text()
	}
	if options.ClockScale == 0 {
		options.ClockScale = 100
	}
	pool, err := xensim.New(options)
	if err != nil {
		t.Fatalf("make a simulated pool: %v", err)
	}
	t.Cleanup(pool.Close)
	endpoint, err := pool.Start("127.0.0.1:0")
	if err != nil {
		t.Fatalf("start a simulated pool: %v", err)
	}
	return &Simulator{Pool: pool, Endpoint: endpoint, User: options.User, Password: options.Password}
}

// RecordedState is the pool that the recordings of a real XenAPI were made on: one host, its templates, no VMs.
func RecordedState(t testing.TB) io.Reader {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := os.ReadFile(filepath.Join(root, "pkg", "xensim", "testdata", "state.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// Insert makes an object in the pool's database as if somebody else had made it, and returns its reference.
func (s *Simulator) Insert(class string, fields map[string]any) string {
	s.Lock()
	defer s.Unlock()
	return s.Create(class, fields)
}

// FindByName is the reference of the only object of a class with a name; the test fails when there is none or more.
func (s *Simulator) FindByName(t testing.TB, class, nameLabel string) string {
	t.Helper()
	var found []string
	for ref, record := range s.Records(class) {
		if record["name_label"] == nameLabel {
			found = append(found, ref)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of class %s are called %q, want one", len(found), class, nameLabel)
	}
	return found[0]
}

// Delete removes an object from the pool's database as if somebody else had destroyed it.
func (s *Simulator) Delete(class, ref string) {
	s.Lock()
	defer s.Unlock()
	s.DB().Delete(class, ref)
}
