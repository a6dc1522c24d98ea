// Package reconcile is the skeleton that every controller shares: the outcome of a pass, the scope that
// opens and closes one, finalizers, pausing, the one status patch, and what follows it (events, metrics).
//
// No word of the domain lives here: nothing about pools, instances or the XenAPI. What a pass does stands in
// the domain packages, what it watches in controllers/.
//
// Begin with Outcome (what a pass can end in), then Open and Scope.Close (the frame around it), then result.go
// (the only place where an outcome becomes a queue entry and conditions).
package reconcile
