package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
)

// xenImage is a namespaced image on the lab's pool.
func xenImage(w *testkit.World, name string, source v1alpha1.ImageSource) *v1alpha1.XenImage {
	return &v1alpha1.XenImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec:       v1alpha1.XenImageSpec{Source: source, Pools: []v1alpha1.ImagePool{{Name: testkit.PoolName}}},
	}
}

// TestImagesOfEveryStore: S3 with credentials, a web server that redirects and breaks off, and an image service whose
// properties say what the VM needs; each is imported for a namespace, and an instance has its bytes.
func TestImagesOfEveryStore(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	raw, tree := ext4(t, 16)
	s3, web, cloud := stores.NewS3(t), newWebStore(t), stores.NewGlance(t)
	s3.Put(t, "images/golden.raw", raw)
	web.put("/golden.raw", raw)
	var broken, ranges atomic.Int32
	web.answer(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" && strings.HasSuffix(r.Header.Get("Range"), "-") {
			ranges.Add(1)
		}
		if r.Method != http.MethodGet || r.Header.Get("Range") != "" || broken.Add(1) > 1 {
			return false
		}
		rw.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		rw.Header().Set("ETag", `"`+digest(raw)[:16]+`"`)
		_, _ = rw.Write(raw[:len(raw)/2])
		panic(http.ErrAbortHandler) // the connection breaks
	})
	front := httptest.NewServer(http.RedirectHandler(web.URL+"/golden.raw", http.StatusFound))
	defer front.Close()
	id := cloudImage(t, cloud, raw, map[string]any{
		"name": "golden", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 512, "hw_firmware_type": "uefi", "os_secure_boot": "disabled",
	})
	images := map[string]*v1alpha1.XenImage{
		"s3": xenImage(w, "s3", v1alpha1.ImageSource{S3: &v1alpha1.S3Object{Key: "images/golden.raw", S3Bucket: v1alpha1.S3Bucket{
			Endpoint: s3.URL, Bucket: s3.Bucket, CredentialsSecretRef: secretWith(t, w, "s3", s3.Secret()),
		}}}),
		"http":   xenImage(w, "http", v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: front.URL + "/latest"}}),
		"glance": xenImage(w, "glance", v1alpha1.ImageSource{Glance: &v1alpha1.GlanceImage{GlanceService: v1alpha1.GlanceService{Endpoint: cloud.URL}, ImageID: id}}),
	}
	images["http"].Spec.Checksum = &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: digest(raw)}
	for _, image := range images {
		create(t, w, image)
	}
	for name, image := range images {
		w.WaitReady(t, image)
		instance := fromImage(w, "of-"+name, name, testkit.PoolName)
		instance.Spec.RootDisk = &v1alpha1.RootDisk{Size: quantity("1Gi")}
		create(t, w, instance)
		w.WaitReady(t, instance)
		got := make([]byte, len(raw))
		if _, err := diskInGuest(t, w.Simulator, instance.Status.UUID, "0").ReadAt(got, 0); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: other bytes: %v", name, err)
		}
		if name != "glance" {
			continue
		}
		sameFiles(t, got, tree)
		_, vm := vmOf(t, w.Simulator, instance.Status.UUID)
		if boot, _ := vm["HVM_boot_params"].(map[string]string); boot["firmware"] != "uefi" {
			t.Errorf("it boots with %v", boot)
		}
		small := fromImage(w, "small", name, testkit.PoolName)
		small.Spec.RootDisk = &v1alpha1.RootDisk{Size: quantity("512Mi")}
		create(t, w, small)
		w.WaitStalled(t, small, v1alpha1.ReasonFlavorTooSmall)
		if status := image.Status; status.MinDisk.String() != "1Gi" || status.MinMemory.Cmp(resource.MustParse("512Mi")) != 0 || status.Firmware != v1alpha1.FirmwareUEFI {
			t.Errorf("status is %s", testkit.Manifest(image))
		}
	}
	if ranges.Load() == 0 {
		t.Error("what broke off was not resumed")
	}
}

// cloudImage puts an image into an image service, as a client of it would.
func cloudImage(t testing.TB, cloud *stores.OpenStack, body []byte, properties map[string]any) string {
	t.Helper()
	id := cloud.CreateQueued(t, properties)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, cloud.URL+"/v2/images/"+id+"/file", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Body.Close(); answer.StatusCode != http.StatusNoContent {
		t.Fatalf("the image service answers %s", answer.Status)
	}
	return id
}

