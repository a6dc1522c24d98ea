package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// placementField is how status.pendingChanges name the place of a VM.
const placementField = "placement.host"

// migrateRequest is the host that the user wants the VM on.
type migrateRequest struct {
	host string
	pin  bool
	// name of the host, which may have been named by its uuid.
	name string
}

func newMigrateCommand(c *cluster) *cobra.Command {
	r := &migrateRequest{}
	ch := &change{edit: r.edit, progress: r.progress}
	cmd := &cobra.Command{
		Use:   "migrate INSTANCE --host HOST",
		Short: "Move a VM to another host of its pool",
		Long: "Sets spec.placement.host of the XenInstance and shows the progress. A VM that runs goes on running; disks that the host does\n" +
			"not see go along. Whoever keeps the manifest elsewhere (GitOps) sets the field there instead.",
		Args: oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error { return ch.run(cmd, c, args[0]) },
	}
	cmd.Flags().StringVar(&r.host, "host", "", "name of the host (required)")
	cmd.Flags().BoolVar(&r.pin, "pin", false, "nowhere else: the VM is brought back if it is moved away, and does not start elsewhere")
	ch.register(cmd)
	if err := cmd.MarkFlagRequired("host"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// edit asks for the host.
func (r *migrateRequest) edit(ctx context.Context, api client.Client, i *v1alpha1.XenInstance) (nothing string, err error) {
	if r.name, err = hostName(ctx, api, i.Spec.PoolRef.Name, r.host); err != nil {
		return "", err
	}
	if i.Spec.Placement == nil {
		i.Spec.Placement = &v1alpha1.Placement{}
	}
	i.Spec.Placement.Host = r.host
	i.Spec.Placement.Pin = i.Spec.Placement.Pin || r.pin
	return "", nil
}

// hostName is the name of a host that may have been named by its uuid, as far as the user may look at the pool.
func hostName(ctx context.Context, api client.Client, pool, host string) (string, error) {
	var found v1alpha1.XenPool
	if err := api.Get(ctx, client.ObjectKey{Name: pool}, &found); err != nil || len(found.Status.Hosts) == 0 {
		return host, nil //nolint:nilerr // who may not look is told by the instance
	}
	var names []string
	for _, known := range found.Status.Hosts {
		if host == known.UUID || host == known.Name {
			return known.Name, nil
		}
		names = append(names, known.Name)
	}
	return "", fmt.Errorf("pool %s has no host %q; it has %s", pool, host, strings.Join(names, ", "))
}

// progress is how far it is.
func (r *migrateRequest) progress(i *v1alpha1.XenInstance) (progress, error) {
	if err := stalled(i); err != nil {
		return progress{}, err
	}
	if !isReady(i) || i.Status.Operation != nil {
		return underWay(i), nil
	}
	at := slices.IndexFunc(i.Status.PendingChanges, func(c v1alpha1.PendingChange) bool { return c.Field == placementField })
	switch {
	case at >= 0:
		return progress{}, errors.New(i.Status.PendingChanges[at].Message)
	case i.Status.HostName == "":
		return progress{done: true, text: fmt.Sprintf("%s is %s and starts on %s", i.Name, i.Status.PowerState, r.name)}, nil
	case i.Status.HostName != r.name:
		return progress{}, fmt.Errorf("%s is on %s: it was moved away from %s, or started elsewhere, and a preference counts once; --pin brings it back",
			i.Name, i.Status.HostName, r.name)
	}
	return progress{done: true, text: fmt.Sprintf("%s is on %s", i.Name, i.Status.HostName)}, nil
}
