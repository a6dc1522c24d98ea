package controllers_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// nowhere complains of a secret that is in clear in a record of the pool, in the object, or on the rescue VM's config drive.
func nowhere(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, drive []byte, secret string) {
	t.Helper()
	var everything bytes.Buffer
	if err := w.Simulator.Dump(&everything); err != nil {
		t.Fatal(err)
	}
	for place, content := range map[string][]byte{
		"a record of the pool": everything.Bytes(), "the config drive": drive, "the object": []byte(testkit.Manifest(instance)),
	} {
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("%s shows the password", place)
		}
	}
}

// rescueDriveOf is the content of the rescue VM's config drive, as its guest has it.
func rescueDriveOf(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance) []byte {
	t.Helper()
	return readAll(t, guestDisk(t, w, byUUID(t, w, "VM", instance.Status.Rescue.VMUUID), "3"))
}

// TestRescueCredentials: a password is on the config drive as its hash and nowhere else, whether it was made or given; given
// keys are there too. A generated one is in a Secret as long as the rescue lasts, a given Secret stays as it is.
func TestRescueCredentials(t *testing.T) {
	t.Parallel()
	const given, key = "correct-horse-battery", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample root@example"
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	credentials := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "way-in"},
		Data:       map[string][]byte{"password": []byte(given), "ssh-authorized-keys": []byte("# mine\n" + key + "\n")},
	}
	create(t, w, credentials)
	generated := client.ObjectKey{Namespace: w.Namespace, Name: "web-rescue"}

	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		inRescue(i)
		i.Spec.Rescue.CredentialsSecretRef = &v1alpha1.LocalSecretReference{Name: credentials.Name}
	})
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	drive := rescueDriveOf(t, w, instance)
	nowhere(t, w, instance, drive, given)
	if !bytes.Contains(drive, []byte(key)) || !bytes.Contains(drive, []byte("$6$")) {
		t.Error("the config drive lacks the key or the password's hash")
	}
	if err := w.Client.Get(t.Context(), generated, &corev1.Secret{}); !apierrors.IsNotFound(err) || instance.Status.Rescue.SecretRef != nil {
		t.Errorf("a password was made: %v, %+v", err, instance.Status.Rescue.SecretRef)
	}
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	var kept corev1.Secret
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(credentials), &kept); err != nil || kept.ResourceVersion != credentials.ResourceVersion {
		t.Errorf("the given Secret was changed: %v", err)
	}

	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		inRescue(i)
		i.Spec.Rescue.CredentialsSecretRef = nil
	})
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	var made corev1.Secret
	if err := w.Client.Get(t.Context(), generated, &made); err != nil {
		t.Fatal(err)
	}
	password := string(made.Data["password"])
	drive = rescueDriveOf(t, w, instance)
	nowhere(t, w, instance, drive, password)
	if !bytes.Contains(drive, []byte("$6$")) || bytes.Contains(drive, []byte(key)) {
		t.Error("the config drive lacks the password's hash, or has a key")
	}
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	if err := w.Client.Get(t.Context(), generated, &made); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret with the password: %v", err)
	}
}

// TestConsolesAcrossARescue: a URL dies on the way in and on the way back, and what was seen through it is cut. A console that
// is to be renewed has a new one each time, which means the guest that runs then.
func TestConsolesAcrossARescue(t *testing.T) {
	t.Parallel()
	c, instance := newConsoleWorldOn(t, withAgents)
	addRescueImage(t, c.World)
	once := c.console("once", "  client: XVP")
	renewed := c.console("renewed", "  client: XVP\n  renewal: WhileRequested")
	own := instance.Status.UUID
	cross := func(change func(*v1alpha1.XenInstance), reason string) {
		t.Helper()
		stream := c.view(renewed)
		asked := time.Now()
		edit(t, c.World, instance, change)
		stream.cutWithin(testkit.Patience/2, asked)
		waitRescued(t, c.World, instance, reason)
		waitPowered(t, c.World, instance, v1alpha1.PowerStateRunning)
		last := renewed
		renewed = c.url("renewed", last)
		if _, status := c.tryView(last); status != "HTTP/1.1 401 Unauthorized" {
			t.Errorf("the old URL is answered %q", status)
		}
		_ = c.view(renewed).Close()
		console := c.waitConsole("renewed", v1alpha1.ConditionURLIssued, metav1.ConditionTrue, v1alpha1.ReasonIssued)
		if console.Status.VMUUID != instance.GuestUUID() {
			t.Errorf("the console means VM %s, and %s is shown", console.Status.VMUUID, instance.GuestUUID())
		}
	}
	cross(inRescue, v1alpha1.ReasonRescueActive)
	if instance.GuestUUID() == own {
		t.Error("the VM itself is shown in rescue")
	}
	c.waitConsole("once", v1alpha1.ConditionExpired, metav1.ConditionTrue, v1alpha1.ReasonRevoked)
	cross(outOfRescue, v1alpha1.ReasonNotRequested)
	if instance.GuestUUID() != own {
		t.Error("the VM itself is not shown after the rescue")
	}
	if _, status := c.tryView(once); status != "HTTP/1.1 401 Unauthorized" {
		t.Errorf("the URL that was for once is answered %q", status)
	}
}

