package controllers_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// imageOf is a namespaced image of a snapshot, on some pools.
func imageOf(w *testkit.World, name, snapshot string, pools ...v1alpha1.ImagePool) *v1alpha1.XenImage {
	image := &v1alpha1.XenImage{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name}}
	image.Spec.Source.Snapshot = &v1alpha1.SnapshotReference{Name: snapshot}
	image.Spec.Pools = pools
	return image
}

// fromImage is an instance that is made of a namespaced image.
func fromImage(w *testkit.World, name, image, pool string) *v1alpha1.XenInstance {
	i := testkit.Instance(w.Namespace, name, pool).OfFlavor("small").Object()
	i.Spec.Source.ImageRef = &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindNamespaced, Name: image}
	return i
}

// madeFor are the names of what on a pool carries the mark of an object of ours as its own.
func madeFor(simulator *testkit.Simulator, owner xencache.Key) []string {
	var found []string
	for _, class := range []string{"VM", "VDI"} {
		for _, record := range simulator.Records(class) {
			config, _ := record["other_config"].(map[string]string)
			marks := xencache.ReadMarks(config)
			if byName, ok := xencache.ParseMarkName(fmt.Sprint(record["name_label"])); ok && marks.IsZero() {
				marks = byName
			}
			if marks.Ref == owner && !marks.IsCopyOf(fmt.Sprint(record["uuid"])) {
				found = append(found, class+" "+fmt.Sprint(record["name_label"]))
			}
		}
	}
	return found
}

// TestAnImageOfASnapshot: it is cloned on its own storage, copied to another, and imported from its upload to another pool;
// instances boot from each, and when snapshot and image go nothing is left.
func TestAnImageOfASnapshot(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "2Gi") })
	original := &v1alpha1.XenInstance{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "web"}}
	w.WaitReady(t, original)
	writeDisk(t, w.Simulator, original.Status.UUID, "0", "golden")
	store := newWebStore(t)
	second := secondPool(t, w, "imaged")
	point := xenSnapshot(w, "point", toStore(store, nil))
	point.Spec.KeepLocal = v1alpha1.KeepAlways
	create(t, w, point)
	image := imageOf(w, "golden", "point",
		v1alpha1.ImagePool{Name: testkit.PoolName, StorageRepositories: []string{"Local storage", "NFS virtual disk storage"}}, v1alpha1.ImagePool{Name: "imaged"})
	create(t, w, image)
	w.WaitReady(t, image)
	if status := image.Status; status.Source != "point" || status.VirtualSize.String() != "12Gi" || len(status.Pools) != 2 || len(status.Pools[0].Copies) != 2 {
		t.Errorf("status is %s", testkit.Manifest(image))
	}
	if err := w.Client.Delete(t.Context(), point); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, point)
	for name, pool := range map[string]*testkit.Simulator{testkit.PoolName: w.Simulator, "imaged": second} {
		instance := fromImage(w, "of-"+name, "golden", name)
		create(t, w, instance)
		w.WaitReady(t, instance)
		ref, vm := vmOf(t, pool, instance.Status.UUID)
		if got := readDisk(t, pool, instance.Status.UUID, "0", 6); got != "golden" {
			t.Errorf("on pool %s the disk holds %q", name, got)
		}
		config, _ := vm["other_config"].(map[string]string)
		if n := len(disksOf(pool, ref)); n != 1 || config["HideFromXenCenter"] != "" {
			t.Errorf("on pool %s the VM has %d disks and %v", name, n, config)
		}
	}
	if err := w.Client.Delete(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, image)
	owner := xencache.Key{Kind: "XenImage", Namespace: w.Namespace, Name: "golden"}
	if left := append(madeFor(w.Simulator, owner), madeFor(second, owner)...); len(left) != 0 {
		t.Errorf("the image left %v", left)
	}
}

// TestAnImageWaitsForItsSnapshot: and says what it waits for.
func TestAnImageWaitsForItsSnapshot(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	image := imageOf(w, "early", "point", v1alpha1.ImagePool{Name: testkit.PoolName})
	create(t, w, image)
	w.WaitFor(t, image, "it waits", func() error {
		return testkit.Condition(image, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSnapshotNotFound)
	})
	create(t, w, xenSnapshot(w, "point", nil))
	w.WaitReady(t, image)
}
