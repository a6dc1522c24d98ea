package controllers_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestRestoreOfACluster: the cluster is lost, and its backup is brought into a fresh one: all objects, without status,
// uids, finalizers and owner references. Every object finds its VM, and nothing is made, destroyed, started or stopped.
func TestRestoreOfACluster(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	_, office := existingVM(t, w, "office")
	_, watched := existingVM(t, w, "watched")
	golden := w.Simulator.Insert("VDI", map[string]any{
		"name_label": "golden", "SR": w.Simulator.FindByName(t, "SR", "Local storage"), "virtual_size": int64(5 << 30), "managed": true, "type": "user",
	})
	image := &v1alpha1.XenClusterImage{
		ObjectMeta: metav1.ObjectMeta{Name: "golden"},
		Spec:       imageSpec(testkit.Pool(testkit.PoolName).Object(), v1alpha1.ExistingImage{VDIUUID: uuidOf(w.Simulator, "VDI", golden)}),
	}
	create(t, w, image)
	w.WaitReady(t, image)
	named := func(name string, change func(*v1alpha1.XenInstance)) *v1alpha1.XenInstance {
		return web(w).With(func(i *v1alpha1.XenInstance) { i.Name = name }).With(change).Object()
	}
	instances := []*v1alpha1.XenInstance{
		web(w).Disk("data", "2Gi").With(withBootstrap).With(func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "1" }).Object(),
		named("off", func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted }),
		named("of-image", func(i *v1alpha1.XenInstance) {
			i.Spec.Source = v1alpha1.InstanceSource{ImageRef: &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: "golden"}}
		}),
		testkit.Instance(w.Namespace, "office", testkit.PoolName).Adopting(office).Object(),
		testkit.Instance(w.Namespace, "watched", testkit.PoolName).Adopting(watched).Observed().Object(),
		named("deleted", func(*v1alpha1.XenInstance) {}),
	}
	for _, instance := range instances {
		create(t, w, instance)
	}
	for _, instance := range instances {
		w.WaitReady(t, instance)
	}
	deleted := instances[len(instances)-1]
	if err := w.Client.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, deleted)
	w.WaitAtRest(t)
	w.KillManager()
	saved := backup(t, w)

	for name, annotated := range map[string]bool{"with annotations": true, "with the marks alone": false} {
		t.Run(name, func(t *testing.T) {
			before := inventory(w.Simulator)
			fresh := testkit.StartOwn(t)
			restore(t, fresh, saved, annotated)
			fence := standBy(t, fresh.Config, runManager)
			for _, instance := range instances[:len(instances)-1] {
				restored := &v1alpha1.XenInstance{ObjectMeta: metav1.ObjectMeta{Namespace: instance.Namespace, Name: instance.Name}}
				fresh.WaitReady(t, restored)
				if restored.Status.UUID != instance.Status.UUID {
					t.Errorf("%s has VM %s, want %s", instance.Name, restored.Status.UUID, instance.Status.UUID)
				}
			}
			fresh.WaitReady(t, &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: "golden"}})
			atRest(t, fence)
			for _, call := range calls(fence) {
				if !strings.HasSuffix(call, "_other_config") { // marks are brought up to date
					t.Errorf("call %s was made", call)
				}
			}
			after := inventory(w.Simulator)
			for _, ref := range slices.Sorted(maps.Keys(before)) {
				if !reflect.DeepEqual(before[ref], after[ref]) {
					t.Errorf("%s was\n%v\nand is\n%v", ref, before[ref], after[ref])
				}
			}
			if len(after) != len(before) {
				t.Errorf("%d objects became %d", len(before), len(after))
			}
			fence.Kill()
		})
	}
}

// atRest waits until nothing has passed the fence for a while.
func atRest(t *testing.T, fence *testkit.Fence) {
	t.Helper()
	last, quiet := -1, 0
	testkit.Eventually(t, "the manager is at rest", func(context.Context) error {
		if made := len(fence.Actions()); made != last {
			last, quiet = made, 0
		}
		if quiet++; quiet < 20 {
			return errors.New("it goes on")
		}
		return nil
	})
}

// inventory is all that instances are made of, by reference; marks, which name the incarnation of their owner, left out.
func inventory(simulator *testkit.Simulator) map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, class := range []string{"VM", "VM_metrics", "VDI", "VBD", "VIF"} {
		for ref, record := range simulator.Records(class) {
			record = maps.Clone(record)
			delete(record, "other_config")
			all[class+" "+ref] = record
		}
	}
	return all
}

// backup is every object of ours with its namespace and the Secrets, as a backup tool would keep them.
func backup(t *testing.T, w *testkit.World) []*unstructured.Unstructured {
	t.Helper()
	kinds := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Namespace"), corev1.SchemeGroupVersion.WithKind("Secret"),
	}
	for _, kind := range []string{"XenPool", "XenFlavor", "XenClusterImage", "XenImage", "XenInstance"} {
		kinds = append(kinds, v1alpha1.GroupVersion.WithKind(kind))
	}
	var saved []*unstructured.Unstructured
	for _, kind := range kinds {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(kind)
		if err := w.Client.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			object := &list.Items[i]
			ours := []string{w.Namespace, testkit.SystemNamespace}
			if kind.Group == "" && !slices.Contains(ours, object.GetNamespace()) && !slices.Contains(ours, object.GetName()) {
				continue
			}
			delete(object.Object, "status")
			metadata := map[string]any{"name": object.GetName()}
			for _, field := range []string{"namespace", "labels", "annotations"} {
				if value, found, _ := unstructured.NestedFieldNoCopy(object.Object, "metadata", field); found {
					metadata[field] = value
				}
			}
			object.Object["metadata"] = metadata
			saved = append(saved, object)
		}
	}
	return saved
}

// restore brings a backup into a cluster.
func restore(t *testing.T, to *testkit.Environment, saved []*unstructured.Unstructured, annotated bool) {
	t.Helper()
	for _, kept := range saved {
		object := kept.DeepCopy()
		if !annotated {
			object.SetAnnotations(nil)
		}
		if err := to.Client.Create(t.Context(), object); err != nil {
			t.Fatalf("restore %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}
