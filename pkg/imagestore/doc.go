// Package imagestore reads and writes files where images and uploaded snapshots live outside of a pool: S3-compatible
// stores, OpenStack's image service (Glance), web servers. All three are a Store; begin there.
//
// What is written appears under its name only when the writer commits, and a writer commits only after the store
// confirmed what it holds, by a digest that the store computed itself where it computes one. Nothing is kept on disk,
// and memory per stream is bounded whatever the size of a file.
//
// The package knows bytes, names and credentials. It knows nothing of disks, of pools or of Kubernetes.
package imagestore
