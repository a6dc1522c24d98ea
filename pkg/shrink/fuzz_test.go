package shrink

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubexen/kubexen/pkg/disk"
)

// fuzzSize is the size of the disks of the fuzz targets.
const fuzzSize = 64 * mebibyte

// fuzzHead is how much of their beginning is looked at: short, so that the fuzzer tries much.
const fuzzHead = 40 * sectorSize

// seeds are the beginnings of disks whose tables other programs made, with all that tells within a few sectors.
func seeds(f *testing.F) {
	f.Helper()
	for _, script := range []string{
		"label: gpt\nstart=2048, size=8192, type=U\nstart=10240, size=100000, type=L\n",
		"label: dos\nstart=2048, size=30720, type=83\nstart=32768, size=90000, type=83\n",
		"label: dos\nstart=4, size=110000, type=5\nstart=5, size=2, type=83\nstart=8, size=109990, type=83\n",
	} {
		path := filepath.Join(f.TempDir(), "disk")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, fuzzSize)); err != nil {
			f.Fatal(err)
		}
		tool(f, script, "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
		f.Add(slice(f, path, 0, 8*sectorSize), int64(40*mebibyte))
	}
	f.Add(make([]byte, 2*sectorSize), int64(mebibyte))
	deleted := []byte{mbrEntries + 8: 1, 510: 0x55, 511: 0xaa, 2*sectorSize - 1: 0} // a partition's beginning is left in its entry
	f.Add(deleted, int64(mebibyte))
}

// beginning makes a disk's beginning of the fuzzer's bytes, with the checksums of a GPT as they must be.
func beginning(bytes []byte) []byte {
	head := make([]byte, fuzzHead)
	copy(head, bytes)
	header := head[sectorSize : 2*sectorSize]
	start, length := le.Uint64(header[gptArray:]), uint64(le.Uint32(header[gptCount:]))*uint64(le.Uint32(header[gptEntrySize:]))
	if string(header[:8]) != gptSignature || start > 4 || length > fuzzHead-4*sectorSize {
		return head
	}
	le.PutUint32(header[gptArrayCRC:], crc32.ChecksumIEEE(head[start*sectorSize:][:length]))
	if size := le.Uint32(header[gptSize:]); size >= gptHeaderSize && size <= sectorSize {
		le.PutUint32(header[gptCRC:], headerCRC(header))
	}
	return head
}

// FuzzTable reads whatever a disk begins with. A table that is accepted lies on the disk, and after its change it is accepted
// again and says the new sizes.
func FuzzTable(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, begin []byte, size int64) {
		head := beginning(begin)
		if size %= fuzzSize / 2; size < 0 {
			size = -size
		}
		size = fuzzSize/2 + size/sectorSize*sectorSize
		table, err := readTable(head, fuzzSize)
		if err != nil {
			refusedForGood(t, err)
			return
		}
		if err := walk(table, head); err != nil {
			refusedForGood(t, err)
			return
		}
		parts := table.partitions()
		for i, p := range parts {
			if p.start < 0 || p.end <= p.start || p.end > fuzzSize || i > 0 && parts[i-1].end > p.start {
				t.Fatalf("%+v was accepted on a disk of %d", parts, int64(fuzzSize))
			}
		}
		last := furthest(parts)
		usable := table.usable(size)
		end := min(last.end, newEnd(last, usable))
		if last.end <= usable {
			end = last.end
		}
		if end <= last.start {
			return
		}
		changes := orderly(table.patches(size, last, end))
		for _, change := range changes {
			if change.offset < 0 || change.end() > size || change.offset >= last.start && change.end() <= end {
				t.Fatalf("bytes %d to %d change on a disk of %d; the last partition has %d to %d", change.offset, change.end(), size, last.start, end)
			}
		}
		lay(changes, head, 0)
		again, err := readTable(head, size)
		if err == nil {
			err = walk(again, head)
		}
		if err != nil {
			t.Fatalf("the changed table is refused: %v", err)
		}
		if now := furthest(again.partitions()); now.start != last.start || now.end != end {
			if _, whole := table.(wholeDisk); !whole {
				t.Fatalf("the last partition has %d to %d, it was to have %d to %d", now.start, now.end, last.start, end)
			}
		}
	})
}

// walk follows the chain of an extended partition as far as it lies in the beginning.
func walk(t table, head []byte) error {
	mbr, ok := t.(*mbrTable)
	for ok && mbr.following != 0 {
		if mbr.following+sectorSize > int64(len(head)) {
			return refuse(UnknownTable, "", "the chain goes on where the fuzzer does not reach")
		}
		if err := mbr.follow(head[mbr.following : mbr.following+sectorSize]); err != nil {
			return err
		}
	}
	return nil
}

// refusedForGood complains about an error that is no refusal, or says nothing.
func refusedForGood(t *testing.T, err error) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Found == "" || refusal.advice() == "" {
		t.Fatalf("the table ended in %#v", err)
	}
}

// FuzzContent looks at whatever a partition begins with.
func FuzzContent(f *testing.F) {
	for _, content := range otherContent {
		probe := make([]byte, probeLength)
		for at, magic := range content.at {
			copy(probe[at:], magic)
		}
		f.Add(probe[:140000])
	}
	f.Fuzz(func(t *testing.T, probe []byte) {
		p := partition{name: "partition 1", start: mebibyte, end: fuzzSize}
		fs, err := lookAt(p, probe)
		if err != nil {
			refusedForGood(t, err)
		} else if fs.size() <= 0 || fs.size() > p.end-p.start {
			t.Fatalf("accepted %+v", fs)
		}
		if _, size := claim(probe); size < 0 {
			t.Fatalf("claims %d bytes", size)
		}
	})
}

// FuzzPassing passes on whatever ends inside the new size. What comes out has the new size, is in order, and is what went in but
// for the table.
func FuzzPassing(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, begin []byte, _ int64) {
		content := make([]byte, 256*kibibyte)
		copy(content, beginning(begin))
		size := int64(len(content)) / 2
		r := &run{Request: Request{Source: disk.NewStream(disk.NewRaw(bytes.NewReader(content), int64(len(content)))), Size: size}}
		r.cursor, r.head = newCursor(r.Source, nil), make([]byte, fuzzHead)
		if err := r.cursor.read(r.head); err != nil {
			t.Fatal(err)
		}
		table, err := readTable(r.head, int64(len(content)))
		if err != nil {
			refusedForGood(t, err)
			return
		}
		if r.table = table; !r.fits() {
			return
		}
		at := int64(0)
		for stream := newPassing(r); ; {
			chunk, err := stream.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				refusedForGood(t, err)
				return
			}
			if chunk.Offset < at || chunk.Offset+int64(len(chunk.Data)) > size {
				t.Fatalf("%d bytes at %d after %d, of %d", len(chunk.Data), chunk.Offset, at, size)
			}
			if chunk.Offset >= fuzzHead && table.usable(size) > chunk.Offset && !bytes.Equal(chunk.Data, content[chunk.Offset:][:len(chunk.Data)]) {
				t.Fatalf("the content at %d changed", chunk.Offset)
			}
			at = chunk.Offset + int64(len(chunk.Data))
		}
	})
}
