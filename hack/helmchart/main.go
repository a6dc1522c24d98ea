// Helmchart writes the templates and values of the Helm chart from the manifests that kustomize uses, so that there is one
// source for what is installed. The manifests are taken as text: their comments reach the chart.
//
//	go run ./hack/helmchart -config config -out config/helm
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// room is a directory of manifests.
type room struct {
	dir string
	// when is the value that turns its manifests on; "" is always.
	when string
}

var rooms = []room{
	{dir: "crd", when: "crds.install"},
	{dir: "rbac"},
	{dir: "admission", when: "deletionProtection.enabled"},
	{dir: "manager"},
	{dir: "gateway", when: "gateway.enabled"},
	{dir: "network", when: "networkPolicy.enabled"},
}

func main() {
	config := flag.String("config", "config", "directory of the manifests")
	out := flag.String("out", "config/helm", "directory of the chart")
	flag.Parse()
	if err := run(*config, *out); err != nil {
		fmt.Fprintln(os.Stderr, "helmchart:", err)
		os.Exit(1)
	}
}

func run(config, out string) error {
	if err := os.MkdirAll(filepath.Join(out, "templates"), 0o755); err != nil {
		return fmt.Errorf("make the chart's directory: %w", err)
	}
	for _, r := range rooms {
		if err := r.write(config, out); err != nil {
			return fmt.Errorf("%s: %w", r.dir, err)
		}
	}
	values, err := chartValues(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "values.yaml"), []byte(values), 0o644)
}

// kustomization is what we read of one.
type kustomization struct {
	Resources []string `json:"resources"`
	Images    []struct {
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
}

func readYAML(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// write makes a template of each manifest of the room.
func (r room) write(config, out string) error {
	var list kustomization
	if err := readYAML(filepath.Join(config, r.dir, "kustomization.yaml"), &list); err != nil {
		return err
	}
	for _, file := range list.Resources {
		text, err := os.ReadFile(filepath.Join(config, r.dir, file))
		if err != nil {
			return err
		}
		template, err := r.template(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		path := filepath.Join(out, "templates", r.dir+"-"+filepath.Base(file))
		if err := os.WriteFile(path, []byte(template), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// template makes a manifest a template.
func (r room) template(text string) (string, error) {
	if strings.Contains(text, "{{") {
		return "", fmt.Errorf("it holds {{, which Helm would take for its own")
	}
	text = strings.ReplaceAll(text, "namespace: kubexen-system", "namespace: {{ .Release.Namespace }}")
	var err error
	switch {
	case strings.Contains(text, "\nkind: CustomResourceDefinition\n"):
		// Uninstalling must not delete every VM's object.
		text, err = edits{{"  annotations:\n", "  annotations:\n    helm.sh/resource-policy: keep\n"}}.apply(text)
	case strings.Contains(text, "\nkind: Deployment\n"):
		text, err = deployment(text, r.dir)
	}
	if err != nil {
		return "", err
	}
	if r.when != "" {
		text = "{{- if .Values." + r.when + " }}\n" + text + "{{- end }}\n"
	}
	return text, nil
}

// edits replace texts that each stand exactly once.
type edits [][2]string

func (e edits) apply(text string) (string, error) {
	for _, edit := range e {
		if n := strings.Count(text, edit[0]); n != 1 {
			return "", fmt.Errorf("%q stands %d times in it, not once", edit[0], n)
		}
		text = strings.Replace(text, edit[0], edit[1], 1)
	}
	return text, nil
}

// deployment puts the values of a component into its Deployment.
func deployment(text, component string) (string, error) {
	values := ".Values." + component
	replicas, err := lineWith(text, "  replicas: ")
	if err != nil {
		return "", err
	}
	resources, err := block(text, "        resources:\n")
	if err != nil {
		return "", err
	}
	return edits{
		{replicas, "  replicas: {{ " + values + ".replicas }}\n"},
		{resources, "        resources:\n          {{- toYaml " + values + ".resources | nindent 10 }}\n"},
		{"        image: kubexen\n", "        image: {{ printf \"%s:%s\" .Values.image.repository .Values.image.tag | quote }}\n" +
			"        {{- with .Values.image.pullPolicy }}\n        imagePullPolicy: {{ . }}\n        {{- end }}\n"},
		{"        env:\n", "        {{- range $flag, $value := " + values + ".flags }}\n" +
			"        - {{ printf \"--%s=%s\" $flag (kindIs \"slice\" $value | ternary (join \",\" $value) (toString $value)) | quote }}\n" +
			"        {{- end }}\n        env:\n"},
		{"      terminationGracePeriodSeconds: ", "      {{- with " + values + ".pod }}\n      {{- toYaml . | nindent 6 }}\n      {{- end }}\n      terminationGracePeriodSeconds: "},
	}.apply(text)
}

// lineWith is the line that begins with a text.
func lineWith(text, prefix string) (string, error) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return line, nil
		}
	}
	return "", fmt.Errorf("no line begins with %q", prefix)
}

// block is a line and the deeper lines below it.
func block(text, head string) (string, error) {
	at := strings.Index(text, "\n"+head)
	if at < 0 {
		return "", fmt.Errorf("no line is %q", head)
	}
	indent := head[:len(head)-len(strings.TrimLeft(head, " "))]
	found := head
	for line := range strings.Lines(text[at+1+len(head):]) {
		if !strings.HasPrefix(line, indent+" ") {
			break
		}
		found += line
	}
	return found, nil
}
