// Package transfer answers the HTTP requests of a host that are no calls: disks in and out (/export_raw_vdi,
// /import_raw_vdi), whole VMs (/export, /import) and their records (/export_metadata, /import_metadata), consoles
// (/console, /vncsnapshot) and statistics (/rrd_updates).
//
// What these have in common is in operation.go: they run under a task that the client may have made, they say 200 before
// they have done anything, and what goes wrong after that stands in the task and as a second answer inside the body.
//
// What does not live here: the formats (packages vhd, xva, rfb), the bytes (blockstore), and what VMs and disks are
// (classes): a transfer creates and destroys objects through the same messages as a client. Begin reading at Register.
package transfer
