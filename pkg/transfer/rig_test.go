package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// rig is a runner of transfers between a simulated pool and stores that a test makes up.
type rig struct {
	*transfer.Local
	pool   *testkit.Simulator
	handle *pool.Handle
	clock  *clocktesting.FakePassiveClock
	woken  chan xencache.Key
	logged *log
}

// anywhere opens what a test says for any place.
type anywhere func(place transfer.Place) (imagestore.Store, error)

func (open anywhere) Open(_ context.Context, place transfer.Place) (imagestore.Store, error) {
	return open(place)
}

// Get implements transfer.Pools.
func (r *rig) Get(string) (*pool.Handle, error) { return r.handle, nil }

func newRig(t *testing.T, stores transfer.Stores) *rig {
	t.Helper()
	simulator := testkit.StartSimulator(t, xensim.Options{})
	client, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{simulator.Endpoint}, Username: simulator.User, Password: simulator.Password, CABundle: simulator.CACert(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) }) // the simulator ends, too
	r := &rig{pool: simulator, clock: clocktesting.NewFakePassiveClock(time.Now()), woken: make(chan xencache.Key, 1000), logged: &log{}, handle: &pool.Handle{
		Name: "lab", Installation: "here", Client: client, Cache: xencache.New(xencache.Options{Installation: "here"}),
		Pool: &v1alpha1.XenPool{Spec: v1alpha1.XenPoolSpec{Limits: &v1alpha1.PoolLimits{MaxTransfersPerHost: ptr.To[int32](2)}}},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	synced, over := make(chan struct{}), make(chan error, 2)
	go func() {
		over <- r.handle.Cache.Follow(ctx, client, sync.OnceFunc(func() { close(synced) }))
	}()
	select {
	case <-synced:
	case err := <-over:
		t.Fatal(err)
	}
	r.Local = transfer.NewLocal(r, stores, func(key xencache.Key) { r.woken <- key }, r.clock, transfer.Scratch{}, r.logged.logger())
	go func() { over <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-over
		<-over
	})
	return r
}

// sr is the uuid of a storage repository that takes disks.
func (r *rig) sr(t *testing.T) string {
	t.Helper()
	uuid := ""
	r.handle.Cache.View(func(v xencache.View) {
		for _, sr := range v.SRs() {
			if sr.ContentType == "user" && sr.PhysicalSize > 0 && (uuid == "" || sr.UUID < uuid) {
				uuid = sr.UUID
			}
		}
	})
	if uuid == "" {
		t.Fatal("the pool has no storage")
	}
	return uuid
}

// complete is how many disks are marked as what they are to be. One that is not may be left for a moment, as long as the pool
// holds it; whoever asked for it takes it away.
func (r *rig) complete() int {
	n := 0
	for _, vdi := range r.pool.Records("VDI") {
		if config, _ := vdi["other_config"].(map[string]string); config[transfer.MarkSHA256] != "" {
			n++
		}
	}
	return n
}

// ended waits until a transfer has ended.
func (r *rig) ended(t *testing.T, id transfer.ID) transfer.State {
	t.Helper()
	for {
		if state, known := r.State(id); known && (state.Phase == transfer.Failed || state.Phase == transfer.Succeeded) {
			return state
		}
		select {
		case <-r.woken:
		case <-time.After(30 * time.Second):
			state, _ := r.State(id)
			t.Fatalf("it has not ended: %+v", state)
		}
	}
}

// named is the id of a transfer.
func named(name string) transfer.ID {
	return transfer.ID{Owner: xencache.Key{Kind: "XenImage", Namespace: "team-a", Name: name}, Part: "lab/default"}
}

// fromHTTP imports a file.
func (r *rig) fromHTTP(t *testing.T, url string) transfer.Request {
	t.Helper()
	return transfer.Request{Import: &transfer.Import{
		Pool: "lab", SR: r.sr(t), Name: "disk", Marks: map[string]string{"kubexen.io/role": "image"}, Place: transfer.Place{Namespace: "team-a", Source: &v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: url}}},
	}}
}

// log keeps what was logged.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) logger() logr.Logger {
	return funcr.New(func(prefix, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, prefix+" "+args)
	}, funcr.Options{})
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool { return strings.Contains(line, text) })
}

// file is a store with one file, a raw disk.
type file struct {
	imagestore.Store
	body []byte
	read func() io.Reader // in place of the body
}

func (f file) Location(name string) string { return "https://store/" + name }

func (f file) Stat(context.Context, string) (imagestore.Object, error) {
	return imagestore.Object{Size: int64(len(f.body))}, nil
}

func (f file) Open(_ context.Context, _ string, _ imagestore.Object, offset, length int64) (io.ReadCloser, error) {
	if f.read != nil {
		return io.NopCloser(f.read()), nil
	}
	rest := f.body[offset:]
	if length >= 0 {
		rest = rest[:min(length, int64(len(rest)))]
	}
	return io.NopCloser(bytes.NewReader(rest)), nil
}

// failure is the *transfer.Failure in an error.
func failure(t *testing.T, err error) *transfer.Failure {
	t.Helper()
	var f *transfer.Failure
	if !errors.As(err, &f) {
		t.Fatalf("the error is %v", err)
	}
	return f
}
