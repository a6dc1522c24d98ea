package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestRefusals: whatever a user gets wrong is said in a condition, with what was wanted, what is and what to do, and
// nothing is made for it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	create(t, w, testkit.Flavor("giant", 4, "30Ti"))
	create(t, w, testkit.Flavor("many", 500, "1Gi"))
	create(t, w, web(w).With(func(i *v1alpha1.XenInstance) { i.Name = "taken"; i.Spec.Networks[0].MAC = "02:00:00:00:00:77" }).Object())
	taken := web(w).With(func(i *v1alpha1.XenInstance) { i.Name = "taken" }).Object()
	w.WaitReady(t, taken)
	w.WaitAtRest(t)

	const (
		stalled = true
		waiting = false
	)
	tests := map[string]struct {
		change  func(*v1alpha1.XenInstance)
		stalled bool
		reason  string
		says    []string
	}{
		"unknown template": {
			func(i *v1alpha1.XenInstance) { i.Spec.Source.TemplateName = "Debian 99" },
			stalled, v1alpha1.ReasonTemplateNotFound, []string{"Debian 99", testkit.PoolName},
		},
		"unknown network": {
			func(i *v1alpha1.XenInstance) { i.Spec.Networks[0].Network = "dmz" },
			stalled, v1alpha1.ReasonNetworkNotFound, []string{"dmz"},
		},
		"no network named and no default": {
			func(i *v1alpha1.XenInstance) { i.Spec.Networks[0].Network = "" },
			stalled, v1alpha1.ReasonNetworkNotFound, []string{"defaults.network"},
		},
		"unknown storage repository": {
			func(i *v1alpha1.XenInstance) { i.Spec.RootDisk.StorageRepository = "ssd" },
			stalled, v1alpha1.ReasonStorageRepositoryNotFound, []string{"ssd"},
		},
		"unknown flavor": {
			func(i *v1alpha1.XenInstance) { i.Spec.FlavorRef.Name = "tiny" },
			waiting, v1alpha1.ReasonFlavorNotFound, []string{"tiny", "flavorRef"},
		},
		"flavor larger than any host's memory": {
			func(i *v1alpha1.XenInstance) { i.Spec.FlavorRef.Name = "giant" },
			stalled, v1alpha1.ReasonFlavorTooLarge, []string{"30Ti", "64Gi"},
		},
		"flavor of more CPUs than any host": {
			func(i *v1alpha1.XenInstance) { i.Spec.FlavorRef.Name = "many" },
			stalled, v1alpha1.ReasonFlavorTooLarge, []string{"500", "16"},
		},
		"unknown image": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Source = v1alpha1.InstanceSource{ImageRef: &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: "none"}}
			},
			waiting, v1alpha1.ReasonImageNotFound, []string{"none"},
		},
		"unknown ISO": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Source = v1alpha1.InstanceSource{ISO: &v1alpha1.ISOSource{Name: "none.iso"}}
			},
			stalled, v1alpha1.ReasonISONotFound, []string{"none.iso"},
		},
		"no VM to adopt": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Source = v1alpha1.InstanceSource{Existing: &v1alpha1.ExistingVM{UUID: "00000000-0000-0000-0000-000000000000"}}
			},
			stalled, v1alpha1.ReasonVMNotFound, []string{"00000000-0000-0000-0000-000000000000"},
		},
		"a VM that is another's": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Source = v1alpha1.InstanceSource{Existing: &v1alpha1.ExistingVM{UUID: taken.Status.UUID}}
			},
			stalled, v1alpha1.ReasonOwnedByAnother, []string{"XenInstance/" + w.Namespace + "/taken"},
		},
		"unknown disk": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Disks = []v1alpha1.Disk{{Name: "data", VDIUUID: "00000000-0000-0000-0000-000000000000"}}
			},
			stalled, v1alpha1.ReasonDiskNotFound, []string{"00000000"},
		},
		"another's disk": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Disks = []v1alpha1.Disk{{Name: "data", VDIUUID: taken.Status.RootDisk.VDIUUID}}
			},
			stalled, v1alpha1.ReasonOwnedByAnother, []string{"taken"},
		},
		"another's MAC address": {
			func(i *v1alpha1.XenInstance) { i.Spec.Networks[0].MAC = "02:00:00:00:00:77" },
			stalled, v1alpha1.ReasonDuplicateMAC, []string{"02:00:00:00:00:77"},
		},
		"unknown host": {
			func(i *v1alpha1.XenInstance) { i.Spec.Placement = &v1alpha1.Placement{Host: "xs99", Pin: true} },
			stalled, v1alpha1.ReasonHostNotFound, []string{"xs99"},
		},
		"no user data": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Bootstrap = &v1alpha1.Bootstrap{UserData: &v1alpha1.DataSource{SecretKeyRef: &v1alpha1.KeySelector{Name: "none", Key: "user-data"}}}
			},
			waiting, v1alpha1.ReasonUserDataNotFound, []string{"Secret", "none"},
		},
		"unknown pool": {
			func(i *v1alpha1.XenInstance) { i.Spec.PoolRef.Name = "none" },
			waiting, v1alpha1.ReasonPoolNotFound, []string{"none"},
		},
		"no root disk size": {
			func(i *v1alpha1.XenInstance) {
				i.Spec.Source, i.Spec.RootDisk = v1alpha1.InstanceSource{ISO: &v1alpha1.ISOSource{Name: "debian-12-netinst.iso"}}, nil
			},
			stalled, v1alpha1.ReasonInvalidSpec, []string{"rootDisk"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			instance := web(w).With(test.change).Object()
			fence.Arm(0)
			create(t, w, instance)
			w.WaitFor(t, instance, "the refusal is said", func() error { return refusal(instance, test.stalled, test.reason, test.says) })
			if made := calls(fence); len(made) > 0 {
				t.Errorf("calls were made: %v", made)
			}
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
		})
	}
}

