package disk_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/kubexen/kubexen/pkg/disk"
)

// ova is the metadata of a VM with disks of these sizes, Ref:1 and so on.
func ova(sizes ...int) []byte {
	var b strings.Builder
	member := func(name, value string) {
		fmt.Fprintf(&b, "<member><name>%s</name><value>%s</value></member>", name, value)
	}
	b.WriteString("<value><struct>")
	member("version", "<struct><member><name>hostname</name><value>xs1</value></member></struct>")
	b.WriteString("<member><name>objects</name><value><array><data>")
	for i, size := range sizes {
		fmt.Fprintf(&b, `<value><struct><member><name>class</name><value>VDI</value></member><member><name>id</name><value>Ref:%d</value></member>`+
			`<member><name>snapshot</name><value><struct><member><name>uuid</name><value>uuid-%d</value></member><member><name>name_label</name><value>disk &amp; %d</value></member>`+
			`<member><name>virtual_size</name><value>%d</value></member></struct></value></member></struct></value>`, i+1, i+1, i+1, size)
		fmt.Fprintf(&b, `<value><struct><member><name>class</name><value>VBD</value></member><member><name>id</name><value>Ref:9%d</value></member>`+
			`<member><name>snapshot</name><value><struct><member><name>VDI</name><value>Ref:%d</value></member><member><name>type</name><value>Disk</value></member>`+
			`<member><name>userdevice</name><value>%d</value></member><member><name>bootable</name><value><boolean>%d</boolean></value></member></struct></value></member></struct></value>`, i, i+1, i, max(1-i, 0))
	}
	b.WriteString("</data></array></value></member></struct></value>")
	return []byte(b.String())
}

// archive writes an XVA of disks.
func archive(t testing.TB, disks ...memory) []byte {
	t.Helper()
	sizes := make([]int, len(disks))
	for i, d := range disks {
		sizes[i] = len(d)
	}
	var b bytes.Buffer
	w, err := disk.NewXVAWriter(&b, ova(sizes...))
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range disks {
		if err := w.WriteDisk(fmt.Sprintf("Ref:%d", i+1), extents{d}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestXVARoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		disks := make([]memory, rapid.IntRange(1, 3).Draw(r, "disks"))
		for i := range disks {
			disks[i] = make(memory, 512*rapid.IntRange(1, 6000).Draw(r, "sectors"))
			scribble(t, random, disks[i], int64(len(disks[i])), random.IntN(4))
		}
		xva := archive(t, disks...)
		checked, err := disk.NewChecked(iotest.HalfReader(bytes.NewReader(xva)), disk.XVA, -1)
		if err != nil {
			r.Fatal(err)
		}
		x, err := disk.NewXVAReader(checked)
		if err != nil {
			r.Fatal(err)
		}
		back := map[string]memory{}
		for _, d := range x.Disks() {
			back[d.Ref] = make(memory, d.VirtualSize)
		}
		for {
			chunk, err := x.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				r.Fatal(err)
			}
			_, _ = back[chunk.Ref].WriteAt(chunk.Data, chunk.Offset)
		}
		for i, d := range disks {
			same(t, "disk", back[fmt.Sprintf("Ref:%d", i+1)], d)
		}
	})
}

func TestXVADisks(t *testing.T) {
	x, err := disk.NewXVAReader(bytes.NewReader(archive(t, make(memory, mib), make(memory, 512))))
	if err != nil {
		t.Fatal(err)
	}
	want := []disk.XVADisk{
		{Ref: "Ref:1", UUID: "uuid-1", NameLabel: "disk & 1", VirtualSize: mib, Device: "0", Bootable: true},
		{Ref: "Ref:2", UUID: "uuid-2", NameLabel: "disk & 2", VirtualSize: 512, Device: "1"},
	}
	if got := x.Disks(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v", got)
	}
	if !bytes.Equal(x.Metadata(), ova(mib, 512)) {
		t.Error("the metadata is not what it was")
	}
}