// TestKubectlShowsHowFarAnImageIs: what comes in has its percentage, what is there is whole, and what has another checksum says so.
func TestKubectlShowsHowFarAnImageIs(t *testing.T) {
	t.Parallel()
	var by atomic.Int64
	w := testkit.NewWorld(t, testkit.Start(t), shiftedManager(&by), withAgents)
	w.StartManager()
	store := newWebStore(t)
	raw, _ := ext4(t, 64)
	store.put("/golden.raw", raw)
	source := v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: store.URL + "/golden.raw"}}
	golden, other := xenImage(w, "golden", source), xenImage(w, "other", source)
	golden.Spec.Checksum = &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: digest(raw)}
	other.Spec.Checksum = &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: digest([]byte("something else"))}
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	store.answer(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			return false
		}
		rw.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		half := len(raw) / 2
		_, _ = rw.Write(raw[:half])
		by.Add(int64(2 * time.Second)) // so slow was it
		_, _ = rw.Write(raw[half : half+1<<20])
		if flusher, ok := rw.(http.Flusher); ok {
			flusher.Flush()
		}
		select {
		case <-released:
		case <-r.Context().Done():
		}
		_, _ = rw.Write(raw[half+1<<20:])
		return true
	})
	shows := func(what, pattern string) {
		t.Helper()
		line := regexp.MustCompile("^" + pattern + "$")
		name, _, _ := strings.Cut(pattern, " ")
		testkit.Eventually(t, what, func(context.Context) error {
			if got := shownBy(t, w, "ximg", name); !line.MatchString(got) {
				return fmt.Errorf("kubectl get shows %q, want %q", got, pattern)
			}
			return nil
		})
	}
	create(t, w, golden)
	shows("it is under way", "golden False [1-9][0-9]?% Importing")
	release()
	w.WaitReady(t, golden)
	shows("it is there", "golden True 64Mi 100% Succeeded")
	create(t, w, other)
	w.WaitStalled(t, other, v1alpha1.ReasonChecksumMismatch)
	shows("it is another file", "other False 0% ChecksumMismatch")
}

// TestFilesThatAreNoImages: what is not what was said, or cannot be booted, is refused with its reason, and nothing is left.
func TestFilesThatAreNoImages(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	raw := make([]byte, 4<<20)
	qcow2 := converted(t, raw, "-O", "qcow2")
	for name, test := range map[string]struct {
		body   []byte
		format v1alpha1.DiskFormat
		reason string
	}{
		"stated-otherwise": {qcow2, v1alpha1.DiskFormatVHD, v1alpha1.ReasonInvalidImage},
		"vmdk":             {append([]byte("KDMV"), raw...), "", v1alpha1.ReasonInvalidImage},
		"cut-short":        {converted(t, raw, "-O", "qcow2")[:len(qcow2)/2], "", v1alpha1.ReasonInvalidImage},
		"packed-qcow2":     {packed(t, qcow2, "Gzip"), "", v1alpha1.ReasonFormatUnsupported},
		"leaf":             {differenceAlone(t), "", v1alpha1.ReasonInvalidImage},
	} {
		store.put("/"+name, test.body)
		image := httpImage("no-"+name, store.URL+"/"+name, test.body, testkit.PoolName)
		image.Spec.Format = test.format
		create(t, w, image)
		w.WaitStalled(t, image, test.reason)
		if n := len(markedTemplates(w.Simulator, image.Name)); n != 0 {
			t.Errorf("%s has %d templates", name, n)
		}
	}
	testkit.Eventually(t, "no disk is left", func(context.Context) error {
		if n := disksWithRole(w.Simulator, "import") + disksWithRole(w.Simulator, "image"); n != 0 {
			return errors.New("some are")
		}
		return nil
	})
}

