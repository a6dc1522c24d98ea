package imagestore

import (
	"context"
	"io"
)

// Store is one place in a store: a bucket and prefix, an image service, a URL. It may be used concurrently.
//
// Names are relative to the place; the empty name is the object that the place itself names (the key of an S3 object,
// the image of a Glance source, the URL of a web server). Errors are *Error, or the context's own.
type Store interface {
	// Stat tells what is under a name. Its error is of kind NotFound when nothing complete is there.
	Stat(ctx context.Context, name string) (Object, error)

	// Open reads length bytes from offset on, to the end if length is negative. The object is what Stat told: when
	// another one stands under the name by now the error is of kind Changed. When the store cannot read from an offset
	// the error is of kind NoRanges. The caller closes the reader; a reader that ends early fails with kind Interrupted.
	Open(ctx context.Context, name string, object Object, offset, length int64) (io.ReadCloser, error)

	// Create begins to write under a name. What earlier attempts that were not committed left there is removed first;
	// a name has one writer at a time. Whether a complete object of the name is replaced (S3, HTTP) or refused with kind
	// Exists (Glance) is the store's: look with Stat first.
	Create(ctx context.Context, name string, upload Upload) (Writer, error)

	// Remove deletes what is under a name, complete or not. It is no error if nothing is.
	Remove(ctx context.Context, name string) error

	// Location names the object for people: a URL or s3://bucket/key, never with a secret in it.
	Location(name string) string
}

// Writer takes the bytes of one object. It is used by one goroutine, and ended by Commit or Abort.
type Writer interface {
	io.Writer

	// Commit makes the object appear under its name, once the store has confirmed what it holds; call it when all bytes
	// are written and what they came from is known to be good. After an error nothing of ours stands under the name, or
	// Remove takes it away; Abort must still be called.
	Commit(ctx context.Context) (Object, error)

	// Abort gives up what was written, and lets nothing appear. After a Commit that succeeded it does nothing.
	Abort(ctx context.Context) error
}

// Object is a complete object in a store.
type Object struct {
	// Size in bytes; −1 when the store does not tell.
	Size int64
	// Version changes when the object's bytes do, empty when the store does not tell.
	Version string
	// Digests of all bytes: on what was read from the store as it told them, on what was written as we computed them.
	Digests Digests
	// Confirmed tells, of an object that was written, that the store computed a digest itself and it is ours.
	Confirmed bool
	// Name under which a list has it.
	Name string
	// ID that the store gave the object, for a Glance image its id.
	ID string
	// Image is what Glance says of an image.
	Image *ImageRecord
}

// ImageRecord is what an image service says of an image.
type ImageRecord struct {
	Name            string
	DiskFormat      string
	ContainerFormat string
	// MinDiskGiB and MinMemoryMiB are what the image demands, in Glance's units.
	MinDiskGiB, MinMemoryMiB int
	Properties               map[string]string
	Tags                     []string
}

// Digests are lower-case hexadecimal digests of the same bytes, empty where unknown.
type Digests struct {
	SHA256, SHA512, MD5 string
}

// Upload is what a writer is told beforehand.
type Upload struct {
	// Size in bytes when it is known, negative when not.
	Size int64
	// ContentType of the file, application/octet-stream when empty.
	ContentType string
	// Image is what a Glance image is made with.
	Image ImageRecord
}

func (u Upload) contentType() string {
	if u.ContentType == "" {
		return "application/octet-stream"
	}

	return u.ContentType
}
