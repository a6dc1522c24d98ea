package controllers_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

const rescueImage = "rescue"

// addRescueImage puts an image on the pool that rescue VMs are made from.
func addRescueImage(t testing.TB, w *testkit.World) {
	t.Helper()
	existingVM(t, w, rescueImage)
	disk, _ := w.Simulator.Records("VDI")[w.Simulator.FindByName(t, "VDI", rescueImage)]["uuid"].(string)
	image := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: rescueImage}, Spec: v1alpha1.XenImageSpec{
		Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{VDIUUID: disk}},
		Pools:  []v1alpha1.ImagePool{{Name: testkit.PoolName}},
	}}
	create(t, w, image)
	w.WaitReady(t, image)
}

// inRescue asks for a rescue with the image.
func inRescue(i *v1alpha1.XenInstance) {
	i.Spec.Rescue = &v1alpha1.Rescue{
		State: v1alpha1.RescueOn, ImageRef: &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: rescueImage},
	}
}

func outOfRescue(i *v1alpha1.XenInstance) { i.Spec.Rescue.State = v1alpha1.RescueOff }

// rescued complains until the condition Rescued has a reason.
func rescued(reason string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		condition := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionRescued)
		if condition == nil || condition.Reason != reason {
			return fmt.Errorf("Rescued is %+v", condition)
		}
		return nil
	}
}

func waitRescued(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, reason string) {
	t.Helper()
	w.WaitFor(t, i, "Rescued is "+reason, func() error {
		if i.Status.ObservedGeneration != i.Generation {
			return errors.New("the change is not seen yet")
		}
		return errors.Join(rescued(reason)(i), testkit.Ready(i))
	})
}

// picture is a VM with all that hangs on it, as far as it is to be the same after a rescue: a text for each field.
func picture(w *testkit.World, uuid string) map[string]string {
	shown := map[string]string{}
	put := func(where string, record map[string]any, fields ...string) {
		for _, field := range fields {
			shown[where+"."+field] = fmt.Sprint(record[field])
		}
	}
	vms := w.Simulator.Records("VM")
	for ref, vm := range vms {
		if vm["uuid"] != uuid {
			continue
		}
		put("vm", vm, "name_label", "name_description", "HVM_boot_params", "HVM_boot_policy", "NVRAM", "tags",
			"power_state", "memory_static_max", "memory_dynamic_max", "VCPUs_max", "VCPUs_at_startup", "blocked_operations",
			"ha_restart_priority", "order", "start_delay", "actions_after_shutdown", "actions_after_reboot", "is_a_template", "affinity", "other_config", "platform")
		for vbd, record := range w.Simulator.Records("VBD") {
			if record["VM"] == ref {
				put("vbd "+vbd, record, "uuid", "VDI", "userdevice", "bootable", "mode", "type", "unpluggable", "empty", "other_config",
					"qos_algorithm_type", "qos_algorithm_params", "currently_attached")
				if vdi, isDisk := record["VDI"].(string); isDisk {
					put("vdi "+vdi, w.Simulator.Records("VDI")[vdi], "uuid", "name_label", "virtual_size", "SR", "other_config", "read_only", "sharable")
				}
			}
		}
		for vif, record := range w.Simulator.Records("VIF") {
			if record["VM"] == ref {
				put("vif "+vif, record, "uuid", "MAC", "network", "device", "MTU", "qos_algorithm_type", "qos_algorithm_params", "locking_mode",
					"ipv4_allowed", "ipv6_allowed", "other_config", "currently_attached")
			}
		}
	}
	return shown
}

// differences are the fields that two pictures show differently.
func differences(before, after map[string]string) string {
	var all []string
	keys := slices.Sorted(maps.Keys(before))
	for key := range after {
		if _, known := before[key]; !known {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if before[key] != after[key] {
			all = append(all, fmt.Sprintf("%s was %s, is %s", key, before[key], after[key]))
		}
	}
	return strings.Join(all, "\n")
}

// census counts the objects on the pool.
func census(w *testkit.World) map[string]int {
	counts := map[string]int{}
	for _, class := range []string{"VM", "VDI", "VBD", "VIF"} {
		counts[class] = len(w.Simulator.Records(class))
	}
	return counts
}

// TestRescue: another VM runs with the disks and the addresses of the instance, and afterwards everything is as it was.
func TestRescue(t *testing.T) { // not in parallel: it reads what the process has counted
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	before, own := picture(w, instance.Status.UUID), instance.Status.UUID
	objects, transitions, returns := census(w), counted(t, "kubexen_rescue_transitions_total"), counted(t, "kubexen_rescue_duration_seconds")

	fence.Arm(0)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	w.WaitAtRest(t)
	entering := calls(fence)
	t.Logf("%d calls to enter: %v, %d writes", len(entering), entering, len(writes(fence)))
	if len(entering) > 25 {
		t.Errorf("%d calls to enter rescue, budget 25", len(entering))
	}
	status := instance.Status
	if status.UUID != own || status.Rescue == nil || status.Rescue.VMUUID == own || instance.GuestUUID() != status.Rescue.VMUUID {
		t.Fatalf("the status in rescue: %+v", status.Rescue)
	}
	if status.PowerState != v1alpha1.PowerStateRunning || status.Rescue.Image != rescueImage {
		t.Errorf("%s, %+v", status.PowerState, status.Rescue)
	}
	rescue := w.Simulator.Records("VM")[byUUID(t, w, "VM", status.Rescue.VMUUID)]
	if rescue["power_state"] != "Running" || w.Simulator.Records("VM")[byUUID(t, w, "VM", own)]["power_state"] != "Halted" {
		t.Error("the wrong VM runs")
	}
	var secret corev1.Secret
	name := client.ObjectKey{Namespace: w.Namespace, Name: "web-rescue"}
	if err := w.Client.Get(t.Context(), name, &secret); err != nil {
		t.Fatal(err)
	}
	w.NeverShow(string(secret.Data["password"]))

	fence.Arm(0)
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	w.WaitAtRest(t)
	leaving := calls(fence)
	t.Logf("%d calls to leave: %v, %d writes", len(leaving), leaving, len(writes(fence)))
	if len(leaving) > 11 {
		t.Errorf("%d calls to leave rescue, budget 11", len(leaving))
	}
	if diff := differences(before, picture(w, own)); diff != "" {
		t.Errorf("after the rescue:\n%s", diff)
	}
	if after := census(w); !maps.Equal(objects, after) {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
	if err := w.Client.Get(t.Context(), name, &secret); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret with the password: %v", err)
	}
	if instance.Status.Rescue != nil || instance.GuestUUID() != own {
		t.Errorf("the status after the rescue: %+v", instance.Status.Rescue)
	}
	transitions, returns = counted(t, "kubexen_rescue_transitions_total")-transitions, counted(t, "kubexen_rescue_duration_seconds")-returns
	if transitions < 4 || returns != 1 {
		t.Errorf("%v transitions and %v returns are counted", transitions, returns)
	}
}

// counted is what a metric has counted, over all its labels.
func counted(t *testing.T, name string) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			total += metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return total
}
