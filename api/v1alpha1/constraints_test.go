package v1alpha1_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// violation breaks one constraint of a schema at one place of a valid object.
type violation struct {
	name   string
	change func(parent map[string]any, key string) // what stands at the place is changed by way of its parent
	says   string                                  // in the API server's answer
}

// violations are the ways to break the constraints on a field that are no CEL rules.
func violations(name string, field, parent *apiextensionsv1.JSONSchemaProps) (all []violation) {
	set := func(value any) func(map[string]any, string) {
		return func(parent map[string]any, key string) { parent[key] = value }
	}
	if len(field.Enum) > 0 {
		all = append(all, violation{"enum", set("NoSuchWord"), "Unsupported value"})
	}
	if field.Minimum != nil {
		all = append(all, violation{"minimum", set(int64(*field.Minimum) - 1), "should be greater than or equal to"})
	}
	if field.Maximum != nil {
		all = append(all, violation{"maximum", set(int64(*field.Maximum) + 1), "should be less than or equal to"})
	}
	if field.MinLength != nil {
		all = append(all, violation{"minLength", set(""), "should be at least"})
	}
	if field.MaxLength != nil {
		all = append(all, violation{"maxLength", set(strings.Repeat("0", int(*field.MaxLength)+1)), "Too long"})
	}
	if field.Pattern != "" {
		all = append(all, violation{"pattern", set("!"), "should match"})
	}
	if field.MaxItems != nil {
		all = append(all, violation{"maxItems", fill(int(*field.MaxItems) + 1), "Too many"})
	}
	if field.MinItems != nil {
		all = append(all, violation{"minItems", set([]any{}), "should have at least"})
	}
	if field.MaxProperties != nil {
		all = append(all, violation{"maxProperties", fillMap(int(*field.MaxProperties) + 1), "Too many"})
	}
	if slices.Contains(parent.Required, name) {
		all = append(all, violation{"required", func(parent map[string]any, key string) { delete(parent, key) }, "Required value"})
	}

	return all
}

// fill repeats a list's first entry.
func fill(count int) func(map[string]any, string) {
	return func(parent map[string]any, key string) {
		parent[key] = slices.Repeat(parent[key].([]any)[:1], count)
	}
}

func fillMap(count int) func(map[string]any, string) {
	return func(parent map[string]any, key string) {
		entries := map[string]any{}
		for i := range count {
			entries[fmt.Sprint("key", i)] = "value"
		}
		parent[key] = entries
	}
}

// TestConstraints breaks every enum, range, length, pattern and requirement of every spec once. That the unbroken
// objects are accepted is TestRoundTrip's to show.
func TestConstraints(t *testing.T) {
	environment := testkit.Start(t)
	namespace := environment.Namespace(t)
	names := objectNames(t)
	for kind, schema := range loadSchemas(t) {
		spec := schema.Properties["spec"]
		walk("spec", &spec, func(path string, field, parent *apiextensionsv1.JSONSchemaProps) {
			name := path[strings.LastIndex(path, ".")+1:]
			for _, v := range violations(name, field, parent) {
				t.Run(kind+"/"+path+"/"+v.name, func(t *testing.T) {
					object := objectWith(t, names, kind, path, namespace)
					breakAt(object.Object, path, v.change)
					err := environment.Client.Create(t.Context(), object, client.DryRunAll)
					if !errors.IsInvalid(err) || !strings.Contains(err.Error(), v.says) {
						t.Errorf("the API server says %v, want %q", err, v.says)
					}
				})
			}
		})
	}
}

// objectWith loads the first example that has a field.
func objectWith(t *testing.T, names []string, kind, path, namespace string) *unstructured.Unstructured {
	t.Helper()
	for _, name := range names {
		object := loadObject(t, name, namespace)
		if object.GetKind() == kind && breakAt(object.DeepCopy().Object, path, func(map[string]any, string) {}) {
			return object
		}
	}
	t.Fatalf("no object of kind %s in testdata/objects has %s", kind, path)

	return nil
}

// breakAt calls change with the parent of a path and the key there, of the first entry of lists and maps on the way,
// and tells whether the path exists.
func breakAt(object map[string]any, path string, change func(map[string]any, string)) bool {
	head, rest, more := strings.Cut(path, ".")
	key, isEntry := strings.CutSuffix(head, "[]")
	value, there := object[key]
	if !there {
		return false
	}
	if !more && !isEntry {
		change(object, key)
		return true
	}
	switch value := value.(type) {
	case []any:
		return slices.ContainsFunc(value, func(entry any) bool { return breakEntry(value, entry, rest, more, change) })
	case map[string]any:
		if isEntry {
			change(value, slices.Sorted(maps.Keys(value))[0])
			return true
		}

		return breakAt(value, rest, change)
	default:
		return false
	}
}

// breakEntry goes on in an entry of a list; a plain entry is changed as if it stood in a map.
func breakEntry(list []any, entry any, rest string, more bool, change func(map[string]any, string)) bool {
	if more {
		inner, isObject := entry.(map[string]any)

		return isObject && breakAt(inner, rest, change)
	}
	box := map[string]any{"entry": entry}
	change(box, "entry")
	list[0] = box["entry"]

	return true
}
