package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// novaSnapshotCalls is what OpenStack Nova's XenAPI driver took for a snapshot of one disk with its upload.
const novaSnapshotCalls = 33

// sink is a web server that takes files and keeps nothing but their lengths and digests, and when their bytes came; a manifest it keeps.
type sink struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]took
}

// took is what a sink remembers of a file.
type took struct {
	size   int64
	time   time.Duration
	digest string // as Repr-Digest has it
	text   []byte
}

func newSink() *sink {
	s := &sink{files: map[string]took{}}
	s.Server = httptest.NewServer(s)
	return s
}

// manifestLimit bounds what is kept of a file.
const manifestLimit = 1 << 20

// ServeHTTP implements http.Handler.
func (s *sink) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	switch request.Method {
	case http.MethodPut:
		began := time.Now()
		sum := sha256.New()
		text, err := io.ReadAll(io.TeeReader(io.LimitReader(request.Body, manifestLimit), sum))
		rest, copyErr := io.CopyBuffer(sum, struct{ io.Reader }{request.Body}, make([]byte, manifestLimit))
		if err != nil || copyErr != nil {
			return // half of a file is none
		}
		s.mu.Lock()
		s.files[request.URL.Path] = took{int64(len(text)) + rest, time.Since(began), "sha-256=:" + base64.StdEncoding.EncodeToString(sum.Sum(nil)) + ":", text}
		s.mu.Unlock()
		answer.WriteHeader(http.StatusCreated)
	default:
		file, there := s.file(request.URL.Path)
		if !there {
			http.NotFound(answer, request)
			return
		}
		answer.Header().Set("Repr-Digest", file.digest)
		answer.Header().Set("Content-Length", strconv.FormatInt(file.size, 10))
		if request.Method == http.MethodGet {
			_, _ = answer.Write(file.text) // whoever asks is told of the manifest alone
		}
	}
}

func (s *sink) file(path string) (took, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, there := s.files[path]
	return file, there
}

// benchSnapshot is a snapshot of an instance; with a sink, it is uploaded there.
func benchSnapshot(name, instance string, to *sink, format v1alpha1.DiskFormat) *v1alpha1.XenSnapshot {
	s := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: benchNamespace, Name: name}}
	s.Spec.InstanceRef.Name = instance
	if to != nil {
		s.Spec.Destination = &v1alpha1.SnapshotDestination{Format: format, HTTP: &v1alpha1.HTTPDestination{URLTemplate: to.URL + "/{snapshot}/{file}"}}
	}
	return s
}

// measureSnapshots counts what a snapshot takes, and one with its upload, until the snapshot has left the pool.
func (o *operator) measureSnapshots(ctx context.Context, r *report) error {
	store := newSink()
	defer store.Close()
	instance := benchInstance("captured").Object()
	if err := o.client.Create(ctx, instance); err != nil {
		return err
	}
	if err := o.wait(ctx, instance, ready); err != nil {
		return err
	}
	for _, step := range []struct {
		name     string
		snapshot *v1alpha1.XenSnapshot
		most     float64
		nova     float64
		note     string
	}{
		{"calls.snapshot", benchSnapshot("local", instance.Name, nil, ""), 6, 0, "of a running instance, one disk"},
		{"calls.upload", benchSnapshot("remote", instance.Name, store, v1alpha1.DiskFormatVHD), 9, novaSnapshotCalls,
			"the same with the upload, and removed from the pool; against Nova"},
	} {
		m, err := o.measure(ctx, func() error { return o.client.Create(ctx, step.snapshot) }, func() error { return o.wait(ctx, step.snapshot, ready) })
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		r.add(row{Name: step.name, Value: float64(m.calls), Unit: "calls", Against: step.nova, N: 1, goal: atMost(step.most),
			Note: fmt.Sprintf("%s; %d writes, %.2f s", step.note, m.writes, m.took.Seconds())})
		if err := o.client.Delete(ctx, step.snapshot); err != nil {
			return err
		}
		if err := o.waitGone(ctx, step.snapshot); err != nil {
			return err
		}
	}
	return nil
}
