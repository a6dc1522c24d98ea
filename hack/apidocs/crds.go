package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// readingOrder is the order of the kinds on the page: from what an administrator prepares to what users write.
var readingOrder = []string{"XenPool", "XenFlavor", "XenClusterImage", "XenImage", "XenInstance", "XenSnapshot", "XenConsole"}

// finishCRDs rewrites the CRDs of a directory with joined descriptions and returns them in reading order. A kind that
// readingOrder does not know comes last.
func finishCRDs(dir string) ([]apiextensionsv1.CustomResourceDefinition, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no CRDs in %s", dir)
	}
	var definitions []apiextensionsv1.CustomResourceDefinition
	for _, path := range paths {
		definition, err := finishCRD(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		definitions = append(definitions, definition)
	}
	position := func(d apiextensionsv1.CustomResourceDefinition) int {
		if at := slices.Index(readingOrder, d.Spec.Names.Kind); at >= 0 {
			return at
		}

		return len(readingOrder)
	}
	slices.SortStableFunc(definitions, func(a, b apiextensionsv1.CustomResourceDefinition) int {
		return position(a) - position(b)
	})

	return definitions, nil
}

func finishCRD(path string) (definition apiextensionsv1.CustomResourceDefinition, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return definition, err
	}
	var tree map[string]any
	// Numbers stay as they are written: as float64 a large maximum would come back in exponents.
	keepNumbers := func(d *json.Decoder) *json.Decoder { d.UseNumber(); return d }
	if err := yaml.Unmarshal(text, &tree, keepNumbers); err != nil {
		return definition, err
	}
	joinDescriptions(tree)
	if text, err = yaml.Marshal(tree); err != nil {
		return definition, err
	}
	if err := os.WriteFile(path, append([]byte("---\n"), text...), 0o644); err != nil {
		return definition, err
	}

	return definition, yaml.Unmarshal(text, &definition)
}

// joinDescriptions turns the wrapped lines of every description below a node into paragraphs.
func joinDescriptions(node any) {
	switch node := node.(type) {
	case map[string]any:
		for key, value := range node {
			if text, isText := value.(string); isText && key == "description" {
				node[key] = joinLines(text)
				continue
			}
			joinDescriptions(value)
		}
	case []any:
		for _, value := range node {
			joinDescriptions(value)
		}
	}
}

// joinLines joins the lines of each paragraph; an empty line stays a paragraph's end.
func joinLines(text string) string {
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	for i, paragraph := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(paragraph), " ")
	}

	return strings.Join(paragraphs, "\n\n")
}
