package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// admissions are what the quota had room for, by instance. It counts from that moment, before anything of it is to be seen; so those
// who ask at the same moment cannot pass together. A manager that has just begun knows of none: then what is under way counts with
// all that is asked for.
type admissions struct {
	mu sync.Mutex
	of map[xencache.Key]admission
}

type admission struct {
	uid   types.UID
	usage pool.Usage
}

// forget drops an instance that is gone, or about to get nothing.
func (a *admissions) forget(key xencache.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.of, key)
}

// withinQuota refuses what the namespace's quota on the pool has no room for. Given is what the other instances of the namespace
// take of the pool and what is asked for this one; split says what of it counts as used and what as added.
func (s *instanceScope) withinQuota(ctx context.Context, split func(others, mine pool.Usage) (used, added pool.Usage)) error {
	grant, err := s.grant(ctx)
	if err != nil {
		return err
	}
	quota := grant.Quota()
	if quota == (v1alpha1.PoolQuota{}) {
		return nil
	}
	mine, err := s.usage(ctx, s.Object)
	if err != nil {
		return err
	}
	admitted := &s.r.admitted
	admitted.mu.Lock()
	defer admitted.mu.Unlock()
	others, err := s.othersUsage(ctx)
	if err != nil {
		return err
	}
	used, added := split(others, mine)
	takes := used.Minus(others)
	refusal := pool.QuotaCheck(quota, used, added)
	if refusal == nil {
		takes = takes.Plus(added)
	}
	if before := admitted.of[s.key()]; before.uid == s.Object.UID { // another wish of it
		takes = takes.AtLeast(before.usage)
	}
	admitted.of[s.key()] = admission{s.Object.UID, takes}
	return asProblem(refusal)
}

// forgetAdmission has the instance count with what it asks for and what it has, once what it was admitted for is made or will not be.
func (s *instanceScope) forgetAdmission() {
	idle := s.facts.VM != nil && s.Object.Status.UUID != "" && s.Object.Status.Operation == nil &&
		s.facts.DiskGrowth() == 0 && s.resizeGrowth() == (pool.Usage{})
	if idle || s.nothingMade() && (s.Paused != "" || s.plan.Operation == "") {
		s.r.admitted.forget(s.key())
	}
}

// checkQuota refuses a VM that the namespace's quota on the pool has no room for.
func (s *instanceScope) checkQuota(ctx context.Context) error {
	return s.withinQuota(ctx, func(others, mine pool.Usage) (used, added pool.Usage) { return others, mine })
}

// checkBeforeGrowing refuses further and larger disks for which the namespace's quota on the pool has no room.
func (s *instanceScope) checkBeforeGrowing(ctx context.Context) error {
	growth := s.facts.DiskGrowth()
	if growth == 0 || len(s.facts.Want.Problems) > 0 {
		return nil
	}
	return noted(&s.facts.Want.Problems, s.withinQuota(ctx, func(others, _ pool.Usage) (used, added pool.Usage) {
		return others.Plus(s.vmUsage(s.Object)), pool.Usage{Storage: growth}
	}))
}

// checkBeforeResize refuses a larger size for which the namespace's quota on the pool has no room, before anything is
// touched. Growing counts alone: a lowered quota stops nobody from becoming smaller.
func (s *instanceScope) checkBeforeResize(ctx context.Context) error {
	growth := s.resizeGrowth()
	if growth == (pool.Usage{}) {
		return nil
	}
	return noted(&s.facts.Want.Resize.Problems, s.withinQuota(ctx, func(others, mine pool.Usage) (used, added pool.Usage) {
		return others.Plus(mine).Minus(growth), growth
	}))
}

func (s *instanceScope) resizeGrowth() pool.Usage {
	vcpus, memory, disk := s.facts.ResizeGrowth()
	return pool.Usage{VCPUs: int32(vcpus), Memory: memory, Storage: disk}
}

