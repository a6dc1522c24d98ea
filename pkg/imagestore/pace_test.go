package imagestore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// trickle is a body that gives some bytes at a time, each after some time.
type trickle struct {
	clock *clocktesting.FakePassiveClock
	each  int
	after time.Duration
}

func (t trickle) Read(p []byte) (int, error) {
	t.clock.SetTime(t.clock.Now().Add(t.after))
	return min(t.each, len(p)), nil
}

func (trickle) Close() error { return nil }

func TestHowSlowAStoreMayBe(t *testing.T) {
	for name, c := range map[string]struct {
		each  int
		after time.Duration
		slow  bool
	}{
		"a byte a second":      {1, time.Second, true},
		"a little each minute": {32 << 10, 59 * time.Second, true},
		"a slow line":          {32 << 10, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
			ctx, cancel := context.WithCancelCause(t.Context())
			watch := &watch{cancel: cancel, limit: time.Hour}
			defer watch.stop()
			download := &watchedDownload{body: trickle{clock, c.each, c.after}, watch: watch, ctx: ctx, pace: newPace(clock), left: maxAnswer}
			n, err := io.Copy(struct{ io.Writer }{io.Discard}, io.LimitReader(download, 12*mebibyte)) // 32 KiB at a time
			if errors.Is(err, errSlow) != c.slow || !errors.Is(err, errStalled) && c.slow {
				t.Errorf("after %d bytes: %v", n, err)
			}
			upload := &watchedUpload{body: io.NopCloser(bytes.NewReader(make([]byte, 12*mebibyte))), watch: watch, pace: newPace(clock), answer: time.Hour}
			err = nil
			for p := make([]byte, c.each); err == nil; { // the store takes what it was given
				_, err = upload.Read(p)
				clock.SetTime(clock.Now().Add(c.after))
			}
			if errors.Is(err, errSlow) != c.slow {
				t.Errorf("the upload ends with %v", err)
			}
		})
	}
}

// TestOurOwnSlownessIsNotTheStores: the pool that takes the bytes, or gives them, may be as slow as it is.
func TestOurOwnSlownessIsNotTheStores(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	ctx, cancel := context.WithCancelCause(t.Context())
	watch := &watch{cancel: cancel, limit: time.Hour}
	defer watch.stop()
	download := &watchedDownload{body: trickle{clock, 1, 0}, watch: watch, ctx: ctx, pace: newPace(clock), left: maxAnswer}
	upload := &watchedUpload{body: trickle{clock, 1, time.Minute}, watch: watch, pace: newPace(clock), answer: time.Hour}
	for range 100 {
		_, errDown := download.Read(make([]byte, 1))
		_, errUp := upload.Read(make([]byte, 1))
		if errDown != nil || errUp != nil {
			t.Fatal(errDown, errUp)
		}
		clock.SetTime(clock.Now()) // the store takes it at once
	}
}

// breaking is a store whose connections break after a byte.
type breaking struct {
	Store
	clock *clocktesting.FakePassiveClock
	asked time.Duration
}

func (breaking) Location(string) string { return "https://store/file" }

func (b breaking) Open(_ context.Context, _ string, _ Object, offset, _ int64) (io.ReadCloser, error) {
	b.clock.SetTime(b.clock.Now().Add(time.Second))
	if b.asked > 0 {
		return nil, &Error{Kind: Throttled, Op: "read", Target: "it", RetryAfter: b.asked, Err: errors.New("later")}
	}
	return io.NopCloser(&download{body: io.NopCloser(bytes.NewReader([]byte{byte(offset)})), left: 100}), nil
}

// TestConnectionsThatBreakAfterAByte: a download does not go on for ever over ever new connections.
func TestConnectionsThatBreakAfterAByte(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	waited := 0
	options := DownloadOptions{Clock: clock, Wait: func(context.Context, int, time.Duration) error { waited++; return nil }}
	_, err := io.Copy(io.Discard, NewDownload(t.Context(), breaking{clock: clock}, "", Object{Size: 1 << 40}, options))
	if KindOf(err) != Stalled || !errors.Is(err, errSlow) {
		t.Errorf("it ends with %v", err)
	}
	waited = 0
	_, err = io.Copy(io.Discard, NewDownload(t.Context(), breaking{clock: clock, asked: time.Hour}, "", Object{Size: 1 << 40}, options))
	if KindOf(err) != Throttled || waited > 0 {
		t.Errorf("asked to wait an hour it waits %d times, and ends with %v", waited, err)
	}
}

// TestAnswersAreBounded: what is kept in memory of an answer is not the store's to decide; an object may be of any size.
func TestAnswersAreBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/error" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		for range 20 {
			_, _ = w.Write(make([]byte, mebibyte)) // the client may have gone
		}
	}))
	defer server.Close()
	client, err := Network{}.client()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ctx     context.Context
		path    string
		refused bool
	}{
		"a list":             {t.Context(), "/list", true},
		"an object":          {whole(t.Context()), "/object", false},
		"no object's answer": {whole(t.Context()), "/error", true},
	} {
		request, err := http.NewRequestWithContext(c.ctx, http.MethodGet, server.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if (err != nil) != c.refused || c.refused && n > maxAnswer {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}
