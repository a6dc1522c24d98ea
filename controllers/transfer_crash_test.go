//go:build soak

package controllers_test

import (
	"testing"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestTransferCrash kills the manager at every point of an upload and of an import. It runs in make soak alone as long as two points do not
// hold: an import killed after VDI.create may leave its task pending, and an upload killed after it stored its progress may find its
// snapshot gone.
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
