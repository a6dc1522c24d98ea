package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lima-vm/go-qcow2reader/image"
	reader "github.com/lima-vm/go-qcow2reader/image/qcow2"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/qcow2"
)

// sendQCOW2 sends a qcow2; with a base only what changed since, without naming the base as a backing file.
func (o *operation) sendQCOW2(disk *blockstore.Disk) error {
	extents := disk.Extents()
	if name := o.x.Param("base"); name != "" {
		_, base, err := o.base(name)
		if err != nil {
			return err
		}
		extents = disk.ChangedSince(base)
	}
	image := qcow2.Image{Size: disk.Size()}
	for _, e := range extents {
		image.Extents = append(image.Extents, qcow2.Extent(e))
	}
	return image.Write(o.counting(image.Len()), disk)
}

var errBackingFile = errors.New("the qcow2 stands on a backing file")

// receiveQCOW2 writes what a qcow2 holds to the disk. Its tables may stand anywhere, so it is kept in a file until it is
// whole.
func (o *operation) receiveQCOW2(disk *blockstore.Disk) error {
	if o.x.Length < 0 {
		return io.ErrUnexpectedEOF
	}
	spool, err := os.CreateTemp("", "xensim-*.qcow2")
	if err != nil {
		return fmt.Errorf("keep the qcow2: %w", err)
	}
	defer func() { _, _ = spool.Close(), os.Remove(spool.Name()) }()
	if _, err := io.CopyN(spool, o.x.Body(), o.x.Length); err != nil {
		return fmt.Errorf("keep the qcow2: %w", err)
	}
	var head [16]byte
	if _, err := spool.ReadAt(head[:], 0); err != nil || binary.BigEndian.Uint64(head[8:]) != 0 {
		return errors.Join(errBackingFile, err) // never a file of this machine's that an image names
	}
	source, err := reader.Open(spool, nil)
	if err != nil {
		return fmt.Errorf("read qcow2: %w", err)
	}
	if err := source.Readable(); err != nil {
		return fmt.Errorf("read qcow2: %w", err)
	}
	return o.copyImage(disk, source)
}

// copyImage copies what an image holds.
func (o *operation) copyImage(disk *blockstore.Disk, source image.Image) error {
	buffer := make([]byte, copyUnit)
	for offset, size := int64(0), source.Size(); offset < size; {
		extent, err := source.Extent(offset, size-offset)
		if err != nil {
			return fmt.Errorf("read qcow2: %w", err)
		}
		end := offset + extent.Length
		if extent.Zero || !extent.Allocated {
			offset = end
			continue
		}
		for offset < end {
			part := buffer[:min(copyUnit, end-offset)]
			if _, err := source.ReadAt(part, offset); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read qcow2: %w", err)
			}
			if _, err := disk.WriteAt(part, offset); err != nil {
				return err
			}
			offset += int64(len(part))
			o.progress(offset, size)
		}
	}
	return nil
}
