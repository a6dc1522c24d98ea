package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// xenSnapshot is a snapshot of web.
func xenSnapshot(w *testkit.World, name string, change func(*v1alpha1.XenSnapshotSpec)) *v1alpha1.XenSnapshot {
	s := &v1alpha1.XenSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec:       v1alpha1.XenSnapshotSpec{InstanceRef: v1alpha1.InstanceReference{Name: "web"}},
	}
	if change != nil {
		change(&s.Spec)
	}
	return s
}

// withWeb is a world in which web runs.
func withWeb(t *testing.T, change func(*testkit.InstanceBuilder)) (*testkit.World, *testkit.Fence) {
	t.Helper()
	w, fence := newWorld(t, withAgents)
	builder := web(w)
	if change != nil {
		change(builder)
	}
	instance := builder.Object()
	create(t, w, instance)
	w.WaitReady(t, instance)
	w.WaitAtRest(t)
	return w, fence
}

// snapshotVMs are the snapshots on the pool that carry our mark.
func snapshotVMs(w *testkit.World) []map[string]any {
	var found []map[string]any
	for _, vm := range w.Simulator.Records("VM") {
		config, _ := vm["other_config"].(map[string]string)
		if vm["is_a_snapshot"] == true && config["kubexen.io/role"] == "snapshot" {
			found = append(found, vm)
		}
	}
	return found
}

// snapshotDisks counts the disks of snapshots.
func snapshotDisks(w *testkit.World) int {
	n := 0
	for _, vdi := range w.Simulator.Records("VDI") {
		if vdi["is_a_snapshot"] == true {
			n++
		}
	}
	return n
}

func TestASnapshotOfARunningInstance(t *testing.T) {
	t.Parallel()
	w, fence := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "2Gi").With(withBootstrap) })
	before := snapshotDisks(w)
	fence.Arm(0)
	all := xenSnapshot(w, "all", nil)
	create(t, w, all)
	w.WaitReady(t, all)
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 6 {
		t.Errorf("a snapshot took %d calls: %s", len(made), strings.Join(made, ", "))
	}
	status := all.Status
	if len(status.Disks) != 2 || status.Disks[0].Name != "root" || status.Disks[1].Name != "data" || status.Size.String() != "14Gi" ||
		status.TakenAt == nil || status.Consistency != v1alpha1.ConsistencyCrash || !status.Local || status.InstanceUUID == "" {
		t.Errorf("status is %s", testkit.Manifest(all))
	}
	root := xenSnapshot(w, "root", func(s *v1alpha1.XenSnapshotSpec) { s.Disks = v1alpha1.SnapshotDisksRoot })
	create(t, w, root)
	w.WaitReady(t, root)
	if len(root.Status.Disks) != 1 || snapshotDisks(w) != before+3 {
		t.Errorf("a snapshot of the root disk has %d disks, and there are %d of snapshots", len(root.Status.Disks), snapshotDisks(w)-before)
	}

	// When the instance is deleted the snapshots stay; when they are deleted nothing of them does.
	instance := web(w).Object()
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	w.WaitReady(t, all)
	for _, s := range []*v1alpha1.XenSnapshot{all, root} {
		if err := w.Client.Delete(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, s)
	}
	if vms, disks := len(snapshotVMs(w)), snapshotDisks(w)-before; vms != 0 || disks != 0 {
		t.Errorf("%d snapshots and %d disks are left", vms, disks)
	}
}