// refusal complains unless the instance says why it is not made.
func refusal(instance *v1alpha1.XenInstance, stalled bool, reason string, says []string) error {
	kind := v1alpha1.ConditionReconciling
	if stalled {
		kind = v1alpha1.ConditionStalled
	}
	if err := errors.Join(testkit.Condition(instance, kind, metav1.ConditionTrue, reason), testkit.CheckKstatus(instance)); err != nil {
		return err
	}
	condition := meta.FindStatusCondition(instance.Status.Conditions, kind)
	for _, part := range says {
		if !strings.Contains(condition.Message, part) {
			return fmt.Errorf("%q does not say %q", condition.Message, part)
		}
	}
	return nil
}

// TestNamespaceNotAllowed: without a grant nothing is made, and nothing of the pool is told.
func TestNamespaceNotAllowed(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	tests := map[string]struct {
		grants []v1alpha1.PoolGrant
		reason string
		says   string
	}{
		"no grant at all": {nil, v1alpha1.ReasonNamespaceNotAllowed, "grant"},
		"another network": {[]v1alpha1.PoolGrant{{
			Namespaces: v1alpha1.GrantedNamespaces{From: v1alpha1.NamespacesFromAll}, Templates: []string{"*"},
			StorageRepositories: []string{"*"}, Networks: []string{"lab-net"},
		}}, v1alpha1.ReasonNamespaceNotAllowed, network},
		"quota": {[]v1alpha1.PoolGrant{{
			Namespaces: v1alpha1.GrantedNamespaces{From: v1alpha1.NamespacesFromAll}, Templates: []string{"*"},
			StorageRepositories: []string{"*"}, Networks: []string{"*"},
			Quota: &v1alpha1.PoolQuota{Memory: quantity("512Mi")},
		}}, v1alpha1.ReasonQuotaExceeded, "512Mi"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			changePool(t, w, func(p *v1alpha1.XenPoolSpec) { p.Grants = test.grants })
			w.WaitAtRest(t)
			fence.Arm(0)
			instance := web(w).Object()
			create(t, w, instance)
			w.WaitFor(t, instance, "the refusal is said", func() error { return refusal(instance, true, test.reason, []string{test.says}) })
			if made := calls(fence); len(made) > 0 {
				t.Errorf("calls were made: %v", made)
			}
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
		})
	}
}

// TestDisksBeyondTheQuota: a disk for which the namespace's quota has no room is neither made nor grown, and the guest runs on.
func TestDisksBeyondTheQuota(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	instance := web(w).Object()
	instance.Spec.Disks = []v1alpha1.Disk{{Name: "data", Size: quantity("1Gi")}}
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	room := instance.Status.RootDisk.Size.DeepCopy()
	room.Add(resource.MustParse("3Gi"))
	allowQuota(t, w, v1alpha1.PoolQuota{Storage: &room})
	for name, test := range map[string]struct {
		disks   []v1alpha1.Disk
		refused bool
	}{
		"another disk":      {[]v1alpha1.Disk{{Name: "data", Size: quantity("1Gi")}, {Name: "more", Size: quantity("3Gi")}}, true},
		"one that has room": {[]v1alpha1.Disk{{Name: "data", Size: quantity("1Gi")}, {Name: "some", Size: quantity("1Gi"), OnRemove: v1alpha1.DiskRemoveDelete}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w.WaitAtRest(t)
			fence.Arm(0)
			edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Disks = test.disks })
			if !test.refused {
				w.WaitReady(t, instance)
				return
			}
			w.WaitFor(t, instance, "the refusal is said", func() error {
				return refusal(instance, true, v1alpha1.ReasonQuotaExceeded, []string{"storage", "3Gi wanted"})
			})
			w.WaitAtRest(t)
			within(t, fence, name, 0)
			if instance.Status.PowerState != v1alpha1.PowerStateRunning {
				t.Errorf("the VM is %s", instance.Status.PowerState)
			}
		})
	}
}

