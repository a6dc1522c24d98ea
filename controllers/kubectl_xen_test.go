package controllers_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// fresh reads an instance as it is stored now.
func fresh(t testing.TB, w *testkit.World, instance *v1alpha1.XenInstance) *v1alpha1.XenInstance {
	t.Helper()
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err != nil {
		t.Fatal(err)
	}
	return instance
}

// says runs the plug-in, which must succeed, and complains unless its last line holds a text.
func says(t *testing.T, w *testkit.World, text string, args ...string) {
	t.Helper()
	out, err := xen(t, w, append(args, "--timeout", "30s")...)
	if err != nil {
		t.Fatalf("kubectl xen %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	t.Logf("kubectl xen %s\n%s", strings.Join(args, " "), out)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, text) {
		t.Errorf("kubectl xen %s ends with %q, want %q", strings.Join(args, " "), last, text)
	}
}

// fails runs the plug-in, which must fail, and complains unless it says a text.
func fails(t *testing.T, w *testkit.World, text string, args ...string) {
	t.Helper()
	if out, err := xen(t, w, append(args, "--timeout", "30s")...); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("kubectl xen %s ends with %v, want %q\n%s", strings.Join(args, " "), err, text, out)
	}
}

// writtenByPlugIn complains unless the API server knows that the plug-in wrote a field of the spec.
func writtenByPlugIn(t *testing.T, instance *v1alpha1.XenInstance, field string) {
	t.Helper()
	for _, entry := range instance.ManagedFields {
		if entry.Manager == "kubectl-xen" && strings.Contains(entry.FieldsV1.String(), `"f:`+field+`"`) {
			return
		}
	}
	t.Errorf("nobody called kubectl-xen has written %s", field)
}

// TestKubectlXenRescue: the way into a rescue and back from the command line.
func TestKubectlXenRescue(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	fails(t, w, "not found", "rescue", "nobody")
	fails(t, w, `no XenClusterImage "nothing"`, "rescue", "web", "--image", "nothing")
	says(t, w, "web is not in rescue", "unrescue", "web")
	says(t, w, "the password is in the Secret web-rescue", "rescue", "web", "--image", rescueImage)
	if fresh(t, w, instance).Status.Rescue == nil {
		t.Error("it is not in rescue")
	}
	writtenByPlugIn(t, instance, "rescue")
	says(t, w, "back as before: the VM is Running", "unrescue", "web")
	says(t, w, "web is not in rescue", "unrescue", "web")
}

// TestKubectlXenResize: another size from the command line, kept and taken back, and what is refused.
func TestKubectlXenResize(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	create(t, w, testkit.Flavor("huge", 2, "900Gi"))
	instance := web(w).With(func(i *v1alpha1.XenInstance) {
		i.Spec.Resize = &v1alpha1.Resize{Confirmation: v1alpha1.ResizeManual}
	}).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)

	fails(t, w, `no XenFlavor "enormous"`, "resize", "web", "--flavor", "enormous")
	fails(t, w, "not found", "resize", "nobody", "--flavor", "large")
	fails(t, w, "waits to be confirmed", "confirm", "web")
	fails(t, w, "can be reverted", "revert", "web")
	fails(t, w, v1alpha1.ReasonFlavorTooLarge, "resize", "web", "--flavor", "huge")
	says(t, w, "web has flavor small", "resize", "web", "--flavor", "small")

	says(t, w, "kubectl xen resize web --flavor large --restart does it now", "resize", "web", "--flavor", "large")
	says(t, w, "kubectl xen confirm web keeps it", "resize", "web", "--flavor", "large", "--restart")
	if got := fresh(t, w, instance).Status.Flavor; got.Name != "large" || got.VCPUs != 4 {
		t.Errorf("it has %+v", got)
	}
	writtenByPlugIn(t, instance, "flavorRef")
	fails(t, w, "no restore point", "revert", "web", "--discard")
	says(t, w, "web has flavor small", "revert", "web")
	says(t, w, "kubectl xen confirm web keeps it", "resize", "web", "--flavor", "large")
	says(t, w, "web has flavor large", "confirm", "web")
	fails(t, w, "waits to be confirmed", "confirm", "web")

	// The root disk as well, and back again: one that the spec goes on asking for would be grown anew.
	edit(t, w, fresh(t, w, instance), rooted("14Gi"))
	says(t, w, "kubectl xen revert web goes back", "resize", "web", "--flavor", "small")
	says(t, w, "web has flavor large", "revert", "web", "--discard")
	w.WaitAtRest(t)
	if got := fresh(t, w, instance); got.Spec.RootDisk.Size.String() != "12Gi" || got.Status.RootDisk.Size.String() != "12Gi" || got.Status.Resize != nil {
		t.Errorf("the spec asks for %s, the disk has %s, resize %+v", got.Spec.RootDisk.Size, got.Status.RootDisk.Size, got.Status.Resize)
	}
}

// TestKubectlXenWaitsForItsUser: what waits for the VM to be off is said, and not waited for.
func TestKubectlXenWaitsForItsUser(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).With(manually).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	says(t, w, "kubectl xen confirm web keeps it", "resize", "web", "--flavor", "large")
	edit(t, w, fresh(t, w, instance), func(i *v1alpha1.XenInstance) { i.Spec.Resize.Strategy = v1alpha1.ResizeOnNextBoot })
	says(t, w, "PowerOffRequired: changes wait until the VM is off", "revert", "web")
}

// TestKubectlXenMigrate: another host from the command line.
func TestKubectlXenMigrate(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, twoHosts)
	instance := web(w).With(storedOn(localStorage)).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	fails(t, w, "not found", "migrate", "nobody", "--host", "xs2")
	fails(t, w, `has no host "xs9"; it has xs1, xs2`, "migrate", "web", "--host", "xs9", "--pin")
	if placement := fresh(t, w, instance).Spec.Placement; placement != nil {
		t.Errorf("the command that failed wrote %+v", placement)
	}
	says(t, w, "web is on xs2", "migrate", "web", "--host", "xs2")
	writtenByPlugIn(t, fresh(t, w, instance), "placement")
	host := xenapi.HostRef(w.Simulator.FindByName(t, "host", "xs1"))
	vm := xenapi.VMRef(byUUID(t, w, "VM", instance.Status.UUID))
	if err := w.Simulator.Update("VDI", rootOf(w, string(vm)), map[string]any{"SR": w.Simulator.FindByName(t, "SR", sharedStorage)}); err != nil {
		t.Fatal(err)
	}
	if err := administrator(t, w).VM.PoolMigrate(t.Context(), vm, host, map[string]string{}); err != nil {
		t.Fatal(err)
	}
	w.WaitAtRest(t)
	fails(t, w, "a preference counts once; --pin brings it back", "migrate", "web", "--host", "xs2")
	uuid, _ := w.Simulator.Records("host")[w.Simulator.FindByName(t, "host", "xs2")]["uuid"].(string)
	says(t, w, "web is on xs2", "migrate", "web", "--host", uuid, "--pin")
	edit(t, w, fresh(t, w, instance), func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
	says(t, w, "web is Halted and starts on xs1", "migrate", "web", "--host", "xs1", "--pin")
	edit(t, w, fresh(t, w, instance), func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
	waitOn(t, w, instance, "xs1")
}
