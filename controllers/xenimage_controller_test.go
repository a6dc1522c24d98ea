package controllers_test

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xencache"
)

func imageSpec(p *v1alpha1.XenPool, existing v1alpha1.ExistingImage) v1alpha1.XenImageSpec {
	return v1alpha1.XenImageSpec{
		Source: v1alpha1.ImageSource{Existing: &existing},
		Pools:  []v1alpha1.ImagePool{{Name: p.Name}},
	}
}

// uuidOf is the uuid of an object on the simulated pool.
func uuidOf(simulator *testkit.Simulator, class, ref string) string {
	return fmt.Sprint(simulator.Records(class)[ref]["uuid"])
}

// connected is a simulated pool that the manager uses.
func (l *lab) connected(change func(*v1alpha1.XenPool)) (*testkit.Simulator, *v1alpha1.XenPool) {
	l.t.Helper()
	simulator := l.simulator()
	p := l.pool("", simulator, func(p *v1alpha1.XenPool, _ *corev1.Secret) {
		if change != nil {
			change(p)
		}
	})
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonConnected)
	return simulator, p
}

func TestAFlavorIsReady(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	flavor := testkit.Flavor(l.prefix, 2, "1Gi")
	l.create(flavor)
	l.WaitReady(t, flavor)
	if err := testkit.CheckKstatus(flavor); err != nil {
		t.Error(err)
	}
}

func TestATemplateIsAnImageAndIsNotTouched(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator, p := l.connected(nil)
	template := simulator.FindByName(t, "VM", "Debian Bookworm 12")
	simulator.ResetCalls()
	image := &v1alpha1.XenClusterImage{
		ObjectMeta: metav1.ObjectMeta{Name: l.prefix},
		Spec:       imageSpec(p, v1alpha1.ExistingImage{TemplateUUID: uuidOf(simulator, "VM", template)}),
	}
	l.create(image)
	l.WaitReady(t, image)
	if got := image.Status.Pools[0]; got.TemplateUUID != uuidOf(simulator, "VM", template) || !got.Ready {
		t.Errorf("status is %+v", got)
	}
	for _, call := range simulator.Calls() {
		if call.Method != "event.from" {
			t.Errorf("to look at a template took a call of %s", call.Method)
		}
	}
}

func TestATemplateThatIsNotThereStallsUntilItIs(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator, p := l.connected(nil)
	image := &v1alpha1.XenClusterImage{
		ObjectMeta: metav1.ObjectMeta{Name: l.prefix},
		Spec:       imageSpec(p, v1alpha1.ExistingImage{TemplateUUID: "00000000-0000-0000-0000-00000000000a"}),
	}
	l.create(image)
	l.WaitStalled(t, image, v1alpha1.ReasonTemplateNotFound)
	simulator.Insert("VM", map[string]any{"uuid": "00000000-0000-0000-0000-00000000000a", "name_label": "late", "is_a_template": true})
	l.WaitReady(t, image)
}

