// Package pool is what the operator knows of a pool as a whole: the connection to it, who may use what of it, what
// its names mean, and what its status says.
//
// Deciding is apart from acting. Grants, aliases, quota, the writer mark, the trash, orphans and the status are
// functions of values. The connection is kept by one runner per XenPool, in goroutines of its own: a pool that does
// not answer keeps nobody waiting but itself, and no reconcile ever waits for a login.
//
// Begin with registry.go (how controllers get at a pool), then handle.go (what they get), then runner.go (how the
// connection lives) and status.go (how it is told).
package pool
