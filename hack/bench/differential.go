package main

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// differential counts what is sent of a disk of which a hundredth has changed since the snapshot before.
func (o *operator) differential(ctx context.Context, r *report, store *sink, instance string, size int64) error {
	base, next := benchSnapshot("base", instance, store, v1alpha1.DiskFormatVHD), benchSnapshot("next", instance, store, v1alpha1.DiskFormatVHD)
	base.Spec.KeepLocal = v1alpha1.KeepAlways
	next.Spec.Destination.IncrementalFrom = &v1alpha1.IncrementalBase{SnapshotRef: v1alpha1.SnapshotReference{Name: base.Name}}
	if err := errors.Join(o.client.Create(ctx, base), o.wait(ctx, base, ready)); err != nil {
		return err
	}
	object := testkit.Instance(benchNamespace, instance, testkit.PoolName).Object()
	if err := o.client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return err
	}
	disk, err := o.rootOf(object.Status.UUID)
	if err != nil {
		return err
	}
	if err := spread(disk, size, size/100); err != nil {
		return err
	}
	if err := errors.Join(o.client.Create(ctx, next), o.wait(ctx, next, ready)); err != nil {
		return err
	}
	file, there := store.file("/" + next.Name + "/root.vhd")
	if !there {
		return fmt.Errorf("nothing came to /%s/root.vhd", next.Name)
	}
	r.add(row{
		Name: "disk.differential", Value: float64(file.size) / float64(size), Unit: "of the disk", N: 1, goal: atMost(0.03),
		Note: fmt.Sprintf("sent of a disk of %d MiB with 1 %% changed, in ranges of 4 MiB", size>>20),
	})
	return errors.Join(o.client.Delete(ctx, next), o.waitGone(ctx, next), o.client.Delete(ctx, base), o.waitGone(ctx, base))
}
