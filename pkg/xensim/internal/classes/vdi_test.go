package classes

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

func TestDiskSizes(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", int(gib)+5)
	if got := s.record("VDI", vdi).Int("virtual_size"); got != gib+2*mib {
		t.Errorf("1 GiB and 5 bytes become %d, want %d", got, gib+2*mib)
	}
	s.call("VDI.resize", vdi, 2*int(gib))
	if got := s.record("VDI", vdi).Int("virtual_size"); got != 2*gib {
		t.Errorf("resized to %d", got)
	}
	s.refused("SR_BACKEND_FAILURE_79", "VDI.resize", vdi, int(gib))
	fields := db.Fields{
		"name_label": "", "name_description": "", "SR": s.named("SR", "ISO library"), "virtual_size": int(gib), "type": "user",
		"sharable": false, "read_only": false, "other_config": map[string]string{},
	}
	s.refused("SR_BACKEND_FAILURE_200", "VDI.create", fields)
	fields["SR"] = s.named("SR", "Local storage")
	for _, size := range []int{-1, 4 << 50} {
		fields["virtual_size"] = size
		s.refused("SR_BACKEND_FAILURE_79", "VDI.create", fields)
	}
}

func TestFullSR(t *testing.T) {
	s := newSite(t, Guests{})
	sr := s.named("SR", "Local storage")
	s.locked(func() { s.Set("SR", sr, db.Fields{"physical_size": gib, "type": "lvm"}) })
	s.disk("Local storage", int(gib)/2)
	s.refused("SR_BACKEND_FAILURE_44", "VDI.create", db.Fields{
		"name_label": "", "name_description": "", "SR": sr, "virtual_size": int(gib), "type": "user", "sharable": false,
		"read_only": false, "other_config": map[string]string{},
	})
}

func TestSnapshotChain(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", int(gib))
	depth := 0
	for ; depth <= vhdLongest; depth++ {
		s.write(vdi, "more", 0)
		if _, err := s.try("VDI.snapshot", vdi, map[string]string{}); err != nil {
			break
		}
	}
	if depth < vhdLongest-2 || depth > vhdLongest {
		t.Errorf("%d snapshots, want about %d", depth, vhdLongest)
	}
	s.refused("SR_BACKEND_FAILURE_109", "VDI.snapshot", vdi, map[string]string{})
}

// An image is cloned any number of times: what stands on its base does not make its chain longer, nor does what is gone.
func TestManyClones(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", int(gib))
	s.write(vdi, "base", 0)
	for range 2 * vhdLongest {
		clone := s.call("VDI.clone", vdi, map[string]string{}).(string)
		s.write(clone, "mine", 0)
		if depth := s.disks.ChainDepth(s.record("VDI", clone).Str("uuid")); depth != 2 {
			t.Fatalf("a clone stands on %d layers", depth)
		}
	}
	if got := s.read(vdi, 0, 4); got != "base" {
		t.Errorf("the image reads %q", got)
	}
}

// A disk that is replaced by a clone of itself again and again is coalesced when the one before is gone.
func TestClonesOfClones(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", int(gib))
	for range 2 * vhdLongest {
		s.write(vdi, "more", 0)
		clone := s.call("VDI.clone", vdi, map[string]string{}).(string)
		s.call("VDI.destroy", vdi)
		uuid := s.record("VDI", clone).Str("uuid")
		s.eventually("VDI", clone, "coalesced", func(db.Record) bool { return s.disks.ChainDepth(uuid) == 1 })
		vdi = clone
	}
	if got := s.read(vdi, 0, 4); got != "more" {
		t.Errorf("the disk reads %q", got)
	}
}

func TestDiskInUse(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", false)
	vdi := s.record("VBD", s.record("VM", vm).Strs("VBDs")[0]).Str("VDI")
	other := s.call("VM.create", vmOnNothing(s)).(string)
	borrowed := s.vbd(other, vdi, "0")
	s.call("VM.start", vm, false, false)
	if params := s.refused("VDI_IN_USE", "VM.start", other, false, false); !slices.Equal(params, []string{vdi}) {
		t.Errorf("VDI_IN_USE%v", params)
	}
	if got := s.record("VM", other); len(got.Map("current_operations")) != 0 {
		t.Errorf("a refused start leaves %v", got.Map("current_operations"))
	}
	s.refused("VDI_IN_USE", "VDI.destroy", vdi)
	s.refused("VDI_IN_USE", "VDI.resize", vdi, 4*int(gib))
	s.refused("VDI_IN_USE", "VDI.copy", vdi, s.named("SR", "Local storage"), db.NullRef, db.NullRef)
	s.call("VDI.snapshot", vdi, map[string]string{})
	s.call("VDI.clone", vdi, map[string]string{})
	s.call("VM.hard_shutdown", vm)
	s.call("VDI.destroy", vdi)
	if s.exists("VBD", borrowed) || len(s.record("VM", vm).Strs("VBDs")) != 0 {
		t.Error("VBDs of a destroyed disk are left")
	}
}

