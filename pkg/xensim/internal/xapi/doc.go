// Package xapi is the toolstack of a simulated pool: it answers calls over a database, as xapi does over its own.
//
// Begin with Pool (pool.go), then Dispatch (dispatch.go). One lock, the pool's, covers everything: a message is
// implemented by a Handler, which runs with the lock held from beginning to end and so sees a world that stands still.
// Where simulated time passes it calls Call.Wait, the one place where the lock is let go and others may act.
package xapi
