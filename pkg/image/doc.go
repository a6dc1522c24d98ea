// Package image is what instances boot from. On a pool an image is a template VM that holds its disks, so that an
// instance is made of it by one clone: VM, devices and disks in one act that can be found by its name.
//
// A template that is there already is looked at and never changed. For a disk that is there already a hidden template
// is made around it: the disk is its root, is never attached, and is never changed either.
//
// Observe reads the cache (facts), Plan says which step comes next (pure), Step.Do takes it, Report writes the status
// (pure). Begin with plan.go.
package image