// TestRoomInTheQuota: who is refused for the quota is made when there is room, by a larger quota or because another is gone, and of
// those who wait for the same room one.
func TestRoomInTheQuota(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	allowQuota(t, w, v1alpha1.PoolQuota{Instances: ptr.To[int32](1)})
	var instances []*v1alpha1.XenInstance
	for i, name := range []string{"one", "two", "three"} {
		instance := web(w).Powered(v1alpha1.PowerStateHalted).Object()
		instance.Name = name
		create(t, w, instance)
		instances = append(instances, instance)
		if i == 0 {
			w.WaitReady(t, instance)
			continue
		}
		w.WaitFor(t, instance, "the refusal is said", func() error {
			return refusal(instance, true, v1alpha1.ReasonQuotaExceeded, []string{"instances: 1 used, 1 wanted, 1 allowed"})
		})
	}
	allowQuota(t, w, v1alpha1.PoolQuota{Instances: ptr.To[int32](2)})
	made := func() []string { return readyOf(t, w, instances[1:]...) }
	testkit.Eventually(t, "one of the two is made", func(context.Context) error {
		if names := made(); len(names) == 0 {
			return errors.New("none is")
		}
		return nil
	})
	w.WaitAtRest(t)
	if names := made(); len(names) > 1 {
		t.Fatalf("%v are made, with room for one", names)
	}
	if err := w.Client.Delete(t.Context(), instances[0]); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the other is made when the first is gone", func(context.Context) error {
		if names := made(); len(names) < 2 {
			return fmt.Errorf("%v is", names)
		}
		return nil
	})
}

// TestManyForTheSameRoom: of many instances that are made at the same moment no more have a VM than the quota allows, whatever it
// limits, also where the disks are the image's.
func TestManyForTheSameRoom(t *testing.T) {
	t.Parallel()
	const many, room = 12, 3
	for name, test := range map[string]struct {
		quota v1alpha1.PoolQuota
		says  string
	}{
		"instances": {v1alpha1.PoolQuota{Instances: ptr.To[int32](room)}, "instances: 3 used"},
		"storage":   {v1alpha1.PoolQuota{Storage: quantity("13Gi")}, "storage: 12Gi used, 4Gi wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWorld(t, withAgents)
			addFlavors(t, w)
			addRescueImage(t, w) // of 4 GiB
			allowQuota(t, w, test.quota)
			for i := range many {
				instance := testkit.Instance(w.Namespace, fmt.Sprintf("web-%02d", i), testkit.PoolName).FromClusterImage("rescue").
					OfFlavor("small").Network("lan", network).Powered(v1alpha1.PowerStateHalted).Object()
				create(t, w, instance)
			}
			testkit.Eventually(t, "each is made or refused", func(ctx context.Context) error {
				var list v1alpha1.XenInstanceList
				if err := w.Client.List(ctx, &list, client.InNamespace(w.Namespace)); err != nil {
					return err
				}
				made, refused := 0, 0
				for i := range list.Items {
					switch {
					case testkit.Ready(&list.Items[i]) == nil:
						made++
					case refusal(&list.Items[i], true, v1alpha1.ReasonQuotaExceeded, []string{test.says}) == nil:
						refused++
					}
				}
				if made != room || refused != many-room {
					return fmt.Errorf("%d are made and %d refused, want %d and %d", made, refused, room, many-room)
				}
				return nil
			})
		})
	}
}

