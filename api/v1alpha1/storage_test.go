package v1alpha1_test

import (
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// TestRoundTrip stores every example with its status, strictly: a field that the CRD does not know is refused. What
// comes back is what was stored, untyped and through the Go types.
func TestRoundTrip(t *testing.T) {
	environment := testkit.Start(t)
	namespace := environment.Namespace(t)
	for _, name := range objectNames(t) {
		t.Run(name, func(t *testing.T) {
			wanted := loadObject(t, name, namespace)
			got := storedWithStatus(t, environment, wanted)
			for _, part := range []string{"spec", "status"} {
				missing(t, part, wanted.Object[part], got.Object[part])
			}
			typed, err := testkit.NewScheme().New(got.GroupVersionKind())
			if err != nil {
				t.Fatal(err)
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(got.Object, typed, true); err != nil {
				t.Errorf("a field of the CRD that the Go type does not know: %v", err)
			}
			back, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"spec", "status"} {
				missing(t, part, got.Object[part], back[part])
			}
		})
	}
}

// storedWithStatus creates an object and writes its status, for the time of the test, and reads it back.
func storedWithStatus(t *testing.T, environment *testkit.Environment, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	stored := object.DeepCopy()
	strict := client.WithFieldValidation(environment.Client, metav1.FieldValidationStrict)
	if err := strict.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	deleteAfterwards(t, environment, stored)
	observed, _, err := unstructured.NestedFieldNoCopy(stored.Object, "status", "observedGeneration")
	if err != nil || observed != int64(-1) {
		t.Errorf("status.observedGeneration of a new object is %v (%v), want -1", observed, err)
	}
	if status, there := object.Object["status"]; there {
		stored.Object["status"] = status
		if err := strict.Status().Update(t.Context(), stored); err != nil {
			t.Fatal(err)
		}
	}
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(object.GroupVersionKind())
	if err := environment.Client.Get(t.Context(), client.ObjectKeyFromObject(stored), got); err != nil {
		t.Fatal(err)
	}

	return got
}

// missing reports what wanted has and got has not, or has otherwise. Got may have more: defaults.
func missing(t *testing.T, path string, wanted, got any) {
	t.Helper()
	switch wanted := wanted.(type) {
	case nil: // the example has no such part
	case map[string]any:
		inner, _ := got.(map[string]any)
		for key, value := range wanted {
			if value == "" { // an absent message and an empty one are the same in Go
				continue
			}
			missing(t, path+"."+key, value, inner[key])
		}
	case []any:
		list, _ := got.([]any)
		if len(list) != len(wanted) {
			t.Errorf("%s has %d entries, want %d", path, len(list), len(wanted))
			return
		}
		for i := range wanted {
			missing(t, path+"[]", wanted[i], list[i])
		}
	default:
		if !equality.Semantic.DeepEqual(normal(wanted), normal(got)) {
			t.Errorf("%s is %v, want %v", path, got, wanted)
		}
	}
}

// normal makes numbers comparable: YAML reads them as floats, the API server answers integers.
func normal(value any) any {
	if number := reflect.ValueOf(value); number.CanInt() {
		return float64(number.Int())
	}

	return value
}

// keyedLists are lists that several owners may share: one entry each, with the fields that it needs.
var keyedLists = map[string]struct {
	kind, base, path string
	first, second    string
}{
	"disks of an instance": {
		"XenInstance", `{poolRef: {name: lab}, source: {templateName: a}, flavorRef: {name: a}}`, "disks",
		`{name: data, size: 1Gi}`, `{name: logs, size: 1Gi}`,
	},
	"networks of an instance": {
		"XenInstance", `{poolRef: {name: lab}, source: {templateName: a}, flavorRef: {name: a}}`, "networks",
		`{name: lan, network: a}`, `{name: dmz, network: b}`,
	},
	"network aliases of a pool": {
		"XenPool", `{endpoints: ["https://xs1"], credentialsSecretRef: {namespace: a, name: b}}`, "networks",
		`{name: lan, uuid: 00000000-0000-0000-0000-000000000001}`, `{name: dmz, uuid: 00000000-0000-0000-0000-000000000002}`,
	},
	"storage aliases of a pool": {
		"XenPool", `{endpoints: ["https://xs1"], credentialsSecretRef: {namespace: a, name: b}}`, "storageRepositories",
		`{name: fast, uuid: 00000000-0000-0000-0000-000000000001}`, `{name: slow, uuid: 00000000-0000-0000-0000-000000000002}`,
	},
}

// TestListsAreShared applies a list's entries as two owners: neither is in conflict with the other, and an owner that
// applies without its entry takes only that one out.
func TestListsAreShared(t *testing.T) {
	environment := testkit.Start(t)
	namespace := environment.Namespace(t)
	for name, c := range keyedLists {
		t.Run(name, func(t *testing.T) {
			apply := func(owner, spec string) []any {
				t.Helper()
				return applyAs(t, environment, owner, c.kind, namespace, spec, c.path)
			}
			base := strings.TrimSuffix(c.base, "}")
			apply("git", base+", "+c.path+": ["+c.first+"]}")
			deleteAfterwards(t, environment, sharedObject(c.kind, c.path, namespace))
			if entries := apply("tool", "{"+c.path+": ["+c.second+"]}"); len(entries) != 2 {
				t.Errorf("after a second owner's entry: %v", entries)
			}
			if entries := apply("git", c.base); len(entries) != 1 {
				t.Errorf("after the first owner took its entry out: %v", entries)
			}
		})
	}
}

// applyAs applies a spec server-side without force, so that a conflict fails the test, and returns a list of it.
func applyAs(t *testing.T, environment *testkit.Environment, owner, kind, namespace, spec, path string) []any {
	t.Helper()
	object := sharedObject(kind, path, namespace)
	var content map[string]any
	if err := yaml.Unmarshal([]byte(spec), &content); err != nil {
		t.Fatal(err)
	}
	object.Object["spec"] = content
	configuration := client.ApplyConfigurationFromUnstructured(object)
	if err := environment.Client.Apply(t.Context(), configuration, client.FieldOwner(owner)); err != nil {
		t.Fatalf("apply as %s: %v", owner, err)
	}
	entries, _, err := unstructured.NestedSlice(object.Object, "spec", path)
	if err != nil {
		t.Fatal(err)
	}

	return entries
}

func sharedObject(kind, path, namespace string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	object.SetName(strings.ToLower("shared-" + path))
	if namespaced(kind) {
		object.SetNamespace(namespace)
	}

	return object
}

// TestUnknownFieldsAreRefused shows that a mistyped field does not vanish silently.
func TestUnknownFieldsAreRefused(t *testing.T) {
	environment := testkit.Start(t)
	object := patched(t, loadObject(t, "xeninstance-iso", environment.Namespace(t)), `spec: {powerSate: Halted}`)
	strict := client.WithFieldValidation(environment.Client, metav1.FieldValidationStrict)
	err := strict.Create(t.Context(), object, client.DryRunAll)
	if !errors.IsBadRequest(err) || !strings.Contains(err.Error(), "powerSate") {
		t.Errorf("the API server says %v", err)
	}
}