// TestAStoreThatAnswersOtherBytes: a file that is read in parts is the file of the checksum, whatever its store answers to a
// range; and a long name of a file that is not there leaves room for the rest of the status.
func TestAStoreThatAnswersOtherBytes(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	good := converted(t, make([]byte, 4<<20), "-O", "qcow2")
	evil := converted(t, bytes.Repeat([]byte("evil"), 1<<20), "-O", "qcow2")
	store.put("/two-faced", good)
	store.answer(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			return false
		}
		rw.Header().Set("ETag", `"`+digest(good)[:16]+`"`)
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(evil))
		return true
	})
	image := httpImage("two-faced", store.URL+"/two-faced", good, testkit.PoolName)
	create(t, w, image)
	missing := httpImage("long", store.URL+"/"+strings.Repeat("x", 1500), good, testkit.PoolName)
	create(t, w, missing)
	w.WaitFor(t, image, "it is refused", func() error {
		if c := image.Status.Pools; len(c) == 0 || !strings.Contains(c[0].Message, "other bytes") && !strings.Contains(c[0].Message, "range") {
			return fmt.Errorf("status is %s", testkit.Manifest(image))
		}
		return nil
	})
	w.WaitFor(t, missing, "it is tried again", func() error {
		if c := missing.Status.Pools; len(c) == 0 || len(c[0].Copies) == 0 || c[0].Copies[0].NextRetryTime == "" {
			return errors.New("not yet")
		}
		return testkit.Condition(missing, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonObjectNotFound)
	})
	if n := len(markedTemplates(w.Simulator, "two-faced")); n != 0 {
		t.Errorf("%d templates were made", n)
	}
}

// TestAPoolIsDeletedAfterWhatItsImagesHave: the hidden templates and disks go first, and the other pool keeps its own.
func TestAPoolIsDeletedAfterWhatItsImagesHave(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	body := make([]byte, 4<<20)
	store.put("/golden.raw", body)
	second := secondPool(t, w, "goes")
	image := httpImage("everywhere", store.URL+"/golden.raw", body, testkit.PoolName, "goes")
	create(t, w, image)
	w.WaitReady(t, image)
	sr := second.FindByName(t, "SR", "NFS virtual disk storage")
	there := second.Insert("VDI", map[string]any{"name_label": "there", "SR": sr, "virtual_size": int64(1 << 30), "managed": true, "type": "user"})
	existing := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: "around"}}
	existing.Spec.Source.Existing = &v1alpha1.ExistingImage{VDIUUID: uuidOf(second, "VDI", there)}
	existing.Spec.Pools = []v1alpha1.ImagePool{{Name: "goes"}}
	create(t, w, existing)
	w.WaitReady(t, existing)
	xenPool := testkit.Pool("goes").Object()
	if err := w.Client.Delete(t.Context(), xenPool); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, xenPool)
	for _, name := range []string{"everywhere", "around"} {
		if left := markedTemplates(second, name); len(left) != 0 {
			t.Errorf("image %s left %d templates on the pool", name, len(left))
		}
	}
	if disksWithRole(second, "image") != 0 || len(markedTemplates(w.Simulator, "everywhere")) != 1 {
		t.Errorf("%d disks are left there, %d templates are here", disksWithRole(second, "image"), len(markedTemplates(w.Simulator, "everywhere")))
	}
	if _, lives := second.Records("VDI")[there]; !lives {
		t.Error("the disk that was there before went, too")
	}
	w.WaitStalled(t, image, v1alpha1.ReasonPoolNotFound)
	if at := slices.IndexFunc(image.Status.Pools, func(p v1alpha1.ImagePoolStatus) bool { return p.Ready }); at < 0 || image.Status.Pools[at].Name != testkit.PoolName {
		t.Errorf("status is %s", testkit.Manifest(image))
	}
}

// TestAServerWithoutRanges: a file whose content is in no order is not read from it again and again in vain.
func TestAServerWithoutRanges(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	raw, _ := ext4(t, 16)
	file := converted(t, raw, "-O", "qcow2")
	web := newWebStore(t)
	web.answer(func(rw http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	})
	web.put("/golden.qcow2", file)
	image := httpImage("unordered", web.URL+"/golden.qcow2", file, testkit.PoolName)
	create(t, w, image)
	w.WaitStalled(t, image, v1alpha1.ReasonFormatUnsupported)
	testkit.Eventually(t, "nothing of it is on the pool", func(context.Context) error {
		if n := len(markedTemplates(w.Simulator, image.Name)); n != 0 {
			return fmt.Errorf("%d templates", n)
		}
		return nil
	})
}
