// Package qcow2 writes disks in QEMU's qcow2 format (version 3) as streams: what /export_raw_vdi of a 26.17 sends with
// format=qcow2.
//
// A stream is the header, the reference counts, the first and second level tables, and the clusters that hold something;
// where everything stands is known before the first byte. Numbers on the wire are big-endian. The format is described in
// QEMU's docs/interop/qcow2.
//
// What does not live here: where the bytes come from, and reading. Begin reading at Image.
package qcow2
