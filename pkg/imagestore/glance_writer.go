package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/gophercloud/gophercloud/v2"
)

// activationPoll is how often Glance is asked whether an image is active: it may copy it after it has taken it.
const activationPoll = time.Second

// glanceWriter sends the bytes of an image. Glance takes a body that broke off for complete when it knows no better, so
// the body is chunked and its end is withheld until the commit.
type glanceWriter struct {
	store  *Glance
	name   string
	id     string
	upload Upload
	digest *digester
	body   *outgoing
	cancel context.CancelFunc

	written   int64
	committed bool
}

// Create implements Store. The context bounds the writing.
func (g *Glance) Create(ctx context.Context, name string, upload Upload) (Writer, error) {
	if name == "" {
		return nil, &Error{Kind: Invalid, Op: "create", Target: g.Location(name), Err: errors.New("an image needs a name to be found by")}
	}
	err := g.removeWhere(ctx, name, func(image *glanceImage) bool { return image.Status != statusActive })
	if err != nil {
		return nil, err
	}
	if existing, err := g.active(ctx, name); err == nil {
		return nil, &Error{Kind: Exists, Op: "create", Target: g.Location(name), Err: fmt.Errorf("image %s is there already", existing.ID)}
	} else if KindOf(err) != NotFound {
		return nil, err
	}
	image, err := g.create(ctx, name, upload.Image)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &glanceWriter{store: g, name: name, id: image.ID, upload: upload, cancel: cancel, digest: digesterOf(Digests{SHA256: "wanted", SHA512: "wanted"})}
	w.body = send(-1, func(body io.ReadCloser) error { return w.put(ctx, body) })

	return w, nil
}

func (w *glanceWriter) put(ctx context.Context, body io.ReadCloser) error {
	return w.store.call(ctx, "upload", "images/"+url.PathEscape(w.id)+"/file", func(client *gophercloud.ServiceClient, address string) error {
		_, err := client.Put(ctx, address, struct{ io.Reader }{body}, nil, &gophercloud.RequestOpts{ //nolint:bodyclose // gophercloud closes it
			MoreHeaders: map[string]string{"Content-Type": w.upload.contentType()},
			OkCodes:     []int{http.StatusNoContent},
		})
		return err
	})
}

// Write implements io.Writer.
func (w *glanceWriter) Write(p []byte) (int, error) {
	if w.upload.Size >= 0 && w.written+int64(len(p)) > w.upload.Size {
		return 0, w.misused(fmt.Errorf("more than the %d bytes that were announced", w.upload.Size))
	}
	n, err := w.body.Write(p)
	w.digest.write(p[:n])
	w.written += int64(n)

	return n, err
}

func (w *glanceWriter) misused(err error) error {
	return &Error{Kind: Invalid, Op: "write", Target: w.store.Location(w.name), Err: err}
}

// Commit implements Writer.
func (w *glanceWriter) Commit(ctx context.Context) (Object, error) {
	if w.upload.Size >= 0 && w.written != w.upload.Size {
		return Object{}, w.misused(fmt.Errorf("%d bytes were announced, %d were written", w.upload.Size, w.written))
	}
	stop := context.AfterFunc(ctx, w.cancel)
	err := w.body.finish()
	stop()
	if err != nil {
		return Object{}, err
	}
	image, err := w.activated(ctx)
	if err != nil {
		return Object{}, err
	}
	object, ours := image.object(), w.digest.digests()
	if object.Size >= 0 && object.Size != w.written {
		return Object{}, w.damaged(fmt.Errorf("it has %d bytes, not %d", object.Size, w.written))
	}
	compared, err := ours.compare(object.Digests)
	if err != nil {
		return Object{}, w.damaged(err)
	}
	object.Digests, object.Confirmed = ours, compared
	w.committed = true
	w.cancel()

	return object, nil
}

// activated waits until Glance has made the image active.
func (w *glanceWriter) activated(ctx context.Context) (*glanceImage, error) {
	timer := time.NewTimer(activationPoll)
	defer timer.Stop()
	for {
		image, err := w.store.get(ctx, w.id)
		if err != nil {
			return nil, err
		}
		switch image.Status {
		case statusActive:
			return image, nil
		case "saving", "importing", "uploading":
		default:
			return nil, &Error{Kind: Unavailable, Op: "activate", Target: w.store.Location(w.name), Err: fmt.Errorf("the image is %s", image.Status)}
		}
		select {
		case <-ctx.Done():
			return nil, wrap(ctx, "activate", w.store.Location(w.name), ctx.Err())
		case <-timer.C:
			timer.Reset(activationPoll)
		}
	}
}

func (w *glanceWriter) damaged(why error) error {
	return &Error{Kind: Damaged, Op: "upload", Target: w.store.Location(w.name), Err: why}
}

// Abort implements Writer. It deletes the image's record as well.
func (w *glanceWriter) Abort(ctx context.Context) error {
	if w.committed {
		return nil
	}
	w.cancel()
	w.body.abort()

	return w.store.delete(ctx, w.id)
}
