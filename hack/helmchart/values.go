package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// component is what the values say of a Deployment.
type component struct {
	Spec struct {
		Replicas int `json:"replicas"`
		Template struct {
			Spec struct {
				Containers []struct {
					Resources map[string]any `json:"resources"`
				} `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

// chartValues writes the values with their defaults, which are those of the manifests.
func chartValues(config string) (string, error) {
	var list kustomization
	if err := readYAML(filepath.Join(config, "default", "kustomization.yaml"), &list); err != nil {
		return "", err
	}
	if len(list.Images) != 1 {
		return "", fmt.Errorf("default/kustomization.yaml names %d images, not one", len(list.Images))
	}
	manager, err := componentValues(config, "manager")
	if err != nil {
		return "", err
	}
	gateway, err := componentValues(config, "gateway")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`# Defaults are those of config/default; this file is generated from it.
image:
  repository: %s
  tag: %q
  pullPolicy: ""

# The kinds. They stay when the chart is uninstalled: deleting them would delete every object of them.
crds:
  install: true

# Refuses to delete instances with spec.deletionProtection.
deletionProtection:
  enabled: true

networkPolicy:
  enabled: true

# The controllers. flags are those of "kubexen manager --help", without the dashes: {console-url: https://consoles.example.org}.
# pod is added to the pods' spec: nodeSelector, tolerations, imagePullSecrets ….
manager:
%s
# The console gateway. flags are those of "kubexen gateway --help"; with the Secret kubexen-gateway-tls:
# {tls-cert-file: /tls/tls.crt, tls-private-key-file: /tls/tls.key}.
gateway:
  enabled: true
%s`, list.Images[0].NewName, list.Images[0].NewTag, manager, gateway), nil
}

// componentValues are the values of one Deployment, indented.
func componentValues(config, name string) (string, error) {
	var c component
	if err := readYAML(filepath.Join(config, name, "deployment.yaml"), &c); err != nil {
		return "", err
	}
	if n := len(c.Spec.Template.Spec.Containers); n != 1 {
		return "", fmt.Errorf("%s/deployment.yaml has %d containers, not one", name, n)
	}
	text, err := yaml.Marshal(map[string]any{
		"replicas": c.Spec.Replicas, "resources": c.Spec.Template.Spec.Containers[0].Resources,
		"flags": map[string]any{}, "pod": map[string]any{},
	})
	if err != nil {
		return "", err
	}
	var indented strings.Builder
	for line := range strings.Lines(string(text)) {
		indented.WriteString("  " + line)
	}
	return indented.String(), nil
}
