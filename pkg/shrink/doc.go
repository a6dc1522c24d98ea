// Package shrink makes a smaller disk of a disk: the whole of its beginning, boot loader, partitions and all, with the
// last partition's ext file system made smaller by e2fsprogs on a scratch file. It needs no privilege, no loop device and
// nothing of the XenAPI: a disk's content comes in as a disk.Stream and leaves as a disk.Disk or another disk.Stream.
//
// The order is always the same (Read, in shrink.go):
//
//   - the first sectors are read, and the partition table in them (table.go, mbr.go, gpt.go);
//   - a disk on which everything ends inside the new size already is passed on as it comes (passing.go);
//   - otherwise the beginning and the last partition are kept in two sparse scratch files (scratch.go), the file system is
//     looked at (content.go), checked, mended and made smaller (ext.go);
//   - the result is put together from the two files and the few sectors that change (result.go): the sizes in the table,
//     and a GPT's backup at the new end.
//
// Whatever is not ext2, ext3 or ext4, is damaged, or does not add up, ends in a *Refusal that says what was found and what
// its owner can do. The source is never written to.
//
// Partition tables are read and changed here rather than with a library, because a library writes the whole table anew:
// what it does not know (boot code, the addresses of old geometry, reserved bytes, the order of the entries) would be lost.
// Here a sector is kept as it is but for the fields that must change.
package shrink
