// Package classes is what the objects of a simulated pool do: VMs that start and stop, disks that are cloned and moved, hosts that
// take VMs in. It registers the messages of these classes with the toolstack (package xapi), which answers everything else.
//
// Begin with Register. The rules are pure functions over facts (vm_lifecycle.go, device_operations.go, storage_operations.go,
// vm_memory.go); facts.go reads the facts from the database; the other files act.
package classes
