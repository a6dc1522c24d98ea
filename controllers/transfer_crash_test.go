package controllers_test

import (
	"testing"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestTransferCrash kills the manager at every point of an upload and of an import.
func TestTransferCrash(t *testing.T) {
	store := newWebStore(t)
	body := make([]byte, 4<<20)
	store.put("/golden.raw", body)
	remote := func(w *testkit.World) testkit.Object { return xenSnapshot(w, "point", toStore(store, nil)) }
	image := func(*testkit.World) testkit.Object {
		return httpImage("golden", store.URL+"/golden.raw", body, testkit.PoolName)
	}
	crashAll(t, []testkit.Workflow{
		{Name: "upload", VMs: 1, Setup: snapshotSetup, Drive: making(remote), Converged: madeReady(remote)},
		{Name: "import", Drive: making(image), Converged: madeReady(image)},
	})
}
