package main

// The data model file carries no prose, so what a field or call means is said here, in our words.

var recordDocs = map[string]string{
	"VM":  "is a virtual machine, a template or a snapshot: see IsATemplate, IsASnapshot and IsControlDomain.",
	"VDI": "is a virtual disk.",
}

// fieldDocs are looked up by class and field first, then by field.
var fieldDocs = map[string]string{
	"uuid": "is unique across pools and outlives restarts, unlike the reference.",
}

var methodDocs = map[string]string{}
