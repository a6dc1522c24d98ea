package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Layer is a VHD of a chain as it is stored.
type Layer struct {
	// Name is for errors.
	Name string
	// Reader holds the VHD, in no compression.
	Reader io.Reader
	// SHA256 is what the stored bytes hash to, in hexadecimal digits; "" if that is not known.
	SHA256 string
}

// DigestError says that bytes are not those that were stored.
type DigestError struct {
	Name, Want, Got string
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s: wanted SHA-256 %s, found %s", e.Name, e.Want, e.Got)
}

// Target is where a disk is rebuilt: a file, or anything else that is zero at first and can be read back.
type Target interface {
	io.WriterAt
	io.ReaderAt
}

// Rebuild makes the whole disk of a full VHD and its differencing ones, the full one first, and returns its size and the SHA-256 of its
// content. Each layer has to be a child of the one before, has to hash to what was said, and the content to want if it is not "".
func Rebuild(target Target, want string, layers ...Layer) (size int64, sha256 string, err error) {
	var parent *VHDFooter
	for _, layer := range layers {
		stored := NewDigest()
		stream, err := NewVHDStream(io.TeeReader(layer.Reader, stored))
		if err != nil {
			return 0, "", fmt.Errorf("%s: %w", layer.Name, err)
		}
		if err := stream.follows(parent); err != nil {
			return 0, "", fmt.Errorf("%s: %w", layer.Name, err)
		}
		if err := Apply(target, stream); err != nil {
			return 0, "", fmt.Errorf("%s: %w", layer.Name, err)
		}
		if got := stored.SHA256(); layer.SHA256 != "" && got != layer.SHA256 {
			return 0, "", &DigestError{layer.Name, layer.SHA256, got}
		}
		parent, size = &stream.Footer, stream.Size()
	}
	if parent == nil {
		return 0, "", errors.New("rebuild a disk of no layer")
	}
	content := NewDigest()
	if _, err := io.Copy(content, NewRawImage(written(target, size))); err != nil {
		return 0, "", err
	}
	if sha256 = content.SHA256(); want != "" && sha256 != want {
		return 0, "", &DigestError{"the rebuilt disk", want, sha256}
	}
	return size, sha256, nil
}

// written reads back what was written; behind its end are zeros.
func written(target Target, size int64) Disk {
	if file, ok := target.(*os.File); ok {
		return NewRaw(file, size)
	}
	return &rawDisk{zeroTail{target}, size}
}

type zeroTail struct{ io.ReaderAt }

func (z zeroTail) ReadAt(p []byte, offset int64) (int, error) {
	n, err := z.ReaderAt.ReadAt(p, offset)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

// Incomplete is the error of a differencing VHD that stands alone: its parent's content is missing.
func Incomplete(h *VHDHead) error {
	return malformed(VHD, 60, "type", "dynamic or fixed, which hold the whole disk", fmt.Sprintf("%s of a parent %q, which is needed too", h.Footer.Type, h.Header.ParentName))
}

// FitsVHD reports whether a disk of so many bytes goes into a VHD.
func FitsVHD(size int64) bool { return size > 0 && size%sectorSize == 0 && size <= VHDMaxSize }

// follows holds a layer against the one below. XenServer gives each streamed VHD a new identity, so the parent's is not compared.
func (h *VHDHead) follows(parent *VHDFooter) error {
	switch {
	case parent == nil && h.Footer.Type != VHDDynamic:
		return malformed(VHD, 60, "type of the first layer", "dynamic", h.Footer.Type)
	case parent != nil && h.Footer.Type != VHDDifferencing:
		return malformed(VHD, 60, "type of a further layer", "differencing", h.Footer.Type)
	case parent != nil && h.VirtualSize() < parent.VirtualSize:
		return malformed(VHD, 48, "virtual size", fmt.Sprintf("at least its parent's %d", parent.VirtualSize), h.VirtualSize())
	}
	return nil
}
