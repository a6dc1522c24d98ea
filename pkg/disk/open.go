package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// peek looks at the first n bytes, or fewer of a shorter input, and returns a reader that still has them.
func peek(r io.Reader, n int) ([]byte, io.Reader, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	return head, buffered, nil
}

// Open reads one disk of length bytes anywhere: raw, VHD without a parent, or qcow2. With a stated format of "" it looks for itself, at
// the end too, where a fixed VHD has its footer; what contradicts a stated format is a *FormatError.
func Open(r io.ReaderAt, length int64, stated Format) (Disk, error) {
	head := make([]byte, min(length, DetectLength))
	if err := readFullAt(r, head, 0); err != nil {
		return nil, truncated(stated, 0, "first bytes", err)
	}
	format, err := DetectAs(stated, head)
	if err != nil {
		return nil, err
	}
	if format == Raw && stated == "" && isFixedVHD(r, length) {
		format = VHD
	}
	switch format {
	case Raw:
		return NewRaw(r, length), nil
	case VHD:
		return OpenVHD(r, length, nil)
	case QCOW2:
		return OpenQCOW2(r, length)
	default:
		return nil, malformed(format, 0, "content", "one disk", fmt.Sprintf("a %s", format))
	}
}

// isFixedVHD looks for a footer that agrees with the length: a disk's last sector may hold anything.
func isFixedVHD(r io.ReaderAt, length int64) bool {
	if length < 2*vhdFooterSize {
		return false
	}
	last := make([]byte, vhdFooterSize)
	if readFullAt(r, last, length-vhdFooterSize) != nil {
		return false
	}
	f, err := ParseVHDFooter(last, length-vhdFooterSize)
	return err == nil && f.Type == VHDFixed && f.VirtualSize == length-vhdFooterSize
}
