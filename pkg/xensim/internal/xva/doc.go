// Package xva writes and reads XVA archives: a VM's records and disks as one tar stream, what /export sends and /import
// takes.
//
// The first member is ova.xml: the records, as an XML-RPC value, in which references are replaced by names of the archive's
// own ("Ref:7"). Then come the disks in pieces of 1 MiB, "Ref:7/00000000" and so on, each followed by its checksum. Pieces
// of zeros are left out, except a disk's first and last (stream_vdi.ml). An archive may be compressed as a whole with gzip
// or zstd; a reader finds out.
//
// What does not live here: which records belong in an archive and what becomes of them. Begin reading at Writer and Reader.
package xva
