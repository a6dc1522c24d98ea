package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// measureMove counts what it takes to bring a running VM to another host, once with its disk in sight of both and once with the
// disk.
func (o *operator) measureMove(ctx context.Context, r *report) error {
	for _, step := range []struct{ name, instance, storage, note string }{
		{"calls.move", "moved", "NFS virtual disk storage", "live, the disk on shared storage"},
		{"calls.move.storage", "moved-with-disk", "Local storage", "live, with one disk of 10 GiB on local storage"},
	} {
		instance := benchInstance(step.instance).RootDisk("10Gi").With(func(i *v1alpha1.XenInstance) {
			i.Spec.RootDisk.StorageRepository = step.storage
			i.Spec.Placement = &v1alpha1.Placement{Host: "xs1"}
		}).Object()
		if err := o.client.Create(ctx, instance); err != nil {
			return err
		}
		if err := o.wait(ctx, instance, reporting); err != nil {
			return err
		}
		move := func() error {
			before := client.MergeFrom(instance.DeepCopy())
			instance.Spec.Placement.Host = "xs2"
			return o.client.Patch(ctx, instance, before)
		}
		there := func(object) error {
			if instance.Status.HostName != "xs2" || len(instance.Status.PendingChanges) > 0 {
				return fmt.Errorf("it is on %q", instance.Status.HostName)
			}
			return testkit.Ready(instance)
		}
		m, err := o.measure(ctx, move, func() error { return o.wait(ctx, instance, there) })
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		r.add(row{Name: step.name, Value: float64(m.calls), Unit: "calls", N: 1,
			Note: fmt.Sprintf("%s; %d writes, %.2f s", step.note, m.writes, m.took.Seconds())})
	}
	return nil
}

// reporting is an instance whose guest can be moved: its agent reports.
func reporting(o object) error {
	if err := testkit.Ready(o); err != nil {
		return err
	}
	return testkit.Condition(o, v1alpha1.ConditionGuestReady, "True", "")
}
