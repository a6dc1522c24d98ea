package imagestore

import (
	"context"
	"io"
	"testing"
)

// lent is a store of zeros that counts the bodies that were not given back.
type lent struct {
	Store
	open int
}

func (l *lent) Location(string) string { return "https://store/file" }

func (l *lent) Open(context.Context, string, Object, int64, int64) (io.ReadCloser, error) {
	l.open++
	return &lentBody{l}, nil
}

type lentBody struct{ of *lent }

func (*lentBody) Read(p []byte) (int, error) { clear(p); return len(p), nil } // its end is never seen

func (b *lentBody) Close() error { b.of.open--; return nil }

// TestBlocksGiveTheirConnectionsBack: a large file is read in thousands of blocks, each over a request of its own.
func TestBlocksGiveTheirConnectionsBack(t *testing.T) {
	store := &lent{}
	reader := NewReaderAt(t.Context(), store, "", Object{Size: 10 * blockSize}, DownloadOptions{})
	for n := range int64(10) {
		if _, err := reader.ReadAt(make([]byte, 512), n*blockSize); err != nil {
			t.Fatal(err)
		}
	}
	if store.open != 0 {
		t.Errorf("%d of 10 bodies are still open", store.open)
	}
}
