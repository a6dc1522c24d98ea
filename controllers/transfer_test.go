package controllers_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestADiskGoesRoundTheWorld: a file system with files is imported, an instance runs from it, a snapshot of it while it runs
// is uploaded, and another pool boots from that.
func TestADiskGoesRoundTheWorld(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store, before := newWebStore(t), snapshotDisks(w)
	raw, tree := ext4(t, 24)
	store.put("/golden.raw", raw)
	image := httpImage("golden", store.URL+"/golden.raw", raw, testkit.PoolName)
	create(t, w, image)
	w.WaitReady(t, image)
	if status := image.Status; status.Progress != "100%" || status.VirtualSize.Value() != int64(len(raw)) || status.Checksum.Value != digest(raw) ||
		status.Format != v1alpha1.DiskFormatRaw || status.Source != store.URL+"/golden.raw" {
		t.Errorf("status is %s", testkit.Manifest(image))
	}
	instance := testkit.Instance(w.Namespace, "web", testkit.PoolName).FromClusterImage("golden").OfFlavor("small").Object()
	create(t, w, instance)
	w.WaitReady(t, instance)

	for format, qemu := range map[v1alpha1.DiskFormat]string{v1alpha1.DiskFormatVHD: "vpc", v1alpha1.DiskFormatRaw: "raw"} {
		name := strings.ToLower(string(format))
		s := xenSnapshot(w, name, toStore(store, func(d *v1alpha1.SnapshotDestination) { d.Format = format }))
		create(t, w, s)
		w.WaitReady(t, s)
		file, found := store.file("/" + w.Namespace + "/" + name + "/root." + name)
		if upload := s.Status.Upload; !found || len(upload.Files) != 1 || upload.Files[0].SHA256 != digest(file) || upload.Percent != 100 || s.Status.Local {
			t.Fatalf("the store has %v; status is %s", store.paths(), testkit.Manifest(s))
		}
		sameFiles(t, asRaw(t, file, qemu), tree)
	}
	if disks := snapshotDisks(w) - before; disks != 0 {
		t.Errorf("%d disks of snapshots are left although they were uploaded", disks)
	}

	second := secondPool(t, w, "second")
	vhd, _ := store.file("/" + w.Namespace + "/vhd/root.vhd")
	copied := httpImage("copied", store.URL+"/"+w.Namespace+"/vhd/root.vhd", vhd, "second", testkit.PoolName)
	create(t, w, copied)
	w.WaitReady(t, copied)
	twin := testkit.Instance(w.Namespace, "twin", "second").FromClusterImage("copied").OfFlavor("small").Object()
	create(t, w, twin)
	w.WaitReady(t, twin)
	again := xenSnapshot(w, "again", toStore(store, func(d *v1alpha1.SnapshotDestination) { d.Format = v1alpha1.DiskFormatRaw }))
	again.Spec.InstanceRef.Name = "twin"
	create(t, w, again)
	w.WaitReady(t, again)
	file, _ := store.file("/" + w.Namespace + "/again/root.raw")
	sameFiles(t, file, tree)
	testkit.Eventually(t, "no transfer holds a disk", func(ctx context.Context) error { return controlDomainHoldsNothing(ctx, second, w.Simulator) })

	// When the images go, the instances stay.
	for _, i := range []*v1alpha1.XenClusterImage{image, copied} {
		if err := w.Client.Delete(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, i)
	}
	if n := disksWithRole(second, "image") + disksWithRole(w.Simulator, "image"); n != 0 {
		t.Errorf("%d disks of images are left", n)
	}
	w.WaitReady(t, twin)
}

func TestAnImageWithAWrongChecksumIsNeverUsed(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	store := newWebStore(t)
	body := make([]byte, 4<<20)
	store.put("/other.raw", body)
	image := httpImage("other", store.URL+"/other.raw", []byte("something else"), testkit.PoolName)
	// A host may have the disk plugged in for a moment after the transfer.
	w.Simulator.SetFaults([]xensim.Fault{{Call: "VDI.destroy", Error: "VDI_IN_USE", Params: []string{"OpaqueRef:a", "destroy"}, Count: 1000}})
	create(t, w, image)
	w.WaitStalled(t, image, v1alpha1.ReasonChecksumMismatch)
	w.Simulator.SetFaults(nil)
	testkit.Eventually(t, "nothing of it is left", func(context.Context) error {
		if n := disksWithRole(w.Simulator, "import") + disksWithRole(w.Simulator, "image"); n != 0 {
			return io.ErrShortWrite
		}
		return nil
	})
	if n := len(markedTemplates(w.Simulator, "other")); n != 0 {
		t.Errorf("%d templates were made", n)
	}
}

func TestAStoreThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	store.refusePuts(http.StatusServiceUnavailable)
	s := xenSnapshot(w, "patient", toStore(store, nil))
	create(t, w, s)
	w.WaitFor(t, s, "it says that the store fails", func() error {
		return testkit.Condition(s, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonStoreUnavailable)
	})
	if s.Status.Upload.NextRetryTime == "" || s.Status.Upload.Attempts != 1 || !s.Status.Local {
		t.Errorf("status is %s", testkit.Manifest(s))
	}
	store.answer(nil)
	w.WaitReady(t, s)
	if s.Status.Upload.Attempts < 2 || names(s) != "root.vhd of root" {
		t.Errorf("status is %s", testkit.Manifest(s))
	}
}

func TestAnUploadThatFailsForGoodKeepsTheSnapshotAndGoes(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	store.refusePuts(http.StatusForbidden)
	s := xenSnapshot(w, "refused", toStore(store, nil))
	s.Spec.BackoffLimit = ptr.To(int32(0))
	create(t, w, s)
	w.WaitStalled(t, s, v1alpha1.ReasonBackoffLimitExceeded)
	if len(snapshotVMs(w)) != 1 || len(store.paths()) != 0 {
		t.Errorf("%d snapshots, files %v", len(snapshotVMs(w)), store.paths())
	}
	if err := w.Client.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, s)
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots are left", n)
	}
}

