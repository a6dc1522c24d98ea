package imagestore

import (
	"context"
	"io"
	"sync"
)

// A ReaderAt keeps some blocks, most lately used first: together 32 MiB.
const (
	blockSize  = 4 * mebibyte
	blocksKept = 8
)

// ReaderAt reads an object at any place, in blocks, over ranges. It is for formats that are not read from front to
// back, and may be used concurrently. What it reads is held against Verify's blocks, if there are any; otherwise the store's
// Version alone tells that the object stays the same.
type ReaderAt struct {
	ctx     context.Context //nolint:containedctx // io.ReaderAt has no place for one
	store   Store
	name    string
	object  Object
	options DownloadOptions

	verify *Blocks

	mu     sync.Mutex
	blocks []block
}

type block struct {
	number int64
	data   []byte
}

// NewReaderAt makes no request yet. The object's size must be known.
func NewReaderAt(ctx context.Context, store Store, name string, object Object, options DownloadOptions) *ReaderAt {
	return &ReaderAt{ctx: ctx, store: store, name: name, object: object, options: options}
}

// Verify has each block compared with what it was when the object was read from front to back.
func (r *ReaderAt) Verify(blocks *Blocks) *ReaderAt {
	r.verify = blocks

	return r
}

// Size of the object in bytes.
func (r *ReaderAt) Size() int64 { return r.object.Size }

// ReadAt implements io.ReaderAt.
func (r *ReaderAt) ReadAt(p []byte, offset int64) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n < len(p) {
		at := offset + int64(n)
		if at >= r.object.Size {
			return n, io.EOF
		}
		data, err := r.block(at / blockSize)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[at%blockSize:])
	}

	return n, nil
}

// block returns a block, of the last one what there is of it.
func (r *ReaderAt) block(number int64) ([]byte, error) {
	for i, kept := range r.blocks {
		if kept.number == number {
			copy(r.blocks[1:i+1], r.blocks[:i])
			r.blocks[0] = kept
			return kept.data, nil
		}
	}
	start := number * blockSize
	data := r.buffer(int(min(blockSize, r.object.Size-start)))
	download := NewDownload(r.ctx, &section{Store: r.store, start: start, length: int64(len(data))}, r.name, r.sectionObject(len(data)), r.options)
	defer download.Close() // the block ends before the answer may: its connection would stay until the whole transfer ends
	if _, err := io.ReadFull(download, data); err != nil {
		return nil, err
	}
	if r.verify != nil {
		if err := r.verify.check(number, data); err != nil {
			return nil, &Error{Kind: Mismatch, Op: "read", Target: r.store.Location(r.name), Err: err}
		}
	}
	r.blocks = append([]block{{number, data}}, r.blocks...)

	return data, nil
}

// buffer takes the memory of the block that was not used for the longest time.
func (r *ReaderAt) buffer(size int) []byte {
	if len(r.blocks) < blocksKept {
		return make([]byte, size, blockSize)
	}
	last := r.blocks[blocksKept-1].data
	r.blocks = r.blocks[:blocksKept-1]

	return last[:size]
}

// sectionObject is the object as a download of one block sees it: as long as the block, and without digests.
func (r *ReaderAt) sectionObject(length int) Object {
	object := r.object
	object.Size, object.Digests = int64(length), Digests{}

	return object
}

// section is a part of an object as if it were all.
type section struct {
	Store
	start, length int64
}

// Open implements Store.
func (s *section) Open(ctx context.Context, name string, object Object, offset, _ int64) (io.ReadCloser, error) {
	whole := object
	whole.Size = -1

	return s.Store.Open(ctx, name, whole, s.start+offset, s.length-offset)
}
