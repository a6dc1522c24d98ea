package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// existingVM makes a VM on the pool as an administrator would: halted, one disk, one interface.
func existingVM(t testing.TB, w *testkit.World, name string) (ref, uuid string) {
	t.Helper()
	sr := w.Simulator.FindByName(t, "SR", "Local storage")
	net := w.Simulator.FindByName(t, "network", network)
	ref = w.Simulator.Insert("VM", map[string]any{
		"name_label": name, "power_state": "Halted", "other_config": map[string]string{"folder": "/office"},
		"VCPUs_max": int64(1), "VCPUs_at_startup": int64(1),
		"memory_static_max": int64(1 << 30), "memory_dynamic_max": int64(1 << 30), "memory_dynamic_min": int64(1 << 30), "memory_static_min": int64(1 << 29),
	})
	disk := w.Simulator.Insert("VDI", map[string]any{"name_label": name, "SR": sr, "virtual_size": int64(4 << 30), "managed": true, "type": "user"})
	w.Simulator.Insert("VBD", map[string]any{"VM": ref, "VDI": disk, "userdevice": "0", "mode": "RW", "type": "Disk", "bootable": true, "unpluggable": true})
	w.Simulator.Insert("VIF", map[string]any{"VM": ref, "network": net, "device": "0", "MAC": "aa:bb:cc:00:00:02"})
	return ref, w.Simulator.Records("VM")[ref]["uuid"].(string)
}

// TestObserve: a VM that is only observed is shown and not touched, and status says what Manage would do.
func TestObserve(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	_, uuid := existingVM(t, w, "office")
	w.WaitAtRest(t)
	fence.Arm(0)
	instance := testkit.Instance(w.Namespace, "office", testkit.PoolName).Adopting(uuid).Observed().OfFlavor("large").Powered(v1alpha1.PowerStateRunning).Object()
	create(t, w, instance)
	w.WaitReady(t, instance)
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
	if err := testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonObserved); err != nil {
		t.Error(err)
	}
	if instance.Status.UUID != uuid || instance.Status.PowerState != v1alpha1.PowerStateHalted {
		t.Errorf("status shows %s %s", instance.Status.UUID, instance.Status.PowerState)
	}
	wantPending(t, instance, "flavorRef.vcpus", "powerState")
	if len(instance.Status.UnmanagedDevices) != 2 {
		t.Errorf("unmanaged devices: %+v", instance.Status.UnmanagedDevices)
	}
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made for the deletion: %v", made)
	}
}

// TestObserveMany: three hundred VMs are shown, and the pool does not notice.
func TestObserveMany(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	const many = 300
	for n := range many {
		_, uuid := existingVM(t, w, fmt.Sprintf("office-%d", n))
		create(t, w, testkit.Instance(w.Namespace, fmt.Sprintf("office-%d", n), testkit.PoolName).Adopting(uuid).Observed().Object())
	}
	var all v1alpha1.XenInstanceList
	testkit.Eventually(t, "all are shown", func(ctx context.Context) error {
		if err := w.Client.List(ctx, &all, client.InNamespace(w.Namespace)); err != nil {
			return err
		}
		for i := range all.Items {
			if err := testkit.Ready(&all.Items[i]); err != nil {
				return fmt.Errorf("%s: %w", all.Items[i].Name, err)
			}
		}
		return nil
	})
	for _, action := range fence.Actions() {
		if action.To == "XenAPI" && action.What != "pool.get_all_records" {
			t.Errorf("call %s was made", action.What)
		}
	}
	w.WaitAtRest(t)
	if written := len(writes(fence)); written > 3*many {
		t.Errorf("%d writes for %d instances", written, many)
	}
}

// wantPending complains unless these fields are pending, all of them held.
func wantPending(t *testing.T, instance *v1alpha1.XenInstance, fields ...string) {
	t.Helper()
	found := map[string]v1alpha1.ChangeRequires{}
	for _, change := range instance.Status.PendingChanges {
		found[change.Field] = change.Requires
	}
	for _, field := range fields {
		if found[field] != v1alpha1.RequiresHold {
			t.Errorf("pending changes are %+v, want %s held", instance.Status.PendingChanges, field)
		}
	}
}

