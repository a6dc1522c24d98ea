// Package wire reads and writes the two encodings of the XenAPI in the form of ocaml-rpc: XML-RPC (untagged strings,
// integers as text, empty values for void) and JSON-RPC 1.0 and 2.0 (native integers, error codes as messages).
//
// A value read from the wire is one of string, int64, bool, float64, DateTime, []any, Struct, or nil. A value to write
// may also be []string, map[string]string, map[string]any, time.Time, Int32, Raw or a Marshaler.
package wire
