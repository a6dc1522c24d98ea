package controllers_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// converted is a raw disk as a file of another format, made by qemu's own tools.
func converted(t testing.TB, raw []byte, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, args...), from, to)...)
	return readFile(t, to)
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	body, err := os.ReadFile(path) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// packed is a file in a compression.
func packed(t testing.TB, body []byte, compression disk.Compression) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := disk.NewCompressor(&out, compression)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// changes is what differs between two disks, by mebibytes.
type changes struct {
	disk.Disk
	base []byte
	now  []byte
}

func (c changes) NextData(offset int64) (disk.Extent, error) {
	for at := offset; at < int64(len(c.now)); at += 512 {
		if !bytes.Equal(c.now[at:at+512], c.base[at:at+512]) {
			return disk.Extent{Offset: at, Length: 512}, nil
		}
	}
	return disk.Extent{}, io.EOF
}

// chain is a disk as Nova's tarball of two VHDs: what an older state of it was, and what changed since.
func chain(t testing.TB, raw []byte) []byte {
	t.Helper()
	base := bytes.Clone(raw)
	for at := len(base) / 2; at < len(base); at++ {
		base[at] ^= 0x5a
	}
	whole := func(b []byte) disk.Disk { return disk.NewRaw(bytes.NewReader(b), int64(len(b))) }
	below, err := disk.NewVHDImage(whole(base), disk.VHDOptions{})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := disk.NewVHDImage(changes{whole(raw), base, raw}, disk.VHDOptions{Parent: &disk.VHDParent{Name: "1.vhd"}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := disk.WriteNovaTarball(&out, metav1.Now().Time, leaf, below); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// differenceAlone is a VHD that is the difference to another, without that.
func differenceAlone(t testing.TB) []byte {
	t.Helper()
	base, now := make([]byte, 4<<20), make([]byte, 4<<20)
	now[1<<20] = 1
	leaf, err := disk.NewVHDImage(changes{disk.NewRaw(bytes.NewReader(now), int64(len(now))), base, now}, disk.VHDOptions{Parent: &disk.VHDParent{Name: "base.vhd"}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// bootEach boots an instance of each image, and compares the files on its disk.
func bootEach(t *testing.T, w *testkit.World, pool *testkit.Simulator, poolName, tree string, length int, images ...*v1alpha1.XenClusterImage) {
	t.Helper()
	instances := make([]*v1alpha1.XenInstance, len(images))
	for i, image := range images {
		instances[i] = testkit.Instance(w.Namespace, image.Name, poolName).FromClusterImage(image.Name).OfFlavor("small").Object()
		create(t, w, instances[i])
	}
	for _, instance := range instances {
		w.WaitReady(t, instance)
		raw := make([]byte, length)
		if _, err := diskInGuest(t, pool, instance.Status.UUID, "0").ReadAt(raw, 0); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, raw, tree)
	}
}

// TestImagesOfEveryFormat: what qemu and Nova write is imported, an instance boots from each, and its files are those that
// were written.
func TestImagesOfEveryFormat(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	raw, tree := ext4(t, 16)
	dynamic := converted(t, raw, "-O", "vpc", "-o", "subformat=dynamic,force_size=on")
	files := map[string]struct {
		body   []byte
		format v1alpha1.DiskFormat
	}{
		"qcow2":            {converted(t, raw, "-O", "qcow2"), v1alpha1.DiskFormatQCOW2},
		"qcow2-compressed": {converted(t, raw, "-O", "qcow2", "-c"), v1alpha1.DiskFormatQCOW2},
		"vhd":              {dynamic, v1alpha1.DiskFormatVHD},
		"vhd-fixed":        {converted(t, raw, "-O", "vpc", "-o", "subformat=fixed,force_size=on"), v1alpha1.DiskFormatVHD},
		"vhd-zstd":         {packed(t, dynamic, disk.Zstd), v1alpha1.DiskFormatVHD},
		"raw-gzip":         {packed(t, raw, disk.Gzip), v1alpha1.DiskFormatRaw},
		"nova-chain":       {chain(t, raw), v1alpha1.DiskFormatNovaTarball},
	}
	var images []*v1alpha1.XenClusterImage
	for name, file := range files {
		store.put("/"+name, file.body)
		image := httpImage(name, store.URL+"/"+name, file.body, testkit.PoolName)
		create(t, w, image)
		images = append(images, image)
	}
	for _, image := range images {
		w.WaitReady(t, image)
		if got, want := fmt.Sprint(image.Status.Format, image.Status.VirtualSize.Value()), fmt.Sprint(files[image.Name].format, len(raw)); got != want {
			t.Errorf("image %s is shown as %s, want %s", image.Name, got, want)
		}
	}
	bootEach(t, w, w.Simulator, testkit.PoolName, tree, len(raw), images...)
}

// TestAnArchiveOfAWholeVMIsAnImage exports a VM as the pool writes it, imports the archive, and boots from what was its root
// disk; the archive's shape of the VM is not taken over.
func TestAnArchiveOfAWholeVMIsAnImage(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	raw, tree := ext4(t, 16)
	store.put("/plain", raw)
	plain := httpImage("plain", store.URL+"/plain", raw, testkit.PoolName)
	create(t, w, plain)
	web := testkit.Instance(w.Namespace, "web", testkit.PoolName).FromClusterImage("plain").OfFlavor("small").Object()
	create(t, w, web)
	w.WaitReady(t, web)
	snapshot := xenSnapshot(w, "archive", toStore(store, func(d *v1alpha1.SnapshotDestination) { d.Format = v1alpha1.DiskFormatXVA }))
	create(t, w, snapshot)
	w.WaitReady(t, snapshot)

	path := "/" + w.Namespace + "/archive/" + snapshot.Status.Upload.Files[0].Name
	archive, found := store.file(path)
	if !found {
		t.Fatalf("there is no %s, but %v", path, store.paths())
	}
	image := httpImage("archived", store.URL+path, archive, testkit.PoolName)
	create(t, w, image)
	w.WaitReady(t, image)
	if image.Status.Format != v1alpha1.DiskFormatXVA || image.Status.VirtualSize.Value() != int64(len(raw)) {
		t.Errorf("the image is shown as %s of %s", image.Status.Format, image.Status.VirtualSize)
	}
	bootEach(t, w, w.Simulator, testkit.PoolName, tree, len(raw), image)
}
