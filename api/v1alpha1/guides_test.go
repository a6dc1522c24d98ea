package v1alpha1_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestGuides applies every manifest of the README and the guides, strictly, in a namespace with the samples: who reads
// them beside a demo types them there. A part of a manifest is put into the least object that it can be a part of.
func TestGuides(t *testing.T) {
	environment := testkit.Start(t)
	namespace := environment.Namespace(t)
	strict := client.WithFieldValidation(environment.Client, metav1.FieldValidationStrict)
	for _, path := range files(t, "../../config/samples/*.yaml") {
		for _, sample := range documents(t, read(t, path)) {
			if !ours(sample) || !namespaced(sample.GetKind()) {
				continue
			}
			sample.SetNamespace(namespace)
			if err := strict.Create(t.Context(), sample); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			deleteAfterwards(t, environment, sample)
		}
	}
	applied := 0
	for _, path := range append(files(t, "../../docs/*.md"), "../../README.md") {
		for _, block := range yamlBlock.FindAllStringSubmatch(string(read(t, path)), -1) {
			for _, document := range documents(t, []byte(block[1])) {
				object := completed(document)
				if object == nil {
					continue
				}
				applied++
				object.SetNamespace(namespace)
				err := strict.Patch(t.Context(), object, client.Apply, client.DryRunAll, client.FieldOwner("reader"), client.ForceOwnership) //nolint:staticcheck // of untyped objects
				if err != nil {
					t.Errorf("%s: %v\n%s", filepath.Base(path), err, block[1])
				}
			}
		}
	}
	if applied < 8 {
		t.Errorf("only %d manifests were found", applied)
	}
}

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// completed is the object that a document of a guide is, or is a part of; nil where it is of no kind of ours.
func completed(document *unstructured.Unstructured) *unstructured.Unstructured {
	content := document.Object
	if content["kind"] != nil {
		if !ours(document) {
			return nil
		}
		return document
	}
	kind, spec := "XenInstance", map[string]any{
		"poolRef": map[string]any{"name": "lab"}, "source": map[string]any{"templateName": "any"}, "flavorRef": map[string]any{"name": "small"},
	}
	switch {
	case content["destination"] != nil:
		kind, spec = "XenSnapshot", map[string]any{"instanceRef": map[string]any{"name": "web"}, "destination": content["destination"]}
	case content["spec"] == nil:
		return nil // a status, or another program's
	default:
		for field, value := range content["spec"].(map[string]any) {
			spec[field] = value
		}
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	object.SetName("part")
	return object
}

func ours(object *unstructured.Unstructured) bool {
	return strings.HasPrefix(object.GetAPIVersion(), v1alpha1.GroupVersion.Group+"/")
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("nothing is %s: %v", pattern, err)
	}
	return paths
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// documents are the documents of a YAML text.
func documents(t *testing.T, text []byte) []*unstructured.Unstructured {
	t.Helper()
	var found []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var content map[string]any
		err := decoder.Decode(&content)
		switch {
		case errors.Is(err, io.EOF):
			return found
		case err != nil:
			t.Fatalf("%v in\n%s", err, text)
		case content != nil:
			found = append(found, &unstructured.Unstructured{Object: content})
		}
	}
}