// othersUsage is what the other instances of the namespace take of the pool; the admissions are locked.
func (s *instanceScope) othersUsage(ctx context.Context) (sum pool.Usage, err error) {
	var list v1alpha1.XenInstanceList
	err = s.r.runtime.Client.List(ctx, &list, client.InNamespace(s.Object.Namespace), client.MatchingFields{poolField: s.pool.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return sum, fmt.Errorf("list the instances of namespace %s: %w", s.Object.Namespace, err)
	}
	for i := range list.Items {
		if list.Items[i].Name == s.Object.Name {
			continue
		}
		takes, err := s.takes(ctx, &list.Items[i])
		if err != nil {
			return sum, err
		}
		sum = sum.Plus(takes)
	}
	return sum, nil
}

// takes is what an instance has of its pool and is about to get. What the quota refused takes nothing.
func (s *instanceScope) takes(ctx context.Context, other *v1alpha1.XenInstance) (pool.Usage, error) {
	admitted, known := s.r.admitted.of[instanceKey(other)]
	begun := other.Status.Operation != nil
	switch {
	case known && admitted.uid == other.UID:
		return s.vmUsage(other).AtLeast(admitted.usage), nil
	case !begun && vmUUID(other) == "":
		return pool.Usage{}, nil
	case !begun && waitsForQuota(other), !other.DeletionTimestamp.IsZero(), other.Spec.ManagementPolicy == v1alpha1.ManagementObserve:
		return s.vmUsage(other).AtLeast(pool.Usage{Instances: 1}), nil
	}
	return s.usage(ctx, other)
}

// vmUUID is the UUID of an instance's VM, "" while there is none.
func vmUUID(object *v1alpha1.XenInstance) string {
	return cmp.Or(object.Status.UUID, object.Annotations[v1alpha1.AnnotationVMUUID])
}

// usage is what an instance takes of its pool: what is asked for it or what its VM has, whichever is more. So a flavor that was
// deleted, and a change that waits for the next boot, free nothing.
func (s *instanceScope) usage(ctx context.Context, object *v1alpha1.XenInstance) (pool.Usage, error) {
	usage := pool.Usage{Instances: 1}
	if ref := object.Spec.FlavorRef; ref != nil {
		var flavor v1alpha1.XenFlavor
		err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, &flavor)
		if client.IgnoreNotFound(err) != nil {
			return usage, fmt.Errorf("read flavor %s: %w", ref.Name, err)
		}
		if err == nil {
			usage = usage.Plus(pool.FlavorUsage(&flavor.Spec))
			if root := object.Spec.RootDisk; root != nil && root.Size != nil && flavor.Spec.RootDisk != nil {
				usage.Storage -= flavor.Spec.RootDisk.Value() // the instance's own goes over it
			}
		}
	}
	if root := object.Spec.RootDisk; root != nil && root.Size != nil {
		usage.Storage += root.Size.Value()
	}
	for _, disk := range object.Spec.Disks {
		if disk.Size != nil {
			usage.Storage += disk.Size.Value()
		}
	}
	usage = usage.AtLeast(s.vmUsage(object))
	if object.UID == s.Object.UID && s.facts.VM == nil {
		usage = usage.AtLeast(s.sourceUsage(object))
	}
	return usage, nil
}

// vmUsage is what the VM of an instance has; nothing if there is none. The annotation with a VM's uuid is whoever's writes the
// instance: what somebody else's VM has is told to nobody.
func (s *instanceScope) vmUsage(object *v1alpha1.XenInstance) (usage pool.Usage) {
	s.pool.Cache.View(func(v xencache.View) {
		if ref, record := v.VMByUUID(object.Status.UUID); record != nil {
			usage = pool.Usage{VCPUs: int32(record.VCPUsMax), Memory: record.MemoryStaticMax, Storage: storageOf(v, ref)}
		}
	})
	return usage
}

// sourceUsage is what a VM that is to be made has from what it is made of: disks, and without a flavor its size.
func (s *instanceScope) sourceUsage(object *v1alpha1.XenInstance) (usage pool.Usage) {
	if s.inputs == nil {
		return usage
	}
	s.pool.Cache.View(func(v xencache.View) {
		if ref, record := v.VMByUUID(s.inputs.ImageTemplate); record != nil {
			usage = pool.Usage{VCPUs: int32(record.VCPUsMax), Memory: record.MemoryDynamicMax, Storage: storageOf(v, ref)}
		}
	})
	if backup := s.inputs.Backup; backup != nil {
		usage = pool.Usage{VCPUs: int32(backup.Size.MaxVCPUs), Memory: backup.Size.Memory}
		for _, disk := range backup.Disks {
			usage.Storage += disk.Size
		}
	}
	if object.Spec.FlavorRef != nil {
		usage.VCPUs, usage.Memory = 0, 0
	}
	return usage
}

// storageOf is what the disks of a VM have together, in bytes.
func storageOf(v xencache.View, vm xenapi.VMRef) int64 {
	total := int64(0)
	for _, ref := range v.VBDsOf(vm) {
		if vbd := v.VBD(ref); vbd.Type == xenapi.VBDTypeDisk {
			if vdi := v.VDI(vbd.VDI); vdi != nil {
				total += vdi.VirtualSize
			}
		}
	}
	return total
}

// waitsForQuota tells whether the quota keeps an instance from something, as its status says.
func waitsForQuota(object *v1alpha1.XenInstance) bool {
	return slices.ContainsFunc(object.Status.Conditions, func(c metav1.Condition) bool { return c.Reason == v1alpha1.ReasonQuotaExceeded })
}

// waitingForQuota are the instances that the quota keeps from something, when there may be room: of the namespace in which
// another instance takes less, of all where a flavor does.
func (r *instanceReconciler) waitingForQuota(ctx context.Context, object client.Object) []ctrl.Request {
	var list v1alpha1.XenInstanceList
	err := r.runtime.Client.List(ctx, &list, client.InNamespace(object.GetNamespace()), client.MatchingFields{quotaField: waiting}, client.UnsafeDisableDeepCopy)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list the instances that may wait for the quota", "namespace", object.GetNamespace())
		return nil
	}
	requests := make([]ctrl.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}

// freesQuota lets through what may leave others more room: an instance that is gone, asks for something else, was refused, or
// has another size.
func freesQuota() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, after := e.ObjectOld.(*v1alpha1.XenInstance), e.ObjectNew.(*v1alpha1.XenInstance)
			return before.Generation != after.Generation ||
				after.Status.UUID != "" && !waitsForQuota(before) && waitsForQuota(after) || // a refused wish of a VM
				before.Status.Resize != nil && after.Status.Resize == nil ||
				!equality.Semantic.DeepEqual(before.Status.Flavor, after.Status.Flavor) ||
				!equality.Semantic.DeepEqual(before.Status.Disks, after.Status.Disks)
		},
	}
}
