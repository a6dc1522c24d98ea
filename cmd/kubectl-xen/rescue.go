package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// rescueRequest is the rescue, or the return, that the user asks for.
type rescueRequest struct {
	state v1alpha1.RescueState
	image string
	kind  string
}

func newRescueCommand(c *cluster) *cobra.Command {
	r := &rescueRequest{state: v1alpha1.RescueOn}
	ch := &change{edit: r.edit, progress: r.progress}
	cmd := &cobra.Command{
		Use:   "rescue INSTANCE",
		Short: "Stop a VM and run another one from a clean image with its disks",
		Long: "Sets spec.rescue.state of the XenInstance to On and shows the progress until the rescue VM runs. Whoever keeps the\n" +
			"manifest elsewhere (GitOps) sets the field there instead.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	cmd.Flags().StringVar(&r.image, "image", "", "name of the image that the rescue VM boots from (default: what the instance or its pool name)")
	cmd.Flags().StringVar(&r.kind, "image-kind", string(v1alpha1.ImageKindCluster), "kind of the image: XenClusterImage or XenImage")
	ch.register(cmd)
	return cmd
}

func newUnrescueCommand(c *cluster) *cobra.Command {
	r := &rescueRequest{state: v1alpha1.RescueOff}
	ch := &change{edit: r.edit, progress: r.progress}
	cmd := &cobra.Command{
		Use:   "unrescue INSTANCE",
		Short: "Remove the rescue VM and bring the VM back as it was",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	ch.register(cmd)
	return cmd
}

// edit asks for the rescue, or for the return.
func (r *rescueRequest) edit(_ context.Context, _ client.Client, i *v1alpha1.XenInstance) (nothing string, err error) {
	if r.state == v1alpha1.RescueOff && !i.Spec.WantsRescue() && i.Status.Rescue == nil {
		return i.Name + " is not in rescue", nil
	}
	if i.Spec.Rescue == nil {
		i.Spec.Rescue = &v1alpha1.Rescue{}
	}
	i.Spec.Rescue.State = r.state
	if r.image != "" {
		i.Spec.Rescue.ImageRef = &v1alpha1.ImageReference{Kind: v1alpha1.ImageKind(r.kind), Name: r.image}
	}
	return "", nil
}

// progress is how far it is, from the condition Rescued.
func (r *rescueRequest) progress(i *v1alpha1.XenInstance) (progress, error) {
	rescued := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionRescued)
	if rescued == nil {
		return progress{}, nil
	}
	switch {
	case r.state == v1alpha1.RescueOn && rescued.Status == metav1.ConditionTrue:
		text := "in rescue: " + rescued.Message
		if status := i.Status.Rescue; status != nil && status.SecretRef != nil {
			text += fmt.Sprintf("\nthe password is in the Secret %s", status.SecretRef.Name)
		}
		return progress{text: text, done: true}, nil
	case r.state == v1alpha1.RescueOff && rescued.Reason == v1alpha1.ReasonNotRequested:
		return progress{text: fmt.Sprintf("back as before: the VM is %s", i.Status.PowerState), done: true}, nil
	case rescued.Reason == v1alpha1.ReasonRescueTimedOut:
		return progress{}, errors.New("the rescue timed out; run unrescue, then rescue again")
	}
	if err := stalled(i); err != nil {
		return progress{}, err
	}
	p := underWay(i)
	p.text = rescued.Message
	return p, nil
}
