package v1alpha1_test

import (
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
)

// TestSchemaConventions holds every field of every kind to the conventions of the group.
func TestSchemaConventions(t *testing.T) {
	for kind, schema := range loadSchemas(t) {
		walkParts(schema, func(path string, field, parent *apiextensionsv1.JSONSchemaProps) {
			for _, complaint := range complaints(path, field, parent) {
				t.Errorf("%s %s %s", kind, path, complaint)
			}
		})
	}
}

func complaints(path string, field, parent *apiextensionsv1.JSONSchemaProps) (all []string) {
	complain := func(when bool, what string) {
		if when {
			all = append(all, what)
		}
	}
	entry := strings.HasSuffix(path, "[]")
	name := path[strings.LastIndex(path, ".")+1:]
	complain(!entry && field.Description == "", "has no description: kubectl explain would be silent")
	complain(!entry && strings.Contains(path, ".") && field.Description != "" && !strings.HasPrefix(field.Description, name),
		"has a description that does not begin with the field's name")
	bounded := field.MaxLength != nil || len(field.Enum) > 0 || field.Format != ""
	complain((field.Type == "string" || field.XIntOrString) && !bounded, "is a string without a maximum length")
	complain(field.XIntOrString && ptr.Deref(field.MaxLength, 0) != 32, "is a quantity whose maximum length is not 32")
	complain(field.Type == "array" && field.MaxItems == nil, "is a list without a maximum")
	complain(field.Type == "array" && field.XListType == nil, "is a list without a list type")
	complain(field.Type == "object" && field.AdditionalProperties != nil && field.MaxProperties == nil && name != "matchLabels",
		"is a map without a maximum")
	topLevel := strings.Count(path, ".") == 1 && strings.HasPrefix(path, "spec.")
	complain(field.Default != nil && !topLevel && path != "status", "has a default below the top level: GitOps tools would see a difference")
	complain(strings.HasPrefix(path, "status.") && (name == "phase" || name == "state"), "is a phase: conditions are the contract")
	number := field.Type == "integer" && strings.HasPrefix(path, "spec.")
	complain(number && (field.Minimum == nil || field.Maximum == nil), "is a number without a range")
	complain(!entry && field.Default != nil && slices.Contains(parent.Required, name), "is required and has a default")

	return all
}

// TestEveryFieldHasAnExample makes sure that the objects in testdata have every field of their kind, so that the tests
// that accept them, store them and read them back speak for every field.
func TestEveryFieldHasAnExample(t *testing.T) {
	seen := map[string]map[string]struct{}{}
	for _, name := range objectNames(t) {
		object := loadObject(t, name, "any")
		kind := object.GetKind()
		if seen[kind] == nil {
			seen[kind] = map[string]struct{}{}
		}
		for _, part := range []string{"spec", "status"} {
			collectPaths(part, object.Object[part], seen[kind])
		}
	}
	for kind, schema := range loadSchemas(t) {
		walkParts(schema, func(path string, _, _ *apiextensionsv1.JSONSchemaProps) {
			if _, there := seen[kind][path]; !there {
				t.Errorf("no object of kind %s in testdata/objects has %s", kind, path)
			}
		})
	}
}

func collectPaths(path string, value any, into map[string]struct{}) {
	if value == nil {
		return
	}
	into[path] = struct{}{}
	switch value := value.(type) {
	case map[string]any:
		into[path+"[]"] = struct{}{} // for a map with free keys
		for key, inner := range value {
			collectPaths(path+"."+key, inner, into)
		}
	case []any:
		for _, inner := range value {
			collectPaths(path+"[]", inner, into)
		}
	}
}
