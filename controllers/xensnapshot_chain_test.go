package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// adminOf is somebody else who uses the pool.
func adminOf(t testing.TB, pool *testkit.Simulator) *xenapi.Client {
	t.Helper()
	client, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{pool.Endpoint}, Username: pool.User, Password: pool.Password, CABundle: pool.CACert(), Originator: "administrator",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("log the administrator out: %v", err)
		}
	})
	return client
}

// TestAChainThatGrewTooLong: an administrator takes snapshots until the storage refuses. That is said of ours too, and nothing
// is left of the attempt; it is taken when the others are gone and the storage has shortened the chain.
func TestAChainThatGrewTooLong(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "1Gi") })
	admin := adminOf(t, w.Simulator)
	instance := web(w).Object()
	w.WaitReady(t, instance)
	theirs := untilRefused(t, w, admin, instance.Status.UUID)
	if len(theirs) < 28 || len(theirs) > 30 {
		t.Fatalf("the storage took %d snapshots", len(theirs))
	}
	w.WaitAtRest(t)
	before := snapshotDisks(w)
	s := xenSnapshot(w, "one-more", nil)
	create(t, w, s)
	w.WaitFor(t, s, "it says that the chain is too long", func() error {
		return testkit.Condition(s, v1alpha1.ConditionCaptured, metav1.ConditionFalse, v1alpha1.ReasonChainTooLong)
	})
	if vms, disks := len(snapshotVMs(w)), snapshotDisks(w)-before; vms != 0 || disks != 0 {
		t.Errorf("it was refused and left %d snapshots with %d disks", vms, disks)
	}
	for _, taken := range theirs {
		removeSnapshot(t, admin, taken)
	}
	// The storage shortens the chain when it likes, and is asked again each minute, or when somebody wants it.
	asked := 0
	testkit.Eventually(t, "the snapshot is taken", func(ctx context.Context) error {
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if s.Status.LastHandledReconcileAt == fmt.Sprint(asked) || asked == 0 {
			asked++
			edited := s.DeepCopy()
			metav1.SetMetaDataAnnotation(&edited.ObjectMeta, v1alpha1.AnnotationReconcileRequestedAt, fmt.Sprint(asked))
			if err := w.Client.Patch(ctx, edited, client.MergeFrom(s)); err != nil {
				return err
			}
		}
		return testkit.Ready(s)
	})
}

// untilRefused takes snapshots of a VM that writes between them, until the storage takes no more.
func untilRefused(t testing.TB, w *testkit.World, admin *xenapi.Client, vm string) []xenapi.VMRef {
	t.Helper()
	ref, _ := vmOf(t, w.Simulator, vm)
	var taken []xenapi.VMRef
	for {
		writeDisk(t, w.Simulator, vm, "0", fmt.Sprintf("written before snapshot %d", len(taken)))
		snapshot, err := admin.VM.Snapshot(t.Context(), xenapi.VMRef(ref), fmt.Sprintf("theirs %d", len(taken)), nil)
		if errors.Is(err, xenapi.ErrSRBackendSnapshotChainTooLong) {
			return taken
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, snapshot)
	}
}

// removeSnapshot removes a snapshot as an administrator does: its disks, and then its record.
func removeSnapshot(t testing.TB, admin *xenapi.Client, snapshot xenapi.VMRef) {
	t.Helper()
	record, err := admin.VM.GetRecord(t.Context(), snapshot)
	if err != nil {
		t.Fatal(err)
	}
	for _, vbd := range record.VBDs {
		disk, err := admin.VBD.GetVDI(t.Context(), vbd)
		if err == nil && !disk.IsNull() {
			err = admin.VDI.Destroy(t.Context(), disk)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := admin.VM.Destroy(t.Context(), snapshot); err != nil {
		t.Fatal(err)
	}
}
