package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// shaken is a snapshot whose upload is disturbed, and what is said of it meanwhile.
type shaken struct {
	// where is the destination: the bucket or the web server behind the proxies.
	where string
	fault stores.Fault // its Path is the snapshot's
	// reason and words stand in the status after the first attempt; no reason where the store's client tries again itself.
	reason, words string
}

// TestFaultsOfStores disturbs an upload each, all at the same time: what went wrong is said, nothing stands under a final name
// meanwhile, the next attempt ends well, and no multipart upload is left.
func TestFaultsOfStores(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	s3, plainWeb, mute := stores.NewS3(t), stores.NewWeb(t), stores.NewWeb(t)
	plainWeb.Digests = true // mute tells none
	bucket, web, muteWeb := stores.NewFaulty(t, s3.URL), stores.NewFaulty(t, plainWeb.URL), stores.NewFaulty(t, mute.URL)
	webs := map[string]*stores.Web{"web": plainWeb, "mute": mute}
	credentials := secretWith(t, w, "bucket", s3.Secret())
	cases := map[string]shaken{
		"s3-500-once":  {"bucket", stores.Fault{Method: http.MethodPut, Status: http.StatusInternalServerError}, "", ""},
		"s3-breaks":    {"bucket", stores.Fault{Method: http.MethodPut}, "", ""},
		"s3-flips":     {"bucket", stores.Fault{Method: http.MethodPut, Flip: true}, "", ""},
		"s3-forbidden": {"bucket", stores.Fault{Method: http.MethodPut, Status: http.StatusForbidden}, v1alpha1.ReasonStoreRefused, "403"},
		"http-500":     {"web", stores.Fault{Method: http.MethodPut, Status: http.StatusInternalServerError, Body: "out of order"}, v1alpha1.ReasonStoreUnavailable, "500: out of order"},
		"http-503":     {"web", stores.Fault{Method: http.MethodPut, Status: http.StatusServiceUnavailable, RetryAfter: 1}, v1alpha1.ReasonStoreUnavailable, "503"},
		"http-full":    {"web", stores.Fault{Method: http.MethodPut, Status: http.StatusInsufficientStorage, Body: "no space left"}, v1alpha1.ReasonStoreUnavailable, "no space left"},
		"http-breaks":  {"web", stores.Fault{Method: http.MethodPut}, v1alpha1.ReasonStoreUnavailable, ""},
		"http-lost":    {"web", stores.Fault{Method: http.MethodPut, Lost: true}, v1alpha1.ReasonStoreUnavailable, ""},
		"http-flips":   {"web", stores.Fault{Method: http.MethodPut, Flip: true}, v1alpha1.ReasonStoreUnavailable, "its SHA-256 is"},
		"mute-flips":   {"mute", stores.Fault{Method: http.MethodPut, Flip: true}, v1alpha1.ReasonStoreUnavailable, "when it is read back"},
		"mute-breaks":  {"mute", stores.Fault{Method: http.MethodGet, Status: http.StatusServiceUnavailable}, v1alpha1.ReasonStoreUnavailable, "cannot be read back"},
	}
	faults := map[string][]stores.Fault{}
	snapshots := map[string]*v1alpha1.XenSnapshot{}
	for name, c := range cases {
		c.fault.Path = "/" + name + "/"
		faults[c.where] = append(faults[c.where], c.fault)
		snapshots[name] = xenSnapshot(w, name, func(spec *v1alpha1.XenSnapshotSpec) {
			spec.Destination = &v1alpha1.SnapshotDestination{HTTP: &v1alpha1.HTTPDestination{URLTemplate: web.URL + "/{namespace}/{snapshot}/{file}"}}
			switch c.where {
			case "mute":
				spec.Destination.HTTP.URLTemplate = muteWeb.URL + "/{namespace}/{snapshot}/{file}"
			case "bucket":
				spec.Destination = &v1alpha1.SnapshotDestination{S3: &v1alpha1.S3Destination{
					S3Bucket: v1alpha1.S3Bucket{Endpoint: bucket.URL, Bucket: s3.Bucket, CredentialsSecretRef: credentials},
				}}
			}
		})
	}
	bucket.Set(faults["bucket"]...)
	web.Set(faults["web"]...)
	muteWeb.Set(faults["mute"]...)
	for _, s := range snapshots {
		create(t, w, s)
	}
	for name, c := range cases {
		if c.reason == "" {
			continue
		}
		s := snapshots[name]
		w.WaitFor(t, s, "it says what went wrong", func() error {
			if u := s.Status.Upload; u == nil || u.LastError == "" {
				return errors.New("nothing went wrong yet")
			}
			return nil
		})
		if err := testkit.Condition(s, v1alpha1.ConditionUploaded, metav1.ConditionFalse, c.reason); err != nil && s.Status.Upload.Attempts == 1 {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(s.Status.Upload.LastError, c.words) {
			t.Errorf("%s: the last error is %q, it should say %q", name, s.Status.Upload.LastError, c.words)
		}
		if path := "/" + w.Namespace + "/" + name + "/root.vhd"; webs[c.where] != nil && s.Status.Upload.Attempts == 1 && webs[c.where].Get(path) != nil {
			t.Errorf("%s: half a file, or one that nobody verified, is at %s", name, path)
		}
	}
	for name, s := range snapshots {
		w.WaitReady(t, s)
		if attempts := s.Status.Upload.Attempts; (cases[name].reason == "") != (attempts == 1) || s.Status.Upload.LastError != "" {
			t.Errorf("%s: %d attempts; last error %q", name, attempts, s.Status.Upload.LastError)
		}
		file := s.Status.Upload.Files[0]
		var stored []byte
		if path := w.Namespace + "/" + name + "/root.vhd"; webs[cases[name].where] != nil {
			stored = webs[cases[name].where].Get("/" + path)
		} else {
			stored = s3.Get(t, path)
		}
		if digest(stored) != file.SHA256 {
			t.Errorf("%s: the store has another file than status says", name)
		}
	}
	if left := s3.Unfinished(t); len(left) != 0 {
		t.Errorf("uploads were left unfinished: %v", left)
	}
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots are left on the pool", n)
	}
}

