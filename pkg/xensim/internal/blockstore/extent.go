package blockstore

import (
	"bytes"
	"math/bits"
	"slices"
)

// Extent is a run of bytes of a disk.
type Extent struct {
	// Offset and Length are in bytes.
	Offset, Length int64
}

// layersOf lists a chain from its top down.
func layersOf(top *layer) []*layer {
	var layers []*layer
	for l := top; l != nil; l = l.parent {
		layers = append(layers, l)
	}
	return layers
}

// extentsOf is what any of the layers holds, joined where it touches and cut at the disk's size.
func extentsOf(size int64, layers []*layer) []Extent {
	var union blockMap
	for _, l := range layers {
		union.merge(&l.blocks)
	}
	numbers := make([]int64, 0, len(union.pages))
	for number := range union.pages {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	var extents []Extent
	for _, number := range numbers {
		for i, word := range union.pages[number] {
			for ; word != 0; word &= word - 1 {
				block := number*pageBlocks + int64(i*64+bits.TrailingZeros64(word))
				extents = appendBlock(extents, block*BlockSize, size)
			}
		}
	}
	return extents
}

func appendBlock(extents []Extent, offset, size int64) []Extent {
	length := min(BlockSize, size-offset)
	if length <= 0 {
		return extents
	}
	if last := len(extents) - 1; last >= 0 && extents[last].Offset+extents[last].Length == offset {
		extents[last].Length += length
		return extents
	}
	return append(extents, Extent{Offset: offset, Length: length})
}

var zeros [BlockSize]byte

func allZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if !bytes.Equal(p[:n], zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
