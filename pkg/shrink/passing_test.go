package shrink

import (
	"bytes"
	"testing"
)

// Disks on which everything ends inside the new size pass as they are, whatever is on them.
func TestWhatEndsInsideIsPassedOn(t *testing.T) {
	t.Parallel()
	scripts := map[string]string{
		"GPT": "label: gpt\nstart=2048, size=98304, type=U, name=esp\nstart=102400, size=40960, type=L\n",
		"MBR": "label: dos\nstart=2048, size=30720, type=83\nstart=32768, size=40960, type=8e\n",
		"MBR with logical partitions": "label: dos\nstart=2048, size=30720, type=83\nstart=32768, size=100000, type=5\n" +
			"start=34816, size=20480, type=83\nstart=59392, size=36864, type=83\n",
		"GPT whose last partition reaches as far as it may": "label: gpt\nfirst-lba: 34\nstart=2048, size=202719, type=L\n",
		"GPT of a disk that grew":                           "label: gpt\nlast-lba: 150000\nstart=2048, size=98304, type=L\n",
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 100 * mebibyte
			path := blank(t, 300)
			tool(t, script, "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
			put(t, path, 40*mebibyte, append([]byte("XFSB"), noise(3, 3*mebibyte)...))
			put(t, path, 120*mebibyte, noise(4, mebibyte)) // of an earlier use, behind the new end
			after, result, err := shrinkFile(t, path, size)
			if err != nil || result.Passing == nil {
				t.Fatalf("%v, %v", result, err)
			}
			verifyTable(t, after)
			sameButTable(t, path, after, size-34*sectorSize)
			if !bytes.Equal(slice(t, path, mebibyte, size-34*sectorSize), slice(t, after, mebibyte, size-34*sectorSize)) {
				t.Error("the content differs")
			}
		})
	}
}

// Only the extended partition reaches beyond the new end: it becomes shorter and nothing else changes.
func TestExtendedPartitionFollows(t *testing.T) {
	t.Parallel()
	path := blank(t, 200)
	tool(t, "label: dos\nstart=2048, size=30720, type=83\nstart=32768, size=376832, type=f\n"+
		"start=34816, size=20480, type=83\nstart=59392, size=36864, type=8e\n", "sfdisk", "--no-reread", "--no-tell-kernel", "-q", path)
	put(t, path, 30*mebibyte, noise(1, 15*mebibyte))
	after, result, err := shrinkFile(t, path, 100*mebibyte)
	if err != nil || result.Resized {
		t.Fatalf("%v, %v", result, err)
	}
	verifyTable(t, after)
	sameButTable(t, path, after, 99*mebibyte)
}

func TestFileSystemOnTheWholeDiskThatIsSmaller(t *testing.T) {
	t.Parallel()
	files := tree(t, 5)
	path := blank(t, 200)
	mkfs(t, path, "ext4", files, 0, 60*mebibyte)
	after, result, err := shrinkFile(t, path, 64*mebibyte)
	if err != nil || result.Passing == nil {
		t.Fatalf("%v, %v", result, err)
	}
	sameFiles(t, after, files)
}

// A digest is of the content, whatever zeros are said.
func TestDigest(t *testing.T) {
	t.Parallel()
	path := blank(t, 20)
	put(t, path, 5*mebibyte+17, noise(1, 3*mebibyte))
	sums := map[string]bool{}
	for _, step := range []int{7777, 64 * kibibyte, mebibyte} {
		sum, err := SumOf(&inSteps{content: slice(t, path, 0, 20*mebibyte), step: step})
		if err != nil {
			t.Fatal(err)
		}
		sums[sum] = true
	}
	if len(sums) != 1 {
		t.Errorf("the digests of one disk are %v", sums)
	}
	put(t, path, 19*mebibyte, []byte{1})
	other, err := SumOf(&inSteps{content: slice(t, path, 0, 20*mebibyte), step: mebibyte})
	if err != nil || sums[other] {
		t.Errorf("another disk has the same, %v", err)
	}
}
