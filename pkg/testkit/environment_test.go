package testkit_test

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestEnvironmentServesOurKinds(t *testing.T) {
	env := testkit.Start(t)
	namespace := env.Namespace(t, "team", "a")

	env.Apply(t, namespace, `
apiVersion: kubexen.io/v1alpha1
kind: XenInstance
metadata: {name: web}
spec:
  poolRef: {name: lab}
  source: {templateName: Debian Bookworm 12}
  flavorRef: {name: small}
`)
	if err := env.Client.Create(t.Context(), testkit.Instance(namespace, "built", "lab").FromTemplate("x").OfFlavor("small").Object()); err != nil {
		t.Fatal(err)
	}
	table := env.Kubectl(t, "get", "xi", "--namespace", namespace)
	for _, name := range []string{"web", "built"} {
		if !strings.Contains(table, name) {
			t.Errorf("%s is missing:\n%s", name, table)
		}
	}
	labelled := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	env.WaitFor(t, labelled, "the label is there", func() error { return nil })
	if labelled.Labels["team"] != "a" {
		t.Errorf("labels of the namespace: %v", labelled.Labels)
	}
}

func TestCheckKstatus(t *testing.T) {
	flavor := func(observed int64, ready, reconciling, stalled metav1.ConditionStatus) *v1alpha1.XenFlavor {
		object := testkit.Flavor("small", 1, "1Gi")
		object.TypeMeta = metav1.TypeMeta{APIVersion: "kubexen.io/v1alpha1", Kind: "XenFlavor"}
		object.Generation, object.Status.ObservedGeneration = 2, observed
		for conditionType, status := range map[string]metav1.ConditionStatus{
			v1alpha1.ConditionReady: ready, v1alpha1.ConditionReconciling: reconciling,
			v1alpha1.ConditionStalled: stalled, v1alpha1.ConditionPaused: metav1.ConditionFalse,
		} {
			if status != "" {
				object.Status.Conditions = append(object.Status.Conditions,
					metav1.Condition{Type: conditionType, Status: status, Reason: "Because", ObservedGeneration: observed})
			}
		}
		return object
	}
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	tests := map[string]struct {
		object *v1alpha1.XenFlavor
		want   string // a part of the complaint; empty: none
	}{
		"as asked":                        {flavor(2, yes, no, no), ""},
		"at work":                         {flavor(2, no, yes, no), ""},
		"needs help":                      {flavor(2, no, no, yes), ""},
		"of an older generation":          {flavor(1, yes, no, no), ""},
		"a condition is missing":          {flavor(2, yes, no, ""), "Stalled is missing"},
		"ready and stalled":               {flavor(2, yes, no, yes), "both True"},
		"nobody does anything":            {flavor(2, no, no, no), "nobody"},
		"of a generation that is not yet": {flavor(3, yes, no, no), "generation 3"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := testkit.CheckKstatus(test.object)
			if test.want == "" && err != nil {
				t.Errorf("complains: %v", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("complaint %v, want one about %q", err, test.want)
			}
		})
	}
}

func TestParseManifests(t *testing.T) {
	objects, err := testkit.ParseManifests([]byte("---\n# nothing\n---\nkind: A\n---\nkind: B\n"))
	if err != nil || len(objects) != 2 || objects[1].GetKind() != "B" {
		t.Errorf("parsed %v, %v", objects, err)
	}
	text, err := os.ReadFile("../../config/crd/bases/kubexen.io_xenpools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if objects, err = testkit.ParseManifests(text); err != nil || len(objects) != 1 {
		t.Errorf("parsed %d objects, %v", len(objects), err)
	}
}
