package controllers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// writesQCOW2 is a pool new enough to export qcow2.
var writesQCOW2 = xensim.Options{Profile: "26.17", Guests: withAgents.Guests}

// through sends bytes through a program.
func through(t testing.TB, body []byte, name string, args ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	var out, complaints bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(body), &out, &complaints
	if err := command.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, complaints.String())
	}
	return out.Bytes()
}

// ofNovaTarball is the raw disk in what an OpenStack cloud on XenServer boots.
func ofNovaTarball(t testing.TB, body []byte) []byte {
	t.Helper()
	if listed := string(through(t, body, "tar", "-tzf", "-")); listed != "0.vhd\n" {
		t.Fatalf("the archive has %q", listed)
	}
	return asRaw(t, through(t, body, "tar", "-xzOf", "-", "0.vhd"), "vpc")
}

// ofXVA puts a disk together from the chunks of an archive of a whole VM: Ref:1/00000000 is its first mebibyte.
func ofXVA(t testing.TB, body []byte, size int64) [][]byte {
	t.Helper()
	const chunk = 1 << 20
	disks := map[string][]byte{}
	for archive := tar.NewReader(bytes.NewReader(body)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		disk, number, _ := strings.Cut(header.Name, "/")
		index, err := strconv.ParseInt(number, 10, 64)
		if !strings.HasPrefix(disk, "Ref:") || err != nil {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if end := index*chunk + int64(len(content)); end > int64(len(disks[disk])) {
			disks[disk] = append(disks[disk], make([]byte, end-int64(len(disks[disk])))...)
		}
		copy(disks[disk][index*chunk:], content)
	}
	var all [][]byte
	for _, disk := range disks {
		if int64(len(disk)) == size {
			all = append(all, disk)
		}
	}
	return all
}

// stored is how the files of a snapshot are read back: by the store's own client, into a raw root disk.
type stored struct {
	format      v1alpha1.DiskFormat
	compression v1alpha1.Compression
	// raw turns the file of the root disk into its bytes.
	raw func(t testing.TB, body []byte) []byte
}

func plain(_ testing.TB, body []byte) []byte { return body }

func unpacked(program string, then func(testing.TB, []byte) []byte) func(testing.TB, []byte) []byte {
	return func(t testing.TB, body []byte) []byte { t.Helper(); return then(t, through(t, body, program, "-dc")) }
}

func ofVHD(t testing.TB, body []byte) []byte   { t.Helper(); return asRaw(t, body, "vpc") }
func ofQCOW2(t testing.TB, body []byte) []byte { t.Helper(); return asRaw(t, body, "qcow2") }

// secretWith makes a Secret in the test's namespace.
func secretWith(t testing.TB, w *testkit.World, name string, data map[string][]byte) *v1alpha1.LocalSecretReference {
	t.Helper()
	create(t, w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name}, Data: data})
	return &v1alpha1.LocalSecretReference{Name: name}
}

// withTree is a world in which web runs from a disk with files, with a data disk on another storage repository.
func withTree(t *testing.T, options xensim.Options) (w *testkit.World, raw []byte, tree string) {
	t.Helper()
	w, _ = newWorld(t, options)
	web := newWebStore(t)
	raw, tree = ext4(t, 24)
	web.put("/golden.raw", raw)
	image := httpImage("golden", web.URL+"/golden.raw", raw, testkit.PoolName)
	create(t, w, image)
	w.WaitReady(t, image)
	instance := testkit.Instance(w.Namespace, "web", testkit.PoolName).FromClusterImage("golden").OfFlavor("small").Disk("data", "8Mi").Object()
	instance.Spec.Disks[0].StorageRepository = "NFS virtual disk storage"
	create(t, w, instance)
	w.WaitReady(t, instance)
	writeDisk(t, w.Simulator, instance.Status.UUID, "4", "on the data disk")
	return w, raw, tree
}

