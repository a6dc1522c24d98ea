package controllers_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// written puts an upload of a root and a data disk into a store, and returns the URL of its manifest.
func written(t testing.TB, store *webStore) string {
	t.Helper()
	manifest := transfer.Manifest{
		Version: transfer.ManifestVersion, Installation: "elsewhere", Snapshot: "team-a/monday", SnapshotUUID: "monday", TakenAt: time.Unix(0, 0).UTC(),
		Format: v1alpha1.DiskFormatRaw, VM: transfer.ManifestVM{Name: "web", VCPUs: 1, MaxVCPUs: 1, Memory: 512 << 20, MaxMemory: 512 << 20},
		NICs: []transfer.ManifestNIC{{Device: "0", MAC: "02:00:00:00:00:42", Network: network}},
	}
	for device, name := range map[int32]string{0: "root", 4: "data"} {
		body := append([]byte(name), make([]byte, 4<<20-len(name))...)
		store.put("/saved/"+name+".raw", body)
		manifest.Disks = append(manifest.Disks, transfer.ManifestDisk{
			Name: name, Device: device, VDI: name, Size: int64(len(body)), Bootable: device == 0,
			File: &transfer.ManifestFile{Name: name + ".raw", Size: int64(len(body)), SHA256: digest(body)},
		})
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	store.put("/saved/manifest.json", text)
	return store.URL + "/saved/manifest.json"
}

// TestRestoreCrash kills the manager while a VM is rebuilt from a backup, while one is made of a snapshot, and while an image
// is.
func TestRestoreCrash(t *testing.T) {
	t.Parallel()
	url := written(t, newWebStore(t))
	rebuilt := func(w *testkit.World) testkit.Object { return fromBackup(w, "rebuilt", testkit.PoolName, url) }
	again := func(w *testkit.World) testkit.Object { return fromSnapshot(w, "again", "point") }
	image := func(w *testkit.World) testkit.Object {
		return imageOf(w, "golden", "point", v1alpha1.ImagePool{Name: testkit.PoolName})
	}
	taken := func(t testing.TB, w *testkit.World) {
		snapshotSetup(t, w)
		point := xenSnapshot(w, "point", nil)
		create(t, w, point)
		w.WaitReady(t, point)
	}
	crashAll(t, []testkit.Workflow{
		{Name: "backup", VMs: 1, Step: 10, Setup: func(t testing.TB, w *testkit.World) { addFlavors(t, w) }, Drive: making(rebuilt), Converged: madeReady(rebuilt)},
		{Name: "snapshot", VMs: 2, Step: 12, Setup: taken, Drive: making(again), Converged: madeReady(again)},
		{Name: "image", VMs: 1, Step: 6, Setup: taken, Drive: making(image), Converged: madeReady(image)},
	})
}
