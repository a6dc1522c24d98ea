package imagestore_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
)

func glanceStore(t testing.TB, options imagestore.GlanceOptions) *imagestore.Glance {
	t.Helper()
	options.Network = loopback(t)
	store, err := imagestore.NewGlance(options)
	if err != nil {
		t.Fatal(err)
	}

	return store
}

func TestGlanceHonoursTheContract(t *testing.T) {
	service := stores.NewGlance(t)
	store := glanceStore(t, imagestore.GlanceOptions{Endpoint: service.URL})
	honour(t, store, true)
	for _, image := range service.Images(t) {
		if image["status"] != "active" {
			t.Errorf("an image is left %s: %v", image["status"], image)
		}
	}
	t.Run("an image is as it was asked for", func(t *testing.T) { imageAsAsked(t, service, store) })
	t.Run("what a client that died left is taken away", func(t *testing.T) {
		service.CreateQueued(t, map[string]any{"name": "web", "kubexen_object": "again", "visibility": "private", "disk_format": "vhd", "container_format": "ovf"})
		put(t, store, "again", []byte("bytes"), 5)
		found := 0
		for _, image := range service.Images(t) {
			if image["kubexen_object"] == "again" {
				found++
			}
		}
		if found != 1 {
			t.Errorf("there are %d images of the name", found)
		}
	})
	t.Run("an image that is there is not replaced", func(t *testing.T) {
		put(t, store, "taken", []byte("bytes"), 5)
		_, err := store.Create(t.Context(), "taken", upload(5))
		wantKind(t, "create", err, imagestore.Exists)
	})
	t.Run("an image of others with our property is not ours", func(t *testing.T) {
		service.CreateQueued(t, map[string]any{"name": "web", "kubexen_object": "spoofed", "visibility": "shared", "disk_format": "vhd", "container_format": "ovf"})
		if err := store.Remove(t.Context(), "spoofed"); err != nil {
			t.Fatal(err)
		}
		put(t, store, "spoofed", []byte("bytes"), 5)
		found := 0
		for _, image := range service.Images(t) {
			if image["kubexen_object"] == "spoofed" {
				found++
			}
		}
		if found != 2 {
			t.Errorf("there are %d images of the name, want the other's and ours", found)
		}
	})
}

// TestFaultsOfGlanceUploads leaves no image behind, whatever fails: a record that stays queued or saving is what the
// ancestor was known for.
func TestFaultsOfGlanceUploads(t *testing.T) {
	service := stores.NewGlance(t)
	proxy := stores.NewFaulty(t, service.URL)
	network := impatient(t)
	network.AnswerTimeout = 20 * time.Second // a real service thinks
	store, err := imagestore.NewGlance(imagestore.GlanceOptions{Endpoint: proxy.URL, Network: network})
	if err != nil {
		t.Fatal(err)
	}
	data := random(12*mebibyte, 6) // more than the connection itself holds
	for name, c := range map[string]struct {
		fault stores.Fault
		kind  imagestore.Kind
	}{
		"500":                       {stores.Fault{Method: http.MethodPut, Status: 500}, imagestore.Unavailable},
		"503":                       {stores.Fault{Method: http.MethodPut, Status: 503, RetryAfter: 7}, imagestore.Unavailable},
		"403":                       {stores.Fault{Method: http.MethodPut, Status: 403}, imagestore.Refused},
		"quota":                     {stores.Fault{Method: http.MethodPut, Status: 413}, imagestore.Full},
		"refused when it is made":   {stores.Fault{Method: http.MethodPost, Status: 409, Body: "<html>no</html>"}, imagestore.Refused},
		"nothing moves":             {stores.Fault{Method: http.MethodPut, Stall: true}, imagestore.Stalled},
		"lost answer":               {stores.Fault{Method: http.MethodPut, Lost: true}, imagestore.Interrupted},
		"bits that flip on the way": {stores.Fault{Method: http.MethodPut, Flip: true}, imagestore.Damaged},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Set(c.fault)
			wantKind(t, "upload", tryPut(t.Context(), t, store, "file", data), c.kind)
			if images := service.Images(t); len(images) > 0 {
				t.Errorf("an image is left: %v", images)
			}
		})
	}
}

func imageAsAsked(t *testing.T, service *stores.OpenStack, store *imagestore.Glance) {
	data := random(mebibyte, 4)
	object := put(t, store, "team-a/web/root.vhd", data, int64(len(data)))
	if !bytes.Equal(service.File(t, object.ID), data) {
		t.Error("another client reads other bytes")
	}
	source := glanceStore(t, imagestore.GlanceOptions{Endpoint: service.URL + "/v2/", ImageID: object.ID})
	if !bytes.Equal(get(t, source, "", 0, -1), data) {
		t.Error("the image read by its id has other bytes")
	}
	found, err := source.Stat(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	image := found.Image
	if image.Name != "web" || image.DiskFormat != "vhd" || image.ContainerFormat != "ovf" || image.MinDiskGiB != 1 ||
		len(image.Properties) != 1 || image.Properties["os_type"] != "linux" || len(image.Tags) != 1 || found.Digests.SHA512 == "" {
		t.Errorf("the image is %+v, %+v", image, found)
	}
	wantKind(t, "deleting an image that was not made here", source.Remove(t.Context(), ""), imagestore.Invalid)
}

func TestGlanceBehindKeystone(t *testing.T) {
	service := stores.NewOpenStack(t)
	for name, clouds := range map[string]string{"password": service.CloudsYAML(), "application credential": service.ApplicationCredentialYAML(t)} {
		for where, endpoint := range map[string]string{"catalog": "", "endpoint": service.URL} {
			t.Run(name+", "+where, func(t *testing.T) {
				cloud, err := imagestore.ParseCloud(map[string][]byte{imagestore.KeyCloudsYAML: []byte(clouds)})
				if err != nil {
					t.Fatal(err)
				}
				store := glanceStore(t, imagestore.GlanceOptions{Endpoint: endpoint, Cloud: cloud})
				data := random(3*mebibyte, 5)
				object := put(t, store, name+where, data, int64(len(data)))
				if !bytes.Equal(get(t, store, name+where, 0, -1), data) || !bytes.Equal(service.File(t, object.ID), data) {
					t.Error("other bytes came back")
				}
				if err := store.Remove(t.Context(), name+where); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("wrong password", func(t *testing.T) {
		service.Password = "wrong"
		cloud, err := imagestore.ParseCloud(map[string][]byte{imagestore.KeyCloudsYAML: []byte(service.CloudsYAML())})
		if err != nil {
			t.Fatal(err)
		}
		_, err = glanceStore(t, imagestore.GlanceOptions{Cloud: cloud}).Stat(t.Context(), "x")
		wantKind(t, "stat", err, imagestore.Refused)
	})
	t.Run("no token", func(t *testing.T) {
		_, err := glanceStore(t, imagestore.GlanceOptions{Endpoint: service.URL}).Stat(t.Context(), "x")
		wantKind(t, "stat", err, imagestore.Refused)
	})
}
