package imagestore

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// HTTPOptions says which files on which web server.
type HTTPOptions struct {
	// URL is the file that the empty name means; other names are files beside it. With placeholders, {file} for the
	// name and those of Values, it is the URL of each file.
	URL string
	// Values stand for their names in braces.
	Values      map[string]string
	Credentials HTTPCredentials
	Network     Network
}

// filePlaceholder stands for the name of a file.
const filePlaceholder = "{file}"

// HTTP is one or some files on a web server.
type HTTP struct {
	template    string
	credentials HTTPCredentials
	client      *http.Client
}

var _ Store = (*HTTP)(nil)

// NewHTTP makes no request yet; its error is of kind Invalid or Forbidden.
func NewHTTP(options HTTPOptions) (*HTTP, error) {
	template := options.URL
	for name, value := range options.Values {
		template = strings.ReplaceAll(template, "{"+name+"}", url.PathEscape(value))
	}
	h := &HTTP{template: template, credentials: options.Credentials}
	wrong := func(kind Kind, err error) error {
		return &Error{Kind: kind, Op: "use", Target: h.Location(""), Err: err}
	}
	parsed, err := url.Parse(template)
	if err != nil || parsed.Host == "" {
		return nil, wrong(Invalid, errors.New("it is no URL"))
	}
	shown := *parsed
	shown.RawQuery = ""
	if err := options.Network.checkURL(shown.String()); err != nil {
		return nil, wrong(Forbidden, err)
	}
	if h.client, err = options.Network.client(); err != nil {
		return nil, wrong(Invalid, err)
	}

	return h, nil
}

// address is the URL of a name.
func (h *HTTP) address(name string) (string, error) {
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", errors.New("a file's name must not lead upwards")
	}
	if strings.Contains(h.template, filePlaceholder) {
		return strings.ReplaceAll(h.template, filePlaceholder, url.PathEscape(name)), nil
	}
	if name == "" {
		return h.template, nil
	}
	base, err := url.Parse(h.template)
	if err != nil {
		return "", errors.New("it is no URL")
	}
	beside := base.JoinPath("..", name)
	beside.RawQuery = "" // a signature is of one file

	return beside.String(), nil
}

// Location implements Store.
func (h *HTTP) Location(name string) string {
	address, err := h.address(name)
	if err != nil {
		address = h.template
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return "an endpoint that is no URL"
	}

	return withoutQuery(parsed)
}

func (h *HTTP) request(ctx context.Context, method, name string, body io.Reader) (*http.Request, error) {
	address, err := h.address(name)
	if err != nil {
		return nil, &Error{Kind: Invalid, Op: strings.ToLower(method), Target: h.Location(""), Err: err}
	}
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, &Error{Kind: Invalid, Op: strings.ToLower(method), Target: h.Location(""), Err: errors.New("it is no URL")}
	}
	switch {
	case h.credentials.Token != "":
		request.Header.Set("Authorization", "Bearer "+h.credentials.Token)
	case h.credentials.Username != "":
		request.SetBasicAuth(h.credentials.Username, h.credentials.Password)
	}

	return request, nil
}

// do sends a request; an answer that is not among those wanted is an error.
func (h *HTTP) do(request *http.Request, op, name string, wanted ...int) (*http.Response, error) {
	response, err := h.client.Do(request)
	if err != nil {
		return nil, wrap(request.Context(), op, h.Location(name), err)
	}
	if !slices.Contains(wanted, response.StatusCode) {
		return nil, answered(op, h.Location(name), response)
	}

	return response, nil
}

// Stat implements Store.
func (h *HTTP) Stat(ctx context.Context, name string) (Object, error) {
	request, err := h.request(ctx, http.MethodHead, name, nil)
	if err != nil {
		return Object{}, err
	}
	response, err := h.do(request, "look at", name, http.StatusOK)
	if err == nil {
		_ = response.Body.Close() // it has none
		return httpObject(response.Header, response.ContentLength), nil
	}
	if KindOf(err) != Refused {
		return Object{}, err
	}

	return h.statByGet(ctx, name) // signed URLs, among others, are for GET alone
}

func (h *HTTP) statByGet(ctx context.Context, name string) (Object, error) {
	request, err := h.request(ctx, http.MethodGet, name, nil)
	if err != nil {
		return Object{}, err
	}
	request.Header.Set("Range", rangeHeader(0, 1))
	response, err := h.do(request, "look at", name, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return Object{}, err
	}
	_ = response.Body.Close() // nobody wants the byte
	size := response.ContentLength
	if response.StatusCode == http.StatusPartialContent {
		var first, last int64
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size); err != nil {
			size = -1
		}
	}

	return httpObject(response.Header, size), nil
}

// httpObject reads the headers of an answer. Only a strong ETag tells bytes apart; a date does to the second.
func httpObject(header http.Header, size int64) Object {
	object := Object{Size: size, Version: header.Get("ETag"), Digests: headerDigests(header)}
	if object.Version == "" || strings.HasPrefix(object.Version, "W/") {
		object.Version = header.Get("Last-Modified")
	}

	return object
}

