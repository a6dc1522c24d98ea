// Package datamodel is the XenAPI's own description of itself: classes, fields with their types and defaults, messages
// with their parameters, and the relations between classes.
//
// The facts are data, not code: datamodel.json.gz (the model of xen-api 26.17), methods-24.19.txt (what a 24.19.2
// server lists, in its order, which is also the order of a record's fields), hidden.txt (messages it answers without
// documenting them), sync.txt (messages without an Async form). Begin with Load.
package datamodel
