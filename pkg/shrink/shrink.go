package shrink

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/kubexen/kubexen/pkg/disk"
)

// Request is what Read works with.
type Request struct {
	// Source is the content of the disk.
	Source disk.Stream
	// Size is the new size in bytes, in whole sectors; it is less than the source's.
	Size int64
	// Scratch is where the disk is kept meanwhile.
	Scratch *Scratch
	// Moved is told how far the source is read; it may be nil.
	Moved func(bytes int64)
}

// Result is the smaller disk; exactly one of its fields is set.
type Result struct {
	// Disk is the new content on scratch; it is there until the Scratch is closed.
	Disk disk.Disk
	// Passing is the new content of a disk on which everything ends inside the new size. It passes once, and only its end tells
	// that all is well: it reads the source to its end too.
	Passing disk.Stream
	// Resized says that a file system was made smaller, and not only what surrounds it.
	Resized bool
}

// Read reads the disk and makes it smaller. It ends in a *Refusal if that cannot be done with this disk, in a *SpaceError if there is
// too little scratch space.
func Read(ctx context.Context, r Request) (*Result, error) {
	if r.Size <= 0 || r.Size%sectorSize != 0 || r.Size >= r.Source.Size() || r.Source.Size()%sectorSize != 0 {
		return nil, fmt.Errorf("a disk of %d bytes cannot be made one of %d", r.Source.Size(), r.Size)
	}
	run := &run{Request: r, cursor: newCursor(r.Source, r.Moved), head: make([]byte, min(headLength, r.Source.Size()))}
	if err := run.cursor.read(run.head); err != nil {
		return nil, err
	}
	table, err := readTable(run.head, r.Source.Size())
	if err != nil {
		return nil, err
	}
	run.table = table
	if run.fits() {
		return &Result{Passing: newPassing(run)}, nil
	}
	return run.keep(ctx)
}

// run is one disk on its way.
type run struct {
	Request
	cursor *cursor
	head   []byte
	table  table

	before *sparse // what precedes the last partition
	last   partition
	volume *sparse // the last partition
}

// fits reports whether everything that the table tells of ends inside the new size, as far as it is read.
func (r *run) fits() bool {
	if _, whole := r.table.(wholeDisk); whole {
		_, size := claim(r.head)
		return size > 0 && size <= r.Size
	}
	if t, ok := r.table.(*mbrTable); ok && t.extended != nil && t.extended.end > t.usable(r.Size) {
		return false
	}
	return furthest(r.table.partitions()).end <= r.table.usable(r.Size)
}

// furthest is the partition that reaches furthest.
func furthest(parts []partition) partition {
	return slices.MaxFunc(parts, func(a, b partition) int { return cmp.Compare(a.end, b.end) })
}

// keep reads the disk into scratch files and makes the file system smaller there.
func (r *run) keep(ctx context.Context) (*Result, error) {
	if err := r.keepBefore(); err != nil {
		return nil, err
	}
	usable := r.table.usable(r.Size)
	if r.last.end <= usable {
		return r.keepRest(usable)
	}
	end := newEnd(r.last, usable)
	if end <= r.last.start {
		return nil, &Refusal{Reason: TooMuchData, Where: r.last.name, Found: fmt.Sprintf(
			"it begins at %d MiB, and the new disk ends at %d MiB", r.last.start/mebibyte, r.Size/mebibyte)}
	}
	fs, err := r.keepLast()
	if err != nil {
		return nil, err
	}
	v := volume{where: r.last.name, file: r.volume, fs: fs}
	length, err := v.shrinkTo(ctx, end-r.last.start, r.diskFor)
	if err != nil {
		return nil, err
	}
	changed := r.compose(r.table.patches(r.Size, r.last, end),
		kept(r.before, 0, r.last.start, 0), kept(r.volume, r.last.start, r.last.start+length, r.last.start))
	return &Result{Disk: changed, Resized: length < fs.size()}, nil
}

// diskFor is how large the disk must be to hold a last file system of a size: its partition begins where it does, its end is
// aligned, and a table's backup follows.
func (r *run) diskFor(fs int64) int64 {
	overhead := r.Size - r.table.usable(r.Size)
	end := r.last.start + fs
	return (end+overhead+mebibyte-1)/mebibyte*mebibyte + mebibyte
}

