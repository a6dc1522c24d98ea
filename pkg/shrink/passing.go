package shrink

import (
	"errors"
	"io"

	"github.com/kubexen/kubexen/pkg/disk"
)

// passing is a disk on which everything ends inside the new size, as it passes: its beginning with the table's changes, what
// follows, and the table's backup.
type passing struct {
	run   *run
	until int64 // what the old disk has from here on does not count
	atEnd []patch
	begun bool
	err   error // what every further Next returns

	// unseen are the partitions whose beginning has not passed yet, in order; probe holds that of the first.
	unseen []partition
	probe  []byte
}

// newPassing lays the changes over the beginning; the others are left for the end.
func newPassing(r *run) *passing {
	parts := r.table.partitions()
	last := furthest(parts)
	p := &passing{run: r, until: r.table.usable(r.Size), unseen: parts}
	if _, ok := r.table.(*mbrTable); ok {
		p.until = r.Size
	}
	if _, whole := r.table.(wholeDisk); whole {
		_, size := claim(r.head)
		p.unseen = []partition{{name: last.name, end: size}}
	}
	r.head = r.head[:min(int64(len(r.head)), p.until)]
	changed := orderly(r.table.patches(r.Size, last, last.end))
	lay(changed, r.head, 0)
	for _, change := range changed {
		if change.offset >= p.until {
			p.atEnd = append(p.atEnd, change)
		}
	}
	return p
}

// Size implements disk.Stream.
func (p *passing) Size() int64 { return p.run.Size }

// Next implements disk.Stream.
func (p *passing) Next() (disk.Chunk, error) {
	if p.err != nil {
		return disk.Chunk{}, p.err
	}
	chunk, err := p.next()
	if err == nil {
		err = p.see(chunk)
	}
	p.err = err
	if err != nil {
		return disk.Chunk{}, err
	}
	return chunk, nil
}

func (p *passing) next() (disk.Chunk, error) {
	if !p.begun {
		p.begun = true
		return disk.Chunk{Data: p.run.head}, nil
	}
	chunk, err := p.run.cursor.data(p.until)
	if !errors.Is(err, io.EOF) {
		return chunk, err
	}
	if len(p.atEnd) > 0 {
		change := p.atEnd[0]
		p.atEnd = p.atEnd[1:]
		return disk.Chunk{Offset: change.offset, Data: change.data}, nil
	}
	if err := p.see(disk.Chunk{Offset: p.run.Size}); err != nil {
		return disk.Chunk{}, err
	}
	if err := drain(p.run.cursor, p.run.table); err != nil {
		return disk.Chunk{}, err
	}
	return disk.Chunk{}, io.EOF
}

// see looks at the beginnings of partitions as they pass. What reaches beyond its partition is refused.
func (p *passing) see(chunk disk.Chunk) error {
	end := chunk.Offset + int64(len(chunk.Data))
	for len(p.unseen) > 0 && p.unseen[0].start < max(end, chunk.Offset+1) {
		first := p.unseen[0]
		if p.probe == nil {
			p.probe = make([]byte, min(probeLength, first.end-first.start))
		}
		probeEnd := first.start + int64(len(p.probe))
		if from, to := max(chunk.Offset, first.start), min(end, probeEnd); from < to {
			copy(p.probe[from-first.start:], chunk.Data[from-chunk.Offset:to-chunk.Offset])
		}
		if end < probeEnd && chunk.Offset < p.run.Size {
			return nil
		}
		if err := checkClaim(first, p.probe); err != nil {
			return err
		}
		p.unseen, p.probe = p.unseen[1:], nil
	}
	return nil
}
