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

// activationLimit is how long Glance may take for that.
const activationLimit = 15 * time.Minute

// glanceWriter sends the bytes of an image. Glance takes a body that broke off for complete when it knows no better, so
// the body is chunked and its end is withheld until the commit.
type glanceWriter struct {
	withheld
	store *Glance
	name  string
	id    string
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
	w := &glanceWriter{withheld: withhold(upload, g.Location(name), Digests{SHA256: "ours", SHA512: "Glance's"}, cancel), store: g, name: name, id: image.ID}
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

// Commit implements Writer.
func (w *glanceWriter) Commit(ctx context.Context) (Object, error) {
	if err := w.release(ctx); err != nil {
		return Object{}, err
	}
	image, err := w.activated(ctx)
	if err != nil {
		return Object{}, err
	}
	object := image.object()

	return w.confirmed(object, object.Digests)
}

// activated waits until Glance has made the image active.
func (w *glanceWriter) activated(ctx context.Context) (*glanceImage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, activationLimit, fmt.Errorf("it is not active after %s", activationLimit))
	defer cancel()
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

// Abort implements Writer. It deletes the image's record as well.
func (w *glanceWriter) Abort(ctx context.Context) error {
	if w.committed {
		return nil
	}
	w.cancel()
	w.body.abort()

	return w.store.delete(ctx, w.id)
}