// TestSnapshotsInABucket: every format and compression, by TLS, of all disks; and what is in the bucket is what the VM had.
func TestSnapshotsInABucket(t *testing.T) {
	t.Parallel()
	w, raw, tree := withTree(t, writesQCOW2)
	s3 := stores.NewS3TLS(t)
	credentials := secretWith(t, w, "bucket", s3.Secret())
	toBucket := func(name string, as stored) *v1alpha1.XenSnapshot {
		return xenSnapshot(w, name, func(spec *v1alpha1.XenSnapshotSpec) {
			spec.Destination = &v1alpha1.SnapshotDestination{Format: as.format, Compression: as.compression, S3: &v1alpha1.S3Destination{
				S3Bucket: v1alpha1.S3Bucket{Endpoint: s3.URL, Bucket: s3.Bucket, CredentialsSecretRef: credentials}, Prefix: "nightly",
			}}
		})
	}
	cases := map[string]stored{
		"vhd":      {v1alpha1.DiskFormatVHD, "", ofVHD},
		"vhd-gzip": {v1alpha1.DiskFormatVHD, v1alpha1.CompressionGzip, unpacked("gzip", ofVHD)},
		"vhd-zstd": {v1alpha1.DiskFormatVHD, v1alpha1.CompressionZstd, unpacked("zstd", ofVHD)},
		"raw":      {v1alpha1.DiskFormatRaw, "", plain},
		"raw-zstd": {v1alpha1.DiskFormatRaw, v1alpha1.CompressionZstd, unpacked("zstd", plain)},
		"qcow2":    {v1alpha1.DiskFormatQCOW2, "", ofQCOW2},
		"nova":     {v1alpha1.DiskFormatNovaTarball, "", ofNovaTarball},
	}
	archives := map[string]stored{
		"xva": {v1alpha1.DiskFormatXVA, "", plain}, "xva-zstd": {v1alpha1.DiskFormatXVA, v1alpha1.CompressionZstd, unpacked("zstd", plain)},
	}
	snapshots := map[string]*v1alpha1.XenSnapshot{}
	for _, some := range []map[string]stored{cases, archives} {
		for name, as := range some {
			snapshots[name] = toBucket(name, as)
			create(t, w, snapshots[name])
		}
	}
	memory := toBucket("memory", stored{format: v1alpha1.DiskFormatXVA})
	memory.Spec.Type = v1alpha1.SnapshotTypeMemory
	create(t, w, memory)
	inBucket := func(s *v1alpha1.XenSnapshot, file string) []byte {
		w.WaitReady(t, s)
		for _, uploaded := range s.Status.Upload.Files {
			key := "nightly/" + w.Namespace + "/" + s.Name + "/" + uploaded.Name
			if uploaded.Name == file && uploaded.Location == "s3://"+s3.Bucket+"/"+key {
				body := s3.Download(t, key)
				if int64(len(body)) != uploaded.SizeBytes || digest(body) != uploaded.SHA256 {
					t.Errorf("%s has %d bytes with digest %s; status is %s", key, len(body), digest(body), testkit.Manifest(s))
				}
				return body
			}
		}
		t.Fatalf("there is no file %s; status is %s", file, testkit.Manifest(s))
		return nil
	}
	for name, as := range cases {
		extension := map[v1alpha1.DiskFormat]string{v1alpha1.DiskFormatNovaTarball: "tar.gz"}[as.format]
		if extension == "" {
			extension = strings.ToLower(string(as.format)) + map[v1alpha1.Compression]string{v1alpha1.CompressionZstd: ".zst", v1alpha1.CompressionGzip: ".gz"}[as.compression]
		}
		s := snapshots[name]
		sameFiles(t, as.raw(t, inBucket(s, "root."+extension)), tree)
		if data := as.raw(t, inBucket(s, "data."+extension)); !bytes.HasPrefix(data[1<<20:], []byte("on the data disk")) || len(data) != 8<<20 {
			t.Errorf("%s: the data disk has %d bytes, and other ones", name, len(data))
		}
	}
	for name, as := range archives {
		file := map[string]string{"xva": "vm.xva", "xva-zstd": "vm.xva.zst"}[name]
		roots := ofXVA(t, as.raw(t, inBucket(snapshots[name], file)), int64(len(raw)))
		if len(roots) != 1 {
			t.Fatalf("%s: %d disks have the size of the root disk", name, len(roots))
		}
		sameFiles(t, roots[0], tree)
	}
	if body := inBucket(memory, "vm.xva"); memory.Status.Consistency != v1alpha1.ConsistencyMemory || !bytes.Contains(body, []byte("suspend_VDI")) {
		t.Errorf("a snapshot with memory is %s", testkit.Manifest(memory))
	}
	if left := s3.Unfinished(t); len(left) != 0 {
		t.Errorf("uploads were left unfinished: %v", left)
	}
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots are left on the pool although they were uploaded", n)
	}
	testkit.Eventually(t, "no transfer holds a disk", func(ctx context.Context) error { return controlDomainHoldsNothing(ctx, w.Simulator) })
}

