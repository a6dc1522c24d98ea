// Package vhd writes and reads virtual hard disks in the VHD format as streams: what /export_raw_vdi sends and
// /import_raw_vdi takes with format=vhd.
//
// A stream is a copy of the footer, the header, the parent's locator (differencing only), the block allocation table, the
// blocks, and the footer. A writer knows the length before the first byte; a reader needs each byte once. Sizes are in
// bytes, numbers on the wire are big-endian. The format is Microsoft's "Virtual Hard Disk Image Format Specification" 1.0.
//
// What does not live here: where the bytes come from or go to. Begin reading at Image and Reader.
package vhd
