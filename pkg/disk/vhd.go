package disk

import (
	"bytes"
	"fmt"
	"math"
	"time"
	"unicode/utf16"
)

// The parts of a VHD and their limits.
const (
	sectorSize     = 512
	vhdFooterSize  = 512
	vhdHeaderSize  = 1024
	vhdVersion     = 0x00010000
	vhdUnallocated = math.MaxUint32
	vhdNoOffset    = math.MaxUint64

	// VHDBlockSize is the size of the blocks that we write, and that XenServer uses.
	VHDBlockSize = 2 << 20
	// VHDMaxSize is the largest virtual disk that XenServer takes as a VHD, in bytes.
	VHDMaxSize = 2040 << 30

	vhdMinBlockSize = 64 << 10
	vhdMaxBlockSize = 64 << 20
	// vhdMaxEntries bounds a block allocation table to 16 MiB: 2040 GiB in blocks of 512 KiB.
	vhdMaxEntries = 4 << 20
)

// VHDType is the kind of a VHD.
type VHDType uint32

// The kinds.
const (
	VHDFixed        VHDType = 2
	VHDDynamic      VHDType = 3
	VHDDifferencing VHDType = 4
)

func (t VHDType) String() string {
	switch t {
	case VHDFixed:
		return "fixed"
	case VHDDynamic:
		return "dynamic"
	case VHDDifferencing:
		return "differencing"
	default:
		return fmt.Sprintf("type %d", uint32(t))
	}
}

// UUID identifies a VHD to its children.
type UUID [16]byte

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// VHDFooter is the last sector of a VHD, and the first of one that is not fixed.
type VHDFooter struct {
	// Type is the kind of VHD.
	Type VHDType
	// VirtualSize is the disk's size in bytes.
	VirtualSize int64
	// HeaderOffset is where the header of a dynamic or differencing VHD is; -1 for a fixed one.
	HeaderOffset int64
	// UUID is what a child names as its parent.
	UUID UUID
	// Created is in whole seconds.
	Created time.Time
	// Creator is the program that wrote it, four letters.
	Creator string
}

// VHDHeader says where the blocks of a dynamic or differencing VHD are.
type VHDHeader struct {
	// TableOffset is where the block allocation table is.
	TableOffset int64
	// Entries is how many blocks the table has place for.
	Entries uint32
	// BlockSize is in bytes, a power of two.
	BlockSize int64
	// ParentUUID and ParentName are set in a differencing VHD.
	ParentUUID UUID
	ParentName string
	// ParentModified is the parent's time of modification.
	ParentModified time.Time
	// Locators are where the parent's name is written again, for other platforms.
	Locators []VHDLocator
}

// VHDLocator is a parent's name in the words of a platform.
type VHDLocator struct {
	// Platform is a code of four letters, such as W2ku.
	Platform string
	// Space and Length are what is set aside and what is used, in bytes.
	Space, Length uint32
	// Offset is where the name is.
	Offset int64
}

// vhdEpoch is where a VHD's clock begins.
var vhdEpoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

func vhdTime(t time.Time) uint32 {
	return uint32(min(max(t.Unix()-vhdEpoch.Unix(), 0), math.MaxUint32))
}

