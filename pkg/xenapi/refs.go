package xenapi

import "strings"

// nullRef is what a XenAPI sends and takes for "refers to nothing".
const nullRef = "OpaqueRef:NULL"

func isNull(ref string) bool { return ref == "" || ref == nullRef }

// looksLikeRef says whether text is a reference; a session reference is one, and is a credential.
func looksLikeRef(text string) bool { return strings.HasPrefix(text, "OpaqueRef:") }
