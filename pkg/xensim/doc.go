// Package xensim is a XenServer pool in one process: the wire of the real one, its state machine, its errors, disks
// with real bytes and consoles that speak RFB, for developers, tests and demonstrations.
//
// It shares no code with any client, on purpose: a misunderstanding of the wire must not cancel itself out. It is held
// against recordings of a real server (testdata, replay_test.go).
//
// Begin with New and Pool (pool.go). What a class's messages do is in this package; the toolstack below it (dispatch,
// sessions, tasks, events, faults) is internal/xapi, the encodings are internal/wire, the database is internal/db.
package xensim
