// Package helm renders the Helm chart and compares it with the kustomization that it is made from.
package helm

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../../config/helm"
	kustomDir = "../../config/default"
	namespace = "kubexen-system"
	notes     = "NOTES" // what the user reads after the installation
)

// objects are manifests by kind and name.
type objects map[string]*unstructured.Unstructured

func (o objects) add(t *testing.T, manifest []byte) {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifest, &object.Object); err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	if len(object.Object) == 0 {
		return
	}
	key := object.GetKind() + " " + object.GetNamespace() + "/" + object.GetName()
	if o[key] != nil {
		t.Fatalf("%s is there twice", key)
	}
	o[key] = object
}

// render installs the chart on paper.
func render(t *testing.T, values map[string]any) (objects, error) {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	release := chartutil.ReleaseOptions{Name: "kubexen", Namespace: namespace, IsInstall: true}
	all, err := chartutil.ToRenderValues(chart, values, release, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	found := objects{}
	for name, text := range files {
		if strings.HasSuffix(name, "NOTES.txt") {
			found[notes] = &unstructured.Unstructured{Object: map[string]any{"text": text}}
			continue
		}
		for _, manifest := range releaseutil.SplitManifests(text) {
			found.add(t, []byte(manifest))
		}
	}
	return found, nil
}

// kustomized is what kubectl apply -k installs, apart from the namespace, which Helm's user makes, and the label that says
// what the objects are part of.
func kustomized(t *testing.T) objects {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), kustomDir)
	if err != nil {
		t.Fatal(err)
	}
	found := objects{}
	for _, resource := range built.Resources() {
		if strings.HasPrefix(resource.GetKind(), "ValidatingAdmissionPolicy") {
			resource.SetNamespace("") // kustomize takes them for namespaced; the API server does not mind
		}
		manifest, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		found.add(t, manifest)
	}
	delete(found, "Namespace /"+namespace)
	for _, object := range found {
		labels := object.GetLabels()
		delete(labels, "app.kubernetes.io/part-of")
		if len(labels) == 0 {
			labels = nil
		}
		object.SetLabels(labels)
	}
	return found
}

// TestSameAsKustomize holds the chart with its defaults against the kustomization, object by object.
func TestSameAsKustomize(t *testing.T) {
	chart, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	wanted := kustomized(t)
	if len(wanted) < 20 {
		t.Fatalf("the kustomization has %d objects only", len(wanted))
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		got := chart[key]
		if got == nil {
			t.Errorf("the chart has no %s", key)
			continue
		}
		annotations := got.GetAnnotations()
		if keep := annotations["helm.sh/resource-policy"]; (keep == "keep") != (got.GetKind() == "CustomResourceDefinition") {
			t.Errorf("%s: helm.sh/resource-policy is %q", key, keep)
		}
		delete(annotations, "helm.sh/resource-policy")
		got.SetAnnotations(annotations)
		if !reflect.DeepEqual(got.Object, wanted[key].Object) {
			t.Errorf("%s differs:\nchart     %v\nkustomize %v", key, got.Object, wanted[key].Object)
		}
	}
	for key := range chart {
		if key != notes && wanted[key] == nil {
			t.Errorf("the chart has %s, which the kustomization has not", key)
		}
	}
}

func TestValues(t *testing.T) {
	for name, test := range map[string]struct {
		values    map[string]any
		has       map[string]string // a text that an object holds
		hasNoText map[string]string
		hasNot    []string
		refused   string
	}{
		"an image and flags": {
			values: map[string]any{
				"image":   map[string]any{"repository": "example.org/kubexen", "tag": "v1"},
				"manager": map[string]any{"flags": map[string]any{"console-url": "https://consoles.example.org", "allow-private-endpoints": []any{"10.0.0.0/8", "192.168.0.1"}}},
			},
			has: map[string]string{
				"Deployment kubexen-system/kubexen-manager": "--allow-private-endpoints=10.0.0.0/8,192.168.0.1 --console-url=https://consoles.example.org",
				"Deployment kubexen-system/kubexen-gateway": "example.org/kubexen:v1",
			},
			hasNoText: map[string]string{notes: "No console gets a URL"},
		},
		"more of the pods": {
			values: map[string]any{"gateway": map[string]any{"pod": map[string]any{"nodeSelector": map[string]any{"zone": "edge"}}}},
			has:    map[string]string{"Deployment kubexen-system/kubexen-gateway": "map[zone:edge]", notes: "No console gets a URL"},
		},
		"parts left out": {
			values: map[string]any{"gateway": map[string]any{"enabled": false}, "networkPolicy": map[string]any{"enabled": false}, "crds": map[string]any{"install": false}},
			has:    map[string]string{"Deployment kubexen-system/kubexen-manager": "--leader-elect"},
			hasNot: []string{"Deployment kubexen-system/kubexen-gateway", "NetworkPolicy kubexen-system/kubexen-manager", "CustomResourceDefinition /xeninstances.kubexen.io"},
		},
		"a value that does not exist": {
			values:  map[string]any{"manager": map[string]any{"replica": 3}},
			refused: "replica",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := render(t, test.values)
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Fatalf("got %v, wanted a refusal that names %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for key, text := range test.has {
				if got[key] == nil || !strings.Contains(fmt.Sprint(got[key].Object), text) {
					t.Errorf("%s does not hold %q: %v", key, text, got[key])
				}
			}
			for key, text := range test.hasNoText {
				if strings.Contains(fmt.Sprint(got[key].Object), text) {
					t.Errorf("%s holds %q", key, text)
				}
			}
			for _, key := range test.hasNot {
				if got[key] != nil {
					t.Errorf("there is %s", key)
				}
			}
		})
	}
}
