package imagestore_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
)

// TestMemoryOfAnUpload writes far more than a stream may keep, and watches the heap meanwhile.
func TestMemoryOfAnUpload(t *testing.T) {
	const most = 64 * mebibyte
	server := stores.NewS3(t)
	store := s3Store(t, server, server.URL, "")
	for name, size := range map[string]int64{"known": 400 * mebibyte, "unknown": -1} {
		t.Run(name, func(t *testing.T) {
			peak, stop := watchHeap()
			writer, err := store.Create(t.Context(), "large", upload(size))
			if err != nil {
				t.Fatal(err)
			}
			piece := random(mebibyte, 1)
			for range 400 {
				if _, err := writer.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := writer.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			stop()
			if got := peak.Load(); got > most {
				t.Errorf("the heap grew by %d MiB, may grow by %d MiB", got/mebibyte, most/mebibyte)
			}
		})
	}
}

// watchHeap samples how much the heap in use grows until stop is called.
func watchHeap() (peak *atomic.Int64, stop func()) {
	inUse := func() int64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapInuse)
	}
	runtime.GC()
	peak, before := &atomic.Int64{}, inUse()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.Store(max(peak.Load(), inUse()-before))
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()

	return peak, func() { close(done); <-ended }
}

// TestReadingAnywhere reads pieces of a file in no order, as a format with tables is read, while connections break.
func TestReadingAnywhere(t *testing.T) {
	web := stores.NewWeb(t)
	proxy := stores.NewFaulty(t, web.URL)
	data := random(45*mebibyte+17, 2)
	web.Put("/file", data)
	store := webStore(t, proxy.URL+"/file")
	object, err := store.Stat(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	reader := imagestore.NewReaderAt(t.Context(), store, "", object, imagestore.DownloadOptions{})
	proxy.Set(stores.Fault{Method: "GET", CloseAfter: 1000})
	source := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		offset := source.Int64N(int64(len(data)))
		piece := make([]byte, source.IntN(6*mebibyte))
		n, err := reader.ReadAt(piece, offset)
		wanted := data[offset:min(offset+int64(len(piece)), int64(len(data)))]
		if (err == io.EOF) != (n < len(piece)) || err != nil && err != io.EOF { //nolint:errorlint // io.ReaderAt's end comes bare
			t.Fatalf("%d bytes at %d: %d, %v", len(piece), offset, n, err)
		}
		if !bytes.Equal(piece[:n], wanted) {
			t.Fatalf("%d bytes at %d are others", len(piece), offset)
		}
	}
	web.Put("/file", random(45*mebibyte+17, 3))
	_, err = imagestore.NewReaderAt(t.Context(), store, "", object, imagestore.DownloadOptions{}).ReadAt(make([]byte, 1), 0)
	wantKind(t, "a file that is another one", err, imagestore.Changed)
}
