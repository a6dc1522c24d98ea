package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	// tableEntries is how many clusters a second level table maps.
	tableEntries = clusterSize / 8
	// countEntries is how many clusters one block of 16 bit reference counts covers.
	countEntries = clusterSize / 2
	// copied marks a cluster that is used once.
	copied = 1 << 63

	headerLength = 104
)

// Extent is a run of bytes of a disk.
type Extent struct {
	// Offset and Length are in bytes.
	Offset, Length int64
}

// Image says what a qcow2 that is to be written contains.
type Image struct {
	// Size is the virtual size in bytes.
	Size int64
	// Extents are the parts of the disk that the image holds, in order and without overlap; the rest is zeros.
	Extents []Extent
}

// layout is where the parts of an image stand, in clusters from its beginning.
type layout struct {
	// clusters are the numbers of the disk's clusters that are there, tables those of the second level tables.
	clusters, tables []int64
	// firstLevel is how many entries the first level table has.
	firstLevel                                        int64
	countTable, countBlocks, first, second, data, end int64
}

func (m Image) layout() layout {
	l := layout{firstLevel: ceil(m.Size, clusterSize*tableEntries)}
	for _, e := range m.Extents {
		for n := e.Offset / clusterSize; n*clusterSize < e.Offset+e.Length; n++ {
			l.clusters = appendNew(l.clusters, n)
			l.tables = appendNew(l.tables, n/tableEntries)
		}
	}
	// The reference counts count their own clusters too, so their number is found by trying.
	for blocks := int64(1); ; blocks++ {
		l.countTable = 1
		l.countBlocks = l.countTable + ceil(blocks*8, clusterSize)
		l.first = l.countBlocks + blocks
		l.second = l.first + ceil(l.firstLevel*8, clusterSize)
		l.data = l.second + int64(len(l.tables))
		l.end = l.data + int64(len(l.clusters))
		if l.end <= blocks*countEntries {
			return l
		}
	}
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

// appendNew appends a number to an ascending list that does not end with it.
func appendNew(numbers []int64, n int64) []int64 {
	if len(numbers) > 0 && numbers[len(numbers)-1] >= n {
		return numbers
	}
	return append(numbers, n)
}

// Len is how many bytes Write will write.
func (m Image) Len() int64 { return m.layout().end * clusterSize }

// Write streams the image with the bytes of disk.
func (m Image) Write(w io.Writer, disk io.ReaderAt) error {
	l := m.layout()
	for _, part := range [][]byte{l.header(m.Size), l.referenceTable(), l.referenceCounts(), l.firstTable(), l.secondTables()} {
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write qcow2: %w", err)
		}
	}
	cluster := make([]byte, clusterSize)
	for _, n := range l.clusters {
		read, err := disk.ReadAt(cluster, n*clusterSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("write qcow2: %w", err)
		}
		clear(cluster[read:])
		if _, err := w.Write(cluster); err != nil {
			return fmt.Errorf("write qcow2: %w", err)
		}
	}
	return nil
}

func (l layout) header(size int64) []byte {
	b := make([]byte, clusterSize)
	copy(b, "QFI\xfb")
	binary.BigEndian.PutUint32(b[4:], 3)
	binary.BigEndian.PutUint32(b[20:], clusterBits)
	binary.BigEndian.PutUint64(b[24:], uint64(size))
	binary.BigEndian.PutUint32(b[36:], uint32(l.firstLevel))
	binary.BigEndian.PutUint64(b[40:], uint64(l.first*clusterSize))
	binary.BigEndian.PutUint64(b[48:], uint64(l.countTable*clusterSize))
	binary.BigEndian.PutUint32(b[56:], uint32(l.countBlocks-l.countTable))
	binary.BigEndian.PutUint32(b[96:], 4) // reference counts of 16 bits
	binary.BigEndian.PutUint32(b[100:], headerLength)
	return b
}

// offsets is a table of as many clusters as lie between from and to.
func offsets(from, to int64, entry func(put func(index int64, value uint64))) []byte {
	b := make([]byte, (to-from)*clusterSize)
	entry(func(index int64, value uint64) { binary.BigEndian.PutUint64(b[8*index:], value) })
	return b
}

func (l layout) referenceTable() []byte {
	return offsets(l.countTable, l.countBlocks, func(put func(int64, uint64)) {
		for i := range l.first - l.countBlocks {
			put(i, uint64((l.countBlocks+i)*clusterSize))
		}
	})
}

// referenceCounts says of every cluster of the stream that it is used once.
func (l layout) referenceCounts() []byte {
	b := make([]byte, (l.first-l.countBlocks)*clusterSize)
	for i := range l.end {
		binary.BigEndian.PutUint16(b[2*i:], 1)
	}
	return b
}

func (l layout) firstTable() []byte {
	return offsets(l.first, l.second, func(put func(int64, uint64)) {
		for i, table := range l.tables {
			put(table, uint64((l.second+int64(i))*clusterSize)|copied)
		}
	})
}

func (l layout) secondTables() []byte {
	return offsets(l.second, l.data, func(put func(int64, uint64)) {
		position := int64(0)
		for i, n := range l.clusters {
			for l.tables[position] < n/tableEntries {
				position++
			}
			put(position*tableEntries+n%tableEntries, uint64((l.data+int64(i))*clusterSize)|copied)
		}
	})
}
