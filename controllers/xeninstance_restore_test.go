package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// vmOf is the record of a VM.
func vmOf(t testing.TB, simulator *testkit.Simulator, uuid string) (ref string, record map[string]any) {
	t.Helper()
	for ref, vm := range simulator.Records("VM") {
		if vm["uuid"] == uuid {
			return ref, vm
		}
	}
	t.Fatalf("there is no VM %s", uuid)
	return "", nil
}

// guestDisk is a disk of a running VM as its guest has it.
func diskInGuest(t testing.TB, simulator *testkit.Simulator, uuid, device string) xensim.GuestDisk {
	t.Helper()
	ref, _ := vmOf(t, simulator, uuid)
	disk, err := simulator.Guest().Disk(ref, device)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// writeDisk has a guest write a text onto a disk.
func writeDisk(t testing.TB, simulator *testkit.Simulator, uuid, device, text string) {
	t.Helper()
	if _, err := diskInGuest(t, simulator, uuid, device).WriteAt([]byte(text), 1<<20); err != nil {
		t.Fatal(err)
	}
}

// readDisk is what the guest reads there.
func readDisk(t testing.TB, simulator *testkit.Simulator, uuid, device string, length int) string {
	t.Helper()
	text := make([]byte, length)
	if _, err := diskInGuest(t, simulator, uuid, device).ReadAt(text, 1<<20); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(text, "\x00"))
}

// fromSnapshot is an instance that is made of a snapshot.
func fromSnapshot(w *testkit.World, name, snapshot string) *v1alpha1.XenInstance {
	i := testkit.Instance(w.Namespace, name, testkit.PoolName).Object()
	i.Spec.Source.SnapshotRef = &v1alpha1.SnapshotReference{Name: snapshot}
	return i
}

// macsOf are the addresses of a VM's interfaces.
func macsOf(simulator *testkit.Simulator, vm string) []string {
	var macs []string
	for _, vif := range simulator.Records("VIF") {
		if vif["VM"] == vm {
			macs = append(macs, fmt.Sprint(vif["MAC"]))
		}
	}
	return macs
}

// TestAnInstanceOfASnapshot: what was captured while the VM ran runs again beside it, with its disks, sizes and interfaces;
// and, when the instance is gone, under its own name.
func TestAnInstanceOfASnapshot(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "2Gi").Disk("logs", "1Gi").With(withBootstrap) })
	original := &v1alpha1.XenInstance{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "web"}}
	w.WaitReady(t, original)
	writeDisk(t, w.Simulator, original.Status.UUID, "0", "root then")
	writeDisk(t, w.Simulator, original.Status.UUID, "4", "data then")
	point := xenSnapshot(w, "point", func(s *v1alpha1.XenSnapshotSpec) { s.Type = v1alpha1.SnapshotTypeMemory })
	create(t, w, point)
	w.WaitReady(t, point)
	writeDisk(t, w.Simulator, original.Status.UUID, "0", "root now ")

	again := fromSnapshot(w, "again", "point")
	again.Spec.Disks = []v1alpha1.Disk{{Name: "data", Size: quantity("3Gi")}}
	create(t, w, again)
	w.WaitReady(t, again)
	uuid := again.Status.UUID
	if got := readDisk(t, w.Simulator, uuid, "0", 9) + ", " + readDisk(t, w.Simulator, uuid, "4", 9); got != "root then, data then" {
		t.Errorf("the disks hold %q", got)
	}
	ref, vm := vmOf(t, w.Simulator, uuid)
	if status := again.Status; vm["is_a_template"] != false || vm["power_state"] != "Running" || status.Flavor.Memory.String() != "1Gi" || status.Flavor.VCPUs != 2 ||
		len(status.Disks) != 1 || status.Disks[0].Size.String() != "3Gi" || len(status.UnmanagedDevices) != 0 {
		t.Errorf("the VM is %v, status is %s", vm, testkit.Manifest(again))
	}
	from, _ := vmOf(t, w.Simulator, original.Status.UUID)
	if ours, theirs := macsOf(w.Simulator, ref), macsOf(w.Simulator, from); len(ours) != 1 || len(theirs) != 1 || ours[0] == theirs[0] {
		t.Errorf("MAC addresses %v, and of the original %v", ours, theirs)
	}
	if n := len(disksOf(w.Simulator, ref)); n != 3 { // root, data, logs; not the config drive of web
		t.Errorf("it has %d disks: %v", n, disksOf(w.Simulator, ref))
	}

	// The snapshot may go, and then all the instance's disks go with it.
	if err := w.Client.Delete(t.Context(), point); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, point)
	w.WaitReady(t, again)
	edit(t, w, again, func(i *v1alpha1.XenInstance) {
		i.Spec.DeletionPolicy, i.Spec.Disks[0].OnInstanceDelete = v1alpha1.DeletionDelete, v1alpha1.DiskDelete
	})
	if err := w.Client.Delete(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, again)
	for _, vdi := range w.Simulator.Records("VDI") {
		if config, _ := vdi["other_config"].(map[string]string); config["kubexen.io/ref"] == "XenInstance/"+w.Namespace+"/again" {
			t.Errorf("disk %s is left", vdi["name_label"])
		}
	}
	w.WaitReady(t, original)
}