// TestAnUploadThatIsGivenUpLeavesNothing: the bucket refuses for good once parts are there. When the object is deleted nothing
// is left, neither there nor on the pool.
func TestAnUploadThatIsGivenUpLeavesNothing(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	s3 := stores.NewS3(t)
	bucket := stores.NewFaulty(t, s3.URL)
	before := snapshotDisks(w)
	bucket.Set(stores.Fault{Method: http.MethodPost, Path: "uploadId=", Times: -1, Status: http.StatusForbidden}, // the completion
		stores.Fault{Method: http.MethodPut, Path: "/root.vhd?", Times: -1, Status: http.StatusForbidden},
		stores.Fault{Method: http.MethodPut, Path: "/root.vhd", Times: -1, Status: http.StatusForbidden})
	s := xenSnapshot(w, "refused", func(spec *v1alpha1.XenSnapshotSpec) {
		spec.BackoffLimit = ptr.To(int32(0))
		spec.Destination = &v1alpha1.SnapshotDestination{S3: &v1alpha1.S3Destination{S3Bucket: v1alpha1.S3Bucket{
			Endpoint: bucket.URL, Bucket: s3.Bucket, CredentialsSecretRef: secretWith(t, w, "bucket", s3.Secret()),
		}}}
	})
	create(t, w, s)
	w.WaitStalled(t, s, v1alpha1.ReasonBackoffLimitExceeded)
	if left := s3.Unfinished(t); len(left) != 0 || len(s3.Keys(t)) != 0 {
		t.Errorf("the bucket has %v and unfinished %v", s3.Keys(t), left)
	}
	if !s.Status.Local || len(snapshotVMs(w)) != 1 {
		t.Errorf("the snapshot is not kept although it was not uploaded: %s", testkit.Manifest(s))
	}
	if err := w.Client.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, s)
	if len(snapshotVMs(w)) != 0 || snapshotDisks(w) != before {
		t.Errorf("%d snapshots and %d disks are left", len(snapshotVMs(w)), snapshotDisks(w)-before)
	}
}

