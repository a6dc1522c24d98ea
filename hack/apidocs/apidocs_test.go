package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const crd = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: xenflavors.kubexen.io
spec:
  group: kubexen.io
  names: {kind: XenFlavor, plural: xenflavors, shortNames: [xfl]}
  scope: Cluster
  versions:
  - name: v1alpha1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: VCPUs, type: integer, jsonPath: .spec.vcpus}
    - {name: UUID, type: string, priority: 1, jsonPath: .status.uuid}
    schema:
      openAPIV3Schema:
        type: object
        description: |-
          A size,
          by name.
        properties:
          spec:
            type: object
            required: [vcpus]
            x-kubernetes-validations:
            - {rule: self == oldSelf, message: a flavor is immutable}
            properties:
              vcpus:
                type: integer
                maximum: 104857600
                description: |-
                  vcpus are
                  <many> | few.

                  A second paragraph.
              mode: {type: string, enum: [A, B], default: A, description: mode of it}
              disks:
                type: array
                maxItems: 3
                description: disks of it
                items:
                  type: object
                  properties:
                    size: {x-kubernetes-int-or-string: true, description: size of one}
          status:
            type: object
            properties:
              since: {type: string, format: date-time, description: since when}
`

const constants = `package v1alpha1

// Condition types. More about them.
const (
	// ConditionReady is True when
	// it is ready.
	ConditionReady = "Ready"
)
`

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "flavor.yaml", crd)
	reasons := write(t, dir, "conditions.go", constants)
	out := filepath.Join(dir, "api.md")
	if err := generate(dir, reasons, out); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| [XenFlavor](#xenflavor) | Cluster | xfl | VCPUs, (UUID) |",
		"A size, by name.",
		"- a flavor is immutable",
		"| `spec.vcpus` | integer | vcpus are &lt;many> \\| few.  A second paragraph.<br>Required. |",
		"| `spec.mode` | string | mode of it<br>Default in the object: `\"A\"`.<br>One of `A`, `B`. |",
		"| `spec.disks` | list of object | disks of it<br>At most 3 entries. |",
		"| `spec.disks[].size` | quantity | size of one |",
		"| `status.since` | time | since when |",
		"### Condition types\n",
		"| `Ready` | is True when it is ready. |",
	} {
		if !strings.Contains(string(page), line) {
			t.Errorf("the page has no %q:\n%s", line, page)
		}
	}
	finished, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"description: A size, by name.\n", "maximum: 104857600\n"} {
		if !strings.Contains(string(finished), text) {
			t.Errorf("the finished CRD has no %q:\n%s", text, finished)
		}
	}
	if _, err := finishCRDs(dir); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(path)
	if err != nil || string(again) != string(finished) {
		t.Errorf("finishing a finished CRD changes it (%v):\n%s", err, again)
	}
}

func TestUndocumentedReason(t *testing.T) {
	path := write(t, t.TempDir(), "conditions.go", "package a\n\nconst (\n\t// Something else.\n\tReasonA = \"A\"\n)\n")
	if _, err := readReasons(path); err == nil || !strings.Contains(err.Error(), "the comment of ReasonA must begin with its name") {
		t.Errorf("a constant without its comment: %v", err)
	}
}

func TestNoCRDs(t *testing.T) {
	if _, err := finishCRDs(t.TempDir()); err == nil {
		t.Error("an empty directory is no error")
	}
}
