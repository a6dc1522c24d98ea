package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// rescueRequest is the rescue, or the return, that the user asks for.
type rescueRequest struct {
	state   v1alpha1.RescueState
	image   string
	kind    string
	wait    bool
	timeout time.Duration
}

func newRescueCommand(c *cluster) *cobra.Command {
	r := &rescueRequest{state: v1alpha1.RescueOn}
	cmd := &cobra.Command{
		Use:   "rescue INSTANCE",
		Short: "Stop a VM and run another one from a clean image with its disks",
		Long: "Sets spec.rescue.state of the XenInstance to On and shows the progress until the rescue VM runs. Whoever keeps the\n" +
			"manifest elsewhere (GitOps) sets the field there instead.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, c, args[0]) },
	}
	cmd.Flags().StringVar(&r.image, "image", "", "name of the image that the rescue VM boots from (default: what the instance or its pool name)")
	cmd.Flags().StringVar(&r.kind, "image-kind", string(v1alpha1.ImageKindCluster), "kind of the image: XenClusterImage or XenImage")
	r.register(cmd)
	return cmd
}

func newUnrescueCommand(c *cluster) *cobra.Command {
	r := &rescueRequest{state: v1alpha1.RescueOff}
	cmd := &cobra.Command{
		Use:   "unrescue INSTANCE",
		Short: "Remove the rescue VM and bring the VM back as it was",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return r.run(cmd, c, args[0]) },
	}
	r.register(cmd)
	return cmd
}

func (r *rescueRequest) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.wait, "wait", true, "wait until it is done, and show the progress")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 10*time.Minute, "how long to wait")
}

func (r *rescueRequest) run(cmd *cobra.Command, c *cluster, name string) error {
	api, namespace, err := c.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), r.timeout, errors.New("waited long enough"))
	defer cancel()
	return r.carryOut(ctx, api, client.ObjectKey{Namespace: namespace, Name: name}, cmd.OutOrStdout())
}

// carryOut writes what is asked for into the spec, and shows the progress.
func (r *rescueRequest) carryOut(ctx context.Context, api client.WithWatch, key client.ObjectKey, out io.Writer) error {
	var instance v1alpha1.XenInstance
	if err := api.Get(ctx, key, &instance); err != nil {
		return fmt.Errorf("find the instance: %w", err)
	}
	if r.state == v1alpha1.RescueOff && !instance.Spec.WantsRescue() && instance.Status.Rescue == nil {
		_, err := fmt.Fprintf(out, "%s is not in rescue\n", key.Name)
		return err
	}
	before := client.MergeFrom(instance.DeepCopy())
	if instance.Spec.Rescue == nil {
		instance.Spec.Rescue = &v1alpha1.Rescue{}
	}
	instance.Spec.Rescue.State = r.state
	if r.image != "" {
		instance.Spec.Rescue.ImageRef = &v1alpha1.ImageReference{Kind: v1alpha1.ImageKind(r.kind), Name: r.image}
	}
	if err := api.Patch(ctx, &instance, before); err != nil {
		return fmt.Errorf("ask for it: %w", err)
	}
	if !r.wait {
		return nil
	}
	return r.follow(ctx, api, &instance, out)
}

// follow shows what changes until it is done. A watch that ends is begun anew.
func (r *rescueRequest) follow(ctx context.Context, api client.WithWatch, instance *v1alpha1.XenInstance, out io.Writer) error {
	shown := ""
	for {
		watcher, err := api.Watch(ctx, &v1alpha1.XenInstanceList{}, client.InNamespace(instance.Namespace), client.MatchingFields{"metadata.name": instance.Name})
		if err != nil {
			return fmt.Errorf("watch the instance: %w", err)
		}
		done, err := r.read(ctx, watcher, instance.Generation, &shown, out)
		watcher.Stop()
		switch {
		case done || err != nil:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("it is not done yet (%w): %s", context.Cause(ctx), shown)
		}
	}
}

// read shows what one watch brings.
func (r *rescueRequest) read(ctx context.Context, watcher watch.Interface, generation int64, shown *string, out io.Writer) (bool, error) {
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
			text, done, err := r.progress(current)
			if text != *shown && text != "" {
				*shown = text
				if _, err := fmt.Fprintln(out, text); err != nil {
					return false, err
				}
			}
			if done || err != nil {
				return done, err
			}
		}
	}
}

// progress is how far it is, in a line; it is an error if it does not go on by itself.
func (r *rescueRequest) progress(i *v1alpha1.XenInstance) (text string, done bool, err error) {
	rescued := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionRescued)
	if rescued == nil {
		return "", false, nil
	}
	text = rescued.Message
	switch {
	case r.state == v1alpha1.RescueOn && rescued.Status == metav1.ConditionTrue:
		text = "in rescue: " + rescued.Message
		if secret := i.Status.Rescue; secret != nil && secret.SecretRef != nil {
			text += fmt.Sprintf("\nthe password is in the Secret %s", secret.SecretRef.Name)
		}
		return text, true, nil
	case r.state == v1alpha1.RescueOff && rescued.Reason == v1alpha1.ReasonNotRequested:
		return fmt.Sprintf("back as before: the VM is %s", i.Status.PowerState), true, nil
	case rescued.Reason == v1alpha1.ReasonRescueTimedOut:
		return text, true, errors.New("the rescue timed out; run unrescue, then rescue again")
	case meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionStalled):
		ready := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionReady)
		return text, false, fmt.Errorf("%s: %s", ready.Reason, ready.Message)
	}
	return text, false, nil
}