// keepBefore keeps what precedes the last partition. The chain of logical partitions, which only their own sectors tell, is
// followed on the way.
func (r *run) keepBefore() error {
	var err error
	if r.before, err = r.Scratch.create(r.Source.Size()); err != nil {
		return err
	}
	if _, err := r.before.WriteAt(r.head, 0); err != nil {
		return err
	}
	if t, ok := r.table.(*mbrTable); ok && t.extended != nil && t.extended.end > t.usable(r.Size) {
		for t.following != 0 {
			sector, err := r.sector(t.following)
			if err != nil {
				return err
			}
			if err := t.follow(sector); err != nil {
				return err
			}
		}
	}
	r.last = furthest(r.table.partitions())
	return r.cursor.copyTo(r.before, 0, r.last.start)
}

// sector reads a sector that is kept, or is to come.
func (r *run) sector(at int64) ([]byte, error) {
	if err := r.cursor.copyTo(r.before, 0, at+sectorSize); err != nil {
		return nil, err
	}
	sector := make([]byte, sectorSize)
	if _, err := r.before.ReadAt(sector, at); err != nil {
		return nil, fmt.Errorf("read the scratch file: %w", err)
	}
	return sector, nil
}

// keepLast keeps the last partition in a file of its own; what cannot be made smaller is refused before it is read.
func (r *run) keepLast() (*ext, error) {
	length := r.last.end - r.last.start
	var err error
	if r.volume, err = r.Scratch.create(length); err != nil {
		return nil, err
	}
	known := r.head[min(r.last.start, int64(len(r.head))):] // what was read of it with the table
	beginning := make([]byte, min(max(probeLength, int64(len(known))), length))
	n := copy(beginning, known)
	if err := r.cursor.read(beginning[n:]); err != nil {
		return nil, err
	}
	fs, err := lookAt(r.last, beginning[:min(probeLength, len(beginning))])
	if err != nil {
		return nil, err
	}
	if _, err := r.volume.WriteAt(beginning, 0); err != nil {
		return nil, err
	}
	if err := r.cursor.copyTo(r.volume, r.last.start, r.last.end); err != nil {
		return nil, err
	}
	err = checkRAIDEnd(r.last, fs.size(), func(data []byte, at int64) error {
		if _, err := r.volume.ReadAt(data, at); err != nil {
			return fmt.Errorf("read the scratch file: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fs, r.drain()
}

// keepRest keeps what follows the last partition's beginning, up to where the new disk ends: only the extended partition around it
// reaches further.
func (r *run) keepRest(usable int64) (*Result, error) {
	if err := r.cursor.copyTo(r.before, 0, usable); err != nil {
		return nil, err
	}
	if err := r.drain(); err != nil {
		return nil, err
	}
	probe := make([]byte, min(probeLength, r.last.end-r.last.start))
	if _, err := r.before.ReadAt(probe, r.last.start); err != nil {
		return nil, fmt.Errorf("read the scratch file: %w", err)
	}
	if err := checkClaim(r.last, probe); err != nil {
		return nil, err
	}
	changes := r.table.patches(r.Size, r.last, r.last.end)
	return &Result{Disk: r.compose(changes, kept(r.before, 0, usable, 0))}, nil
}

// drain reads the source to its end, and on the way a GPT's backup, or what a RAID has at the end of a disk without a table.
func (r *run) drain() error {
	return drain(r.cursor, r.table)
}

func drain(c *cursor, t table) error {
	if whole, ok := t.(wholeDisk); ok {
		err := checkRAIDEnd(whole.partitions()[0], c.at, func(data []byte, at int64) error {
			if err := c.skip(at); err != nil {
				return err
			}
			return c.read(data)
		})
		if err != nil {
			return err
		}
	}
	if gpt, ok := t.(*gptTable); ok && gpt.backup() >= c.at {
		if err := c.skip(gpt.backup()); err != nil {
			return err
		}
		sector := make([]byte, sectorSize)
		if err := c.read(sector); err != nil {
			return err
		}
		if err := gpt.checkBackup(sector); err != nil {
			return err
		}
	}
	return c.finish()
}
