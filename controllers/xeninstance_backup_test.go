package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// fromBackup is an instance on a pool that is rebuilt from a manifest on a web server.
func fromBackup(w *testkit.World, name, pool, url string) *v1alpha1.XenInstance {
	i := testkit.Instance(w.Namespace, name, pool).Object()
	i.Spec.Source.Backup = &v1alpha1.BackupSource{HTTP: &v1alpha1.HTTPObject{URL: url}}
	return i
}

// bootsDebian are UEFI variables as a host keeps them: BootOrder 0000, and Boot0000, which is called debian.
const bootsDebian = "VkFSUwEAAAACAAAAAAAAAOAAAAAAAAAAEgAAAAAAAABCAG8AbwB0AE8AcgBkAGUAcgACAAAAAAAAAAAAYd/ki8qT0hGqDQDgmAMrjAcAAAAAAAAAAAAAAAAAAAAAAAAAAA" +
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAEIAbwBvAHQAMAAwADAAMAAUAAAAAAAAAAEAAAAAAGQAZQBiAGkAYQBuAAAAYd/ki8qT0hGqDQDgmAMr" +
	"jAcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// TestAVMIsRebuiltOnAnotherPool: a file system with files and a data disk, captured while the VM runs and uploaded to S3,
// become a VM on another pool that runs and has every file, its size and its addresses, and whose firmware knows what it boots.
func TestAVMIsRebuiltOnAnotherPool(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	web, s3 := newWebStore(t), stores.NewS3(t)
	raw, tree := ext4(t, 16)
	web.put("/golden.raw", raw)
	image := httpImage("to-rebuild", web.URL+"/golden.raw", raw, testkit.PoolName)
	image.Spec.Firmware = v1alpha1.FirmwareUEFI
	create(t, w, image)
	create(t, w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "s3"}, Data: s3.Secret()})
	original := testkit.Instance(w.Namespace, "web", testkit.PoolName).FromClusterImage(image.Name).OfFlavor("large").
		Disk("data", "1Gi").Network("lan", network).With(withBootstrap).Object()
	create(t, w, original)
	w.WaitReady(t, original)
	writeDisk(t, w.Simulator, original.Status.UUID, "4", "data of the VM")
	firmware, _ := vmOf(t, w.Simulator, original.Status.UUID)
	if err := w.Simulator.Update("VM", firmware, map[string]any{"NVRAM": map[string]string{"EFI-variables": bootsDebian}}); err != nil {
		t.Fatal(err)
	}
	bucket := v1alpha1.S3Bucket{Endpoint: s3.URL, Bucket: s3.Bucket, CredentialsSecretRef: &v1alpha1.LocalSecretReference{Name: "s3"}}
	point := xenSnapshot(w, "point", func(s *v1alpha1.XenSnapshotSpec) {
		s.Destination = &v1alpha1.SnapshotDestination{S3: &v1alpha1.S3Destination{S3Bucket: bucket, Prefix: "backups"}, Compression: v1alpha1.CompressionZstd}
	})
	create(t, w, point)
	w.WaitReady(t, point)

	second := secondPool(t, w, "rebuilt-on")
	rebuilt := testkit.Instance(w.Namespace, "rebuilt", "rebuilt-on").Object()
	rebuilt.Spec.Source.Backup = &v1alpha1.BackupSource{
		S3:             &v1alpha1.S3Object{S3Bucket: bucket, Key: "backups/" + w.Namespace + "/point/manifest.json"},
		ManifestSHA256: point.Status.Upload.SHA256,
	}
	create(t, w, rebuilt)
	w.WaitReady(t, rebuilt)
	uuid := rebuilt.Status.UUID
	got := make([]byte, len(raw))
	if _, err := diskInGuest(t, second, uuid, "0").ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, got, tree)
	if text := readDisk(t, second, uuid, "4", 14); text != "data of the VM" {
		t.Errorf("the data disk holds %q", text)
	}
	ref, vm := vmOf(t, second, uuid)
	from, was := vmOf(t, w.Simulator, original.Status.UUID)
	if vm["power_state"] != "Running" || vm["VCPUs_max"] != was["VCPUs_max"] || vm["memory_dynamic_max"] != was["memory_dynamic_max"] {
		t.Errorf("the VM is %v", vm)
	}
	if nvram, boot := vm["NVRAM"].(map[string]string), vm["HVM_boot_params"].(map[string]string); nvram["EFI-variables"] != bootsDebian || boot["firmware"] != "uefi" {
		t.Errorf("it boots by %v, its NVRAM is %v", boot, nvram)
	}
	if ours, theirs := macsOf(second, ref), macsOf(w.Simulator, from); !slices.Equal(ours, theirs) || len(ours) != 1 {
		t.Errorf("MAC addresses %v, they were %v", ours, theirs)
	}
	if n := len(disksOf(second, ref)); n != 2 || len(rebuilt.Status.UnmanagedDevices) != 0 {
		t.Errorf("it has the disks %v, status is %s", disksOf(second, ref), testkit.Manifest(rebuilt))
	}
	testkit.Eventually(t, "no transfer holds a disk", func(ctx context.Context) error { return controlDomainHoldsNothing(ctx, second) })
}

