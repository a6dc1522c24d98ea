package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// fieldManager is who the API server says has written what this program writes.
const fieldManager = "kubectl-xen"

// change is an edit of a XenInstance's spec, and what there is to see until it is carried out. It writes nothing but the edit:
// everything else is the manager's.
type change struct {
	wait    bool
	timeout time.Duration
	// edit writes what is asked for into the spec. If there is nothing to do it says so instead.
	edit func(context.Context, client.Client, *v1alpha1.XenInstance) (nothing string, err error)
	// progress is how far it is; it is an error if it does not go on by itself.
	progress func(*v1alpha1.XenInstance) (progress, error)
}

func (ch *change) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&ch.wait, "wait", true, "wait until it is done, and show the progress")
	cmd.Flags().DurationVar(&ch.timeout, "timeout", 30*time.Minute, "how long to wait")
}

// run carries the change out for the instance that the command names.
func (ch *change) run(cmd *cobra.Command, c *cluster, name string) error {
	if ch.timeout <= 0 {
		return fmt.Errorf("--timeout %s: want how long to wait, 10m for instance; --wait=false waits for nothing", ch.timeout)
	}
	api, namespace, err := c.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), ch.timeout, errors.New("waited long enough"))
	defer cancel()
	return ch.carryOut(ctx, api, client.ObjectKey{Namespace: namespace, Name: name}, cmd.OutOrStdout())
}

// carryOut writes what is asked for into the spec, and shows the progress.
func (ch *change) carryOut(ctx context.Context, api client.WithWatch, key client.ObjectKey, out io.Writer) error {
	var instance v1alpha1.XenInstance
	if err := api.Get(ctx, key, &instance); err != nil {
		return fmt.Errorf("find the instance: %w", err)
	}
	before := instance.DeepCopy()
	nothing, err := ch.edit(ctx, api, &instance)
	if err != nil {
		return err
	}
	if nothing != "" {
		_, err := fmt.Fprintln(out, nothing)
		return err
	}
	if err := api.Patch(ctx, &instance, client.MergeFrom(before), client.FieldOwner(fieldManager)); err != nil {
		return fmt.Errorf("ask for it: %w", err)
	}
	if !ch.wait {
		return nil
	}
	shown := newDisplay(out)
	defer shown.end()
	return ch.follow(ctx, api, &instance, shown)
}

// follow shows what changes until it is done. A watch that ends is begun anew.
func (ch *change) follow(ctx context.Context, api client.WithWatch, instance *v1alpha1.XenInstance, shown *display) error {
	for {
		watcher, err := api.Watch(ctx, &v1alpha1.XenInstanceList{}, client.InNamespace(instance.Namespace), client.MatchingFields{"metadata.name": instance.Name})
		if err != nil {
			return fmt.Errorf("watch the instance: %w", err)
		}
		done, err := ch.read(ctx, watcher, instance.Generation, shown)
		watcher.Stop()
		switch {
		case done || err != nil:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("it is not done yet (%w): %s", context.Cause(ctx), shown.last)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// watchPause lies between the end of a watch and the next: the API server may end each at once.
const watchPause = time.Second

// read shows what one watch brings.
func (ch *change) read(ctx context.Context, watcher watch.Interface, generation int64, shown *display) (bool, error) {
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case event, open := <-watcher.ResultChan():
			current, ok := event.Object.(*v1alpha1.XenInstance)
			switch {
			case !open || !ok:
				return false, nil
			case event.Type == watch.Deleted:
				return false, errors.New("the instance was deleted")
			case current.Status.ObservedGeneration < generation:
				continue
			}
			now, err := ch.progress(current)
			if err != nil {
				return false, err
			}
			if err := shown.show(now); err != nil {
				return false, err
			}
			if now.done {
				return true, nil
			}
		}
	}
}

// stalled is an error if the instance says that it does not go on by itself.
func stalled(i *v1alpha1.XenInstance) error {
	if !meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionStalled) {
		return nil
	}
	ready := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return errors.New("it does not go on by itself")
	}
	return fmt.Errorf("%s: %s", ready.Reason, ready.Message)
}

// underWay is what the instance says of what is being done to it.
func underWay(i *v1alpha1.XenInstance) progress {
	var p progress
	if ready := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		p.text = ready.Message
	}
	if operation := i.Status.Operation; operation != nil {
		p.percent = operation.Percent
	}
	return p
}

// isReady reports whether the instance says that it is as asked.
func isReady(i *v1alpha1.XenInstance) bool {
	return meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionReady)
}
