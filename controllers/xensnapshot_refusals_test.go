package controllers_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestNoSnapshotOfAnothersVM: whoever names another's VM in an annotation gets nothing of it, and a VM that is only observed is
// not touched.
func TestNoSnapshotOfAnothersVM(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	_, uuid := existingVM(t, w, "office")
	thief := web(w).With(func(i *v1alpha1.XenInstance) { i.Annotations = map[string]string{v1alpha1.AnnotationVMUUID: uuid} }).Object()
	observer := testkit.Instance(w.Namespace, "observer", testkit.PoolName).Adopting(uuid).Observed().Object()
	create(t, w, observer)
	w.WaitReady(t, observer)
	changePool(t, w, func(p *v1alpha1.XenPoolSpec) { p.Grants[0].Adopt = v1alpha1.AdoptNone })
	create(t, w, thief)
	w.WaitStalled(t, thief, v1alpha1.ReasonNamespaceNotAllowed)
	w.WaitAtRest(t)
	fence.Arm(0)
	for instance, reason := range map[string]string{"web": v1alpha1.ReasonInstanceNotFound, "observer": v1alpha1.ReasonObserved} {
		s := xenSnapshot(w, "loot-of-"+instance, nil)
		s.Spec.InstanceRef.Name = instance
		create(t, w, s)
		w.WaitFor(t, s, "it is refused", func() error {
			return testkit.Condition(s, v1alpha1.ConditionCaptured, metav1.ConditionFalse, reason)
		})
	}
	w.WaitAtRest(t)
	if made := calls(fence); len(made) != 0 || len(snapshotVMs(w)) != 0 {
		t.Errorf("calls were made: %v; there are %d snapshots", made, len(snapshotVMs(w)))
	}
}

// TestDisksOfOneName: a disk that was another instance's, and has the name of one of ours in its marks, is known by the name of
// the entry that attached it.
func TestDisksOfOneName(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "8Mi") })
	old := testkit.Instance(w.Namespace, "old", testkit.PoolName).FromTemplate(template).OfFlavor("small").Disk("data", "16Mi").
		DeletedBy(v1alpha1.DeletionDelete).Object()
	create(t, w, old)
	w.WaitReady(t, old)
	kept := old.Status.Disks[len(old.Status.Disks)-1].VDIUUID
	if err := w.Client.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, old)
	instance := web(w).Object()
	w.WaitReady(t, instance)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) {
		i.Spec.Disks = append(i.Spec.Disks, v1alpha1.Disk{Name: "kept", VDIUUID: kept})
	})
	w.WaitReady(t, instance)
	s := xenSnapshot(w, "both", nil)
	create(t, w, s)
	w.WaitReady(t, s)
	got := map[string]string{}
	for _, disk := range s.Status.Disks {
		got[disk.Name] = disk.Size.String()
	}
	if want := map[string]string{"root": "12Gi", "data": "8Mi", "kept": "16Mi"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the disks are %v, want %v", got, want)
	}
}

// TestAnUnknownPastIsNotOverwritten: whether a snapshot was taken before is only known to its store. As long as that does not
// answer, none is taken under the name.
func TestAnUnknownPastIsNotOverwritten(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	s := xenSnapshot(w, "once", toStore(store, nil))
	create(t, w, s)
	w.WaitReady(t, s)
	uuid := s.Status.UUID
	fresh := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}, Spec: s.Spec} // as from Git
	w.StopManager()
	dropObject(t, w, s)
	store.answer(func(rw http.ResponseWriter, _ *http.Request) bool {
		http.Error(rw, "not yet restored", http.StatusServiceUnavailable)
		return true
	})
	create(t, w, fresh)
	w.StartManager()
	w.WaitFor(t, fresh, "it waits for its store", func() error {
		return testkit.Condition(fresh, v1alpha1.ConditionCaptured, metav1.ConditionFalse, v1alpha1.ReasonStoreUnavailable)
	})
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots were taken", n)
	}
	store.answer(nil)
	w.WaitReady(t, fresh)
	if fresh.Status.UUID != uuid {
		t.Errorf("it was taken anew: %s", testkit.Manifest(fresh))
	}
}

// TestNothingIsMadeOfHalfASnapshot: its disks go one after the other, and one of them may be held for a while. An instance that
// is asked for meanwhile is refused, and gets no blank disk.
func TestNothingIsMadeOfHalfASnapshot(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, func(b *testkit.InstanceBuilder) { b.Disk("data", "8Mi") })
	store := newWebStore(t)
	instance := web(w).Object()
	w.WaitReady(t, instance)
	ref, _ := vmOf(t, w.Simulator, instance.Status.UUID)
	w.Simulator.SetFaults([]xensim.Fault{{
		Call: "VDI.destroy", Object: diskName(t, w, ref, "4"), Error: "VDI_IN_USE", Params: []string{"", "destroy"},
	}})
	before := snapshotDisks(w)
	s := xenSnapshot(w, "point", toStore(store, nil))
	create(t, w, s)
	testkit.Eventually(t, "the root disk of the snapshot has gone, and the other one has not", func(context.Context) error {
		if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if disks := snapshotDisks(w) - before; s.Status.FinishedAt == nil || disks != 1 {
			return fmt.Errorf("%d disks of it are there", disks)
		}
		return nil
	})
	copied := fromSnapshot(w, "copied", "point")
	create(t, w, copied)
	w.WaitFor(t, copied, "it is refused", func() error {
		return testkit.Condition(copied, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSnapshotNotReady)
	})
	if copied.Status.UUID != "" {
		t.Errorf("a VM was made of it: %s", testkit.Manifest(copied))
	}
	w.Simulator.SetFaults(nil)
	if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
		t.Fatal(err)
	}
	askAgain(t, w, s, "now that the disk is free")
	w.WaitReady(t, s)
	if disks, vms := snapshotDisks(w)-before, len(snapshotVMs(w)); disks != 0 || vms != 0 {
		t.Errorf("%d disks and %d snapshots are left", disks, vms)
	}
}
