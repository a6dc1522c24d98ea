package v1alpha1_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubexen/kubexen/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// loadObject reads a valid object from testdata/objects, into a namespace if its kind has them. Together the objects
// of a kind have every field that the kind has; TestEveryFieldHasAnExample holds them to that.
func loadObject(t testing.TB, name, namespace string) *unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "objects", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &object.Object); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if namespaced(object.GetKind()) {
		object.SetNamespace(namespace)
	}

	return object
}

func namespaced(kind string) bool {
	return kind == "XenInstance" || kind == "XenImage" || kind == "XenSnapshot" || kind == "XenConsole"
}

func deleteAfterwards(t *testing.T, environment *testkit.Environment, object *unstructured.Unstructured) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		if err := environment.Client.Delete(ctx, object); err != nil {
			t.Error(err)
		}
	})
}

// objectNames are the names of the objects in testdata/objects.
func objectNames(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/objects/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no objects in testdata: %v", err)
	}
	names := make([]string, 0, len(paths))
	for _, path := range paths {
		names = append(names, strings.TrimSuffix(filepath.Base(path), ".yaml"))
	}

	return names
}

// loadSchemas reads the schemas of the generated CRDs, by kind.
func loadSchemas(t testing.TB) map[string]*apiextensionsv1.JSONSchemaProps {
	t.Helper()
	paths, err := filepath.Glob("../../config/crd/bases/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	schemas := map[string]*apiextensionsv1.JSONSchemaProps{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &definition); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		schemas[definition.Spec.Names.Kind] = definition.Spec.Versions[0].Schema.OpenAPIV3Schema
	}

	return schemas
}

// fieldVisitor is told a field's path (disks[] for the entries of disks), its schema and its parent's.
type fieldVisitor func(path string, field, parent *apiextensionsv1.JSONSchemaProps)

// walk visits every field below a schema, outside of what Kubernetes itself defines: conditions and label selectors.
func walk(path string, schema *apiextensionsv1.JSONSchemaProps, visit fieldVisitor) {
	for name := range schema.Properties {
		field := schema.Properties[name]
		here := strings.TrimPrefix(path+"."+name, ".")
		visit(here, &field, schema)
		if name == "conditions" || name == "selector" {
			continue
		}
		walk(here, &field, visit)
	}
	if schema.Items != nil {
		visit(path+"[]", schema.Items.Schema, schema)
		walk(path+"[]", schema.Items.Schema, visit)
	}
	if schema.AdditionalProperties != nil {
		visit(path+"[]", schema.AdditionalProperties.Schema, schema)
	}
}

// walkParts visits the fields of spec and status.
func walkParts(schema *apiextensionsv1.JSONSchemaProps, visit fieldVisitor) {
	for _, part := range []string{"spec", "status"} {
		root := schema.Properties[part]
		visit(part, &root, schema)
		walk(part, &root, visit)
	}
}
