// Command apidocs finishes what controller-gen makes: it joins the wrapped lines of the CRDs' descriptions, so that
// `kubectl explain` wraps them to the terminal, and writes the API reference from the same CRDs and from the documented
// condition types and reasons.
//
// Read generate first; crds.go holds the CRDs' side, reasons.go the constants' side, reference.go the page.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	crds := flag.String("crds", "config/crd/bases", "directory of the CRDs")
	reasons := flag.String("reasons", "api/v1alpha1/conditions.go", "Go file with the condition types and reasons")
	out := flag.String("out", "docs/api.md", "the API reference to write")
	flag.Parse()
	if err := generate(*crds, *reasons, *out); err != nil {
		fmt.Fprintln(os.Stderr, "apidocs:", err)
		os.Exit(1)
	}
}

func generate(crdDir, reasonsFile, out string) error {
	definitions, err := finishCRDs(crdDir)
	if err != nil {
		return err
	}
	groups, err := readReasons(reasonsFile)
	if err != nil {
		return err
	}

	return os.WriteFile(out, []byte(reference(definitions, groups)), 0o644)
}
