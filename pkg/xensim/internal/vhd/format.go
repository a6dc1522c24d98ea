package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf16"
)

const (
	sectorSize = 512
	footerSize = 512
	headerSize = 1024

	footerCookie = "conectix"
	headerCookie = "cxsparse"

	// BlockSize is how many bytes a block of a dynamic or differencing VHD has that this package writes.
	BlockSize = 2 << 20

	// MaxSize is the largest virtual size of a dynamic VHD that XenServer takes: 2040 GiB.
	MaxSize = 2040 << 30

	unusedBlock = 0xFFFFFFFF
)

// Type tells how a VHD keeps its blocks.
type Type uint32

// The types of VHD that there are.
const (
	Fixed        Type = 2
	Dynamic      Type = 3
	Differencing Type = 4
)

// ErrFormat says that a stream is not a VHD, or not one that can be read as a stream.
var ErrFormat = errors.New("not a readable VHD")

// epoch is where a VHD's time stamps begin, in seconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Parent is what a differencing VHD says of the VHD that it stands on.
type Parent struct {
	ID [16]byte
	// Created is the parent's modification time, in whole seconds.
	Created time.Time
	// Name is the parent's file name.
	Name string
}

// footer is the part of a VHD's last sector that anyone reads.
type footer struct {
	kind    Type
	size    int64
	id      [16]byte
	created time.Time
}

func (f footer) encode() []byte {
	b := make([]byte, footerSize)
	copy(b, footerCookie)
	binary.BigEndian.PutUint32(b[8:], 2)           // features: the reserved bit is always set
	binary.BigEndian.PutUint32(b[12:], 0x00010000) // format version 1.0
	dataOffset := uint64(footerSize)
	if f.kind == Fixed {
		dataOffset = 1<<64 - 1
	}
	binary.BigEndian.PutUint64(b[16:], dataOffset)
	binary.BigEndian.PutUint32(b[24:], secondsSinceEpoch(f.created))
	copy(b[28:], "tap\x00") // what XenServer's own disks say; readers then take the exact size and not the geometry's
	binary.BigEndian.PutUint32(b[32:], 0x00010003)
	binary.BigEndian.PutUint64(b[40:], uint64(f.size))
	binary.BigEndian.PutUint64(b[48:], uint64(f.size))
	binary.BigEndian.PutUint32(b[56:], geometry(f.size))
	binary.BigEndian.PutUint32(b[60:], uint32(f.kind))
	copy(b[68:], f.id[:])
	binary.BigEndian.PutUint32(b[64:], checksum(b, 64))
	return b
}

func decodeFooter(b []byte) (footer, error) {
	if len(b) != footerSize || string(b[:8]) != footerCookie {
		return footer{}, fmt.Errorf("%w: no footer", ErrFormat)
	}
	if binary.BigEndian.Uint32(b[64:]) != checksum(b, 64) {
		return footer{}, fmt.Errorf("%w: the footer's checksum is wrong", ErrFormat)
	}
	f := footer{
		kind:    Type(binary.BigEndian.Uint32(b[60:])),
		size:    int64(binary.BigEndian.Uint64(b[48:])),
		created: epoch.Add(time.Duration(binary.BigEndian.Uint32(b[24:])) * time.Second),
	}
	copy(f.id[:], b[68:])
	if f.size < 0 {
		return footer{}, fmt.Errorf("%w: size %d", ErrFormat, uint64(f.size))
	}
	return f, nil
}

// header is what a dynamic or differencing VHD adds to the footer.
type header struct {
	tableOffset int64
	entries     uint32
	blockSize   uint32
	parent      *Parent
	locators    []locator
}

// locator says where in the file a name of the parent stands, in the form that one platform understands.
type locator struct {
	platform string
	offset   int64
	name     []byte
}

func (h header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, headerCookie)
	binary.BigEndian.PutUint64(b[8:], 1<<64-1) // no next structure
	binary.BigEndian.PutUint64(b[16:], uint64(h.tableOffset))
	binary.BigEndian.PutUint32(b[24:], 0x00010000)
	binary.BigEndian.PutUint32(b[28:], h.entries)
	binary.BigEndian.PutUint32(b[32:], h.blockSize)
	if h.parent != nil {
		copy(b[40:], h.parent.ID[:])
		binary.BigEndian.PutUint32(b[56:], secondsSinceEpoch(h.parent.Created))
		copy(b[64:576], encodeUTF16(h.parent.Name, binary.BigEndian))
		for i, l := range h.locators {
			entry := b[576+24*i:]
			copy(entry, l.platform)
			binary.BigEndian.PutUint32(entry[4:], uint32(wholeSectors(int64(len(l.name)))))
			binary.BigEndian.PutUint32(entry[8:], uint32(len(l.name)))
			binary.BigEndian.PutUint64(entry[16:], uint64(l.offset))
		}
	}
	binary.BigEndian.PutUint32(b[36:], checksum(b, 36))
	return b
}

func decodeHeader(b []byte) (header, error) {
	if len(b) != headerSize || string(b[:8]) != headerCookie {
		return header{}, fmt.Errorf("%w: no header", ErrFormat)
	}
	if binary.BigEndian.Uint32(b[36:]) != checksum(b, 36) {
		return header{}, fmt.Errorf("%w: the header's checksum is wrong", ErrFormat)
	}
	h := header{
		tableOffset: int64(binary.BigEndian.Uint64(b[16:])),
		entries:     binary.BigEndian.Uint32(b[28:]),
		blockSize:   binary.BigEndian.Uint32(b[32:]),
		parent: &Parent{
			Created: epoch.Add(time.Duration(binary.BigEndian.Uint32(b[56:])) * time.Second),
			Name:    decodeUTF16(b[64:576]),
		},
	}
	copy(h.parent.ID[:], b[40:])
	return h, nil
}

// checksum is the one's complement of the sum of all bytes but the checksum's own, which stand at offset.
func checksum(b []byte, offset int) uint32 {
	var sum uint32
	for i, c := range b {
		if i < offset || i >= offset+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// geometry is the cylinders, heads and sectors of a disk, after the specification's appendix.
func geometry(size int64) uint32 {
	sectors := min(size/sectorSize, 65535*16*255)
	var perTrack, heads, tracks int64
	if sectors >= 65535*16*63 {
		perTrack, heads = 255, 16
		tracks = sectors / perTrack
	} else {
		perTrack = 17
		tracks = sectors / perTrack
		heads = max((tracks+1023)/1024, 4)
		if tracks >= heads*1024 || heads > 16 {
			perTrack, heads = 31, 16
			tracks = sectors / perTrack
		}
		if tracks >= heads*1024 {
			perTrack, heads = 63, 16
			tracks = sectors / perTrack
		}
	}
	return uint32(tracks/heads)<<16 | uint32(heads)<<8 | uint32(perTrack)
}

func secondsSinceEpoch(t time.Time) uint32 {
	if t.Before(epoch) {
		return 0
	}
	return uint32(t.Sub(epoch) / time.Second)
}

func encodeUTF16(s string, order binary.AppendByteOrder) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, unit)
	}
	return b
}

func decodeUTF16(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		unit := binary.BigEndian.Uint16(b)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

// wholeSectors rounds a number of bytes up.
func wholeSectors(n int64) int64 { return (n + sectorSize - 1) / sectorSize * sectorSize }
