package xensim

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// machine makes a halted VM with one disk that has content, and a network device with a MAC of its own.
func (r *rig) machine(name string, content []byte) (vm, vdi string) {
	r.t.Helper()
	templates, _ := r.call("VM.get_by_name_label", "Other install media").([]any)
	if len(templates) == 0 {
		r.t.Fatal("no template")
	}
	vm = r.ref("VM.clone", templates[0], name)
	r.call("VM.remove_from_other_config", vm, "disks")
	r.call("VM.provision", vm)
	vdi = r.disk(r.sr("Local storage"), name+" root", len(content))
	r.put(content, "/import_raw_vdi", "vdi", vdi).good(r.t)
	r.ref("VBD.create", map[string]any{"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": true, "mode": "RW", "type": "Disk",
		"empty": false, "other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{}})
	networks, _ := r.call("network.get_all").([]any)
	r.ref("VIF.create", map[string]any{"VM": vm, "network": networks[0], "device": "0", "MAC": "02:00:00:00:00:01", "MTU": "1500",
		"other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{}})
	return vm, vdi
}

// imported gives the VM of an import's task.
func (r *rig) imported(task string) string {
	r.t.Helper()
	status, failure, result := r.ended(task)
	if status != "success" {
		r.t.Fatalf("the import: %s %v", status, failure)
	}
	start := strings.Index(result, "OpaqueRef:")
	if start < 0 || !strings.HasPrefix(result, "<value><array><data>") {
		r.t.Fatalf("the import's result %q", result)
	}
	ref, _, _ := strings.Cut(result[start:], "<")
	return ref
}

// rootDisk gives the disk of a VM's only VBD.
func (r *rig) rootDisk(vm string) string {
	r.t.Helper()
	vbds, _ := r.field("VM", vm, "VBDs").([]string)
	if len(vbds) != 1 {
		r.t.Fatalf("%d VBDs, want 1", len(vbds))
	}
	vdi, _ := r.field("VBD", vbds[0], "VDI").(string)
	return vdi
}

func (r *rig) mac(vm string) string {
	r.t.Helper()
	vifs, _ := r.field("VM", vm, "VIFs").([]string)
	if len(vifs) != 1 {
		r.t.Fatalf("%d VIFs, want 1", len(vifs))
	}
	mac, _ := r.field("VIF", vifs[0], "MAC").(string)
	return mac
}

func TestAVMComesBack(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(8 * mib)
	vm, _ := r.machine("web", content)
	exportTask, importTask := r.newTask(), r.newTask()

	archive := r.get("/export", "ref", vm, "task_id", exportTask).good(t)
	if status, failure, result := r.ended(exportTask); status != "success" || result != "" {
		t.Errorf("the export's task: %s %v %q", status, failure, result)
	}
	r.put(archive, "/import", "sr_id", r.sr("NFS virtual disk storage"), "task_id", importTask).good(t)

	copied := r.imported(importTask)
	if name := r.field("VM", copied, "name_label"); name != "web" {
		t.Errorf("it is called %v", name)
	}
	for _, field := range []string{"uuid", "generation_id"} {
		if r.field("VM", copied, field) == r.field("VM", vm, field) && field == "uuid" {
			t.Errorf("both have the %s %v", field, r.field("VM", vm, field))
		}
	}
	before, _ := r.field("VM", vm, "other_config").(map[string]string)
	after, _ := r.field("VM", copied, "other_config").(map[string]string)
	if before["mac_seed"] == after["mac_seed"] || r.mac(vm) == r.mac(copied) {
		t.Errorf("seeds %s and %s, MACs %s and %s: an imported VM gets new ones", before["mac_seed"], after["mac_seed"], r.mac(vm), r.mac(copied))
	}
	if current, _ := r.field("VM", copied, "current_operations").(map[string]string); len(current) != 0 {
		t.Errorf("operations still under way: %v", current)
	}
	disk := r.rootDisk(copied)
	if sr := r.field("VDI", disk, "SR"); sr != r.sr("NFS virtual disk storage") {
		t.Errorf("the disk is in %v", sr)
	}
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", disk).good(t), content) {
		t.Error("the bytes differ")
	}
	r.call("VM.start", copied, false, false)
}

func TestAnArchiveLeavesZerosOut(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := make([]byte, 64*mib)
	copy(content[20*mib:], "something")
	vm, _ := r.machine("web", content)
	var names []string
	for archive := tar.NewReader(bytes.NewReader(r.get("/export", "ref", vm).good(t))); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		names = append(names, name)
	}
	want := []string{"", "00000000", "00000000.xxhash", "00000020", "00000020.xxhash", "00000063", "00000063.xxhash"}
	if !slices.Equal(names, want) {
		t.Errorf("members %v, want %v", names, want)
	}
}

func TestCompressedExports(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm, _ := r.machine("web", sparse(4*mib))
	plain := r.get("/export", "ref", vm).good(t)
	decompress := map[string]func(io.Reader) (io.Reader, error){
		"true": func(z io.Reader) (io.Reader, error) { return gzip.NewReader(z) },
		"gzip": func(z io.Reader) (io.Reader, error) { return gzip.NewReader(z) },
		"zstd": func(z io.Reader) (io.Reader, error) { return zstd.NewReader(z) },
	}
	for how, open := range decompress {
		packed := r.get("/export", "ref", vm, "use_compression", how).good(t)
		z, err := open(bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		unpacked, err := io.ReadAll(z)
		if err != nil || len(unpacked) != len(plain) || len(packed) >= len(plain) {
			t.Errorf("%s: %d bytes, unpacked %d, plain %d (%v)", how, len(packed), len(unpacked), len(plain), err)
		}
		task := r.newTask()
		r.put(packed, "/import", "sr_id", r.sr("Local storage"), "task_id", task).good(t)
		r.imported(task)
	}
}

func TestRestoreReplacesTheVM(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm, _ := r.machine("web", sparse(4*mib))
	uuid, mac := r.field("VM", vm, "uuid"), r.mac(vm)
	r.Lock()
	r.Set("VM", vm, map[string]any{"version": int64(1)})
	r.Unlock()
	archive := r.get("/export", "ref", vm).good(t)

	refused := r.newTask()
	_ = r.put(archive, "/import", "sr_id", r.sr("Local storage"), "restore", "true", "task_id", refused)
	if status, failure, _ := r.ended(refused); status != "failure" || failure[0] != "VM_TO_IMPORT_IS_NOT_NEWER_VERSION" {
		t.Errorf("restoring the same version: %s %v", status, failure)
	}
	task := r.newTask()
	r.put(archive, "/import", "sr_id", r.sr("Local storage"), "restore", "true", "force", "true", "task_id", task).good(t)
	restored := r.imported(task)
	if r.field("VM", restored, "uuid") != uuid || r.mac(restored) != mac {
		t.Errorf("restored with uuid %v and MAC %s, was %v and %s", r.field("VM", restored, "uuid"), r.mac(restored), uuid, mac)
	}
	if _, still := r.Records("VM")[vm]; still {
		t.Error("the VM that was replaced is still there")
	}
}

func TestArchivesThatFail(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm, _ := r.machine("web", sparse(4*mib))
	archive := r.get("/export", "ref", vm).good(t)
	broken := bytes.Clone(archive)
	broken[len(broken)-4*1024]++ // in the last chunk
	cases := map[string]struct {
		body []byte
		code string
	}{
		"garbage":        {bytes.Repeat([]byte("garbage"), 1000), "IMPORT_ERROR_PREMATURE_EOF"},
		"cut short":      {archive[:len(archive)/2], "IMPORT_ERROR_PREMATURE_EOF"},
		"no disks":       {archive[:bytes.Index(archive, []byte("/00000000"))/512*512], "IMPORT_ERROR_PREMATURE_EOF"},
		"wrong checksum": {broken, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED"},
	}
	before := map[string]int{}
	for _, class := range []string{"VM", "VDI", "VBD", "VIF"} {
		before[class] = len(r.Records(class))
	}
	for name, c := range cases {
		task := r.newTask()
		answer := r.put(c.body, "/import", "sr_id", r.sr("Local storage"), "task_id", task)
		if answer.err == nil && !bytes.HasPrefix(answer.content, []byte("HTTP/1.1 500 Internal Error\r\n")) {
			t.Errorf("%s: %v %.60q", name, answer.Response, answer.content)
		}
		if status, failure, _ := r.ended(task); status != "failure" || failure[0] != c.code {
			t.Errorf("%s: the task: %s %v, want %s", name, status, failure, c.code)
		}
	}
	for class, n := range before {
		if now := len(r.Records(class)); now != n {
			t.Errorf("%d objects of class %s before, %d after failed imports", n, class, now)
		}
	}
}

func TestTheSampleOfARealOneImports(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	file, err := os.Open("internal/xva/testdata/sample.xva.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	packed, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	task := r.newTask()
	r.put(packed, "/import", "sr_id", r.sr("Local storage"), "task_id", task).good(t) // gzip is found out by itself
	vm := r.imported(task)
	if name := r.field("VM", vm, "name_label"); name != "http-vm" {
		t.Errorf("it is called %v", name)
	}
	if got := r.get("/export_raw_vdi", "vdi", r.rootDisk(vm)).good(t); len(got) != 4*mib || got[0] != 'z' {
		t.Errorf("a disk of %d bytes that begins with %q", len(got), got[0])
	}
}

func TestARunningVMIsNotExported(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm, _ := r.machine("web", sparse(4*mib))
	r.call("VM.start", vm, false, false)
	task := r.newTask()
	if answer := r.get("/export", "ref", vm, "task_id", task); answer.StatusCode != http.StatusInternalServerError {
		t.Errorf("%v", answer.Response)
	}
	if status, failure, _ := r.ended(task); status != "failure" || failure[0] != "VM_BAD_POWER_STATE" {
		t.Errorf("the task: %s %v", status, failure)
	}
	if answer := r.get("/export_metadata", "ref", vm); len(answer.good(t)) != int(answer.ContentLength) {
		t.Errorf("metadata of a running VM: %v", answer.Response)
	}
}

// TestMetadataFindsTheDisks imports records alone: the disks are those that are there.
func TestMetadataFindsTheDisks(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vm, vdi := r.machine("web", sparse(4*mib))
	r.ref("VM.snapshot", vm, "before")
	metadata := r.get("/export_metadata", "ref", vm).good(t)

	known := maps.Clone(r.Records("VM"))
	rehearsal := r.newTask()
	r.put(metadata, "/import_metadata", "dry_run", "true", "task_id", rehearsal).good(t)
	if now := len(r.Records("VM")); now != len(known) {
		t.Errorf("a rehearsal made VMs: %d, were %d", now, len(known))
	}
	task := r.newTask()
	r.put(metadata, "/import_metadata", "task_id", task).good(t)
	copied := r.imported(task)
	if got := r.rootDisk(copied); got != vdi {
		t.Errorf("the VM has disk %s, want %s", got, vdi)
	}
	if snapshots, _ := r.field("VM", copied, "snapshots").([]string); len(snapshots) != 1 {
		t.Errorf("%d snapshots came along, want 1", len(snapshots))
	}

	r.call("VM.destroy", copied)
	vbds, _ := r.field("VM", vm, "VBDs").([]string)
	r.call("VBD.destroy", vbds[0])
	r.call("VDI.destroy", vdi)
	lost := r.newTask()
	_ = r.put(metadata, "/import_metadata", "task_id", lost)
	if status, failure, _ := r.ended(lost); status != "failure" || failure[0] != "VDI_LOCATION_MISSING" {
		t.Errorf("records of a disk that is gone: %s %v", status, failure)
	}
}
