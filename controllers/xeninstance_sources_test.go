package controllers_test

import (
	"bytes"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// TestISO: an empty root disk, the ISO in the drive, and the VM runs.
func TestISO(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := web(w).DeletedBy(v1alpha1.DeletionDelete).With(func(i *v1alpha1.XenInstance) {
		i.Spec.Source = v1alpha1.InstanceSource{ISO: &v1alpha1.ISOSource{Name: "debian-12-netinst.iso", Firmware: v1alpha1.FirmwareUEFI}}
	}).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	if instance.Status.RootDisk == nil || instance.Status.RootDisk.Size.String() != "12Gi" {
		t.Errorf("root disk: %+v", instance.Status.RootDisk)
	}
	if devices := instance.Status.UnmanagedDevices; len(devices) != 1 || devices[0].Type != v1alpha1.DeviceCD || devices[0].Name != "debian-12-netinst.iso" {
		t.Errorf("unmanaged devices: %+v", devices)
	}
	vm := w.Simulator.Records("VM")[byUUID(t, w, "VM", instance.Status.UUID)]
	if boot := fmt.Sprint(vm["HVM_boot_params"]); !bytes.Contains([]byte(boot), []byte("uefi")) {
		t.Errorf("boot parameters: %s", boot)
	}
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	w.Simulator.FindByName(t, "VDI", "debian-12-netinst.iso") // still there
}

// TestImage: a VM of an image is a copy-on-write clone of its disk, grown to what is asked; the image stays.
func TestImage(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	existingVM(t, w, "golden")
	disk := ""
	for _, record := range w.Simulator.Records("VDI") {
		if record["name_label"] == "golden" {
			disk, _ = record["uuid"].(string)
		}
	}
	image := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: "golden"}, Spec: v1alpha1.XenImageSpec{
		Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{VDIUUID: disk}},
		Pools:  []v1alpha1.ImagePool{{Name: testkit.PoolName}},
	}}
	create(t, w, image)
	t.Cleanup(func() { _ = w.Client.Delete(t.Context(), image) })
	w.WaitReady(t, image)
	w.WaitAtRest(t)
	fence.Arm(0)
	instance := web(w).With(func(i *v1alpha1.XenInstance) {
		i.Spec.Source = v1alpha1.InstanceSource{ImageRef: &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: "golden"}}
	}).DeletedBy(v1alpha1.DeletionDelete).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	if made := calls(fence); len(made) > 14 {
		t.Errorf("%d calls, budget 14: %v", len(made), made)
	}
	if instance.Status.RootDisk.Size.String() != "12Gi" || instance.Status.RootDisk.VDIUUID == disk {
		t.Errorf("root disk: %+v", instance.Status.RootDisk)
	}
	if err := w.Client.Delete(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, image)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted })
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted) // a VM that is made needs its image no longer
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	byUUID(t, w, "VDI", disk)
}

// TestBootstrap: the drive holds what the Secret holds and the hash of a password whose plain text is in a Secret alone;
// the drive goes when the guest has reported itself, the Secret with the object.
func TestBootstrap(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	const userData = "#cloud-config\n# a secret of the guest: 6c2f1e\n"
	create(t, w, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "guest"}, StringData: map[string]string{"user-data": userData},
	})
	instance := web(w).Powered(v1alpha1.PowerStateHalted).DeletedBy(v1alpha1.DeletionDelete).With(func(i *v1alpha1.XenInstance) {
		i.Spec.Bootstrap = &v1alpha1.Bootstrap{
			GeneratePassword: true,
			UserData:         &v1alpha1.DataSource{SecretKeyRef: &v1alpha1.KeySelector{Name: "guest", Key: "user-data"}},
		}
	}).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateHalted)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: instance.Status.PasswordSecretRef.Name}}
	w.WaitFor(t, secret, "the password is there", func() error { return nil })
	password := secret.Data["password"]

	image := exported(t, w)
	for _, part := range []string{userData, "cidata", instance.Status.UUID, "$6$"} {
		if !bytes.Contains(image, []byte(part)) && !bytes.Contains(image, bytes.ToUpper([]byte(part))) {
			t.Errorf("the drive does not hold %q", part)
		}
	}
	if len(password) < 16 || bytes.Contains(image, password) {
		t.Errorf("the password %q is short or on the drive", password)
	}

	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	if left := drives(w); len(left) != 0 {
		t.Errorf("the drive is still there although the guest reports: %v", left)
	}
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	w.WaitGone(t, secret)
}

// drives are the config drives on the pool.
func drives(w *testkit.World) []string {
	var refs []string
	for ref, record := range w.Simulator.Records("VDI") {
		if bytes.HasSuffix([]byte(fmt.Sprint(record["name_label"])), []byte("config drive")) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// exported reads the config drive through the pool.
func exported(t *testing.T, w *testkit.World) []byte {
	t.Helper()
	found := drives(w)
	if len(found) != 1 {
		t.Fatalf("%d config drives", len(found))
	}
	pool, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{w.Simulator.Endpoint}, Username: w.Simulator.User, Password: w.Simulator.Password, CABundle: w.Simulator.CACert(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close(t.Context()) })
	download, err := pool.ExportVDI(t.Context(), xenapi.ExportVDI{VDI: xenapi.VDIRef(found[0])})
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	if _, err := content.ReadFrom(download); err != nil {
		t.Fatal(err)
	}
	return content.Bytes()
}