// disksOf are the names of the disks at a VM.
func disksOf(simulator *testkit.Simulator, vm string) []string {
	var names []string
	vdis := simulator.Records("VDI")
	for _, vbd := range simulator.Records("VBD") {
		if vbd["VM"] == vm && vbd["type"] == "Disk" {
			names = append(names, fmt.Sprint(vdis[fmt.Sprint(vbd["VDI"])]["name_label"]))
		}
	}
	return names
}

// TestAnInstanceComesBackUnderItsName: the instance is deleted and made anew of its snapshot, under the same name.
func TestAnInstanceComesBackUnderItsName(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "2Gi") })
	original := &v1alpha1.XenInstance{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "web"}}
	w.WaitReady(t, original)
	writeDisk(t, w.Simulator, original.Status.UUID, "4", "data then")
	point := xenSnapshot(w, "point", nil)
	create(t, w, point)
	w.WaitReady(t, point)
	if err := w.Client.Delete(t.Context(), original); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, original)
	back := fromSnapshot(w, "web", "point")
	back.Spec.Networks = []v1alpha1.NetworkInterface{{Name: "lan", Network: network}}
	create(t, w, back)
	w.WaitReady(t, back)
	w.WaitAtRest(t)
	if got := readDisk(t, w.Simulator, back.Status.UUID, "4", 9); got != "data then" || back.Status.UUID == original.Status.UUID {
		t.Errorf("VM %s reads %q", back.Status.UUID, got)
	}
	if len(back.Status.Networks) != 1 || len(back.Status.UnmanagedDevices) != 0 {
		t.Errorf("status is %s", testkit.Manifest(back))
	}
}

// TestOfHalfASnapshotNothingIsMade: a disk of it is gone, as while it is being removed. Neither a VM nor an image is made of
// the rest.
func TestOfHalfASnapshotNothingIsMade(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "1Gi") })
	point := xenSnapshot(w, "point", nil)
	create(t, w, point)
	w.WaitReady(t, point)
	for ref, vdi := range w.Simulator.Records("VDI") {
		if vdi["uuid"] == point.Status.Disks[0].VDIUUID {
			w.Simulator.Delete("VDI", ref)
		}
	}
	half := fromSnapshot(w, "half", "point")
	half.Spec.FlavorRef, half.Spec.RootDisk = &v1alpha1.FlavorReference{Name: "large"}, &v1alpha1.RootDisk{Size: quantity("12Gi")}
	create(t, w, half)
	w.WaitStalled(t, half, v1alpha1.ReasonSnapshotNotReady)
	image := imageOf(w, "half", "point", v1alpha1.ImagePool{Name: testkit.PoolName})
	create(t, w, image)
	w.WaitStalled(t, image, v1alpha1.ReasonSnapshotNotReady)
	if left := madeFor(w.Simulator, xencache.Key{Kind: "XenInstance", Namespace: w.Namespace, Name: "half"}); len(left) != 0 {
		t.Errorf("%v was made", left)
	}
}

// TestASnapshotStaysWhileItIsUsed: it goes when what is made of it is made, and says so meanwhile.
func TestASnapshotStaysWhileItIsUsed(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	missing := fromSnapshot(w, "early", "point")
	missing.Spec.FlavorRef = &v1alpha1.FlavorReference{Name: "not-yet"}
	create(t, w, missing)
	w.WaitFor(t, missing, "it waits for the snapshot", func() error {
		return testkit.Condition(missing, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSnapshotNotFound)
	})
	point := xenSnapshot(w, "point", nil)
	create(t, w, point)
	w.WaitReady(t, point)
	if err := w.Client.Delete(t.Context(), point); err != nil {
		t.Fatal(err)
	}
	w.WaitFor(t, point, "it stays", func() error {
		return testkit.Condition(point, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSnapshotInUse)
	})
	create(t, w, testkit.Flavor("not-yet", 1, "512Mi"))
	w.WaitReady(t, missing)
	w.WaitGone(t, point)
	late := fromSnapshot(w, "late", "point")
	create(t, w, late)
	testkit.Eventually(t, "nothing is left of the snapshot", func(context.Context) error {
		if len(snapshotVMs(w)) != 0 {
			return errors.New("it is there")
		}
		return nil
	})
	w.WaitFor(t, late, "it says that there is none", func() error {
		return testkit.Condition(late, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSnapshotNotFound)
	})
}
