// Package disk moves the bytes of disks between formats: raw, VHD, qcow2, XVA and the tarball of VHDs that OpenStack Nova
// made. It knows nothing of the XenAPI, of stores or of Kubernetes: it reads from an io.Reader or an io.ReaderAt and
// writes to an io.Writer, so that every transfer is a pipe.
//
// Three ideas carry it. A Disk is content that can be read anywhere and that tells where data is (NextData), so that
// zeros are neither read nor sent where a format can leave them out. A Stream is content that passes once, as runs of
// data. An Image is a disk written in a format: its exact length is known before its first byte, since both the XenAPI's
// import and a tar's header want it first.
//
// What comes from outside is hostile until read: every parser says what it wanted and what it found in a *FormatError,
// bounds what it allocates by constants and not by what a header claims, and keeps a transfer under 64 MiB of memory
// whatever the disk's size. Begin with disk.go, then vhd.go.
package disk
