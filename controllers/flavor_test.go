package controllers_test

import (
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestADeletedFlavorHurtsNoVM: sizes were copied to the VM, so it stays Ready, and is stopped and started, without the
// flavor.
func TestADeletedFlavorHurtsNoVM(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	flavor := testkit.Flavor("passing", 1, "512Mi")
	flavor.Spec.RootDisk, flavor.Spec.EphemeralDisk, flavor.Spec.SwapDisk = quantity("14Gi"), quantity("2Gi"), quantity("1Gi")
	create(t, w, flavor)
	instance := web(w).OfFlavor("passing").Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	disks := len(w.Simulator.Records("VDI"))
	if err := w.Client.Delete(t.Context(), flavor); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, flavor)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	if left := len(w.Simulator.Records("VDI")); left != disks {
		t.Errorf("%d disks became %d", disks, left)
	}
	if applied := instance.Status.Flavor; applied == nil || applied.Name != "passing" || applied.VCPUs != 1 {
		t.Errorf("the status is %s", testkit.Manifest(instance))
	}
}