// headerDigests are the digests that servers tell: by the standard (Repr-Digest, formerly Digest), and as artifact
// repositories do.
func headerDigests(header http.Header) Digests {
	digests := Digests{SHA256: hexDigest(header.Get("X-Checksum-Sha256"), 32), SHA512: hexDigest(header.Get("X-Checksum-Sha512"), 64)}
	for _, name := range []string{"Repr-Digest", "Digest"} {
		for _, entry := range strings.Split(strings.Join(header.Values(name), ","), ",") {
			algorithm, value, _ := strings.Cut(strings.TrimSpace(entry), "=")
			raw, err := base64.StdEncoding.DecodeString(strings.Trim(value, ":"))
			switch {
			case err != nil:
			case strings.EqualFold(algorithm, "sha-256") && len(raw) == 32:
				digests.SHA256 = hex.EncodeToString(raw)
			case strings.EqualFold(algorithm, "sha-512") && len(raw) == 64:
				digests.SHA512 = hex.EncodeToString(raw)
			}
		}
	}

	return digests
}

func hexDigest(text string, size int) string {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != size {
		return ""
	}

	return strings.ToLower(text)
}

// Open implements Store.
func (h *HTTP) Open(ctx context.Context, name string, object Object, offset, length int64) (io.ReadCloser, error) {
	if length == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	request, err := h.request(ctx, http.MethodGet, name, nil)
	if err != nil {
		return nil, err
	}
	if wanted := rangeHeader(offset, length); wanted != "" {
		request.Header.Set("Range", wanted)
	}
	switch {
	case strings.HasPrefix(object.Version, `"`):
		request.Header.Set("If-Match", object.Version)
	case object.Version != "":
		request.Header.Set("If-Unmodified-Since", object.Version)
	}
	response, err := h.do(request.WithContext(whole(ctx)), "read", name, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	if now := httpObject(response.Header, -1).Version; object.Version != "" && now != "" && now != object.Version { // the server knows no conditions
		_ = response.Body.Close() // nothing was read of it
		return nil, &Error{Kind: Changed, Op: "read", Target: h.Location(name), Err: errors.New("the file is another one by now")}
	}

	return ranged(ctx, response, "read", h.Location(name), object.Size, offset, length)
}

// Remove implements Store.
func (h *HTTP) Remove(ctx context.Context, name string) error {
	request, err := h.request(ctx, http.MethodDelete, name, nil)
	if err != nil {
		return err
	}
	response, err := h.do(request, "delete", name, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		if KindOf(err) == NotFound {
			return nil
		}
		return err
	}

	return response.Body.Close()
}

// httpWriter sends a file in one PUT whose end is withheld until the commit.
type httpWriter struct {
	withheld
	store *HTTP
	name  string
	told  Digests // in the answer to the PUT
}

// Create implements Store. The context bounds the writing.
func (h *HTTP) Create(ctx context.Context, name string, upload Upload) (Writer, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &httpWriter{withheld: withhold(upload, h.Location(name), Digests{SHA256: "ours and most servers'"}, cancel), store: h, name: name}
	size := upload.Size
	if size <= 0 {
		size = -1
	}
	if _, err := h.request(ctx, http.MethodPut, name, nil); err != nil {
		cancel()
		return nil, err
	}
	w.body = send(size, func(body io.ReadCloser) error { return w.put(ctx, size, body) })

	return w, nil
}

func (w *httpWriter) put(ctx context.Context, size int64, body io.ReadCloser) error {
	request, err := w.store.request(ctx, http.MethodPut, w.name, body)
	if err != nil {
		return err
	}
	request.ContentLength = size
	request.Header.Set("Content-Type", w.upload.contentType())
	response, err := w.store.do(request, "upload", w.name, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return err
	}
	w.told = headerDigests(response.Header)

	return response.Body.Close()
}

// Commit implements Writer. What a server does not tell cannot be compared: size and digest are where it tells them.
func (w *httpWriter) Commit(ctx context.Context) (Object, error) {
	if err := w.release(ctx); err != nil {
		return Object{}, err
	}
	object, err := w.store.Stat(ctx, w.name)
	if KindOf(err) == Refused { // a server that only takes
		object, err = Object{Size: w.written}, nil
	}
	if err != nil {
		return Object{}, err
	}

	return w.confirmed(object, w.told, object.Digests)
}

// Abort implements Writer. The server sees the connection break before the end. Where it may have taken the file although
// its answer was lost, or another than was sent, the file is deleted.
func (w *httpWriter) Abort(ctx context.Context) error {
	if w.committed {
		return nil
	}
	w.cancel()
	w.body.abort()
	if !w.mayBeTaken {
		return nil
	}

	return w.store.Remove(ctx, w.name)
}
