package v1alpha1_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestTables compares what kubectl get shows of each kind, wide columns and all, with testdata/tables. Age is left out.
func TestTables(t *testing.T) {
	environment := testkit.Start(t)
	namespace := environment.Namespace(t)
	for kind, resource := range map[string]string{
		"XenPool": "xenpools", "XenFlavor": "xenflavors", "XenImage": "xenimages",
		"XenClusterImage": "xenclusterimages", "XenInstance": "xeninstances", "XenSnapshot": "xensnapshots", "XenConsole": "xenconsoles",
	} {
		t.Run(kind, func(t *testing.T) {
			storedWithStatus(t, environment, loadObject(t, strings.ToLower(kind), namespace))
			table := serverTable(t, environment, v1alpha1.GroupVersion.WithResource(resource), namespace, namespaced(kind))
			golden := filepath.Join("testdata", "tables", resource+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(table), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			wanted, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if table != string(wanted) {
				t.Errorf("kubectl get %s shows\n%s\nwant\n%s", resource, table, wanted)
			}
		})
	}
}

// serverTable asks as kubectl get does and renders the answer; wide columns are in brackets.
func serverTable(t *testing.T, environment *testkit.Environment, resource schema.GroupVersionResource, namespace string, namespaced bool) string {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(environment.Config)
	if err != nil {
		t.Fatal(err)
	}
	path := []string{"/apis", resource.Group, resource.Version}
	if namespaced {
		path = append(path, "namespaces", namespace)
	}
	answer, err := clientset.RESTClient().Get().AbsPath(append(path, resource.Resource)...).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(answer, &table); err != nil {
		t.Fatal(err)
	}

	return render(&table)
}

func render(table *metav1.Table) string {
	var text bytes.Buffer
	writer := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	age := len(table.ColumnDefinitions)
	for i, column := range table.ColumnDefinitions {
		name := strings.ToUpper(column.Name)
		if column.Name == "Age" {
			age = i
		}
		if column.Priority > 0 {
			name = "(" + name + ")"
		}
		fmt.Fprint(writer, name, "\t")
	}
	fmt.Fprintln(writer)
	for _, row := range table.Rows {
		for i, cell := range row.Cells {
			if i == age {
				cell = "-"
			}
			fmt.Fprint(writer, cell, "\t")
		}
		fmt.Fprintln(writer)
	}
	_ = writer.Flush()
	lines := strings.Split(text.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}

	return strings.Join(lines, "\n")
}

// TestKubectlKnowsTheKinds asks kubectl for short names, the category and the documentation.
func TestKubectlKnowsTheKinds(t *testing.T) {
	environment := testkit.Start(t)
	resources := environment.Kubectl(t, "api-resources", "--categories=xen", "--no-headers")
	for short, kind := range map[string]string{
		"xpool": "XenPool", "xfl": "XenFlavor", "ximg": "XenImage", "xcimg": "XenClusterImage", "xi": "XenInstance", "xsnap": "XenSnapshot",
		"xcon": "XenConsole",
	} {
		if !strings.Contains(resources, " "+short+" ") || !strings.Contains(resources, kind) {
			t.Errorf("category xen has no %s with short name %s:\n%s", kind, short, resources)
		}
	}
	for field, words := range map[string]string{
		"xeninstance.spec.powerState":    "Default: Running",
		"xeninstance.spec.disks.size":    "it can only be raised",
		"xenpool.spec.grants.namespaces": "The label kubernetes.io/metadata.name selects by name",
		"xenflavor.spec.maxVCPUs":        "grow to while it runs",
	} {
		// The API server publishes the schemas of new kinds a while after it serves the kinds.
		testkit.Eventually(t, "kubectl explains "+field, func(ctx context.Context) error {
			output, err := environment.TryKubectl(ctx, "", "explain", field)
			if err == nil && !strings.Contains(strings.Join(strings.Fields(output), " "), words) {
				err = fmt.Errorf("kubectl explain %s does not say %q:\n%s", field, words, output)
			}
			return err
		})
	}
}