// TestAdopt: a VM that differs is marked and held until its user says so; then it is as asked. Deleting the object leaves
// it as it is, without a mark.
func TestAdopt(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	ref, uuid := existingVM(t, w, "office")
	instance := testkit.Instance(w.Namespace, "office", testkit.PoolName).Adopting(uuid).OfFlavor("small").Powered(v1alpha1.PowerStateRunning).Object()
	create(t, w, instance)
	w.WaitReady(t, instance)
	if err := testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAdoptionHeld); err != nil {
		t.Fatal(err)
	}
	wantPending(t, instance, "flavorRef.vcpus", "powerState")

	second := testkit.Instance(w.Namespace, "office2", testkit.PoolName).Adopting(uuid).Object()
	create(t, w, second)
	w.WaitStalled(t, second, v1alpha1.ReasonOwnedByAnother)
	if err := w.Client.Delete(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, second)

	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.Adoption = &v1alpha1.Adoption{OnMismatch: v1alpha1.MismatchApply}
	})
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	if instance.Status.Flavor == nil || instance.Status.Flavor.VCPUs != 2 {
		t.Errorf("flavor: %+v", instance.Status.Flavor)
	}

	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	record := w.Simulator.Records("VM")[ref]
	if record == nil || record["power_state"] != "Running" {
		t.Fatalf("the VM is not as it was: %v", record)
	}
	otherConfig := fmt.Sprint(record["other_config"])
	if strings.Contains(otherConfig, "kubexen.io") {
		t.Errorf("marks are left: %s", otherConfig)
	}
	if !strings.Contains(otherConfig, "/office") {
		t.Errorf("the administrator's own key is gone: %s", otherConfig)
	}
}

// TestTrash: a deleted VM is kept, cannot start, and comes back with its uuid; another object of the name gets its own VM.
func TestTrash(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	uuid := instance.Status.UUID
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)

	another := web(w).Object()
	create(t, w, another)
	waitPowered(t, w, another, v1alpha1.PowerStateRunning)
	if another.Status.UUID == uuid {
		t.Error("the new object has the VM from the trash")
	}
	edit(t, w, another, func(i *v1alpha1.XenInstance) { i.Spec.DeletionPolicy = v1alpha1.DeletionDelete })
	if err := w.Client.Delete(t.Context(), another); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, another)

	back := web(w).Object()
	w.WaitFor(t, testkit.Pool(testkit.PoolName).Object(), "the trash is shown", func() error { return inTrash(w, uuid) })
	said := undelete(t, w, back)
	if !strings.Contains(said, uuid) {
		t.Errorf("kubectl xen undelete says %q", said)
	}
	waitPowered(t, w, back, v1alpha1.PowerStateRunning)
	if back.Status.UUID != uuid {
		t.Errorf("the VM is %s, want %s back", back.Status.UUID, uuid)
	}
	testkit.Eventually(t, "it is said where the VM comes from", func(context.Context) error {
		if events := w.Kubectl(t, "get", "events", "-n", w.Namespace); !strings.Contains(events, v1alpha1.ReasonUndeleted) {
			return errors.New(events)
		}
		return nil
	})
	if _, err := xen(t, w, "undelete", "web", "-f", manifestFile(t, back)); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a living instance is made again: %v", err)
	}
	if _, err := xen(t, w, "undelete", "db", "-f", manifestFile(t, back)); err == nil || !strings.Contains(err.Error(), "no XenInstance db") {
		t.Errorf("another's manifest is taken: %v", err)
	}
}

// inTrash complains unless a pool shows the VM in its trash.
func inTrash(w *testkit.World, uuid string) error {
	var pool v1alpha1.XenPool
	if err := w.Client.Get(context.Background(), client.ObjectKey{Name: testkit.PoolName}, &pool); err != nil {
		return err
	}
	for _, trashed := range pool.Status.Trash {
		if trashed.UUID == uuid {
			return nil
		}
	}
	return fmt.Errorf("the trash is %+v", pool.Status.Trash)
}

