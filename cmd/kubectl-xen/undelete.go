package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"

	"github.com/spf13/cobra"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

const undeleteExample = `  # bring back the VM of the deleted XenInstance web, as its manifest says
  kubectl xen undelete web -f web.yaml

  # choose one of several VMs in the trash
  kubectl xen undelete web -f web.yaml --uuid 9775befd-eb0a-6275-0a91-38a261c916b5`

func newUndeleteCommand(c *cluster) *cobra.Command {
	var file, uuid string
	command := &cobra.Command{
		Use:   "undelete INSTANCE -f MANIFEST",
		Short: "Make a deleted instance again, with its VM from the pool's trash",
		Long: "Make a deleted XenInstance again, with its VM from the pool's trash instead of a new one.\n\n" +
			"The VM is found in the trash of the pools, or, where you may not read XenPools, in the Event of the deletion;\n" +
			"--uuid names it where neither tells. It comes back with its uuid and all of its disks, and becomes as the manifest says.",
		Example: undeleteExample,
		Args:    oneInstance,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, namespace, err := c.open()
			if err != nil {
				return err
			}
			instance, err := readInstance(file, cmd.InOrStdin(), namespace, args[0])
			if err != nil {
				return err
			}
			if uuid == "" {
				if uuid, err = findTrashed(cmd.Context(), api, client.ObjectKeyFromObject(instance)); err != nil {
					return err
				}
			}
			return undelete(cmd.Context(), cmd.OutOrStdout(), api, instance, uuid)
		},
	}
	command.Flags().StringVarP(&file, "filename", "f", "", "manifest of the instance, - for standard input (required)")
	command.Flags().StringVar(&uuid, "uuid", "", "uuid of the VM, where the trash holds several of the name or cannot be read")
	if err := command.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is defined above
	}
	return command
}

// undelete makes the object with the annotation that binds it to its VM.
func undelete(ctx context.Context, out io.Writer, api client.Client, instance *unstructured.Unstructured, uuid string) error {
	annotations := instance.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[v1alpha1.AnnotationVMUUID] = uuid
	instance.SetAnnotations(annotations)
	err := api.Create(ctx, instance)
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("XenInstance %s/%s exists; delete it first, or its VM and the one in the trash would both be its own",
			instance.GetNamespace(), instance.GetName())
	}
	if err != nil {
		return fmt.Errorf("make the instance again: %w", err)
	}
	_, err = fmt.Fprintf(out, "xeninstance.kubexen.io/%s created, with VM %s from the trash\n", instance.GetName(), uuid)
	return err
}

// readInstance finds the instance's manifest among those of a file. It is kept as it is written: what this program does not
// know is the API server's to judge.
func readInstance(path string, standard io.Reader, namespace, name string) (*unstructured.Unstructured, error) {
	source := standard
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		source = file
	}
	decoder := yaml.NewYAMLOrJSONDecoder(source, 4096)
	for {
		var document map[string]any
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s has no XenInstance %s", path, name)
		} else if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		found := &unstructured.Unstructured{Object: document}
		kind := found.GroupVersionKind()
		if kind.Group != v1alpha1.GroupVersion.Group || kind.Kind != "XenInstance" || found.GetName() != name {
			continue
		}
		if found.GetNamespace() == "" {
			found.SetNamespace(namespace)
		}
		if found.GetNamespace() != namespace {
			continue
		}
		// What an exported object carries of its former life.
		unstructured.RemoveNestedField(found.Object, "status")
		for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds"} {
			unstructured.RemoveNestedField(found.Object, "metadata", field)
		}
		return found, nil
	}
}

// findTrashed is the uuid of the VM that the deleted instance has in the trash.
func findTrashed(ctx context.Context, api client.Client, key client.ObjectKey) (string, error) {
	found, err := inPoolsTrash(ctx, api, key)
	if apierrors.IsForbidden(err) {
		found, err = inEvents(ctx, api, key)
	}
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("no VM of %s is known to be in the trash; name it with --uuid, the pool's administrator sees it in status.trash of the XenPool", key)
	case len(found) > 1:
		return "", fmt.Errorf("the trash holds several VMs of %s: choose one of %v with --uuid", key, found)
	}
	return found[0], nil
}

func inPoolsTrash(ctx context.Context, api client.Client, key client.ObjectKey) ([]string, error) {
	var pools v1alpha1.XenPoolList
	if err := api.List(ctx, &pools); err != nil {
		return nil, fmt.Errorf("read the pools: %w", err)
	}
	var found []string
	for i := range pools.Items {
		for _, trashed := range pools.Items[i].Status.Trash {
			if trashed.Namespace == key.Namespace && trashed.Name == key.Name {
				found = append(found, trashed.UUID)
			}
		}
	}
	return found, nil
}

var uuidPattern = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// inEvents finds what the operator said of the deletion. Events are kept for an hour as a rule.
func inEvents(ctx context.Context, api client.Client, key client.ObjectKey) ([]string, error) {
	var said eventsv1.EventList
	if err := api.List(ctx, &said, client.InNamespace(key.Namespace)); err != nil {
		return nil, fmt.Errorf("read the events: %w", err)
	}
	var found []string
	for i := range said.Items {
		event := &said.Items[i]
		if event.Reason != v1alpha1.ReasonTrashed || event.Regarding.Kind != "XenInstance" || event.Regarding.Name != key.Name {
			continue
		}
		if uuid := uuidPattern.FindString(event.Note); uuid != "" && !slices.Contains(found, uuid) {
			found = append(found, uuid)
		}
	}
	return found, nil
}
