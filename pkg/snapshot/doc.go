// Package snapshot is points in time of instances: a snapshot VM on the pool with its disks, and its copy in a store.
//
// Observe reads the cache (facts); Capture.Next says which step of taking it comes next (pure), Step.Do takes it; Remove
// takes it away again, its disks first. NextUpload decides about attempts (pure), Report writes the status (pure). What is
// done is done: a point in time that was taken once is never taken again under the same name, whatever of the record of it
// is lost. Begin with capture.go.
package snapshot