// undelete makes an instance again as a user does who has its manifest.
func undelete(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance) string {
	t.Helper()
	said, err := xen(t, w, "undelete", instance.Name, "-f", manifestFile(t, instance))
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// manifestFile is a file with an object's manifest.
func manifestFile(t *testing.T, instance *v1alpha1.XenInstance) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	manifest := instance.DeepCopy()
	manifest.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("XenInstance"))
	if err := os.WriteFile(path, []byte(testkit.Manifest(manifest)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVanished: a VM or root disk that is gone is said to be, and no blank one takes its place.
func TestVanished(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := web(w).Powered(v1alpha1.PowerStateHalted).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
	w.WaitAtRest(t)
	fence.Arm(0)

	vm := byUUID(t, w, "VM", instance.Status.UUID)
	disk := byUUID(t, w, "VDI", instance.Status.RootDisk.VDIUUID)
	vanish(w, "VDI", disk)
	w.WaitStalled(t, instance, v1alpha1.ReasonExternallyDeleted)
	vanish(w, "VM", vm)
	w.WaitFor(t, instance, "the loss of the VM is said", func() error {
		return refusal(instance, true, v1alpha1.ReasonExternallyDeleted, []string{"no longer on the pool"})
	})
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}

	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.RecreatePolicy = v1alpha1.RecreateIfMissing })
	lost := instance.Status.UUID
	w.WaitFor(t, instance, "a new VM is there", func() error {
		if instance.Status.UUID == lost {
			return errors.New("not yet")
		}
		return testkit.Ready(instance)
	})
}

// vanish removes a record behind everybody's back.
func vanish(w *testkit.World, class, ref string) {
	w.Simulator.Lock()
	defer w.Simulator.Unlock()
	w.Simulator.DB().Delete(class, ref)
}

// byUUID finds a record's reference.
func byUUID(t testing.TB, w *testkit.World, class, uuid string) string {
	t.Helper()
	for ref, record := range w.Simulator.Records(class) {
		if record["uuid"] == uuid {
			return ref
		}
	}
	t.Fatalf("no %s %s", class, uuid)
	return ""
}

// TestRestore: objects brought into a fresh control plane, without status, uids, finalizers and owners, find their VMs:
// nothing is made, destroyed or restarted.
func TestRestore(t *testing.T) {
	t.Parallel()
	for name, annotated := range map[string]bool{"with the annotation": true, "with the marks alone": false} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWorld(t, withAgents)
			instance := web(w).Disk("data", "2Gi").With(func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "1" }).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			w.WaitAtRest(t)
			w.KillManager()

			forget(t, w, instance)
			restored := web(w).Disk("data", "2Gi").With(func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "1" }).Object()
			if annotated {
				restored.Annotations = map[string]string{v1alpha1.AnnotationVMUUID: instance.Status.UUID}
			}
			create(t, w, restored)
			fence := w.StartManager()
			waitPowered(t, w, restored, v1alpha1.PowerStateRunning)
			w.WaitAtRest(t)
			if restored.Status.UUID != instance.Status.UUID {
				t.Errorf("the VM is %s, want %s", restored.Status.UUID, instance.Status.UUID)
			}
			for _, call := range calls(fence) {
				switch call {
				case "VM.remove_from_other_config", "VM.add_to_other_config": // the mark of the incarnation
				default:
					t.Errorf("call %s was made", call)
				}
			}
		})
	}
}

// forget removes an object as if its cluster had been lost.
func forget(t testing.TB, w *testkit.World, instance *v1alpha1.XenInstance) {
	t.Helper()
	gone := instance.DeepCopy()
	if err := w.Client.Patch(t.Context(), gone, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
	if err := w.Client.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, gone)
}

// TestForceDelete: an object whose pool is gone for good can be let go, with a reason.
func TestForceDelete(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.Simulator.Close()
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitFor(t, instance, "the way out is told", func() error {
		for _, condition := range instance.Status.Conditions {
			if condition.Type == v1alpha1.ConditionReady && condition.Status != metav1.ConditionTrue {
				return refusal(instance, false, "", []string{v1alpha1.AnnotationForceDelete})
			}
		}
		return fmt.Errorf("still Ready")
	})
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Annotations[v1alpha1.AnnotationForceDelete] = "the pool burnt down" })
	w.WaitGone(t, instance)
}