// uploaded is a world with web, whose snapshot is in a store under /<namespace>/point.
func uploaded(t *testing.T) (*testkit.World, *webStore, string) {
	t.Helper()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "1Gi") })
	store := newWebStore(t)
	point := xenSnapshot(w, "point", toStore(store, nil))
	create(t, w, point)
	w.WaitReady(t, point)
	return w, store, "/" + w.Namespace + "/point/"
}

// TestABackupThatIsNotWhole: what is missing or changed is said, and no VM is made of it, nor is anything left.
func TestABackupThatIsNotWhole(t *testing.T) {
	t.Parallel()
	w, store, place := uploaded(t)
	manifest, _ := store.file(place + "manifest.json")
	root, _ := store.file(place + "root.vhd")
	spoiled := bytes.Clone(root)
	spoiled[len(spoiled)-600] ^= 1
	for name, test := range map[string]struct {
		spoil  func()
		sha256 string
		stalls string // the reason, else waits is
		waits  string
	}{
		"another-manifest": {spoil: func() {}, sha256: strings.Repeat("0", 64), stalls: v1alpha1.ReasonChecksumMismatch},
		"no-manifest":      {spoil: func() { store.put(place+"manifest.json", []byte("{")) }, stalls: v1alpha1.ReasonInvalidManifest},
		"evil-manifest": {stalls: v1alpha1.ReasonInvalidManifest, spoil: func() {
			store.put(place+"manifest.json", bytes.ReplaceAll(manifest, []byte(`"root.vhd"`), []byte(`"../../other/root.vhd"`)))
		}},
		"changed-file": {spoil: func() { store.put(place+"root.vhd", spoiled) }, stalls: v1alpha1.ReasonChecksumMismatch},
		"server-down": {waits: v1alpha1.ReasonStoreUnavailable, spoil: func() {
			store.answer(func(rw http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "data.vhd") {
					http.Error(rw, "out of order", http.StatusServiceUnavailable)
					return true
				}
				return false
			})
		}},
	} {
		test.spoil()
		i := fromBackup(w, name, testkit.PoolName, store.URL+place+"manifest.json")
		i.Spec.Source.Backup.ManifestSHA256 = test.sha256
		i.Spec.Networks = []v1alpha1.NetworkInterface{{Name: "lan", Network: network}}
		i.Spec.DeletionPolicy = v1alpha1.DeletionDelete
		create(t, w, i)
		if test.stalls != "" {
			w.WaitStalled(t, i, test.stalls)
		} else {
			w.WaitFor(t, i, "it waits", func() error {
				return testkit.Condition(i, v1alpha1.ConditionReady, metav1.ConditionFalse, test.waits)
			})
		}
		if err := w.Client.Delete(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, i)
		testkit.Eventually(t, "nothing is left of "+name, func(context.Context) error {
			if left := madeFor(w.Simulator, xencache.Key{Kind: "XenInstance", Namespace: w.Namespace, Name: name}); len(left) > 0 {
				return errors.New(strings.Join(left, ", "))
			}
			return nil
		})
		store.answer(nil)
		store.put(place+"manifest.json", manifest)
		store.put(place+"root.vhd", root)
	}
}
