package controllers_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// differenceTo is a snapshot of web that is uploaded as the difference to another.
func differenceTo(w *testkit.World, store *webStore, name, base string) *v1alpha1.XenSnapshot {
	s := xenSnapshot(w, name, toStore(store, func(d *v1alpha1.SnapshotDestination) {
		if base != "" {
			d.IncrementalFrom = &v1alpha1.IncrementalBase{SnapshotRef: v1alpha1.SnapshotReference{Name: base}}
		}
	}))
	s.Spec.KeepLocal = v1alpha1.KeepAlways
	return s
}

// TestADifferenceIsUploadedAndRebuilt: of a disk of which little has changed little is sent, and base and differences are
// the whole disk again: for qemu's eyes, and as a VM on another pool.
func TestADifferenceIsUploadedAndRebuilt(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	blank := make([]byte, 64<<20)
	store.put("/blank.raw", blank)
	image := httpImage("blank", store.URL+"/blank.raw", blank, testkit.PoolName)
	create(t, w, image)
	web := testkit.Instance(w.Namespace, "web", testkit.PoolName).FromClusterImage("blank").OfFlavor("small").Object()
	create(t, w, web)
	w.WaitReady(t, web)
	guest := diskInGuest(t, w.Simulator, web.Status.UUID, "0")
	size := guest.Size()
	fill := func(offset int64, length int, with byte) {
		t.Helper()
		if _, err := guest.WriteAt(bytes.Repeat([]byte{with}, length), offset); err != nil {
			t.Fatal(err)
		}
	}
	fill(0, 32<<20, 'a')
	sunday := differenceTo(w, store, "sunday", "")
	create(t, w, sunday)
	w.WaitReady(t, sunday)
	fill(10<<20, 1<<20, 'b')
	monday := differenceTo(w, store, "monday", "sunday")
	create(t, w, monday)
	w.WaitReady(t, monday)
	fill(11<<20, 1<<20, 'c')
	tuesday := differenceTo(w, store, "tuesday", "monday")
	create(t, w, tuesday)

	// The base stays as long as it is needed.
	if err := w.Client.Delete(t.Context(), monday); err != nil {
		t.Fatal(err)
	}
	w.WaitReady(t, tuesday)
	w.WaitGone(t, monday)
	for _, s := range []*v1alpha1.XenSnapshot{monday, tuesday} {
		if file := s.Status.Upload.Files[0]; file.SizeBytes > 4<<20 {
			t.Errorf("%s sent %d bytes", s.Name, file.SizeBytes)
		}
	}
	want := make([]byte, size)
	if _, err := guest.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	var layers []disk.Layer
	for _, s := range []*v1alpha1.XenSnapshot{sunday, monday, tuesday} {
		body, _ := store.file("/" + w.Namespace + "/" + s.Name + "/root.vhd")
		layers = append(layers, disk.Layer{Name: s.Name, Reader: bytes.NewReader(body), SHA256: s.Status.Upload.Files[0].SHA256})
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "rebuilt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, _, err := disk.Rebuild(file, digest(want), layers...); err != nil {
		t.Error(err)
	}

	second := secondPool(t, w, "from-differences")
	rebuilt := fromBackup(w, "rebuilt", "from-differences", store.URL+"/"+w.Namespace+"/tuesday/manifest.json")
	create(t, w, rebuilt)
	w.WaitReady(t, rebuilt)
	got := make([]byte, size)
	if _, err := diskInGuest(t, second, rebuilt.Status.UUID, "0").ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the rebuilt disk differs: %v", err)
	}
}

// TestADifferenceNeedsItsBase: what cannot be a base is said, and nothing is uploaded.
func TestADifferenceNeedsItsBase(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	local := xenSnapshot(w, "local", nil)
	create(t, w, local)
	w.WaitReady(t, local)
	gone := differenceTo(w, store, "gone", "")
	gone.Spec.KeepLocal = v1alpha1.KeepUntilUploaded
	create(t, w, gone)
	w.WaitReady(t, gone)
	for _, base := range []string{"local", "gone"} {
		s := differenceTo(w, store, "of-"+base, base)
		create(t, w, s)
		w.WaitStalled(t, s, v1alpha1.ReasonSnapshotNotReady)
	}
	early := differenceTo(w, store, "of-none", "none")
	create(t, w, early)
	w.WaitFor(t, early, "it waits for its base", func() error {
		return testkit.Condition(early, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSnapshotNotFound)
	})
	if len(store.paths()) != 2 || early.Status.UUID != "" {
		t.Errorf("the store has %v, and what waits for its base was taken: %s", store.paths(), testkit.Manifest(early))
	}
	// A base whose copy somebody deleted at the store is found out before, not when the difference is needed.
	robbed := differenceTo(w, store, "robbed", "")
	create(t, w, robbed)
	w.WaitReady(t, robbed)
	store.remove("/" + w.Namespace + "/robbed/manifest.json")
	s := differenceTo(w, store, "of-robbed", "robbed")
	create(t, w, s)
	w.WaitStalled(t, s, v1alpha1.ReasonObjectNotFound)
	// Applied in any order, it is taken after its base, and so can lie upon it.
	late := differenceTo(w, store, "none", "")
	create(t, w, late)
	w.WaitReady(t, early)
	if early.Status.TakenAt.Before(late.Status.TakenAt) {
		t.Errorf("it was taken at %s, and its base at %s", early.Status.TakenAt, late.Status.TakenAt)
	}
}
