package disk

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// BootDisk is the disk that the VM of an archive boots from: the one at position 0, else the bootable one, else the only one.
func (x *XVAReader) BootDisk() (XVADisk, error) {
	for _, wanted := range []func(XVADisk) bool{
		func(d XVADisk) bool { return d.Device == "0" },
		func(d XVADisk) bool { return d.Bootable },
		func(XVADisk) bool { return len(x.disks) == 1 },
	} {
		if i := slices.IndexFunc(x.disks, wanted); i >= 0 {
			return x.disks[i], nil
		}
	}
	return XVADisk{}, malformed(XVA, 0, ovaName, "a disk to boot from", fmt.Sprintf("%d disks, none at position 0", len(x.disks)))
}

// DiskAt is the disk at a position.
func (x *XVAReader) DiskAt(device string) (XVADisk, error) {
	i := slices.IndexFunc(x.disks, func(d XVADisk) bool { return d.Device == device })
	if i < 0 {
		return XVADisk{}, malformed(XVA, 0, ovaName, "a disk at position "+device, fmt.Sprintf("%d disks at others", len(x.disks)))
	}
	return x.disks[i], nil
}

// Extents reads the archive to its end, all of it verified, and returns where a disk has data.
func (x *XVAReader) Extents(ref string) ([]Extent, error) {
	var extents []Extent
	for {
		chunk, err := x.Next()
		if errors.Is(err, io.EOF) {
			return extents, nil
		}
		if err != nil {
			return nil, err
		}
		if chunk.Ref != ref || isZero(chunk.Data) {
			continue
		}
		if last := len(extents) - 1; last >= 0 && extents[last].End() == chunk.Offset {
			extents[last].Length += int64(len(chunk.Data))
			continue
		}
		extents = append(extents, Extent{chunk.Offset, int64(len(chunk.Data))})
	}
}

// Disk is a disk of an archive that passes: it can be read forwards only, once. extents are where it has data, as Extents
// of an earlier pass said.
func (x *XVAReader) Disk(disk XVADisk, extents []Extent) Disk {
	return &xvaDisk{x: x, disk: disk, extents: extents}
}

type xvaDisk struct {
	x       *XVAReader
	disk    XVADisk
	extents []Extent
	at      XVAChunk
	ended   bool
}

func (d *xvaDisk) Size() int64 { return d.disk.VirtualSize }

func (d *xvaDisk) NextData(offset int64) (Extent, error) {
	i, _ := slices.BinarySearchFunc(d.extents, offset, func(e Extent, offset int64) int {
		if e.End() <= offset {
			return -1
		}
		return 1
	})
	if i == len(d.extents) {
		return Extent{}, io.EOF
	}
	e := d.extents[i]
	if e.Offset < offset {
		e = Extent{offset, e.End() - offset}
	}
	return e, nil
}

// ReadAt implements io.ReaderAt, forwards.
func (d *xvaDisk) ReadAt(p []byte, offset int64) (int, error) {
	want := min(int64(len(p)), d.Size()-offset)
	if want <= 0 {
		return 0, io.EOF
	}
	part := p[:want]
	clear(part)
	for position := offset; position < offset+want; {
		if err := d.advance(position); err != nil {
			return 0, err
		}
		if d.ended || d.at.Offset >= offset+want {
			break
		}
		from := max(position, d.at.Offset)
		n := copy(part[from-offset:], d.at.Data[from-d.at.Offset:])
		position = from + int64(n)
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// advance goes on until the piece at hand ends behind a place.
func (d *xvaDisk) advance(place int64) error {
	for !d.ended && (d.at.Ref != d.disk.Ref || d.at.Offset+int64(len(d.at.Data)) <= place) {
		chunk, err := d.x.Next()
		switch {
		case errors.Is(err, io.EOF):
			d.ended = true
			return nil
		case err != nil:
			return err
		}
		d.at = chunk
	}
	return nil
}
