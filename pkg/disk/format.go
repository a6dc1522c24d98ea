package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Format is how a disk, or a VM with its disks, is written.
type Format string

// The formats, by the names that users write.
const (
	// Raw is the disk's content and nothing else.
	Raw Format = "Raw"
	// VHD is Microsoft's virtual hard disk: fixed, dynamic or differencing.
	VHD Format = "VHD"
	// QCOW2 is QEMU's format, version 2 or 3.
	QCOW2 Format = "QCOW2"
	// XVA is XenServer's archive of a VM: ova.xml and its disks in 1 MiB pieces.
	XVA Format = "XVA"
	// NovaTarball is a tar of VHDs, leaf first: 0.vhd, 1.vhd and so on.
	NovaTarball Format = "NovaTarball"
)

// Compression is what is around a format.
type Compression string

// The compressions.
const (
	None Compression = "None"
	Gzip Compression = "Gzip"
	Zstd Compression = "Zstd"
)

// DetectLength is how many bytes at the beginning Detect wants to see. Fewer will do for a shorter object.
const DetectLength = 512

var (
	gzipMagic  = []byte{0x1f, 0x8b, 0x08}
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	qcow2Magic = []byte("QFI\xfb")
	vhdCookie  = []byte("conectix")
)

// DetectCompression tells from the first bytes how an object is compressed.
func DetectCompression(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		return Gzip
	case bytes.HasPrefix(head, zstdMagic):
		return Zstd
	default:
		return None
	}
}

// foreign are formats that we name in a refusal, so that nobody boots one as a raw disk.
var foreign = []struct {
	magic string
	name  string
}{
	{"KDMV", "VMDK"},
	{"# Disk DescriptorFile", "VMDK"},
	{"COWD", "VMDK"},
	{"vhdxfile", "VHDX"},
	{"<<< Oracle VM VirtualBox", "VDI of VirtualBox"},
	{"<<< Sun VirtualBox", "VDI of VirtualBox"},
	{"QED\x00", "QED"},
	{"WithoutFreeSpace", "Parallels disk"},
	{"WithouFreSpacExt", "Parallels disk"},
	{"HTTP/1.", "an HTTP answer in place of a disk"},
	{"<!DOCTYPE", "a page in place of a disk"},
	{"<!doctype", "a page in place of a disk"},
	{"<html", "a page in place of a disk"},
	{"<?xml", "an XML text in place of a disk"},
	{"\xfd7zXZ\x00", "xz"},
	{"BZh", "bzip2"},
	{"PK\x03\x04", "zip"},
}

// Detect tells from the first bytes of what is in no compression (any more) what format it is. A fixed VHD has its mark at the end
// and looks like Raw; a format that we know but do not read, and an error text of a server, are a *FormatError.
func Detect(head []byte) (Format, error) {
	switch {
	case len(head) == 0:
		return "", malformed(Raw, 0, "content", "a disk", "an empty file")
	case bytes.HasPrefix(head, qcow2Magic):
		return QCOW2, nil
	case bytes.HasPrefix(head, vhdCookie):
		return VHD, nil
	case isTarHeader(head):
		if name := tarName(head); isTarVHDName(name) {
			return NovaTarball, nil
		}
		return XVA, nil
	}
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return "", malformed(Raw, 0, "magic", "raw, VHD, qcow2, XVA or a tar of VHDs", f.name)
		}
	}
	return Raw, nil
}

// DetectAs holds what is there against what was said to be there: a contradiction is a *FormatError. With a stated format of "" it
// is Detect. What looks like Raw may be a fixed VHD if that was said.
func DetectAs(stated Format, head []byte) (Format, error) {
	found, err := Detect(head)
	if err != nil || stated == "" || stated == found {
		return found, err
	}
	if stated == VHD && found == Raw {
		return VHD, nil
	}
	if stated == NovaTarball && found == XVA && tarName(head) != ovaName {
		return NovaTarball, nil // a directory entry comes first when tar was given "."
	}
	return "", malformed(stated, 0, "magic", "that of "+string(stated), fmt.Sprintf("that of %s", found))
}

// isTarHeader believes a tar header by its checksum, since the boot code of a raw disk may hold anything.
func isTarHeader(head []byte) bool {
	if len(head) < tarBlock || head[0] == 0 {
		return false
	}
	var want uint64
	digits := bytes.Trim(head[148:156], " \x00")
	if len(digits) == 0 {
		return false
	}
	for _, d := range digits {
		if d < '0' || d > '7' {
			return false
		}
		want = want<<3 | uint64(d-'0')
	}
	sum := uint64(8 * ' ')
	for i, b := range head[:tarBlock] {
		if i < 148 || i >= 156 {
			sum += uint64(b)
		}
	}
	return sum == want
}

// tarBlock is the unit of a tar.
const tarBlock = 512

func tarName(head []byte) string {
	name := head[:100]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return string(name)
}

// be is how VHD and qcow2 write numbers.
var be = binary.BigEndian
