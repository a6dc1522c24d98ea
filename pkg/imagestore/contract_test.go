package imagestore_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
)

const mebibyte = 1 << 20

// loopback lets tests' stores through a guard as tenants' endpoints have it.
func loopback(t testing.TB) imagestore.Network {
	t.Helper()
	guard, err := egress.New([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}

	return imagestore.Network{Guard: guard}
}

func s3Store(t testing.TB, server *stores.S3, url, prefix string) *imagestore.S3 {
	t.Helper()
	signer, err := imagestore.ParseS3Credentials(server.Secret())
	if err != nil {
		t.Fatal(err)
	}
	network := loopback(t)
	network.CABundle = server.Secret()[imagestore.KeyCABundle]
	store, err := imagestore.NewS3(imagestore.S3Options{Endpoint: url, Bucket: server.Bucket, Prefix: prefix, Credentials: signer, Network: network})
	if err != nil {
		t.Fatal(err)
	}

	return store
}

func webStore(t testing.TB, url string) *imagestore.HTTP {
	t.Helper()
	store, err := imagestore.NewHTTP(imagestore.HTTPOptions{URL: url, Network: loopback(t)})
	if err != nil {
		t.Fatal(err)
	}

	return store
}

// random bytes, the same for the same seed.
func random(size int, seed byte) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{seed})
	_, _ = source.Read(data) // it never fails

	return data
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)

	return hex.EncodeToString(sum[:])
}

// glanceUpload is what an image needs, and other stores leave alone.
func upload(size int64) imagestore.Upload {
	return imagestore.Upload{Size: size, Image: imagestore.ImageRecord{
		Name: "web", DiskFormat: "vhd", ContainerFormat: "ovf", MinDiskGiB: 1, Properties: map[string]string{"os_type": "linux"}, Tags: []string{"kubexen"},
	}}
}