// vhdChecksum is the complement of the sum of all bytes but the checksum's own four.
func vhdChecksum(b []byte, at int) uint32 {
	var sum uint32
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// vhdGeometry computes cylinders, heads and sectors as the format's specification tells.
func vhdGeometry(size int64) (cylinders uint16, heads, sectors uint8) {
	total := min(size/sectorSize, 65535*16*255)
	var perTrack, headCount, rows int64
	if total >= 65535*16*63 {
		perTrack, headCount = 255, 16
		rows = total / perTrack
	} else {
		perTrack = 17
		rows = total / perTrack
		headCount = max((rows+1023)/1024, 4)
		if rows >= headCount*1024 || headCount > 16 {
			perTrack, headCount = 31, 16
			rows = total / perTrack
		}
		if rows >= headCount*1024 {
			perTrack, headCount = 63, 16
			rows = total / perTrack
		}
	}
	return uint16(rows / headCount), uint8(headCount), uint8(perTrack)
}

// vhdCreator is blktap's sign. Readers that distrust a size (QEMU's among them) take the geometry's, which is rounded down, unless
// they know the creator to write a true one.
const vhdCreator = "tap\x00"

// Bytes writes the footer.
func (f VHDFooter) Bytes() []byte {
	b := make([]byte, vhdFooterSize)
	copy(b, vhdCookie)
	be.PutUint32(b[8:], 2) // a bit that is always set
	be.PutUint32(b[12:], vhdVersion)
	be.PutUint64(b[16:], uint64(f.HeaderOffset)) // -1 is all ones
	be.PutUint32(b[24:], vhdTime(f.Created))
	creator := f.Creator
	if creator == "" {
		creator = vhdCreator
	}
	copy(b[28:32], creator)
	be.PutUint32(b[32:], 0x00010003)
	be.PutUint64(b[40:], uint64(f.VirtualSize))
	be.PutUint64(b[48:], uint64(f.VirtualSize))
	cylinders, heads, sectors := vhdGeometry(f.VirtualSize)
	be.PutUint16(b[56:], cylinders)
	b[58], b[59] = heads, sectors
	be.PutUint32(b[60:], uint32(f.Type))
	copy(b[68:], f.UUID[:])
	be.PutUint32(b[64:], vhdChecksum(b, 64))
	return b
}

// ParseVHDFooter reads the sector b, which was found at offset.
func ParseVHDFooter(b []byte, offset int64) (VHDFooter, error) {
	if len(b) < vhdFooterSize {
		return VHDFooter{}, malformed(VHD, offset, "footer", "512 bytes", fmt.Sprintf("%d bytes", len(b)))
	}
	b = b[:vhdFooterSize]
	if !bytes.Equal(b[:8], vhdCookie) {
		return VHDFooter{}, malformed(VHD, offset, "footer's cookie", `"conectix"`, fmt.Sprintf("%q", b[:8]))
	}
	if want, got := vhdChecksum(b, 64), be.Uint32(b[64:]); want != got {
		return VHDFooter{}, malformed(VHD, offset+64, "footer's checksum", fmt.Sprintf("%#x", want), fmt.Sprintf("%#x", got))
	}
	if v := be.Uint32(b[12:]); v>>16 != vhdVersion>>16 {
		return VHDFooter{}, malformed(VHD, offset+12, "footer's version", "1.0", fmt.Sprintf("%#x", v))
	}
	f := VHDFooter{
		Type: VHDType(be.Uint32(b[60:])), VirtualSize: int64(be.Uint64(b[48:])), HeaderOffset: int64(be.Uint64(b[16:])), UUID: UUID(b[68:84]),
		Created: vhdEpoch.Add(time.Duration(be.Uint32(b[24:])) * time.Second), Creator: string(b[28:32]),
	}
	if f.VirtualSize <= 0 || f.VirtualSize%sectorSize != 0 || f.VirtualSize > 64<<40 {
		return VHDFooter{}, malformed(VHD, offset+48, "virtual size", "whole sectors, at most 64 TiB", be.Uint64(b[48:]))
	}
	switch f.Type {
	case VHDFixed:
		f.HeaderOffset = -1
	case VHDDynamic, VHDDifferencing:
		if f.HeaderOffset < vhdFooterSize || f.HeaderOffset%sectorSize != 0 || f.HeaderOffset > 1<<30 {
			return VHDFooter{}, malformed(VHD, offset+16, "offset of the header", "a sector after the footer, below 1 GiB", be.Uint64(b[16:]))
		}
	default:
		return VHDFooter{}, malformed(VHD, offset+60, "type", "fixed, dynamic or differencing", f.Type)
	}
	return f, nil
}

// Bytes writes the header.
func (h VHDHeader) Bytes() []byte {
	b := make([]byte, vhdHeaderSize)
	copy(b, vhdHeaderCookie)
	be.PutUint64(b[8:], vhdNoOffset)
	be.PutUint64(b[16:], uint64(h.TableOffset))
	be.PutUint32(b[24:], vhdVersion)
	be.PutUint32(b[28:], h.Entries)
	be.PutUint32(b[32:], uint32(h.BlockSize))
	copy(b[40:], h.ParentUUID[:])
	if !h.ParentModified.IsZero() {
		be.PutUint32(b[56:], vhdTime(h.ParentModified))
	}
	for i, unit := range utf16.Encode([]rune(h.ParentName)) {
		if i == 255 {
			break // the last place is for the terminator
		}
		be.PutUint16(b[64+2*i:], unit)
	}
	for i, l := range h.Locators[:min(len(h.Locators), 8)] {
		at := b[576+24*i:]
		copy(at[:4], l.Platform)
		be.PutUint32(at[4:], l.Space)
		be.PutUint32(at[8:], l.Length)
		be.PutUint64(at[16:], uint64(l.Offset))
	}
	be.PutUint32(b[36:], vhdChecksum(b, 36))
	return b
}

var vhdHeaderCookie = []byte("cxsparse")

// ParseVHDHeader reads the header b, which was found at offset and belongs to the footer f.
func ParseVHDHeader(b []byte, offset int64, f VHDFooter) (VHDHeader, error) {
	if len(b) < vhdHeaderSize {
		return VHDHeader{}, malformed(VHD, offset, "header", "1024 bytes", fmt.Sprintf("%d bytes", len(b)))
	}
	b = b[:vhdHeaderSize]
	if !bytes.Equal(b[:8], vhdHeaderCookie) {
		return VHDHeader{}, malformed(VHD, offset, "header's cookie", `"cxsparse"`, fmt.Sprintf("%q", b[:8]))
	}
	if want, got := vhdChecksum(b, 36), be.Uint32(b[36:]); want != got {
		return VHDHeader{}, malformed(VHD, offset+36, "header's checksum", fmt.Sprintf("%#x", want), fmt.Sprintf("%#x", got))
	}
	h := VHDHeader{
		TableOffset: int64(be.Uint64(b[16:])), Entries: be.Uint32(b[28:]), BlockSize: int64(be.Uint32(b[32:])), ParentUUID: UUID(b[40:56]),
		ParentName: vhdName(b[64:576]),
	}
	if seconds := be.Uint32(b[56:]); seconds != 0 {
		h.ParentModified = vhdEpoch.Add(time.Duration(seconds) * time.Second)
	}
	for i := range 8 {
		at := b[576+24*i:]
		if be.Uint32(at) != 0 {
			h.Locators = append(h.Locators, VHDLocator{
				Platform: string(at[:4]), Space: be.Uint32(at[4:]), Length: be.Uint32(at[8:]), Offset: int64(be.Uint64(at[16:])),
			})
		}
	}
	return h, h.check(offset, f)
}

// check bounds what is going to be allocated and read.
func (h VHDHeader) check(offset int64, f VHDFooter) error {
	if h.TableOffset < vhdFooterSize || h.TableOffset%sectorSize != 0 || h.TableOffset > 1<<31 {
		return malformed(VHD, offset+16, "offset of the block table", "a sector below 2 GiB", uint64(h.TableOffset))
	}
	if h.BlockSize < vhdMinBlockSize || h.BlockSize > vhdMaxBlockSize || h.BlockSize&(h.BlockSize-1) != 0 {
		return malformed(VHD, offset+32, "block size", "a power of two from 64 KiB to 64 MiB", h.BlockSize)
	}
	if h.Entries > vhdMaxEntries {
		return malformed(VHD, offset+28, "entries of the block table", fmt.Sprintf("at most %d", vhdMaxEntries), h.Entries)
	}
	if int64(h.Entries)*h.BlockSize < f.VirtualSize {
		return malformed(VHD, offset+28, "entries of the block table", fmt.Sprintf("enough for %d bytes", f.VirtualSize), h.Entries)
	}
	return nil
}

// blocks is how many blocks the disk has; the table may have place for more.
func (h VHDHeader) blocks(size int64) int64 { return (size + h.BlockSize - 1) / h.BlockSize }

// bitmapSize is what precedes a block's data.
func (h VHDHeader) bitmapSize() int64 { return wholeSectors(h.BlockSize / sectorSize / 8) }

// tableSize is the table's length in whole sectors.
func (h VHDHeader) tableSize() int64 { return wholeSectors(4 * int64(h.Entries)) }

func vhdName(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		unit := be.Uint16(b)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

func wholeSectors(n int64) int64 { return (n + sectorSize - 1) / sectorSize * sectorSize }