// TestSnapshotsAsImagesOfACloud: a cloud that asks who we are gets an image of each disk, which its own client downloads; a
// lost status comes back from the images; and deletion takes them along, or leaves them.
func TestSnapshotsAsImagesOfACloud(t *testing.T) {
	t.Parallel()
	w, _, tree := withTree(t, writesQCOW2)
	cloud := stores.NewOpenStack(t)
	w.NeverShow(cloud.Password)
	auth := secretWith(t, w, "cloud", map[string][]byte{"clouds.yaml": []byte(cloud.CloudsYAML())})
	toCloud := func(name string, format v1alpha1.DiskFormat) *v1alpha1.XenSnapshot {
		return xenSnapshot(w, name, func(spec *v1alpha1.XenSnapshotSpec) {
			spec.Destination = &v1alpha1.SnapshotDestination{Format: format, Glance: &v1alpha1.GlanceDestination{
				GlanceService: v1alpha1.GlanceService{AuthSecretRef: auth}, Tags: []string{"nightly"},
				Properties: map[string]v1alpha1.PropertyValue{"os_type": "linux", "team": "a"},
			}}
		})
	}
	cases := map[string]stored{
		"vhd": {v1alpha1.DiskFormatVHD, "", ofVHD}, "nova": {v1alpha1.DiskFormatNovaTarball, "", ofNovaTarball},
		"raw": {v1alpha1.DiskFormatRaw, "", plain}, "qcow2": {v1alpha1.DiskFormatQCOW2, "", ofQCOW2},
	}
	snapshots := map[string]*v1alpha1.XenSnapshot{}
	for name, as := range cases {
		snapshots[name] = toCloud(name, as.format)
		if name == "vhd" {
			snapshots[name].Spec.DeletionPolicy = v1alpha1.SnapshotDelete
		}
		create(t, w, snapshots[name])
	}
	for name, as := range cases {
		s := snapshots[name]
		w.WaitReady(t, s)
		if len(s.Status.Upload.Files) != 2 {
			t.Fatalf("status is %s", testkit.Manifest(s))
		}
		for _, file := range s.Status.Upload.Files {
			body := cloud.File(t, file.Location)
			if digest(body) != file.SHA256 {
				t.Errorf("%s of %s has another digest than status says", file.Name, name)
			}
			if file.Disk == "root" {
				sameFiles(t, as.raw(t, body), tree)
			}
		}
	}
	if root := snapshots["nova"].Status.Upload.Files[0]; digest(glanceDownload(t, cloud, root.Location)) != root.SHA256 {
		t.Errorf("the cloud's own client downloads another image than was uploaded")
	}
	images := imagesOf(t, cloud)
	if want := []string{"nova", "nova-data", "qcow2", "qcow2-data", "raw", "raw-data", "vhd", "vhd-data"}; !slices.Equal(images, want) {
		t.Fatalf("the images are %v, want %v", images, want)
	}
	for _, image := range cloud.Images(t) {
		wanted := map[string]any{"image_type": "snapshot", "os_type": "linux", "team": "a", "status": "active", "instance_uuid": snapshots["vhd"].Status.InstanceUUID}
		for key, value := range wanted {
			if image[key] != value {
				t.Errorf("image %v has %s %v, want %v", image["name"], key, image[key], value)
			}
		}
		if ovf := image["container_format"] == "ovf"; ovf != strings.HasPrefix(fmt.Sprint(image["name"]), "nova") {
			t.Errorf("image %v has container format %v", image["name"], image["container_format"])
		}
	}

	// Given an object that comes from Git again, without status: it is what the images say, and nothing is made anew.
	before := snapshots["vhd"].Status
	w.StopManager()
	fresh := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "vhd"}, Spec: snapshots["vhd"].Spec}
	dropObject(t, w, snapshots["vhd"])
	create(t, w, fresh)
	w.StartManager()
	w.WaitReady(t, fresh)
	if fresh.Status.UUID != before.UUID || len(fresh.Status.Upload.Files) != 2 || !slices.Equal(imagesOf(t, cloud), images) || len(snapshotVMs(w)) != 0 {
		t.Errorf("it was taken anew: %s", testkit.Manifest(fresh))
	}
	for _, s := range []*v1alpha1.XenSnapshot{fresh, snapshots["nova"]} {
		if err := w.Client.Delete(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, s)
	}
	if left := imagesOf(t, cloud); !slices.Equal(left, images[:6]) {
		t.Errorf("the images are %v: those of vhd were to go, and all others to stay", left)
	}
}

// imagesOf are the names of a cloud's images.
func imagesOf(t testing.TB, cloud *stores.OpenStack) []string {
	t.Helper()
	var names []string
	for _, image := range cloud.Images(t) {
		names = append(names, fmt.Sprint(image["name"]))
	}
	slices.Sort(names)
	return names
}

// glanceDownload reads an image with the cloud's own client.
func glanceDownload(t testing.TB, cloud *stores.OpenStack, id string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	run(t, "/usr/bin/glance", "--os-auth-url", cloud.IdentityURL, "--os-username", "admin", "--os-password", cloud.Password, "--os-project-name", "admin",
		"--os-user-domain-id", "default", "--os-project-domain-id", "default",
		"image-download", "--file", path, id)
	body, err := os.ReadFile(path) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestAPoolThatWritesNoQCOW2: it is said what to choose instead, nothing is left in the store, and deletion works.
func TestAPoolThatWritesNoQCOW2(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	s := xenSnapshot(w, "modern", toStore(store, func(d *v1alpha1.SnapshotDestination) { d.Format = v1alpha1.DiskFormatQCOW2 }))
	create(t, w, s)
	w.WaitStalled(t, s, v1alpha1.ReasonFormatUnsupported)
	if len(store.paths()) != 0 || !strings.Contains(s.Status.Upload.LastError, "choose VHD or Raw") {
		t.Errorf("the store has %v; status is %s", store.paths(), testkit.Manifest(s))
	}
	if err := w.Client.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, s)
}