// TestSnapshotsInRescue: a snapshot takes the disks of the instance itself while it is in rescue, and none of the rescue VM's.
// One with memory waits for the return.
func TestSnapshotsInRescue(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).Disk("data", "1Gi").With(withBootstrap).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	before := picture(w, instance.Status.UUID)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	w.WaitAtRest(t)

	disk := xenSnapshot(w, "disk", nil)
	memory := xenSnapshot(w, "memory", func(s *v1alpha1.XenSnapshotSpec) { s.Type = v1alpha1.SnapshotTypeMemory })
	create(t, w, disk)
	w.WaitReady(t, disk)
	var names []string
	for _, d := range disk.Status.Disks {
		names = append(names, d.Name+" "+d.Size.String())
	}
	if disk.Status.InstanceUUID != instance.Status.UUID || !slices.Equal(names, []string{"root 12Gi", "data 1Gi"}) {
		t.Errorf("the snapshot of VM %s has %s", disk.Status.InstanceUUID, strings.Join(names, ", "))
	}
	create(t, w, memory)
	w.WaitFor(t, memory, "the memory waits for the return", func() error {
		condition := meta.FindStatusCondition(memory.Status.Conditions, v1alpha1.ConditionReady)
		if condition == nil || condition.Reason != v1alpha1.ReasonNotRunning || !strings.Contains(condition.Message, "in rescue") {
			return fmt.Errorf("Ready is %+v", condition)
		}
		return testkit.CheckKstatus(memory)
	})
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	w.WaitReady(t, memory)
	w.WaitAtRest(t)
	if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
		t.Errorf("after the rescue:\n%s", diff)
	}
}

// TestChangesWaitForTheReturn: what is changed in the spec of an instance in rescue is held and said so, a restart means the
// rescue VM, and on the return the VM boots once, with everything that was asked for meanwhile.
func TestChangesWaitForTheReturn(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	instance := web(w).With(func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "first" }).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	waitAgent(t, w, instance)
	w.WaitAtRest(t)
	own, before := byUUID(t, w, "VM", instance.Status.UUID), picture(w, instance.Status.UUID)
	fence.Arm(0)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.FlavorRef.Name, i.Spec.RootDisk.Size = "large", ptr.To(resource.MustParse("14Gi"))
		i.Spec.Disks = append(i.Spec.Disks, v1alpha1.Disk{Name: "more", Size: ptr.To(resource.MustParse("1Gi"))})
	})
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	w.WaitAtRest(t)
	held := map[string]v1alpha1.ChangeRequires{}
	for _, change := range instance.Status.PendingChanges {
		held[change.Field] = change.Requires
	}
	for _, field := range []string{"flavorRef.vcpus", "flavorRef.memory", "rootDisk.size", "disks[more]"} {
		if held[field] != v1alpha1.RequiresHold {
			t.Errorf("%s is %q, want it held: %v", field, held[field], held)
		}
	}
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}

	rescue := byUUID(t, w, "VM", instance.Status.Rescue.VMUUID)
	booted := bootedAt(w, rescue)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "second" })
	w.WaitFor(t, instance, "the rescue VM was restarted", func() error {
		if instance.Status.RestartToken != "second" || bootedAt(w, rescue) == booted {
			return errors.New("it was not")
		}
		return testkit.Ready(instance)
	})
	if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
		t.Errorf("the VM itself was touched:\n%s", diff)
	}
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	w.WaitFor(t, instance, "it runs with all that was asked for", func() error {
		if len(instance.Status.Disks) != 1 || !instance.Status.Disks[0].Attached || instance.Status.Flavor.Name != "large" || instance.Status.RootDisk.Size.String() != "14Gi" {
			return fmt.Errorf("it has %+v", instance.Status.Flavor)
		}
		return errors.Join(testkit.Ready(instance), isRunning(instance))
	})
	w.WaitAtRest(t)
	starts := 0
	for _, call := range calls(fence) {
		if strings.HasPrefix(call, "Async.VM.start") || strings.HasPrefix(call, "Async.VM.clean_reboot") {
			starts++
		}
	}
	if vm := w.Simulator.Records("VM")[own]; starts != 1 || vm["VCPUs_max"] != int64(4) {
		t.Errorf("%d starts, %v VCPUs", starts, vm["VCPUs_max"])
	}
}