// Pieces without data are not sent, but for the first and the last.
func TestXVALeavesZerosOut(t *testing.T) {
	content := make(memory, 6*mib)
	content[3*mib] = 1
	var names []string
	for reader := tar.NewReader(bytes.NewReader(archive(t, content))); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	want := "ova.xml Ref:1/00000000 Ref:1/00000000.xxhash Ref:1/00000003 Ref:1/00000003.xxhash Ref:1/00000005 Ref:1/00000005.xxhash"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// members rewrites an archive.
func members(t testing.TB, xva []byte, edit func(i int, name string, content []byte) (string, []byte)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	reader := tar.NewReader(bytes.NewReader(xva))
	for i := 0; ; i++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		content, err2 := io.ReadAll(reader)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		name, content := edit(i, header.Name, content)
		if name == "" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o400}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// hostileXVAs are archives of which both the check and the reader think ill.
func hostileXVAs(t testing.TB) map[string][]byte {
	content := make(memory, 3*mib)
	content[2*mib+7] = 1
	xva := archive(t, content)
	edited := func(edit func(i int, name string, content []byte) (string, []byte)) []byte {
		return members(t, xva, edit)
	}
	return map[string][]byte{
		"empty":           nil,
		"an HTTP error":   []byte("HTTP/1.1 500 Internal Server Error\r\n\r\n" + strings.Repeat(" ", 600)),
		"an error inside": append(bytes.Clone(xva[:2*mib]), []byte("HTTP/1.1 500 Internal Server Error\r\n\r\n")...),
		"cut":             xva[:len(xva)/2],
		"cut before the end": func() []byte {
			return append(bytes.Clone(xva[:len(xva)-1024-1024]), make([]byte, 1024)...) // the last checksum is gone
		}(),
		"a flipped bit": func() []byte {
			b := bytes.Clone(xva)
			b[len(b)-1024-1024-mib+5] ^= 1
			return b
		}(),
		"no ova.xml": edited(func(i int, name string, content []byte) (string, []byte) {
			if i == 0 {
				return "", nil
			}
			return name, content
		}),
		"a piece of 2 MiB": edited(func(i int, name string, content []byte) (string, []byte) {
			if i == 1 {
				content = make([]byte, 2*mib)
			}
			return name, content
		}),
		"pieces backwards": edited(func(_ int, name string, content []byte) (string, []byte) {
			return strings.Replace(name, "00000002", "00000000", 1), content
		}),
		"a path": edited(func(i int, name string, content []byte) (string, []byte) {
			if i == 1 {
				name = "../../etc/passwd"
			}
			return name, content
		}),
	}
}

func TestHostileXVA(t *testing.T) {
	for name, xva := range hostileXVAs(t) {
		t.Run(name, func(t *testing.T) {
			checked, err := disk.NewChecked(bytes.NewReader(xva), disk.XVA, -1)
			if err == nil {
				_, err = io.Copy(io.Discard, checked)
			}
			wantFormatError(t, err)
			wantFormatError(t, readXVA(xva))
		})
	}
}

// What only the reader sees, since it knows the disks.
func TestHostileOVA(t *testing.T) {
	xva := archive(t, make(memory, 2*mib))
	tests := map[string]string{
		"no XML":         "not XML",
		"no objects":     "<value><struct></struct></value>",
		"cut":            string(ova(2 * mib)[:100]),
		"no size":        strings.Replace(string(ova(2*mib)), fmt.Sprint(2*mib), "many", 1),
		"a smaller disk": string(ova(mib)),
		"another disk":   strings.ReplaceAll(string(ova(2*mib)), "Ref:1", "Ref:5"),
		"nested deep":    strings.Repeat("<value><array><data>", 100_000),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			wantFormatError(t, readXVA(members(t, xva, func(i int, name string, content []byte) (string, []byte) {
				if i == 0 {
					content = []byte(text)
				}
				return name, content
			})))
		})
	}
}