// TestAPausedSnapshotIsNotReady: whoever waits for a snapshot before he goes on must not be let through before it is taken.
func TestAPausedSnapshotIsNotReady(t *testing.T) {
	t.Parallel()
	w, fence := withWeb(t, nil)
	s := xenSnapshot(w, "later", nil)
	s.Annotations = map[string]string{v1alpha1.AnnotationPaused: ""}
	w.WaitAtRest(t)
	fence.Arm(0)
	create(t, w, s)
	w.WaitFor(t, s, "it is said that it waits", func() error {
		return errors.Join(testkit.Condition(s, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPaused), testkit.CheckKstatus(s))
	})
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
	pause := func(patch string) {
		t.Helper()
		if err := w.Client.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	pause(`{"metadata":{"annotations":{"kubexen.io/paused":null}}}`)
	w.WaitReady(t, s)
	pause(`{"metadata":{"annotations":{"kubexen.io/paused":""}}}`)
	w.WaitFor(t, s, "it is paused, and ready as before", func() error {
		return errors.Join(testkit.Condition(s, v1alpha1.ConditionPaused, metav1.ConditionTrue, ""), testkit.Ready(s))
	})
}

func TestASnapshotIsTakenOnceWhateverIsLost(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	s := xenSnapshot(w, "once", nil)
	create(t, w, s)
	w.WaitReady(t, s)
	uuid := s.Status.UUID
	w.StopManager()

	// Given an object that comes back from a backup: without status and with another uid.
	restored := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Annotations: s.Annotations}, Spec: s.Spec}
	dropObject(t, w, s)
	create(t, w, restored)
	w.StartManager()
	w.WaitReady(t, restored)
	if restored.Status.UUID != uuid || len(snapshotVMs(w)) != 1 {
		t.Errorf("the restored snapshot is %s, it was %s; there are %d", restored.Status.UUID, uuid, len(snapshotVMs(w)))
	}

	// And when the pool has lost it too, it says so and takes no other.
	w.StopManager()
	again := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Annotations: restored.Annotations}, Spec: s.Spec}
	dropObject(t, w, restored)
	for ref, vm := range w.Simulator.Records("VM") {
		if vm["uuid"] == uuid {
			w.Simulator.Delete("VM", ref)
		}
	}
	create(t, w, again)
	w.StartManager()
	w.WaitStalled(t, again, v1alpha1.ReasonRestoredWithoutRecord)
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots were taken anew", n)
	}
}

// dropObject removes an object without anybody cleaning up after it.
func dropObject(t testing.TB, w *testkit.World, object client.Object) {
	t.Helper()
	release := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	if err := w.Client.Patch(t.Context(), object, release); err != nil {
		t.Fatal(err)
	}
	if err := w.Client.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, object)
}

func TestASnapshotWaitsForItsInstance(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	s := xenSnapshot(w, "early", nil)
	create(t, w, s)
	w.WaitFor(t, s, "it waits", func() error {
		return testkit.Condition(s, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonInstanceNotFound)
	})
	instance := web(w).Object()
	create(t, w, instance)
	w.WaitReady(t, s)
}

func TestASnapshotGoesWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	s := xenSnapshot(w, "short", func(s *v1alpha1.XenSnapshotSpec) { s.TTLSecondsAfterFinished = ptr.To(int64(1)) })
	create(t, w, s)
	w.WaitGone(t, s)
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots are left", n)
	}
}

func TestASnapshotThatSomebodyDeletedIsNotTakenAnew(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	s := xenSnapshot(w, "lost", nil)
	create(t, w, s)
	w.WaitReady(t, s)
	for ref, vm := range w.Simulator.Records("VM") {
		if vm["uuid"] == s.Status.UUID {
			w.Simulator.Delete("VM", ref)
		}
	}
	w.WaitStalled(t, s, v1alpha1.ReasonExternallyDeleted)
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots were taken anew", n)
	}
}

// names lists the files of an upload.
func names(s *v1alpha1.XenSnapshot) string {
	var all []string
	for _, file := range s.Status.Upload.Files {
		all = append(all, fmt.Sprintf("%s of %s", file.Name, file.Disk))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// TestSnapshotsAtOnce: the pool takes one snapshot of a VM after the other, and none of them waits for long. Each that is to have
// the guest's memory has it, for which the pool suspends the VM.
func TestSnapshotsAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	wanted := map[string]v1alpha1.SnapshotConsistency{
		"first": v1alpha1.ConsistencyMemory, "second": v1alpha1.ConsistencyMemory, "third": v1alpha1.ConsistencyMemory, "fourth": v1alpha1.ConsistencyCrash,
	}
	points := map[string]*v1alpha1.XenSnapshot{}
	for name, consistency := range wanted {
		points[name] = xenSnapshot(w, name, func(spec *v1alpha1.XenSnapshotSpec) {
			if consistency == v1alpha1.ConsistencyMemory {
				spec.Type = v1alpha1.SnapshotTypeMemory
			}
		})
		create(t, w, points[name])
	}
	for name, point := range points {
		w.WaitReady(t, point)
		if point.Status.Consistency != wanted[name] {
			t.Errorf("%s is %s, want %s", name, point.Status.Consistency, wanted[name])
		}
	}
	if n := len(snapshotVMs(w)); n != len(points) {
		t.Errorf("there are %d snapshots on the pool, want %d", n, len(points))
	}
}
