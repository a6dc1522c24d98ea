package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

const resizeExample = `  # another flavor; what needs the VM to be off waits for its next power-off
  kubectl xen resize web --flavor large

  # now: the VM is shut down and started again
  kubectl xen resize web --flavor large --restart`

// resizeRequest is the size that the user asks for.
type resizeRequest struct {
	flavor  string
	restart bool
}

func newResizeCommand(c *cluster) *cobra.Command {
	r := &resizeRequest{}
	ch := &change{edit: r.edit, progress: func(i *v1alpha1.XenInstance) (progress, error) { return sized(i, r.flavor) }}
	cmd := &cobra.Command{
		Use:   "resize INSTANCE --flavor FLAVOR",
		Short: "Give a VM another size",
		Long: "Sets spec.flavorRef of the XenInstance, and with --restart spec.resize.strategy, and shows the progress. Whoever keeps the\n" +
			"manifest elsewhere (GitOps) sets the fields there instead.",
		Example: resizeExample,
		Args:    oneInstance,
		RunE:    func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	cmd.Flags().StringVar(&r.flavor, "flavor", "", "name of the XenFlavor (required)")
	cmd.Flags().BoolVar(&r.restart, "restart", false, "carry it out now if the VM must be off for it: shut it down and start it again")
	ch.register(cmd)
	if err := cmd.MarkFlagRequired("flavor"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// edit asks for the flavor, if there is one of the name.
func (r *resizeRequest) edit(ctx context.Context, api client.Client, i *v1alpha1.XenInstance) (nothing string, err error) {
	var flavor v1alpha1.XenFlavor
	if err := known(api.Get(ctx, client.ObjectKey{Name: r.flavor}, &flavor), "XenFlavor", r.flavor); err != nil {
		return "", err
	}
	i.Spec.FlavorRef = &v1alpha1.FlavorReference{Name: r.flavor}
	if r.restart {
		if i.Spec.Resize == nil {
			i.Spec.Resize = &v1alpha1.Resize{}
		}
		i.Spec.Resize.Strategy = v1alpha1.ResizeRestart
	}
	return "", nil
}

// sized is how far a VM is on its way to a flavor.
func sized(i *v1alpha1.XenInstance, flavor string) (progress, error) {
	if err := stalled(i); err != nil {
		return progress{}, err
	}
	applied, resize := i.Status.Flavor, i.Status.Resize
	has := applied != nil && applied.Name == flavor && meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionFlavorApplied)
	switch {
	case !isReady(i) || i.Status.Operation != nil:
		return underWay(i), nil
	case has && resize != nil && resize.Stage == v1alpha1.ResizeAwaitingConfirmation:
		return progress{done: true, text: fmt.Sprintf("%s; kubectl xen confirm %s keeps it, kubectl xen revert %s goes back", size(i), i.Name, i.Name)}, nil
	case has && len(i.Status.PendingChanges) == 0:
		return progress{done: true, text: size(i)}, nil
	case meta.IsStatusConditionTrue(i.Status.Conditions, v1alpha1.ConditionRescued):
		return progress{}, fmt.Errorf("%s is in rescue, so that nothing is resized before its return: kubectl xen unrescue %s", i.Name, i.Name)
	}
	return progress{done: true, text: waiting(i)}, nil
}

// waiting says what the instance waits for, which is its user, and what is not carried out until then.
func waiting(i *v1alpha1.XenInstance) string {
	var text strings.Builder
	for _, pending := range i.Status.PendingChanges {
		fmt.Fprintf(&text, "%s (%s): %s\n", pending.Field, pending.Requires, pending.Message)
	}
	ready := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionReady)
	fmt.Fprintf(&text, "%s: %s", ready.Reason, ready.Message)
	off := ready.Reason == v1alpha1.ReasonPowerOffRequired || ready.Reason == v1alpha1.ReasonRestartRequired
	if off && (i.Spec.Resize == nil || i.Spec.Resize.Strategy != v1alpha1.ResizeRestart) {
		fmt.Fprintf(&text, "; kubectl xen resize %s --flavor %s --restart does it now", i.Name, i.Spec.FlavorRef.Name)
	}
	return text.String()
}

// size says what the VM has.
func size(i *v1alpha1.XenInstance) string {
	text := fmt.Sprintf("%s has flavor %s: %d VCPUs", i.Name, i.Status.Flavor.Name, i.Status.Flavor.VCPUs)
	if memory := i.Status.Flavor.Memory; memory != nil {
		text += ", " + memory.String()
	}
	return text
}

func newConfirmCommand(c *cluster) *cobra.Command {
	ch := &change{edit: confirm, progress: resizeOver}
	cmd := &cobra.Command{
		Use:   "confirm INSTANCE",
		Short: "Keep the size that a VM has got by a resize",
		Long:  "Sets spec.resize.confirm of the XenInstance to the resize that waits for it. Its restore point is destroyed then.",
		Args:  oneInstance,
		RunE:  func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	ch.register(cmd)
	return cmd
}

// confirm agrees to the resize that waits.
func confirm(_ context.Context, _ client.Client, i *v1alpha1.XenInstance) (nothing string, err error) {
	resize := i.Status.Resize
	if resize == nil || resize.Stage != v1alpha1.ResizeAwaitingConfirmation {
		return "", fmt.Errorf("no resize of %s waits to be confirmed", i.Name)
	}
	if i.Spec.Resize == nil {
		i.Spec.Resize = &v1alpha1.Resize{}
	}
	i.Spec.Resize.Confirm = resize.ID
	return "", nil
}

// resizeOver is how far the end of a resize is. What waits for the VM to be off, or to run again, is its user's.
func resizeOver(i *v1alpha1.XenInstance) (progress, error) {
	if err := stalled(i); err != nil {
		return progress{}, err
	}
	switch {
	case !isReady(i) || i.Status.Operation != nil:
		return underWay(i), nil
	case i.Status.Resize == nil && len(i.Status.PendingChanges) == 0 && i.Status.Flavor != nil:
		return progress{done: true, text: size(i)}, nil
	}
	return progress{done: true, text: waiting(i)}, nil
}

func newRevertCommand(c *cluster) *cobra.Command {
	r := &revertRequest{}
	ch := &change{edit: r.edit, progress: resizeOver}
	cmd := &cobra.Command{
		Use:   "revert INSTANCE",
		Short: "Give a VM the size back that it had before a resize",
		Long: "Sets spec.flavorRef of the XenInstance to what it was before the resize that is under way or waits to be confirmed. Data stays,\n" +
			"unless --discard puts the root disk back as it was then: what was written to it since is lost.",
		Args: oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	cmd.Flags().BoolVar(&r.discard, "discard", false, "put the root disk back too: what was written to it since the resize is lost")
	ch.register(cmd)
	return cmd
}

// revertRequest is the way back that the user asks for.
type revertRequest struct{ discard bool }

// edit asks for the old flavor, and with discard for the old root disk: what the spec says of its size is put back too, or it
// would be changed again at once.
func (r *revertRequest) edit(_ context.Context, _ client.Client, i *v1alpha1.XenInstance) (nothing string, err error) {
	resize := i.Status.Resize
	switch {
	case resize == nil:
		return "", fmt.Errorf("no resize of %s can be reverted: none is under way, none waits to be confirmed", i.Name)
	case r.discard && resize.RestorePoint == nil:
		return "", errors.New("the resize has no restore point to go back to: without --discard CPUs and memory go back and the data stays")
	case !r.discard && resize.From == resize.To:
		return "", errors.New("the resize has changed the root disk alone: --discard puts that back, and what was written to it since is lost")
	}
	shrinks := i.Spec.RootDisk != nil && i.Spec.RootDisk.ShrinkTo != nil
	i.Spec.FlavorRef = nil // an adopted VM that had none keeps its own size
	if resize.From != "" {
		i.Spec.FlavorRef = &v1alpha1.FlavorReference{Name: resize.From}
	}
	if root := i.Spec.RootDisk; root != nil {
		root.ShrinkTo = nil // nothing is made smaller on the way back
	}
	if !r.discard {
		return "", nil
	}
	if i.Spec.Resize == nil {
		i.Spec.Resize = &v1alpha1.Resize{}
	}
	i.Spec.Resize.DiscardTo = resize.RestorePoint.ID
	if root := i.Spec.RootDisk; root != nil && (root.Size != nil || shrinks) {
		root.Size = resize.RestorePoint.Size
	}
	return "", nil
}
