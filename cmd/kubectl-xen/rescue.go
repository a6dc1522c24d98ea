package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
		Args: oneInstance,
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
		Args:  oneInstance,
		RunE:  func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	ch.register(cmd)
	return cmd
}

// edit asks for the rescue, or for the return.
func (r *rescueRequest) edit(ctx context.Context, api client.Client, i *v1alpha1.XenInstance) (nothing string, err error) {
	if r.state == v1alpha1.RescueOff && !i.Spec.WantsRescue() && i.Status.Rescue == nil {
		return i.Name + " is not in rescue", nil
	}
	if err := r.findImage(ctx, api, i.Namespace); err != nil {
		return "", err
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

// findImage looks whether there is an image of the name: the manager would wait for one to be made.
func (r *rescueRequest) findImage(ctx context.Context, api client.Client, namespace string) error {
	var err error
	switch {
	case r.image == "":
		return nil
	case v1alpha1.ImageKind(r.kind) == v1alpha1.ImageKindCluster:
		err = api.Get(ctx, client.ObjectKey{Name: r.image}, &v1alpha1.XenClusterImage{})
	case v1alpha1.ImageKind(r.kind) == v1alpha1.ImageKindNamespaced:
		err = api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: r.image}, &v1alpha1.XenImage{})
	default:
		return fmt.Errorf("--image-kind %s: want %s or %s", r.kind, v1alpha1.ImageKindCluster, v1alpha1.ImageKindNamespaced)
	}
	return known(err, r.kind, r.image)
}

// known turns the answer to a look for something that the user has named into an error if there is nothing of the name. Who may
// not look is told by the instance.
func known(err error, kind, name string) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no %s %q; kubectl get %s lists them", kind, name, strings.ToLower(kind))
	case err != nil && !apierrors.IsForbidden(err):
		return fmt.Errorf("look at %s %s: %w", kind, name, err)
	}
	return nil
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