func readXVA(xva []byte) error {
	x, err := disk.NewXVAReader(bytes.NewReader(xva))
	if err != nil {
		return err
	}
	for {
		if _, err := x.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// An older XVA has SHA-1 sums; an empty piece keeps a connection alive, takes a number and no room.
func TestXVAOfOlderServers(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, content []byte) {
		t.Helper()
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o400}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	const sumOfNothing, sumOfZeros = "da39a3ee5e6b4b0d3255bfef95601890afd80709", "3b71f43ff30f4b15b5cd85dd9e95ebc7e84eb5a3"
	put("ova.xml", ova(3*mib))
	for number, size := range []int{mib, 0, mib, mib} {
		name, sum := fmt.Sprintf("Ref:1/%08d", number), sumOfZeros
		if size == 0 {
			sum = sumOfNothing
		}
		put(name, make([]byte, size))
		put(name+".checksum", []byte(sum))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := disk.NewXVAReader(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	for {
		chunk, err := x.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, chunk.Offset/mib)
	}
	if fmt.Sprint(offsets) != "[0 1 2]" {
		t.Errorf("pieces at %v MiB", offsets)
	}
}

func TestNovaTarball(t *testing.T) {
	base, leaf := chain(t)
	var stored bytes.Buffer
	var images []disk.Image
	for _, vhd := range [][]byte{leaf, base} {
		checked, err := disk.NewChecked(bytes.NewReader(vhd), disk.VHD, -1)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, checked)
	}
	if err := disk.WriteNovaTarball(&stored, epoch, images...); err != nil {
		t.Fatal(err)
	}
	list := exec.Command("tar", "-tzf", "-")
	list.Stdin = bytes.NewReader(stored.Bytes())
	if out, err := list.CombinedOutput(); err != nil || string(out) != "0.vhd\n1.vhd\n" {
		t.Errorf("tar lists %q: %v", out, err)
	}
	sniffed, err := disk.Sniff(bytes.NewReader(stored.Bytes()), disk.NovaTarball, 100*mib)
	if err != nil || sniffed.Format != disk.NovaTarball || sniffed.Compression != disk.Gzip {
		t.Fatalf("%+v: %v", sniffed, err)
	}
	reader := disk.NewTarballReader(sniffed)
	for i, want := range [][]byte{leaf, base} {
		layer, length, err := reader.Next()
		if err != nil || layer != i || length != int64(len(want)) {
			t.Fatalf("layer %d of %d bytes: %v", layer, length, err)
		}
		got, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "layer", got, want)
	}
	if _, _, err := reader.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

// A body that was cut must not become a tarball that ends well.
func TestNovaTarballOfACutExport(t *testing.T) {
	base, _ := chain(t)
	checked, err := disk.NewChecked(bytes.NewReader(base[:3*mib]), disk.VHD, -1)
	if err != nil {
		t.Fatal(err)
	}
	wantFormatError(t, disk.WriteNovaTarball(io.Discard, epoch, checked))
}

func TestHostileTarball(t *testing.T) {
	tarball := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Size: 4, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write([]byte("disk"))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	tests := map[string][]byte{
		"empty":         nil,
		"no member":     tarball(),
		"a path":        tarball("../../etc/passwd"),
		"a gap":         tarball("0.vhd", "2.vhd"),
		"twice":         tarball("0.vhd", "0.vhd"),
		"another file":  tarball("0.vhd", "readme"),
		"cut":           tarball("0.vhd", "1.vhd")[:700],
		"not a tarball": bytes.Repeat([]byte("disk"), 1000),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) { wantFormatError(t, readTarball(content)) })
	}
}

func readTarball(content []byte) error {
	reader := disk.NewTarballReader(bytes.NewReader(content))
	for {
		if _, _, err := reader.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, reader); err != nil {
			return err
		}
	}
}

// TestXVADiskPasses: a disk of an archive is read forwards as a VHD would be written of it, and is what was put in.
func TestXVADiskPasses(t *testing.T) {
	content := make([]byte, 5<<20+512)
	copy(content[1<<20:], "first")
	copy(content[3<<20-2:], "over the edge of two pieces")
	copy(content[len(content)-4:], "last")
	var archive bytes.Buffer
	w, err := disk.NewXVAWriter(&archive, []byte(twoDisksOVA(len(content))))
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"Ref:3", "Ref:7"} {
		if err := w.WriteDisk(ref, disk.NewRaw(bytes.NewReader(content), int64(len(content)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() (*disk.XVAReader, disk.XVADisk) {
		reader, err := disk.NewXVAReader(bytes.NewReader(archive.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		boot, err := reader.BootDisk()
		if err != nil || boot.Ref != "Ref:7" {
			t.Fatalf("it boots from %v: %v", boot, err)
		}
		return reader, boot
	}
	reader, boot := open()
	extents, err := reader.Extents(boot.Ref)
	if err != nil || len(extents) == 0 {
		t.Fatalf("extents %v: %v", extents, err)
	}
	reader, boot = open()
	got, err := io.ReadAll(disk.NewRawImage(reader.Disk(boot, extents)))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, equal: %v, error %v", len(got), bytes.Equal(got, content), err)
	}
	if _, err := reader.DiskAt("9"); err == nil {
		t.Error("it has a disk at 9")
	}
}

// twoDisksOVA describes a VM with a data disk at 4 and a root disk at 0, which comes second.
func twoDisksOVA(size int) string {
	member := func(name, value string) string {
		return "<member><name>" + name + "</name><value>" + value + "</value></member>"
	}
	object := func(class, id, snapshot string) string {
		return "<value><struct>" + member("class", class) + member("id", id) + member("snapshot", "<struct>"+snapshot+"</struct>") + "</struct></value>"
	}
	var objects string
	for ref, device := range map[string]string{"Ref:3": "4", "Ref:7": "0"} {
		objects += object("VDI", ref, member("uuid", ref)+member("name_label", "")+member("virtual_size", fmt.Sprint(size)))
		objects += object("VBD", "Ref:1"+device, member("VDI", ref)+member("type", "Disk")+member("userdevice", device)+member("bootable", "<boolean>0</boolean>"))
	}
	return "<value><struct>" + member("objects", "<array><data>"+objects+"</data></array>") + "</struct></value>"
}