// TestRoomThatASmallerSizeLeaves: who waits for the quota gets what another gives back, and a wish that was refused takes nothing
// from others.
func TestRoomThatASmallerSizeLeaves(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addFlavors(t, w)
	allowQuota(t, w, v1alpha1.PoolQuota{VCPUs: ptr.To[int32](6)})
	of := func(name, flavor string) *v1alpha1.XenInstance {
		t.Helper()
		instance := web(w).OfFlavor(flavor).Powered(v1alpha1.PowerStateHalted).Object()
		instance.Name = name
		create(t, w, instance)
		return instance
	}
	sized := func(instance *v1alpha1.XenInstance, flavor string) {
		t.Helper()
		edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.FlavorRef.Name = flavor })
	}
	refused := func(instance *v1alpha1.XenInstance) {
		t.Helper()
		w.WaitFor(t, instance, "the refusal is said", func() error {
			return testkit.Condition(instance, v1alpha1.ConditionFlavorApplied, metav1.ConditionFalse, v1alpha1.ReasonQuotaExceeded)
		})
	}
	one, two := of("one", "small"), of("two", "small")
	w.WaitReady(t, one)
	w.WaitReady(t, two)
	// Given six CPUs and two instances that have two each, one of them can get two more.
	sized(one, "large")
	w.WaitReady(t, one)
	sized(two, "large")
	refused(two)
	three := of("three", "small")
	w.WaitFor(t, three, "the refusal is said", func() error {
		return refusal(three, true, v1alpha1.ReasonQuotaExceeded, []string{"vcpus: 6 used"})
	})
	sized(one, "small")
	w.WaitReady(t, one)
	served := func() []string { return readyOf(t, w, two, three) }
	testkit.Eventually(t, "one of the two that wait gets the room", func(context.Context) error {
		if len(served()) == 0 {
			return errors.New("none does")
		}
		return nil
	})
	w.WaitAtRest(t)
	if names := served(); len(names) != 1 {
		t.Errorf("%v get the room of one", names)
	}
}

// TestWhoNeedsNoRoomLeavesIt: an instance that is admitted, and then cannot be made for another reason, takes nothing from others.
func TestWhoNeedsNoRoomLeavesIt(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	addFlavors(t, w)
	huge := testkit.Flavor("huge", 2, "900Gi")
	if err := client.IgnoreAlreadyExists(w.Client.Create(t.Context(), huge)); err != nil {
		t.Fatal(err)
	}
	allowQuota(t, w, v1alpha1.PoolQuota{Instances: ptr.To[int32](1)})
	refusedWith := map[string]*v1alpha1.XenInstance{
		v1alpha1.ReasonFlavorTooLarge: web(w).OfFlavor("huge").Object(),
		v1alpha1.ReasonPaused:         web(w).With(func(i *v1alpha1.XenInstance) { i.Annotations = map[string]string{v1alpha1.AnnotationPaused: ""} }).Object(),
	}
	for reason, instance := range refusedWith {
		instance.Name = "not-" + strings.ToLower(reason)
		create(t, w, instance)
		w.WaitFor(t, instance, "it is said why it is not made", func() error {
			return testkit.Condition(instance, v1alpha1.ConditionReady, metav1.ConditionFalse, reason)
		})
	}
	one := web(w).Powered(v1alpha1.PowerStateHalted).Object()
	create(t, w, one)
	w.WaitReady(t, one)
}

// readyOf names those of some instances that are Ready now.
func readyOf(t *testing.T, w *testkit.World, instances ...*v1alpha1.XenInstance) (names []string) {
	t.Helper()
	for _, instance := range instances {
		if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err == nil && testkit.Ready(instance) == nil {
			names = append(names, instance.Name)
		}
	}
	return names
}

// allowQuota sets the quota of the namespaces on the pool.
func allowQuota(t *testing.T, w *testkit.World, quota v1alpha1.PoolQuota) {
	t.Helper()
	changePool(t, w, func(p *v1alpha1.XenPoolSpec) { p.Grants[0].Quota = &quota })
}

// TestNoOthersVM: a namespace without the right to adopt gets no VM by naming its uuid, and is told nothing of it.
func TestNoOthersVM(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, withAgents)
	_, uuid := existingVM(t, w, "office")
	changePool(t, w, func(p *v1alpha1.XenPoolSpec) { p.Grants[0].Adopt = v1alpha1.AdoptNone })
	tests := map[string]*v1alpha1.XenInstance{
		"by the annotation": web(w).With(func(i *v1alpha1.XenInstance) { i.Annotations = map[string]string{v1alpha1.AnnotationVMUUID: uuid} }).Object(),
		"by adoption":       testkit.Instance(w.Namespace, "web", testkit.PoolName).Adopting(uuid).Object(),
		"by observation":    testkit.Instance(w.Namespace, "web", testkit.PoolName).Adopting(uuid).Observed().Object(),
	}
	for name, instance := range tests {
		t.Run(name, func(t *testing.T) {
			w.WaitAtRest(t)
			fence.Arm(0)
			create(t, w, instance)
			w.WaitStalled(t, instance, v1alpha1.ReasonNamespaceNotAllowed)
			if shown := testkit.Manifest(instance); strings.Contains(shown, "office") || instance.Status.UUID != "" {
				t.Errorf("something of the VM is told:\n%s", shown)
			}
			if err := w.Client.Delete(t.Context(), instance); err != nil {
				t.Fatal(err)
			}
			w.WaitGone(t, instance)
			if made := calls(fence); len(made) > 0 {
				t.Errorf("calls were made: %v", made)
			}
		})
	}
}

func quantity(text string) *resource.Quantity {
	q := resource.MustParse(text)
	return &q
}
