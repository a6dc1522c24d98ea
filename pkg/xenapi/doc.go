// Package xenapi is a client of the XenAPI of XenServer and XCP-ng: calls and answers over XML-RPC, one session a pool, typed records and
// errors, tasks, events, disk and VM transfers, and the console. It knows nothing of Kubernetes.
//
// Begin reading at [Connect] and [Client]; calls hang off the client by class (client.VM.Start) and are generated from the XenAPI data model
// (xenapigen, in hack); anything else is reached with [Client.Call]. [Client.EventFrom] tells what has changed in a pool, [Client.WaitTask] how long work
// ended, [Client.ExportVDI] and its like move bytes, [Client.DialConsole] shows a screen. What failed is an [Error] of the XenAPI or a
// [TransportError] below it; [RetrySafe] and [OutcomeUnknown] say what may be done about it.
//
// The answer decoder (scanner.go, tags.go, decode.go) is our own: a XenAPI sends strings, references and 64-bit integers without a type tag and
// empty strings as empty values, which the usual decoders drop or refuse.
package xenapi

//go:generate go run ../../hack/xenapigen -model ../xensim/internal/datamodel/datamodel.json.gz -out .
