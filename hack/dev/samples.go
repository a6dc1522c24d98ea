package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// writeSamples makes DIR/samples, which is config/samples with the simulated pool's address in place of the placeholder,
// and a console.
func (e *environment) writeSamples() error {
	samples := filepath.Join(e.root, "config", "samples")
	console, err := os.ReadFile(filepath.Join(samples, "console.yaml"))
	if err != nil {
		return err
	}
	dir := e.file("samples")
	base, err := filepath.Rel(dir, samples)
	if err != nil {
		return err
	}
	kustomization := fmt.Sprintf(`resources:
- %s
- console.yaml
patches:
- target: {kind: XenPool}
  patch: |-
    - {op: replace, path: /spec/endpoints, value: [%q]}
`, base, e.simulator.Endpoint)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "console.yaml"), console, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o644)
}

func (e *environment) applySamples(ctx context.Context) error {
	output, err := e.kubectl(ctx, "apply", "--server-side", "--kustomize", e.file("samples"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(output) {
		e.story.tell("kubectl", "%s", strings.TrimSpace(line))
	}
	return nil
}

// waitSamples waits until every sample of ours is Ready, and shows the tables. Only --exit turns a sample that is not
// Ready in time into an error.
func (e *environment) waitSamples(ctx context.Context, options options) error {
	rendered, err := e.kubectl(ctx, "kustomize", e.file("samples"))
	if err != nil {
		return err
	}
	objects, err := testkit.ParseManifests([]byte(rendered))
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, options.timeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := e.notReady(ctx, objects)
		if missing == nil {
			e.story.tell("demo", "every sample is Ready")
			return e.showTables(ctx)
		}
		select {
		case <-waiting.Done():
			if err := causeOf(ctx); err != nil || ctx.Err() != nil {
				return err
			}
			e.story.tell("demo", "after %s this is not Ready: %v", options.timeout, missing)
			if err := e.showTables(ctx); err != nil || !options.exit {
				return err
			}
			return fmt.Errorf("after %s this is not Ready: %w", options.timeout, missing)
		case <-tick.C:
		}
	}
}

// notReady names the objects of our kinds that are not as asked yet.
func (e *environment) notReady(ctx context.Context, objects []*unstructured.Unstructured) error {
	var missing []error
	for _, wanted := range objects {
		if wanted.GroupVersionKind().Group != v1alpha1.GroupVersion.Group {
			continue
		}
		typed, err := e.client.Scheme().New(wanted.GroupVersionKind())
		if err != nil {
			return err
		}
		object, ours := typed.(kind)
		if !ours {
			return fmt.Errorf("%s is no kind of ours", wanted.GroupVersionKind())
		}
		if err := e.client.Get(ctx, client.ObjectKeyFromObject(wanted), object); err != nil {
			missing = append(missing, err)
			continue
		}
		if err := testkit.Ready(object); err != nil {
			missing = append(missing, fmt.Errorf("%s %s: %w", wanted.GetKind(), wanted.GetName(), err))
		}
	}
	return errors.Join(missing...)
}

// showTables prints what kubectl shows.
func (e *environment) showTables(ctx context.Context) error {
	for _, arguments := range [][]string{
		{"get", "xenpools"},
		{"get", "xenflavors,xenclusterimages"},
		{"get", "xeninstances", "--all-namespaces"},
		{"get", "xenconsoles", "--all-namespaces"},
	} {
		table, err := e.kubectl(ctx, arguments...)
		if err != nil {
			return err
		}
		e.story.show("$ kubectl " + strings.Join(arguments, " ") + "\n" + strings.TrimRight(table, "\n"))
	}
	e.story.line("")
	return nil
}
