package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/shrink"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// The disks of these tests have 10 GiB, of which the guest's table knows 512 MiB, and are made 256 MiB.
const (
	beforeShrink, afterShrink = "10Gi", "256Mi"
	wholeDisk                 = 512 << 20
	smallerDisk               = 256 << 20
)

// guestTable is how the disk of a guest is laid out, in sfdisk's words, how many bytes the table has at the disk's head, and where
// the root file system is, in bytes.
type guestTable struct {
	script      string
	head        int64
	root, until int64
}

var (
	gptTable = guestTable{
		script: "label: gpt\nstart=2048, size=8192, type=U, name=esp\nstart=10240, size=1036288, type=L, name=root\n",
		head:   34 * 512, root: 5 << 20, until: 5<<20 + 1036288*512,
	}
	mbrTable = guestTable{script: "label: dos\nstart=2048, size=1046528, type=83, bootable\n", head: 512, root: 1 << 20, until: wholeDisk}
)

// guestImage makes a disk with boot code, a table, bytes in all that lies before the last partition, and there an ext4 file system
// with files; it returns the files' directory too.
func guestImage(t testing.TB, table guestTable) (path, tree string) {
	t.Helper()
	_, tree = ext4(t, 16)
	path = filepath.Join(t.TempDir(), "disk")
	boot := bytes.Repeat([]byte("boot code "), 44)
	if err := errors.Join(os.WriteFile(path, boot, 0o600), os.Truncate(path, wholeDisk)); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(script, []byte(table.script), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-c", "PATH=$PATH:/usr/sbin sfdisk -q --no-reread --no-tell-kernel "+path+" <"+script)
	overwrite(t, path, table.head, bytes.Repeat([]byte("what boots lies before the root file system\n"), int(table.root)/44)[:table.root-table.head])
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", fmt.Sprintf("offset=%d", table.root), path, fmt.Sprintf("%dK", (table.until-table.root)>>10))
	return path, tree
}

// overwrite changes a file from a place on.
func overwrite(t testing.TB, path string, at int64, with []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt(with, at)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// beforeRoot is what a disk has before its last partition, without the parts of the table that tell where that ends.
func beforeRoot(t testing.TB, disk io.ReaderAt, table guestTable) []byte {
	t.Helper()
	const bootCode = 446
	content := make([]byte, table.root)
	if _, err := disk.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	clear(content[bootCode:table.head])
	return content
}

// install gives the disk of a running guest the content of a file, where that has some.
func install(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, path string) {
	t.Helper()
	file, err := os.Open(path) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := disk.Apply(guestRoot(t, w, i), disk.NewStream(disk.NewRaw(file, wholeDisk))); err != nil {
		t.Fatal(err)
	}
}

// guestRoot is the root disk as the running guest has it.
func guestRoot(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance) xensim.GuestDisk {
	t.Helper()
	found, err := w.Simulator.Guest().Disk(byUUID(t, w, "VM", i.Status.UUID), "0")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// content is the digest of the root disk, as far as the guest uses it.
func content(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance) string {
	t.Helper()
	root := guestRoot(t, w, i)
	sum, err := shrink.SumOf(disk.NewRawStream(io.NewSectionReader(root, 0, wholeDisk), wholeDisk))
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// checkGuest complains unless the root disk has the smaller size, the table and the files of before, and every byte that was before
// the last partition.
func checkGuest(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, table guestTable, image, tree string) {
	t.Helper()
	root := guestRoot(t, w, i)
	if root.Size() != smallerDisk {
		t.Errorf("the root disk has %d bytes", root.Size())
	}
	path, fs := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "root")
	for name, part := range map[string]struct{ from, to int64 }{path: {0, root.Size()}, fs: {table.root, root.Size() - 1<<20}} {
		file, err := os.Create(name) // a file of our own
		if err != nil {
			t.Fatal(err)
		}
		stream := disk.NewRawStream(io.NewSectionReader(root, part.from, part.to-part.from), part.to-part.from)
		if err := errors.Join(disk.Apply(file, stream), file.Truncate(part.to-part.from), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	verdict := run(t, "sh", "-c", "PATH=$PATH:/usr/sbin; sfdisk --verify "+path+"; case $(sfdisk -l "+path+") in *gpt*) sgdisk -v "+path+";; esac")
	if strings.Contains(verdict, "roblem: ") || strings.Contains(verdict, "mismatch") || !strings.Contains(verdict, "No errors detected") {
		t.Errorf("the table: %s", verdict)
	}
	run(t, "e2fsck", "-fn", fs)
	run(t, "debugfs", "-R", "rdump / "+filepath.Dir(fs), fs)
	run(t, "diff", "-r", "--exclude=lost+found", "--exclude=root", tree, filepath.Dir(fs))
	file, err := os.Open(image) // a file of our own
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if !bytes.Equal(beforeRoot(t, file, table), beforeRoot(t, root, table)) {
		t.Error("what is before the last partition differs")
	}
}

// shrunkTo asks for a smaller root disk.
func shrunkTo(size string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) {
		i.Spec.RootDisk.Size, i.Spec.RootDisk.ShrinkTo = quantity(size), quantity(size)
	}
}

// guest is a running instance whose root disk has an image's content.
func guest(t testing.TB, w *testkit.World, image string, change ...func(*v1alpha1.XenInstance)) *v1alpha1.XenInstance {
	t.Helper()
	instance := web(w).RootDisk(beforeShrink).DeletedBy(v1alpha1.DeletionDelete).With(together(change...)).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	install(t, w, instance, image)
	w.WaitAtRest(t)
	return instance
}

// TestShrink makes the root disk smaller, of a GPT and of an MBR: every file is there, the table is right, and the boot code is
// the same. Until it is confirmed the disk from before is there, and can be had back byte by byte.
func TestShrink(t *testing.T) {
	t.Parallel()
	t.Run("discarded", func(t *testing.T) {
		w, _ := newWorld(t, withAgents)
		image, tree := guestImage(t, gptTable)
		instance := guest(t, w, image, manually)
		before, disksThere := content(t, w, instance), guardDisks(w)
		old := instance.Status.RootDisk.VDIUUID

		edit(t, w, instance, shrunkTo(afterShrink))
		waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
		checkGuest(t, w, instance, gptTable, image, tree)
		if point := instance.Status.Resize.RestorePoint; point == nil || point.ID != old || instance.Status.RootDisk.VDIUUID == old {
			t.Fatalf("the restore point is %+v, the root disk %+v; it was %s", point, instance.Status.RootDisk, old)
		}
		edit(t, w, instance, together(rooted(beforeShrink), func(i *v1alpha1.XenInstance) {
			i.Spec.RootDisk.ShrinkTo, i.Spec.Resize.DiscardTo = nil, old
		}))
		waitInstance(t, w, instance, "it has its old disk", resizedTo("small"), instanceReady, isRunning)
		if instance.Status.RootDisk.VDIUUID != old || content(t, w, instance) != before {
			t.Errorf("the root disk is %+v, it was %s; or its content differs", instance.Status.RootDisk, old)
		}
		disksThere(t)
		nothingLeft(t, w, 1)
	})
	t.Run("confirmed by itself", func(t *testing.T) {
		w, _ := newWorld(t, withAgents)
		image, tree := guestImage(t, mbrTable)
		instance := guest(t, w, image, restarting)
		edit(t, w, instance, together(flavored("large"), shrunkTo(afterShrink)))
		waitInstance(t, w, instance, "it is smaller", resizedTo("large"), instanceReady, isRunning)
		checkGuest(t, w, instance, mbrTable, image, tree)
		w.WaitAtRest(t)
		nothingLeft(t, w, 1)
	})
}

// TestWhatEndsInsideIsCopied: a disk that its owner has prepared gets smaller as it is, whatever is on it.
func TestWhatEndsInsideIsCopied(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	inside := gptTable
	inside.until = inside.root + 200<<20
	inside.script = "label: gpt\nstart=2048, size=8192, type=U, name=esp\nstart=10240, size=409600, type=L, name=root\n"
	image, tree := guestImage(t, inside)
	overwrite(t, image, 1<<20, []byte("XFSB\x00\x00\x10\x00"+strings.Repeat("\x00", 504))) // another file system in another partition is none of our business
	instance := guest(t, w, image, restarting)
	edit(t, w, instance, shrunkTo(afterShrink))
	waitInstance(t, w, instance, "it is smaller", resizedTo("small"), instanceReady, isRunning)
	checkGuest(t, w, instance, inside, image, tree)
	nothingLeft(t, w, 1)
}

// nothingLeft complains of copies, restore points and tasks of a shrink, and of more root disks than there are to be.
func nothingLeft(t testing.TB, w *testkit.World, roots int) {
	t.Helper()
	for role, want := range map[string]int{"root-disk": roots, "new-root": 0, "restore-point": 0} {
		if n := disksWithRole(w.Simulator, role); n != want {
			t.Errorf("%d disks are %s, want %d", n, role, want)
		}
	}
	if err := controlDomainHoldsNothing(t.Context(), w.Simulator); err != nil {
		t.Error(err)
	}
	for _, task := range w.Simulator.Records("task") {
		if strings.Contains(fmt.Sprint(task["name_label"]), "shrink") {
			t.Errorf("task %v is left, %v", task["name_label"], task["status"])
		}
	}
}

// stalledBecause complains until an instance is stalled for a reason, and says the words.
func stalledBecause(reason string, words ...string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		condition := meta.FindStatusCondition(i.Status.Conditions, v1alpha1.ConditionStalled)
		if condition == nil || condition.Status != metav1.ConditionTrue || condition.Reason != reason {
			return fmt.Errorf("Stalled is %+v", condition)
		}
		for _, word := range words {
			if !strings.Contains(condition.Message, word) {
				return fmt.Errorf("the message does not say %q: %s", word, condition.Message)
			}
		}
		return nil
	}
}

// TestAnotherSizeAfterShrink: while a smaller disk waits to be confirmed, another flavor and a still smaller disk are asked for;
// each is a resize of its own that waits, and the disk from before all of them can be had back byte by byte.
func TestAnotherSizeAfterShrink(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	image, tree := guestImage(t, mbrTable)
	instance := guest(t, w, image, manually)
	before, old := content(t, w, instance), instance.Status.RootDisk.VDIUUID
	seen := ""
	next := func(what string, change func(*v1alpha1.XenInstance)) {
		t.Helper()
		edit(t, w, instance, change)
		waitInstance(t, w, instance, what+" waits to be confirmed", awaiting, isRunning)
		if resize := instance.Status.Resize; resize.ID == seen || resize.From != "small" || resize.RestorePoint.ID != old {
			t.Fatalf("%s: %+v, the one before was %s", what, resize, seen)
		}
		seen = instance.Status.Resize.ID
	}
	next("a smaller disk", shrunkTo("400Mi"))
	next("a third flavor", flavored("large"))
	if instance.Status.Flavor.VCPUs != 4 || instance.Status.RootDisk.Size.Value() != 400<<20 {
		t.Errorf("flavor %+v, root disk %+v", instance.Status.Flavor, instance.Status.RootDisk)
	}
	next("a still smaller disk", shrunkTo(afterShrink))
	checkGuest(t, w, instance, mbrTable, image, tree)
	edit(t, w, instance, together(flavored("small"), rooted(beforeShrink), func(i *v1alpha1.XenInstance) {
		i.Spec.RootDisk.ShrinkTo, i.Spec.Resize.DiscardTo = nil, old
	}))
	waitInstance(t, w, instance, "it has its old disk", resizedTo("small"), instanceReady, isRunning)
	if instance.Status.RootDisk.VDIUUID != old || content(t, w, instance) != before {
		t.Errorf("the root disk is %+v, it was %s; or its content differs", instance.Status.RootDisk, old)
	}
	w.WaitAtRest(t)
	nothingLeft(t, w, 1)
}

// rootOnPool is the root disk of an instance and its block device as the pool has them.
func rootOnPool(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance) (vbd, vdi string) {
	t.Helper()
	vm := byUUID(t, w, "VM", i.Status.UUID)
	for ref, record := range w.Simulator.Records("VBD") {
		if record["VM"] == vm && record["userdevice"] == "0" {
			return ref, fmt.Sprint(record["VDI"])
		}
	}
	t.Fatal("the VM has no root disk")
	return "", ""
}

// setOnRoot lets an administrator set all sorts of things on the root disk and its block device.
func setOnRoot(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, text string) {
	t.Helper()
	vbd, vdi := rootOnPool(t, w, i)
	with := func(class, ref, key string) map[string]string {
		changed := maps.Clone(w.Simulator.Records(class)[ref]["other_config"].(map[string]string))
		changed[key] = text
		return changed
	}
	err := errors.Join(
		w.Simulator.Update("VBD", vbd, map[string]any{
			"qos_algorithm_type": "ionice", "qos_algorithm_params": map[string]string{"sched": "rt", "class": text}, "unpluggable": false,
			"other_config": with("VBD", vbd, "accounting"),
		}),
		w.Simulator.Update("VDI", vdi, map[string]any{
			"tags": []string{"backup", text}, "name_description": "a disk, " + text, "other_config": with("VDI", vdi, "backup-plan"),
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	w.WaitAtRest(t)
}

// shownOnRoot is what administrators see of that: neither our marks, nor what the storage says of the content.
func shownOnRoot(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance) map[string]string {
	t.Helper()
	shown := map[string]string{}
	vbd, vdi := rootOnPool(t, w, i)
	put := func(class string, record map[string]any, fields ...string) {
		for _, field := range fields {
			shown[class+"."+field] = fmt.Sprint(record[field])
		}
		config := maps.Clone(record["other_config"].(map[string]string))
		maps.DeleteFunc(config, func(key, _ string) bool { return strings.HasPrefix(key, "kubexen.io/") || key == "content_id" })
		shown[class+".other_config"] = fmt.Sprint(config)
	}
	put("vbd", w.Simulator.Records("VBD")[vbd], "qos_algorithm_type", "qos_algorithm_params", "unpluggable", "mode", "bootable")
	put("vdi", w.Simulator.Records("VDI")[vdi], "name_label", "name_description", "tags")
	return shown
}

// TestRootKeepsWhatOthersSet: whatever disk comes into the place of the root disk, and however often, what an administrator has set
// there last is there.
func TestRootKeepsWhatOthersSet(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	image, tree := guestImage(t, mbrTable)
	instance := guest(t, w, image, manually)
	first := instance.Status.RootDisk.VDIUUID
	setOnRoot(t, w, instance, "first")
	want, disk := shownOnRoot(t, w, instance), first
	keeps := func(what string) {
		t.Helper()
		if diff := differences(want, shownOnRoot(t, w, instance)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if instance.Status.RootDisk.VDIUUID == disk {
			t.Errorf("%s: it is the same disk", what)
		}
		disk = instance.Status.RootDisk.VDIUUID
	}
	next := func(what, text string, change func(*v1alpha1.XenInstance), holds ...func(*v1alpha1.XenInstance) error) {
		t.Helper()
		edit(t, w, instance, change)
		waitInstance(t, w, instance, what, append(holds, isRunning)...)
		w.WaitAtRest(t)
		keeps(what)
		setOnRoot(t, w, instance, text)
		want = shownOnRoot(t, w, instance)
	}
	next("a smaller disk", "second", shrunkTo(afterShrink), awaiting)
	next("the disk from before it", "third", together(rooted(beforeShrink), func(i *v1alpha1.XenInstance) {
		i.Spec.RootDisk.ShrinkTo, i.Spec.Resize.DiscardTo = nil, first
	}), resizedTo("small"), instanceReady)
	next("a smaller disk again", "fourth", shrunkTo(afterShrink), awaiting)
	edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.Resize.Confirm = i.Status.Resize.ID })
	waitInstance(t, w, instance, "it is confirmed", resizedTo("small"), instanceReady, isRunning)
	edit(t, w, instance, together(rooted("1Gi"), func(i *v1alpha1.XenInstance) { i.Spec.RootDisk.ShrinkTo = nil }))
	waitInstance(t, w, instance, "a larger disk waits to be confirmed", awaiting, isRunning)
	next("the copy of a snapshot", "last", together(rooted(afterShrink), func(i *v1alpha1.XenInstance) {
		i.Spec.Resize.DiscardTo = i.Status.Resize.RestorePoint.ID
	}), resizedTo("small"), instanceReady)
	checkGuest(t, w, instance, mbrTable, image, tree)
	nothingLeft(t, w, 1)
}

// notShrunk are contents of the guest's disk, each on top of the one before, with what is said of them. Its last partition is the
// first.
var notShrunk = []struct {
	content string
	at      map[int64]string
	says    []string
}{
	{"more data than fits", nil, []string{"the data of an ext4 file system needs", "name a size of at least"}},
	{"an ext4 that e2fsck does not mend", map[int64]string{superblock + 0x63: "\x80"}, []string{"e2fsck -p does not mend", "in rescue mode"}},
	{"ext4 and XFS", map[int64]string{mbrRoot: "XFSB"}, []string{"partition 1", "which one holds is not to be told"}},
	{"XFS", map[int64]string{superblock: strings.Repeat("\x00", 1024)}, []string{"an XFS file system", "in rescue mode"}},
	{"LUKS", map[int64]string{mbrRoot: "LUKS\xba\xbe"}, []string{"a LUKS-encrypted volume"}},
	{"NTFS", map[int64]string{mbrRoot: "\xeb\x52\x90NTFS    "}, []string{"an NTFS file system"}},
	{"LVM", map[int64]string{mbrRoot: strings.Repeat("\x00", 16), mbrRoot + 512: "LABELONE\x01"}, []string{"an LVM physical volume"}},
	{"swap space", map[int64]string{mbrRoot + 512: strings.Repeat("\x00", 16), mbrRoot + 4086: "SWAPSPACE2"}, []string{"swap space"}},
	{"Btrfs", map[int64]string{mbrRoot + 4086: strings.Repeat("\x00", 10), mbrRoot + 65600: "_BHRfS_M"}, []string{"a Btrfs file system"}},
	{"a table that does not add up", map[int64]string{446 + 12: "\xff\xff\xff\xff"}, []string{"beyond the disk's end", "sgdisk or sfdisk"}},
	{"no table that is known", map[int64]string{446: strings.Repeat("\x00", 66)}, []string{"nothing that is known"}},
}

// Where an MBR's only partition is, and an ext4 on it has what it says of itself.
const mbrRoot, superblock = 1 << 20, 1<<20 + 1024

// TestShrinkRefused: what cannot be made smaller is said, with what was found and what can be done. The VM runs again as it did,
// with the same disk and its old size.
func TestShrinkRefused(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	image, _ := guestImage(t, mbrTable)
	instance := guest(t, w, image, restarting, func(i *v1alpha1.XenInstance) { i.Spec.PowerOff = &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard} })
	disksThere, before := guardDisks(w), unread(w, instance.Status.UUID)
	old := instance.Status.RootDisk.VDIUUID
	for k, c := range notShrunk {
		for at, text := range c.at {
			if _, err := guestRoot(t, w, instance).WriteAt([]byte(text), at); err != nil {
				t.Fatal(err)
			}
		}
		holds, size := content(t, w, instance), "8Mi"
		if k > 0 {
			size = fmt.Sprintf("%dMi", 400+k)
		}
		edit(t, w, instance, together(flavored("large"), shrunkTo(size)))
		waitInstance(t, w, instance, c.content+" is refused", isRunning, stalledBecause(v1alpha1.ReasonShrinkRefused, c.says...), notReadyBecause(v1alpha1.ReasonShrinkRefused))
		if instance.Status.Flavor.VCPUs != 2 || instance.Status.RootDisk.VDIUUID != old || content(t, w, instance) != holds {
			t.Errorf("%s: flavor %+v, root disk %+v", c.content, instance.Status.Flavor, instance.Status.RootDisk)
		}
	}
	edit(t, w, instance, together(flavored("small"), rooted(beforeShrink), func(i *v1alpha1.XenInstance) { i.Spec.RootDisk.ShrinkTo = nil }))
	waitInstance(t, w, instance, "it is as before", resizedTo("small"), instanceReady, isRunning)
	w.WaitAtRest(t)
	if diff := differences(before, unread(w, instance.Status.UUID)); diff != "" {
		t.Errorf("the VM was touched:\n%s", diff)
	}
	disksThere(t)
	nothingLeft(t, w, 1)
}

// unread is a picture without what the pool writes on a disk that is read.
func unread(w *testkit.World, uuid string) map[string]string {
	shown := picture(w, uuid)
	for key, value := range shown {
		shown[key] = contentID.ReplaceAllString(value, "")
	}
	return shown
}

var contentID = regexp.MustCompile(`content_id:\S+ `)

// notReadyBecause complains unless Ready and FlavorApplied are False for a reason.
func notReadyBecause(reason string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		return errors.Join(
			testkit.Condition(i, v1alpha1.ConditionReady, metav1.ConditionFalse, reason),
			testkit.Condition(i, v1alpha1.ConditionFlavorApplied, metav1.ConditionFalse, reason),
		)
	}
}

// TestShrinkWithoutScratch: too little scratch space is said while the guest still runs; no call is made.
func TestShrinkWithoutScratch(t *testing.T) {
	t.Parallel()
	cramped := func(ctx context.Context, config *rest.Config, o testkit.ManagerOptions) error {
		m, err := controllers.NewManager(config, controllers.Options{
			Installation: o.Installation, WrapXenAPI: o.WrapXenAPI, Logger: logr.Discard(), ScratchLimit: 100 << 20,
		})
		if err != nil {
			return err
		}
		return m.Start(ctx)
	}
	w := testkit.NewWorld(t, testkit.Start(t), cramped, withAgents)
	fence := w.StartManager()
	addFlavors(t, w)
	instance := web(w).RootDisk(beforeShrink).With(restarting).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	fence.Arm(0)
	edit(t, w, instance, shrunkTo(afterShrink))
	w.WaitFor(t, instance, "the lack of scratch space is said", func() error {
		ready := meta.FindStatusCondition(instance.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonInsufficientStorage || !strings.Contains(ready.Message, "--scratch-limit") {
			return fmt.Errorf("Ready is %+v", ready)
		}
		return isRunning(instance)
	})
	if made := calls(fence); len(made) > 0 {
		t.Errorf("calls were made: %v", made)
	}
}
