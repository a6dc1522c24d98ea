package controllers

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// checkQuota refuses a VM that the namespace's quota on the pool has no room for. What others use is what was asked for
// them: a VM that is being made counts.
func (s *instanceScope) checkQuota(ctx context.Context) error {
	grant, err := s.grant(ctx)
	if err != nil {
		return err
	}
	quota := grant.Quota()
	if quota == (v1alpha1.PoolQuota{}) {
		return nil
	}
	used, mine, err := s.namespaceUsage(ctx)
	if err != nil {
		return err
	}
	return asProblem(pool.QuotaCheck(quota, used, mine))
}

// namespaceUsage is what the other instances of the namespace take of the pool, and what is asked for this one.
func (s *instanceScope) namespaceUsage(ctx context.Context) (others, mine pool.Usage, err error) {
	var list v1alpha1.XenInstanceList
	if err := s.r.runtime.Client.List(ctx, &list, client.InNamespace(s.Object.Namespace), client.MatchingFields{poolField: s.pool.Name}); err != nil {
		return others, mine, fmt.Errorf("list the instances of namespace %s: %w", s.Object.Namespace, err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.Name == s.Object.Name || other.Status.UUID == "" && other.Annotations[v1alpha1.AnnotationVMUUID] == "" {
			continue
		}
		usage, err := s.usage(ctx, other)
		if err != nil {
			return others, mine, err
		}
		others = others.Plus(usage)
	}
	mine, err = s.usage(ctx, s.Object)
	return others, mine, err
}

// checkBeforeGrowing refuses further and larger disks for which the namespace's quota on the pool has no room.
func (s *instanceScope) checkBeforeGrowing(ctx context.Context) error {
	growth := s.facts.DiskGrowth()
	if growth == 0 || len(s.facts.Want.Problems) > 0 {
		return nil
	}
	grant, err := s.grant(ctx)
	if err != nil {
		return err
	}
	quota := grant.Quota()
	if quota.Storage == nil {
		return nil
	}
	others, _, err := s.namespaceUsage(ctx)
	if err != nil {
		return err
	}
	var problem *instance.Problem
	err = asProblem(pool.QuotaCheck(quota, others.Plus(s.vmUsage(s.Object)), pool.Usage{Storage: growth}))
	if errors.As(err, &problem) {
		s.facts.Want.Problems = append(s.facts.Want.Problems, *problem)
		return nil
	}
	return err
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

// vmUsage is what the VM of an instance has; nothing if there is none.
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

// waitingForQuota are the instances of a namespace that the quota keeps from something, when one of the others is gone.
func (r *instanceReconciler) waitingForQuota(ctx context.Context, gone client.Object) []ctrl.Request {
	var list v1alpha1.XenInstanceList
	if err := r.runtime.Client.List(ctx, &list, client.InNamespace(gone.GetNamespace())); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list the instances that may wait for the quota", "namespace", gone.GetNamespace())
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		ready := meta.FindStatusCondition(list.Items[i].Status.Conditions, v1alpha1.ConditionReady)
		if ready != nil && ready.Reason == v1alpha1.ReasonQuotaExceeded {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
