// Package blockstore keeps the bytes of the simulated disks: sparse files in one directory, with copy-on-write parents.
//
// A disk is the top of a chain of layers. A layer is a sparse file and a map of the blocks that were written to it; only the
// top layer of a disk is ever written. Clone freezes the source's top layer and gives both disks an empty one above it, as a
// VHD storage repository does for VDI.snapshot and VDI.clone; an empty top layer is not frozen. Layers count what stands on them and go when nothing does.
//
// A disk that nobody has written has no file and a read never touches a block that was not written, so a pool of ten
// thousand 50 GiB disks costs a few maps. Files are opened for each operation, so it does not cost descriptors either.
//
// What does not live here: storage repositories, their limits and their errors (size rounding, chain length, free space).
// Nothing survives the process: a store begins empty. Begin reading at Store.
package blockstore