func TestAnUploadIsCancelledByDeletion(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	held, released, before := make(chan struct{}), make(chan struct{}), snapshotDisks(w)
	defer close(released)
	store.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			close(held)
			<-released // it reads nothing and says nothing
		}
		return r.Method == http.MethodPut
	})
	s := xenSnapshot(w, "stuck", toStore(store, nil))
	create(t, w, s)
	<-held
	if err := w.Client.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, s)
	if len(snapshotVMs(w)) != 0 || snapshotDisks(w) != before || len(store.paths()) != 0 {
		t.Errorf("%d snapshots and %d disks are left, files %v", len(snapshotVMs(w)), snapshotDisks(w)-before, store.paths())
	}
	testkit.Eventually(t, "no transfer holds a disk", func(ctx context.Context) error { return controlDomainHoldsNothing(ctx, w.Simulator) })
}

// TestAnUploadOutlivesItsInstance: the instance is deleted with its VM while one upload runs and another waits for its turn; both
// end well, and nothing of the snapshots is left on the pool.
func TestAnUploadOutlivesItsInstance(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.DeletedBy(v1alpha1.DeletionDelete) })
	instance := web(w).Object()
	w.WaitReady(t, instance)
	writeDisk(t, w.Simulator, instance.Status.UUID, "0", "written before the snapshots")
	vm, before := byUUID(t, w, "VM", instance.Status.UUID), snapshotDisks(w)
	changePool(t, w, func(p *v1alpha1.XenPoolSpec) { p.Limits = &v1alpha1.PoolLimits{MaxTransfersPerHost: ptr.To(int32(1))} })
	store := newWebStore(t)
	held, release := store.holding()
	defer release()
	running, waiting := xenSnapshot(w, "running", toStore(store, nil)), xenSnapshot(w, "waiting", toStore(store, nil))
	create(t, w, running)
	<-held
	create(t, w, waiting)
	w.WaitFor(t, waiting, "it waits for its turn", func() error {
		return testkit.Condition(waiting, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonWaitingForTransfer)
	})

	remove(t, w, instance)
	if _, there := w.Simulator.Records("VM")[vm]; there || len(snapshotVMs(w)) != 2 {
		t.Fatalf("the VM is there: %v; %d snapshots are", there, len(snapshotVMs(w)))
	}
	release()
	for _, s := range []*v1alpha1.XenSnapshot{running, waiting} {
		w.WaitReady(t, s)
		if err := testkit.Condition(s, v1alpha1.ConditionUploaded, metav1.ConditionTrue, ""); err != nil || s.Status.Local || s.Status.Upload.Attempts != 1 {
			t.Errorf("%v: status is %s", err, testkit.Manifest(s))
		}
		file, _ := store.file("/" + w.Namespace + "/" + s.Name + "/root.vhd")
		if digest(file) != s.Status.Upload.Files[0].SHA256 || !bytes.Contains(file, []byte("written before the snapshots")) {
			t.Errorf("%s: the store has %v, and not what the disk held; status is %s", s.Name, store.paths(), testkit.Manifest(s))
		}
	}
	if len(snapshotVMs(w)) != 0 || snapshotDisks(w) != before {
		t.Errorf("%d snapshots and %d disks are left", len(snapshotVMs(w)), snapshotDisks(w)-before)
	}
	testkit.Eventually(t, "no transfer holds a disk", func(ctx context.Context) error { return controlDomainHoldsNothing(ctx, w.Simulator) })
}

func TestAnUploadIsRememberedByItsDestination(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	s := xenSnapshot(w, "kept", toStore(store, nil))
	create(t, w, s)
	w.WaitReady(t, s)
	uuid, puts := s.Status.UUID, store.puts
	w.StopManager()
	fresh := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}, Spec: s.Spec} // as from Git
	dropObject(t, w, s)
	create(t, w, fresh)
	w.StartManager()
	w.WaitReady(t, fresh)
	if fresh.Status.UUID != uuid || store.puts != puts || len(snapshotVMs(w)) != 0 {
		t.Errorf("it was taken anew: %s", testkit.Manifest(fresh))
	}

	// And with deletionPolicy Delete the copy goes, too.
	edit(t, w, fresh, func(s *v1alpha1.XenSnapshot) { s.Spec.DeletionPolicy = v1alpha1.SnapshotDelete })
	if err := w.Client.Delete(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, fresh)
	if left := store.paths(); len(left) != 0 {
		t.Errorf("the store still has %v", left)
	}
}

// TestAnUploadIsOnRecordBeforeItBegins: whatever is found in a store, the object told of an attempt before. Only what an earlier
// life of it may have left is looked for first.
func TestAnUploadIsOnRecordBeforeItBegins(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	point := xenSnapshot(w, "point", toStore(store, nil))
	key := client.ObjectKeyFromObject(point)
	var looks atomic.Int32
	unannounced := make(chan string, 1)
	store.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		told := &v1alpha1.XenSnapshot{}
		err := w.Client.Get(r.Context(), key, told)
		if looked := looks.Add(1) == 1; !looked && (err != nil || told.Status.Upload == nil || told.Status.Upload.Attempts == 0) {
			select {
			case unannounced <- fmt.Sprintf("%s %s, while status is %s, %v", r.Method, r.URL, testkit.Manifest(told), err):
			default:
			}
		}
		return false
	})
	create(t, w, point)
	w.WaitReady(t, point)
	select {
	case request := <-unannounced:
		t.Error(request)
	default:
	}
}