// TestFaultsOfPools disturbs the export of a snapshot each: the upload ends well with the next attempt, or says what to choose
// instead, and no disk stays attached.
func TestFaultsOfPools(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		faults func(disk string) []xensim.Fault
		size   string // of a data disk
		// attempts of an upload that ends well, reason of one that does not.
		attempts      int32
		reason, words string
	}{
		"the export breaks off": {attempts: 2, faults: func(disk string) []xensim.Fault {
			return []xensim.Fault{{Call: "export_raw_vdi", Object: disk, TruncateBody: 5000, Count: 1}}
		}},
		"the session ends": {attempts: 1, faults: func(disk string) []xensim.Fault {
			return []xensim.Fault{{Call: "export_raw_vdi", Object: disk, LoseSession: true, Count: 1}}
		}},
		"the disk is held for a while after the export": {attempts: 1, faults: func(disk string) []xensim.Fault {
			return []xensim.Fault{{Call: "VDI.destroy", Object: disk, Error: "VDI_IN_USE", Params: []string{"", "destroy"}, Count: 2}}
		}},
		"the error comes after the answer, in the body": {size: "2042Gi", reason: v1alpha1.ReasonFormatUnsupported, words: "uploaded as Raw"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := withWeb(t, func(b *testkit.InstanceBuilder) {
				if tc.size != "" {
					b.Disk("data", tc.size)
				}
			})
			store := newWebStore(t)
			instance := web(w).Object()
			w.WaitReady(t, instance)
			ref, _ := vmOf(t, w.Simulator, instance.Status.UUID)
			if tc.faults != nil {
				w.Simulator.SetFaults(tc.faults(diskName(t, w, ref, "0")))
			}
			s := xenSnapshot(w, "disturbed", toStore(store, nil))
			create(t, w, s)
			if tc.reason != "" {
				w.WaitStalled(t, s, tc.reason)
				if !strings.Contains(s.Status.Upload.LastError, tc.words) {
					t.Errorf("the last error is %q, it should say %q", s.Status.Upload.LastError, tc.words)
				}
				if err := w.Client.Delete(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				w.WaitGone(t, s)
				if left := store.paths(); len(left) != 0 {
					t.Errorf("the store still has %v", left)
				}
			} else {
				w.WaitReady(t, s)
				if s.Status.Upload.Attempts != tc.attempts {
					t.Errorf("it took %d attempts: %s", s.Status.Upload.Attempts, testkit.Manifest(s))
				}
			}
			if n := len(snapshotVMs(w)); n != 0 {
				t.Errorf("%d snapshots are left on the pool", n)
			}
			testkit.Eventually(t, "no transfer holds a disk", func(ctx context.Context) error { return controlDomainHoldsNothing(ctx, w.Simulator) })
		})
	}
}

// diskName is the name of a VM's disk, which its snapshots have, too.
func diskName(t testing.TB, w *testkit.World, vm, device string) string {
	t.Helper()
	for _, vbd := range w.Simulator.Records("VBD") {
		if vbd["VM"] == vm && vbd["userdevice"] == device {
			return fmt.Sprint(w.Simulator.Records("VDI")[fmt.Sprint(vbd["VDI"])]["name_label"])
		}
	}
	t.Fatalf("the VM has no disk at %s", device)
	return ""
}

// TestAToolstackThatRestartsUnderAnUpload: the pool forgets the transfer's task and its session; the next attempt ends well.
func TestAToolstackThatRestartsUnderAnUpload(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	instance := web(w).Object()
	w.WaitReady(t, instance)
	content := make([]byte, 64<<20) // more than lies on the way while the store takes nothing
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	if _, err := diskInGuest(t, w.Simulator, instance.Status.UUID, "0").WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	store := newWebStore(t)
	held, released := make(chan struct{}, 1), make(chan struct{})
	store.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			select {
			case held <- struct{}{}:
			default:
			}
			<-released
		}
		return false
	})
	s := xenSnapshot(w, "restarted", toStore(store, nil))
	create(t, w, s)
	<-held
	w.Simulator.RestartToolstack(0)
	close(released)
	w.WaitReady(t, s)
	if s.Status.Upload.Attempts < 2 || len(snapshotVMs(w)) != 0 {
		t.Errorf("it ended well although the pool had forgotten the transfer: %s", testkit.Manifest(s))
	}
}
