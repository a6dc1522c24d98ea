package imagestore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
)

// impatient gives up on what does not move: soon enough to wait for in a test, and not before a busy machine has moved it.
func impatient(t testing.TB) imagestore.Network {
	network := loopback(t)
	network.StallTimeout, network.AnswerTimeout = 600*time.Millisecond, 600*time.Millisecond

	return network
}

// tryPut writes as a careful caller does: an error is followed by Abort.
func tryPut(ctx context.Context, t testing.TB, store imagestore.Store, name string, data []byte) error {
	t.Helper()
	writer, err := store.Create(ctx, name, upload(int64(len(data))))
	if err != nil {
		return err
	}
	if _, err = io.Copy(writer, bytes.NewReader(data)); err == nil {
		_, err = writer.Commit(ctx)
	}
	if abort := writer.Abort(context.WithoutCancel(ctx)); err != nil && abort != nil {
		t.Errorf("abort: %v", abort)
	}

	return err
}

func TestFaultsOfS3Uploads(t *testing.T) {
	server := stores.NewS3(t)
	proxy := stores.NewFaulty(t, server.URL)
	signer, err := imagestore.ParseS3Credentials(server.Secret())
	if err != nil {
		t.Fatal(err)
	}
	store, err := imagestore.NewS3(imagestore.S3Options{Endpoint: proxy.URL, Bucket: server.Bucket, Credentials: signer, Network: impatient(t)})
	if err != nil {
		t.Fatal(err)
	}
	full := `<Error><Code>XMinioStorageFull</Code><Message>no space left on device</Message></Error>`
	data := random(20*mebibyte, 6)
	for name, c := range map[string]struct {
		fault stores.Fault
		kind  imagestore.Kind // 0: the upload succeeds all the same
	}{
		"one 500 is over by the next request": {stores.Fault{Method: http.MethodPut, Status: 500}, 0},
		"one 503 is over by the next request": {stores.Fault{Method: http.MethodPut, Status: 503}, 0},
		"one lost answer to a part":           {stores.Fault{Method: http.MethodPut, Lost: true}, 0},
		"a lost answer to the completion":     {stores.Fault{Method: http.MethodPost, Path: "uploadId", Times: -1, Lost: true}, 0},
		"500 for ever":                        {stores.Fault{Method: http.MethodPut, Status: 500, Times: -1}, imagestore.Unavailable},
		"503 for ever":                        {stores.Fault{Method: http.MethodPut, Status: 503, Times: -1}, imagestore.Throttled},
		"429 for ever":                        {stores.Fault{Method: http.MethodPut, Status: 429, Times: -1}, imagestore.Throttled},
		"403":                                 {stores.Fault{Method: http.MethodPut, Status: 403, Times: -1}, imagestore.Refused},
		"403 when it begins":                  {stores.Fault{Method: http.MethodPost, Path: "uploads", Status: 403, Times: -1}, imagestore.Refused},
		"500 at the completion":               {stores.Fault{Method: http.MethodPost, Path: "uploadId", Status: 500, Times: -1}, imagestore.Unavailable},
		"disk full":                           {stores.Fault{Method: http.MethodPut, Status: 507, Body: full, Times: -1}, imagestore.Full},
		"nothing moves":                       {stores.Fault{Method: http.MethodPut, Stall: true, Times: -1}, imagestore.Stalled},
		"bits that flip on the way":           {stores.Fault{Method: http.MethodPut, Flip: true, Times: -1}, imagestore.Damaged},
		"who may not list unfinished uploads may write": {stores.Fault{Method: http.MethodGet, Path: "uploads", Status: 403, Times: -1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Set(c.fault)
			wantKind(t, "upload", tryPut(t.Context(), t, store, "file", data), c.kind)
			proxy.Set()
			if stored := server.Get(t, "file"); (stored != nil) != (c.kind == 0) || stored != nil && !bytes.Equal(stored, data) {
				t.Errorf("there are %d bytes under the name", len(stored))
			}
			if unfinished := server.Unfinished(t); len(unfinished) > 0 {
				t.Errorf("unfinished uploads are left: %q", unfinished)
			}
			if err := store.Remove(t.Context(), "file"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestS3AfterACrash finds what a process that died left, and takes it away with the next upload, or with the removal.
func TestS3AfterACrash(t *testing.T) {
	server := stores.NewS3(t)
	store := s3Store(t, server, server.URL, "")
	server.LeaveUnfinished(t, "file")
	server.LeaveUnfinished(t, "file-2")
	put(t, store, "file", []byte("bytes"), 5)
	if unfinished := server.Unfinished(t); len(unfinished) != 1 || unfinished[0] != "file-2" {
		t.Errorf("unfinished are %q, want that of the other name alone", unfinished)
	}
	if err := store.Remove(t.Context(), "file-2"); err != nil {
		t.Error(err)
	}
	if unfinished := server.Unfinished(t); len(unfinished) > 0 {
		t.Errorf("unfinished uploads are left: %q", unfinished)
	}
}

func TestS3PlacesAndCredentialsThatAreWrong(t *testing.T) {
	server := stores.NewS3(t)
	for name, c := range map[string]struct {
		change func(*imagestore.S3Options)
		kind   imagestore.Kind
	}{
		"wrong key":        {func(o *imagestore.S3Options) { o.Credentials.SecretAccessKey = "wrong" }, imagestore.Refused},
		"unknown key":      {func(o *imagestore.S3Options) { o.Credentials.AccessKeyID = "stranger" }, imagestore.Refused},
		"no bucket":        {func(o *imagestore.S3Options) { o.Bucket = "nowhere" }, imagestore.NotFound},
		"nobody listens":   {func(o *imagestore.S3Options) { o.Endpoint = "http://" + closedAddress(t) }, imagestore.Unavailable},
		"not for tenants":  {func(o *imagestore.S3Options) { o.Network.Guard = mustGuard(t) }, imagestore.Forbidden},
		"a name inside":    {func(o *imagestore.S3Options) { o.Network.Guard, o.Endpoint = mustGuard(t), "https://localhost:1" }, imagestore.Forbidden},
		"no URL":           {func(o *imagestore.S3Options) { o.Endpoint = "::" }, imagestore.Invalid},
		"no certificate":   {func(o *imagestore.S3Options) { o.Network.CABundle = []byte("none") }, imagestore.Invalid},
		"no bucket's name": {func(o *imagestore.S3Options) { o.Bucket = "No%Bucket" }, imagestore.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := imagestore.ParseS3Credentials(server.Secret())
			if err != nil {
				t.Fatal(err)
			}
			options := imagestore.S3Options{Endpoint: server.URL, Bucket: server.Bucket, Credentials: signer, Network: loopback(t)}
			c.change(&options)
			store, err := imagestore.NewS3(options)
			if err == nil {
				err = tryPut(t.Context(), t, store, "file", []byte("bytes"))
			}
			wantKind(t, "upload", err, c.kind)
			if err != nil && strings.Contains(err.Error(), server.SecretAccessKey) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func mustGuard(t testing.TB) *egress.Guard {
	t.Helper()
	guard, err := egress.New(nil)
	if err != nil {
		t.Fatal(err)
	}

	return guard
}

func TestFaultsOfDownloads(t *testing.T) {
	web := stores.NewWeb(t)
	proxy := stores.NewFaulty(t, web.URL)
	data := random(5*mebibyte, 7)
	web.Put("/file", data)
	store, err := imagestore.NewHTTP(imagestore.HTTPOptions{URL: proxy.URL + "/file", Network: impatient(t)})
	if err != nil {
		t.Fatal(err)
	}
	get := http.MethodGet
	for name, c := range map[string]struct {
		faults []stores.Fault
		kind   imagestore.Kind // 0: the download succeeds all the same
	}{
		"no fault":                 {nil, 0},
		"breaks twice":             {[]stores.Fault{{Method: get, CloseAfter: mebibyte, Times: 2}}, 0},
		"one 500":                  {[]stores.Fault{{Method: get, Status: 500}}, 0},
		"one 503":                  {[]stores.Fault{{Method: get, Status: 503, RetryAfter: 1}}, 0},
		"stalls once":              {[]stores.Fault{{Method: get, Stall: true, CloseAfter: mebibyte}}, 0},
		"breaks, then 500 forever": {[]stores.Fault{{Method: get, CloseAfter: mebibyte}, {Method: get, Status: 500, Times: -1}}, imagestore.Unavailable},
		"never a byte":             {[]stores.Fault{{Method: get, CloseAfter: 0, Times: -1, Stall: true}}, imagestore.Stalled},
		"403":                      {[]stores.Fault{{Method: get, Status: 403, Times: -1}}, imagestore.Refused},
		"gone in the middle":       {[]stores.Fault{{Method: get, CloseAfter: mebibyte}, {Method: get, Status: 404, Times: -1}}, imagestore.NotFound},
		"another one by now":       {[]stores.Fault{{Method: get, CloseAfter: mebibyte}, {Method: get, Status: 412, Times: -1}}, imagestore.Changed},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Set(c.faults...)
			object, err := store.Stat(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			download := imagestore.NewDownload(t.Context(), store, "", object, imagestore.DownloadOptions{
				Wanted: imagestore.Digests{SHA256: digestOf(data)},
				Wait:   func(context.Context, int, time.Duration) error { return nil },
			})
			defer download.Close()
			got, err := io.ReadAll(download)
			wantKind(t, "download", err, c.kind)
			if c.kind == 0 && !bytes.Equal(got, data) {
				t.Error("other bytes came")
			}
		})
	}
}

func TestDownloadsAreHeldAgainstTheirChecksum(t *testing.T) {
	web := stores.NewWeb(t)
	web.Put("/file", []byte("these bytes"))
	store := webStore(t, web.URL+"/file")
	object, err := store.Stat(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	read := func(wanted imagestore.Digests) error {
		download := imagestore.NewDownload(t.Context(), store, "", object, imagestore.DownloadOptions{Wanted: wanted})
		defer download.Close()
		_, err := io.Copy(io.Discard, download)
		return err
	}
	wantKind(t, "right", read(imagestore.Digests{SHA256: digestOf([]byte("these bytes"))}), 0)
	wantKind(t, "wrong", read(imagestore.Digests{SHA256: digestOf([]byte("those bytes"))}), imagestore.Mismatch)
	wantKind(t, "wrong SHA-512", read(imagestore.Digests{SHA512: strings.Repeat("0", 128)}), imagestore.Mismatch)
	web.Put("/file", []byte("other bytes"))
	wantKind(t, "replaced meanwhile", read(imagestore.Digests{}), imagestore.Changed)
}

// TestServersWithoutRanges serves a file from its beginning alone.
func TestServersWithoutRanges(t *testing.T) {
	data := random(mebibyte, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		_, _ = w.Write(data) // the client may have gone
	}))
	defer server.Close()
	store := webStore(t, server.URL+"/file?signature=secret")
	object, err := store.Stat(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, store, "", 0, -1), data) || !bytes.Equal(get(t, store, "", 0, 10), data[:10]) {
		t.Error("other bytes came")
	}
	_, err = store.Open(t.Context(), "", object, 10, -1)
	wantKind(t, "from the middle", err, imagestore.NoRanges)
	if err == nil || strings.Contains(err.Error(), "signature") {
		t.Errorf("the error shows the query: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	web := stores.NewWeb(t)
	web.Put("/file", []byte("bytes"))
	var seen string
	target := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization")
		web.ServeHTTP(w, r)
	}))
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = target.Listener.Close() // the one on the usual address
	target.Listener = listener
	target.Start()
	defer target.Close()
	from := httptest.NewServer(http.RedirectHandler(target.URL+"/file", http.StatusFound))
	defer from.Close()
	for name, c := range map[string]struct {
		open []string
		kind imagestore.Kind
	}{
		"to an address that is not open": {[]string{"127.0.0.1"}, imagestore.Forbidden},
		"to one that is":                 {[]string{"127.0.0.1", "127.0.0.2"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			guard, err := egress.New(c.open)
			if err != nil {
				t.Fatal(err)
			}
			store, err := imagestore.NewHTTP(imagestore.HTTPOptions{
				URL: from.URL + "/start", Network: imagestore.Network{Guard: guard}, Credentials: imagestore.HTTPCredentials{Token: "a-token"},
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Stat(t.Context(), "")
			wantKind(t, "stat", err, c.kind)
			if seen != "" {
				t.Errorf("the other host was sent %q", seen)
			}
		})
	}
}

func TestFaultsOfHTTPUploads(t *testing.T) {
	web := stores.NewWeb(t)
	proxy := stores.NewFaulty(t, web.URL)
	store, err := imagestore.NewHTTP(imagestore.HTTPOptions{URL: proxy.URL + "/{file}", Network: impatient(t)})
	if err != nil {
		t.Fatal(err)
	}
	data := random(3*mebibyte, 9)
	for name, c := range map[string]struct {
		fault stores.Fault
		kind  imagestore.Kind
	}{
		"500":           {stores.Fault{Method: http.MethodPut, Status: 500}, imagestore.Unavailable},
		"503":           {stores.Fault{Method: http.MethodPut, Status: 503}, imagestore.Unavailable},
		"403":           {stores.Fault{Method: http.MethodPut, Status: 403}, imagestore.Refused},
		"507":           {stores.Fault{Method: http.MethodPut, Status: 507}, imagestore.Full},
		"nothing moves": {stores.Fault{Method: http.MethodPut, Stall: true}, imagestore.Stalled},
		"lost answer":   {stores.Fault{Method: http.MethodPut, Lost: true}, imagestore.Interrupted},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Set(c.fault)
			wantKind(t, "upload", tryPut(t.Context(), t, store, "file", data), c.kind)
			if web.Get("/file") != nil {
				t.Error("the server has it under its name")
			}
		})
	}
	t.Run("bits that flip on the way", func(t *testing.T) {
		web.Digests = true
		proxy.Set(stores.Fault{Method: http.MethodPut, Flip: true})
		wantKind(t, "upload", tryPut(t.Context(), t, store, "file", data), imagestore.Damaged)
		if web.Get("/file") != nil {
			t.Error("the server has it under its name")
		}
	})
	t.Run("a file that the server does not let us replace", func(t *testing.T) {
		web.Put("/file", []byte("another's"))
		proxy.Set(stores.Fault{Method: http.MethodPut, Status: 403})
		wantKind(t, "upload", tryPut(t.Context(), t, store, "file", data), imagestore.Refused)
		if string(web.Get("/file")) != "another's" {
			t.Error("it is gone")
		}
	})
}

// TestCancelledUploads ends the context in the middle: the error is the context's, and nothing is left.
func TestCancelledUploads(t *testing.T) {
	server, web := stores.NewS3(t), stores.NewWeb(t)
	for name, store := range map[string]imagestore.Store{"S3": s3Store(t, server, server.URL, ""), "HTTP": webStore(t, web.URL+"/{file}")} {
		t.Run(name, func(t *testing.T) {
			over := errors.New("the object is deleted")
			ctx, cancel := context.WithCancelCause(t.Context())
			writer, err := store.Create(ctx, "file", upload(40*mebibyte))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := writer.Write(random(17*mebibyte, 1)); err != nil {
				t.Fatal(err)
			}
			cancel(over)
			for err == nil {
				_, err = writer.Write(make([]byte, mebibyte))
			}
			if !errors.Is(err, over) {
				t.Errorf("the write fails with %v", err)
			}
			if err := writer.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			_, err = store.Stat(t.Context(), "file")
			wantKind(t, "stat", err, imagestore.NotFound)
		})
	}
	if unfinished := server.Unfinished(t); len(unfinished) > 0 {
		t.Errorf("unfinished uploads are left: %q", unfinished)
	}
}