func TestCloneOfDiskKeepsMarksNotTags(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", int(gib))
	s.call("VDI.add_to_other_config", vdi, "mark", "1")
	s.call("VDI.add_tags", vdi, "tag")
	r := s.record("VDI", s.call("VDI.clone", vdi, map[string]string{}).(string))
	if r.Map("other_config")["mark"] != "1" || len(r.Strs("tags")) != 0 || r.Bool("is_a_snapshot") {
		t.Errorf("clone: %v %v, snapshot %v", r.Map("other_config"), r.Strs("tags"), r.Bool("is_a_snapshot"))
	}
	snapshot := s.call("VDI.snapshot", vdi, map[string]string{}).(string)
	if !slices.Equal(s.record("VDI", vdi).Strs("snapshots"), []string{snapshot}) {
		t.Errorf("snapshots %v", s.record("VDI", vdi).Strs("snapshots"))
	}
}

// While a disk is copied the control domain has it open: it can be copied and cloned, and nothing else.
func TestCopyOfDisk(t *testing.T) {
	s := newSite(t, Guests{})
	vdi, nfs := s.disk("Local storage", int(gib)), s.named("SR", "NFS virtual disk storage")
	s.write(vdi, "contents", 5*mib)
	copied := s.call("VDI.copy", vdi, nfs, db.NullRef, db.NullRef).(string)
	if got := s.read(copied, 5*mib, len("contents")); got != "contents" {
		t.Errorf("the copy holds %q", got)
	}
	s.durations.CopyPerGiB = 24 * time.Hour
	before := len(s.record("SR", nfs).Strs("VDIs"))
	task := s.call("Async.VDI.copy", vdi, nfs, db.NullRef, db.NullRef).(string)
	s.eventually("SR", nfs, "written", func(r db.Record) bool { return len(r.Strs("VDIs")) > before })
	if got := s.record("VDI", vdi).Strs("allowed_operations"); !slices.Equal(got, []string{"copy", "clone"}) {
		t.Errorf("allowed operations %v", got)
	}
	s.refused("VDI_IN_USE", "VDI.destroy", vdi)
	s.call("task.cancel", task)
	s.eventually("task", task, "finished", func(r db.Record) bool { return r.Str("status") == "failure" })
	if got := s.record("task", task).Strs("error_info"); got[0] != "VDI_COPY_FAILED" {
		t.Errorf("a cancelled copy ends with %v", got)
	}
	if after := len(s.record("SR", nfs).Strs("VDIs")); after != before {
		t.Errorf("%d disks on the target, then %d: the unfinished one stays", before, after)
	}
	s.call("VDI.destroy", vdi)
}

// write puts bytes on a disk, and read gets them.
func (s *site) write(vdi, text string, offset int64) {
	s.t.Helper()
	disk, err := s.disks.Disk(s.record("VDI", vdi).Str("uuid"))
	if err == nil {
		_, err = disk.WriteAt([]byte(text), offset)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(vdi string, offset int64, length int) string {
	s.t.Helper()
	text := make([]byte, length)
	disk, err := s.disks.Disk(s.record("VDI", vdi).Str("uuid"))
	if err == nil {
		_, err = disk.ReadAt(text, offset)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// A chain that had grown too long takes snapshots again when some are gone and coalesced.
func TestCoalesce(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", int(gib))
	var snapshots []string
	for {
		s.write(vdi, "more", 0)
		snapshot, err := s.try("VDI.snapshot", vdi, map[string]string{})
		if err != nil {
			break
		}
		snapshots = append(snapshots, snapshot.(string))
	}
	uuid := s.record("VDI", vdi).Str("uuid")
	long := s.disks.ChainDepth(uuid)
	for _, snapshot := range snapshots {
		s.call("VDI.destroy", snapshot)
	}
	s.eventually("VDI", vdi, "shorter", func(db.Record) bool { return s.disks.ChainDepth(uuid) < long/2 })
	s.call("VDI.snapshot", vdi, map[string]string{})
}

func TestChangedBlocks(t *testing.T) {
	s := newSite(t, Guests{})
	vdi := s.disk("Local storage", 16<<20)
	s.refused("SR_BACKEND_FAILURE_460", "VDI.list_changed_blocks", vdi, vdi)
	s.call("VDI.enable_cbt", vdi)
	first := s.call("VDI.snapshot", vdi, map[string]string{}).(string)
	disk, err := s.disks.Disk(s.record("VDI", vdi).Str("uuid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAt([]byte("changed"), 3*cbtBlock-2); err != nil {
		t.Fatal(err)
	}
	second := s.call("VDI.snapshot", vdi, map[string]string{}).(string)
	changed := func() string { return s.call("VDI.list_changed_blocks", first, second).(string) }
	want := base64.StdEncoding.EncodeToString(append([]byte{0b00110000}, make([]byte, 31)...))
	if got := changed(); got != want {
		t.Errorf("changed blocks %s, not %s", got, want)
	}
	s.call("VDI.data_destroy", first)
	if got := changed(); got != want {
		t.Errorf("without the older snapshot's data, changed blocks %s, not %s", got, want)
	}
	if kind := s.record("VDI", first).Str("type"); kind != "cbt_metadata" {
		t.Errorf("type %s", kind)
	}
}
