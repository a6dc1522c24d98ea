package shrink

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/kubexen/kubexen/pkg/disk"
)

// composed is the new disk: what precedes the last partition, that partition's file system, and the sectors that changed.
type composed struct {
	size    int64
	parts   []part
	patches []patch // in the order of their places
}

// part is a range of the new disk that a scratch file holds from its beginning on, or from the same place on.
type part struct {
	disk.Extent
	content disk.Disk
	base    int64 // where the content's first byte is
}

// compose puts the disk together.
func (r *run) compose(changes []patch, parts ...part) *composed {
	parts = slices.DeleteFunc(parts, func(p part) bool { return p.Length == 0 })
	return &composed{size: r.Size, parts: parts, patches: orderly(changes)}
}

// kept is a range that a scratch file holds, with byte base of the disk at its beginning.
func kept(file *sparse, offset, end, base int64) part {
	return part{Extent: disk.Extent{Offset: offset, Length: end - offset}, content: disk.NewRaw(file.File, end-base), base: base}
}

// orderly sorts patches by place.
func orderly(patches []patch) []patch {
	slices.SortFunc(patches, func(a, b patch) int { return cmp.Compare(a.offset, b.offset) })
	return patches
}

// Size implements disk.Disk.
func (d *composed) Size() int64 { return d.size }

// ReadAt implements disk.Disk.
func (d *composed) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= d.size {
		return 0, io.EOF
	}
	wanted := p
	p = p[:min(int64(len(p)), d.size-offset)]
	clear(p)
	for _, part := range d.parts {
		from, to := max(offset, part.Offset), min(offset+int64(len(p)), part.End())
		if from >= to {
			continue
		}
		if _, err := part.content.ReadAt(p[from-offset:to-offset], from-part.base); err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read a scratch file: %w", err)
		}
	}
	lay(d.patches, p, offset)
	if len(p) < len(wanted) {
		return len(p), io.EOF
	}
	return len(p), nil
}

// lay puts the patches over what is at offset.
func lay(patches []patch, p []byte, offset int64) {
	for _, patch := range patches {
		from, to := max(offset, patch.offset), min(offset+int64(len(p)), patch.end())
		if from < to {
			copy(p[from-offset:to-offset], patch.data[from-patch.offset:])
		}
	}
}

// NextData implements disk.Disk.
func (d *composed) NextData(offset int64) (disk.Extent, error) {
	next := disk.Extent{Offset: d.size}
	consider := func(e disk.Extent) {
		if e.Offset < offset {
			e = disk.Extent{Offset: offset, Length: e.End() - offset}
		}
		if e.Length > 0 && e.Offset < next.Offset {
			next = e
		}
	}
	for _, patch := range d.patches {
		consider(disk.Extent{Offset: patch.offset, Length: int64(len(patch.data))})
	}
	for _, part := range d.parts {
		if offset >= part.End() {
			continue
		}
		e, err := part.content.NextData(max(offset, part.Offset) - part.base)
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return disk.Extent{}, err
		}
		consider(disk.Extent{Offset: e.Offset + part.base, Length: e.Length})
	}
	if next.Offset >= d.size {
		return disk.Extent{}, io.EOF
	}
	next.Length = min(next.Length, d.size-next.Offset)
	return next, nil
}