func TestADiskBecomesAnImageAndOutlivesIt(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator, p := l.connected(nil)
	sr := simulator.FindByName(t, "SR", "NFS virtual disk storage")
	disk := simulator.Insert("VDI", map[string]any{"name_label": "golden", "SR": sr, "virtual_size": int64(5 << 30), "managed": true, "type": "user"})
	image := &v1alpha1.XenClusterImage{
		ObjectMeta: metav1.ObjectMeta{Name: l.prefix},
		Spec:       imageSpec(p, v1alpha1.ExistingImage{VDIUUID: uuidOf(simulator, "VDI", disk)}),
	}
	image.Spec.Firmware = v1alpha1.FirmwareUEFI
	l.create(image)
	l.WaitReady(t, image)
	if image.Status.VirtualSize.String() != "5Gi" || image.Status.Pools[0].VDIUUID != image.Spec.Source.Existing.VDIUUID {
		t.Errorf("status is %s", testkit.Manifest(image))
	}
	templates := markedTemplates(simulator, image.Name)
	if len(templates) != 1 {
		t.Fatalf("the image has %d templates", len(templates))
	}
	for _, vm := range templates {
		if vm["is_a_template"] != true || vm["uuid"] != image.Status.Pools[0].TemplateUUID || vm["HVM_boot_params"].(map[string]string)["firmware"] != "uefi" {
			t.Errorf("the template is %v", vm)
		}
	}
	if err := l.Client.Delete(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	l.WaitGone(t, image)
	if left := markedTemplates(simulator, image.Name); len(left) != 0 {
		t.Errorf("the image left %d templates", len(left))
	}
	if _, lives := simulator.Records("VDI")[disk]; !lives {
		t.Error("the disk went with the image")
	}
}

// markedTemplates are the VMs that carry the mark of a XenClusterImage.
func markedTemplates(simulator *testkit.Simulator, name string) map[string]map[string]any {
	found := map[string]map[string]any{}
	for ref, vm := range simulator.Records("VM") {
		config, _ := vm["other_config"].(map[string]string)
		if marks := xencache.ReadMarks(config); marks.Ref == (xencache.Key{Kind: "XenClusterImage", Name: name}) {
			found[ref] = vm
		}
	}
	return found
}

func TestANamespaceMakesImagesOfWhatIsGranted(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator, p := l.connected(func(p *v1alpha1.XenPool) {
		p.Spec.Grants = []v1alpha1.PoolGrant{{
			Namespaces: v1alpha1.GrantedNamespaces{
				From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"xen": "yes"}},
			},
			Templates: []string{"Debian Bookworm 12"},
		}}
	})
	namespace := l.Namespace(t)
	image := &v1alpha1.XenImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "debian"},
		Spec:       imageSpec(p, v1alpha1.ExistingImage{TemplateUUID: uuidOf(simulator, "VM", simulator.FindByName(t, "VM", "Debian Bookworm 12"))}),
	}
	l.create(image)
	l.WaitStalled(t, image, v1alpha1.ReasonNamespaceNotAllowed)
	update(l, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, func(n *corev1.Namespace) { n.Labels["xen"] = "yes" })
	l.WaitReady(t, image)
	disk := &v1alpha1.XenImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "disk"},
		Spec:       imageSpec(p, v1alpha1.ExistingImage{VDIUUID: "00000000-0000-0000-0000-00000000000b"}),
	}
	l.create(disk)
	l.WaitStalled(t, disk, v1alpha1.ReasonNamespaceNotAllowed)
}

func TestAnImageOfAnUnknownPoolSaysSoAndGoes(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	nowhere := &v1alpha1.XenPool{ObjectMeta: metav1.ObjectMeta{Name: "nowhere"}}
	image := &v1alpha1.XenClusterImage{
		ObjectMeta: metav1.ObjectMeta{Name: l.prefix},
		Spec:       imageSpec(nowhere, v1alpha1.ExistingImage{VDIUUID: "00000000-0000-0000-0000-00000000000b"}),
	}
	l.create(image)
	l.WaitStalled(t, image, v1alpha1.ReasonPoolNotFound)
	if err := l.Client.Delete(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	l.WaitGone(t, image)
}

func TestWhatIsInTheTrashGoesWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	l := newLab(t, nil)
	simulator, p := l.connected(nil)
	owner := xencache.Key{Kind: "XenInstance", Namespace: "team-a", Name: "gone"}
	config := xencache.Marks{Installation: "ours", Ref: owner, Role: xencache.RoleVM}.OtherConfig()
	config[xencache.MarkTrashedAt] = "2020-01-01T00:00:00Z"
	update(l, p, func(p *v1alpha1.XenPool) { p.Spec.Maintenance = true })
	l.waitPool(p, v1alpha1.ConditionReady, yes, v1alpha1.ReasonMaintenance)
	vm := simulator.Insert("VM", map[string]any{"name_label": "trashed", "other_config": config, "power_state": "Halted"})
	l.WaitFor(t, p, "the trash is shown while maintenance holds it", func() error {
		if p.Status.TrashCount != 1 || p.Status.Trash[0].Name != "gone" {
			return fmt.Errorf("trash: %+v", p.Status.Trash)
		}
		return nil
	})
	update(l, p, func(p *v1alpha1.XenPool) { p.Spec.Maintenance = false })
	l.WaitFor(t, p, "the trash is empty", func() error {
		if p.Status.TrashCount != 0 {
			return errors.New("it is not")
		}
		return nil
	})
	if _, lives := simulator.Records("VM")[vm]; lives {
		t.Error("the VM is not in the trash, but lives")
	}
	if err := client.IgnoreNotFound(l.Client.Get(t.Context(), client.ObjectKeyFromObject(p), p)); err != nil {
		t.Fatal(err)
	}
}