func put(t testing.TB, store imagestore.Store, name string, data []byte, size int64) imagestore.Object {
	t.Helper()
	writer, err := store.Create(t.Context(), name, upload(size))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(writer, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	object, err := writer.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Abort(t.Context()); err != nil {
		t.Errorf("abort after the commit: %v", err)
	}

	return object
}

func get(t testing.TB, store imagestore.Store, name string, offset, length int64) []byte {
	t.Helper()
	object, err := store.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := store.Open(t.Context(), name, object, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}

	return data
}

func wantKind(t testing.TB, what string, err error, kind imagestore.Kind) {
	t.Helper()
	if imagestore.KindOf(err) != kind {
		t.Errorf("%s: got %v (%s), want %s", what, err, imagestore.KindOf(err), kind)
	}
}

// honour holds a store to its contract. Confirms tells whether it computes digests itself.
func honour(t *testing.T, store imagestore.Store, confirms bool) {
	t.Run("what is written is read, whole and in parts", func(t *testing.T) {
		for _, size := range []int{0, 1, mebibyte + 1, 40 * mebibyte} {
			for _, announced := range []int64{int64(size), -1} {
				name := fmt.Sprintf("dir/file-%d-%d", size, announced)
				data := random(size, 1)
				object := put(t, store, name, data, announced)
				if object.Digests.SHA256 != digestOf(data) || object.Size != int64(size) || object.Confirmed != confirms {
					t.Errorf("%s: %+v", name, object)
				}
				if !bytes.Equal(get(t, store, name, 0, -1), data) {
					t.Errorf("%s: other bytes came back", name)
				}
				if size > mebibyte && !bytes.Equal(get(t, store, name, 1000, 5000), data[1000:6000]) {
					t.Errorf("%s: other bytes came back from the middle", name)
				}
				if size > mebibyte && !bytes.Equal(get(t, store, name, int64(size)-7, -1), data[size-7:]) {
					t.Errorf("%s: other bytes came back from the end", name)
				}
			}
		}
	})
	t.Run("nothing appears before the commit", func(t *testing.T) { honourCommit(t, store) })
	t.Run("what is not there", func(t *testing.T) {
		_, err := store.Stat(t.Context(), "nothing")
		wantKind(t, "stat", err, imagestore.NotFound)
		_, err = store.Open(t.Context(), "nothing", imagestore.Object{Size: -1}, 0, -1)
		wantKind(t, "open", err, imagestore.NotFound)
		if err := store.Remove(t.Context(), "nothing"); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	t.Run("sizes that do not fit", func(t *testing.T) {
		for written, announced := range map[int]int64{5: 7, 7: 5} {
			writer, err := store.Create(t.Context(), "wrong-size", upload(announced))
			if err != nil {
				t.Fatal(err)
			}
			_, err = writer.Write(make([]byte, written))
			if err == nil {
				_, err = writer.Commit(t.Context())
			}
			wantKind(t, "commit", err, imagestore.Invalid)
			if err := writer.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			_, err = store.Stat(t.Context(), "wrong-size")
			wantKind(t, "stat", err, imagestore.NotFound)
		}
	})
}

func honourCommit(t *testing.T, store imagestore.Store) {
	for _, size := range []int{1, 40 * mebibyte} {
		for _, announced := range []int64{int64(size), -1} {
			writer, err := store.Create(t.Context(), "hidden", upload(announced))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := writer.Write(random(size, 2)); err != nil {
				t.Fatal(err)
			}
			_, err = store.Stat(t.Context(), "hidden")
			wantKind(t, "before the commit", err, imagestore.NotFound)
			if err := writer.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			_, err = store.Stat(t.Context(), "hidden")
			wantKind(t, "after the abort", err, imagestore.NotFound)
		}
	}
	put(t, store, "seen", []byte("bytes"), 5)
	for range 2 {
		if err := store.Remove(t.Context(), "seen"); err != nil {
			t.Error(err)
		}
	}
	_, err := store.Stat(t.Context(), "seen")
	wantKind(t, "after the removal", err, imagestore.NotFound)
}

func TestS3HonoursTheContract(t *testing.T) {
	server := stores.NewS3(t)
	honour(t, s3Store(t, server, server.URL, "some/prefix/"), true)
	if unfinished := server.Unfinished(t); len(unfinished) > 0 {
		t.Errorf("unfinished uploads are left: %q", unfinished)
	}
	if got := server.Get(t, "some/prefix/dir/file-1--1"); !bytes.Equal(got, random(1, 1)) {
		t.Errorf("another client reads %q; there are %q", got, server.Keys(t))
	}
}

func TestS3OverTLSHonoursTheContract(t *testing.T) {
	server := stores.NewS3TLS(t)
	honour(t, s3Store(t, server, server.URL, ""), true)
	stranger, err := imagestore.NewS3(imagestore.S3Options{Endpoint: server.URL, Bucket: server.Bucket, Network: loopback(t)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stranger.Stat(t.Context(), "anything")
	wantKind(t, "without the authority's certificate", err, imagestore.Unavailable)
}

// TestLargeParts sends parts as those of disks beyond half a tebibyte are sent, which no test has the time for.
func TestLargeParts(t *testing.T) {
	for name, server := range map[string]*stores.S3{"http": stores.NewS3(t), "https": stores.NewS3TLS(t)} {
		t.Run(name, func(t *testing.T) {
			store := s3Store(t, server, server.URL, "")
			imagestore.StreamParts(store, 5*mebibyte)
			data := random(17*mebibyte+3, 3)
			if object := put(t, store, "large", data, int64(len(data))); !object.Confirmed {
				t.Error("the store did not confirm the digest")
			}
			if !bytes.Equal(server.Get(t, "large"), data) {
				t.Error("another client reads other bytes")
			}
			writer, err := store.Create(t.Context(), "given-up", upload(int64(len(data))))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := writer.Write(data[:7*mebibyte]); err != nil {
				t.Fatal(err)
			}
			if err := writer.Abort(t.Context()); err != nil {
				t.Error(err)
			}
			if unfinished := server.Unfinished(t); len(unfinished) > 0 {
				t.Errorf("unfinished uploads are left: %q", unfinished)
			}
		})
	}
}

func TestHTTPHonoursTheContract(t *testing.T) {
	web := stores.NewWeb(t)
	honour(t, webStore(t, web.URL+"/files/{file}"), false)
}

func TestHTTPWithDigestsHonoursTheContract(t *testing.T) {
	web := stores.NewWeb(t)
	web.Digests = true
	honour(t, webStore(t, web.URL+"/files/{file}"), true)
}

// closedAddress refuses connections.
func closedAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	return listener.Addr().String()
}
