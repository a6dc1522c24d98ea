// Package xencache keeps the objects of one pool in memory, pushed by the pool itself (event.from), so that a
// reconcile reads memory only: at rest the operator makes no call per VM.
//
// It holds records as the XenAPI gives them, without what nobody reads, indexes over them (uuid, mark, name, the
// relations between VM, VBD and VDI), tells which reconcile keys a change concerns, and lets a writer wait until
// what it wrote can be read here. It decides nothing and knows nothing of Kubernetes but the names in the marks.
//
// Begin with marks.go (how an object on the pool says whose it is), then view.go (what can be read), then feed.go
// (how events become rows).
package xencache
