package xensim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRawDiskComesBack(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(8 * mib)
	vdi := r.disk(r.sr("Local storage"), "raw", len(content))
	task := r.newTask()

	r.put(content, "/import_raw_vdi", "vdi", vdi, "format", "raw", "task_id", task).good(t)
	if status, failure, result := r.ended(task); status != "success" || result != "<value>"+vdi+"</value>" {
		t.Errorf("the import's task: %s %v %q", status, failure, result)
	}
	answer := r.get("/export_raw_vdi", "vdi", vdi)
	if !bytes.Equal(answer.good(t), content) {
		t.Error("the bytes differ")
	}
	if answer.ContentLength != -1 || !answer.Close {
		t.Errorf("length %d, close %v: the length is not announced, the connection ends", answer.ContentLength, answer.Close)
	}
	uuid, _ := r.field("VDI", vdi, "uuid").(string)
	if got := answer.Header.Get("content-disposition"); got != `attachment; filename="`+uuid+`.raw"` {
		t.Errorf("content-disposition %s", got)
	}
	if vbds, _ := r.field("VDI", vdi, "VBDs").([]string); len(vbds) != 0 {
		t.Errorf("the control domain still has the disk: %v", vbds)
	}
}

func TestQemuReadsAnExportedVHD(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(10 * mib)
	vdi := r.disk(r.sr("Local storage"), "disk", len(content))
	r.put(content, "/import_raw_vdi", "vdi", vdi).good(t)

	exported, raw := filepath.Join(t.TempDir(), "disk.vhd"), filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(exported, r.get("/export_raw_vdi", "vdi", vdi, "format", "vhd").good(t), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "vpc", "-O", "raw", exported, raw)
	got, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Error("qemu-img reads other bytes")
	}
}

func TestAVHDMadeByQemuImports(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(10 * mib)
	raw, made := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "disk.vhd")
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=dynamic,force_size=on", raw, made)
	image, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	vdi := r.disk(r.sr("Local storage"), "disk", len(content))
	r.put(image, "/import_raw_vdi", "vdi", vdi, "format", "vhd").good(t)
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", vdi).good(t), content) {
		t.Error("the bytes differ")
	}
}

// TestAVHDOfUnknownLength announces far more than comes, as clients do that stream a VHD whose length they do not know: the
// disk is written when the VHD's own end has come, and nobody waits for the rest.
func TestAVHDOfUnknownLength(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(4 * mib)
	sr := r.sr("Local storage")
	source, target := r.disk(sr, "source", len(content)), r.disk(sr, "target", len(content))
	r.put(content, "/import_raw_vdi", "vdi", source).good(t)
	image := r.get("/export_raw_vdi", "vdi", source, "format", "vhd").good(t)

	conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	head := fmt.Sprintf("PUT /import_raw_vdi?session_id=%s&vdi=%s&format=vhd HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
		r.session, target, int64(1)<<50)
	if _, err := conn.Write(append([]byte(head), image...)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 OK\r\n")) || bytes.Contains(answer, []byte("HTTP/1.1 500")) {
		t.Errorf("%q (%v)", answer, err)
	}
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", target).good(t), content) {
		t.Error("the bytes differ")
	}
}

// TestQCOW2 sends a disk to qemu-img and takes one from it, in the profile that knows the format.
func TestQCOW2(t *testing.T) {
	r := newRig(t, Options{Hosts: 1, Profile: "26.17"})
	content := sparse(10 * mib)
	vdi, back := r.disk(r.sr("Local storage"), "disk", len(content)), r.disk(r.sr("Local storage"), "back", len(content))
	r.put(content, "/import_raw_vdi", "vdi", vdi).good(t)
	dir := t.TempDir()
	exported, compressed, raw := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "small.qcow2"), filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(exported, r.get("/export_raw_vdi", "vdi", vdi, "format", "qcow2").good(t), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "check", "-f", "qcow2", exported)
	qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", exported, raw)
	if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, content) {
		t.Errorf("qemu-img reads other bytes (%v)", err)
	}
	qemuImg(t, "convert", "-c", "-f", "qcow2", "-O", "qcow2", exported, compressed)
	image, err := os.ReadFile(compressed)
	if err != nil {
		t.Fatal(err)
	}
	r.put(image, "/import_raw_vdi", "vdi", back, "format", "qcow2").good(t)
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", back).good(t), content) {
		t.Error("the bytes differ")
	}
}

// TestDifferencesAreBackedUp does what a backup does: the whole disk once, then what changed between two snapshots, put
// back on top of each other.
func TestDifferencesAreBackedUp(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(10 * mib)
	sr := r.sr("Local storage")
	vdi := r.disk(sr, "disk", len(content))
	r.put(content, "/import_raw_vdi", "vdi", vdi).good(t)
	first := r.ref("VDI.snapshot", vdi, map[string]string{})

	whole := r.get("/export_raw_vdi", "vdi", first, "format", "vhd").good(t)
	copy(content, noise(1, 100000))
	r.put(content[:100000], "/import_raw_vdi", "vdi", vdi).good(t)
	second := r.ref("VDI.snapshot", vdi, map[string]string{})
	difference := r.get("/export_raw_vdi", "vdi", second, "format", "vhd", "base", first).good(t)
	if len(difference) > 3*mib || len(difference) >= len(whole) {
		t.Errorf("the difference has %d bytes, the whole %d", len(difference), len(whole))
	}

	back := r.disk(sr, "restored", len(content))
	r.put(whole, "/import_raw_vdi", "vdi", back, "format", "vhd").good(t)
	r.put(difference, "/import_raw_vdi", "vdi", back, "format", "vhd").good(t)
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", back).good(t), content) {
		t.Error("the bytes differ")
	}
}

func TestTarDiskComesBack(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content := sparse(6 * mib)
	sr := r.sr("Local storage")
	vdi, back := r.disk(sr, "disk", len(content)), r.disk(sr, "back", len(content))
	r.put(content, "/import_raw_vdi", "vdi", vdi).good(t)
	r.put(r.get("/export_raw_vdi", "vdi", vdi, "format", "tar").good(t), "/import_raw_vdi", "vdi", back, "format", "tar").good(t)
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", back).good(t), content) {
		t.Error("the bytes differ")
	}
}

func TestChunkedImport(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vdi := r.disk(r.sr("Local storage"), "disk", 4*mib)
	want := make([]byte, 4*mib)
	var body []byte
	for _, piece := range []struct {
		offset int
		text   string
	}{{3 * mib, "last"}, {0, "first"}, {mib, "middle"}} {
		copy(want[piece.offset:], piece.text)
		body = binary.LittleEndian.AppendUint64(body, uint64(piece.offset))
		body = append(binary.LittleEndian.AppendUint32(body, uint32(len(piece.text))), piece.text...)
	}
	body = append(body, make([]byte, 12)...)
	r.put(body, "/import_raw_vdi", "vdi", vdi, "chunked", "true").good(t)
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", vdi).good(t), want) {
		t.Error("the bytes differ")
	}
}

func TestImportIntoAStorageRepository(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	content, task := noise(3, 4*mib), r.newTask()
	r.put(content, "/import_raw_vdi", "sr_id", r.sr("Local storage"), "task_id", task).good(t)
	_, _, result := r.ended(task)
	vdi := strings.TrimSuffix(strings.TrimPrefix(result, "<value>"), "</value>")
	if name := r.field("VDI", vdi, "name_label"); name != "Imported VDI" {
		t.Errorf("the new disk is called %v", name)
	}
	if !bytes.Equal(r.get("/export_raw_vdi", "vdi", vdi).good(t), content) {
		t.Error("the bytes differ")
	}
}

// TestFailuresAfterTheAnswer shows what a client sees of an import that goes wrong: 200, then at best a second answer in
// the body, and the truth in the task.
func TestFailuresAfterTheAnswer(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	sr := r.sr("Local storage")
	larger := r.disk(sr, "larger", 16*mib)
	r.put(noise(1, 16*mib), "/import_raw_vdi", "vdi", larger).good(t)
	vhd := r.get("/export_raw_vdi", "vdi", larger, "format", "vhd").good(t)
	bodies := map[string]struct {
		format string
		body   io.Reader
	}{
		"raw, longer than the disk":           {"raw", bytes.NewReader(noise(2, 6*mib))},
		"raw, the client goes away":           {"raw", &stopping{content: noise(2, mib)}},
		"VHD, larger than the disk":           {"vhd", bytes.NewReader(vhd)},
		"VHD, which is none":                  {"vhd", bytes.NewReader(noise(3, 4096))},
		"VHD, cut short":                      {"vhd", bytes.NewReader(vhd[:len(vhd)/8])},
		"VHD, fixed, as one cannot stream it": {"vhd", bytes.NewReader(make([]byte, 8192))},
	}
	for name, c := range bodies {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			vdi, task := r.disk(sr, "disk", 4*mib), r.newTask()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPut,
				r.target("/import_raw_vdi", "vdi", vdi, "format", c.format, "task_id", task), c.body)
			if err != nil {
				t.Fatal(err)
			}
			if request.ContentLength <= 0 {
				request.ContentLength = 4 * mib
			}
			if answer, err := http.DefaultClient.Do(request); err == nil {
				content, err := io.ReadAll(answer.Body)
				_ = answer.Body.Close()
				if answer.StatusCode != http.StatusOK || err == nil && !bytes.HasPrefix(content, []byte("HTTP/1.1 500 Internal Error\r\n")) {
					t.Errorf("status %d, body %.60q (%v)", answer.StatusCode, content, err)
				}
			}
			if status, failure, _ := r.ended(task); status != "failure" || !slices.Equal(failure, []string{"VDI_IO_ERROR", "Device I/O errors"}) {
				t.Errorf("the task: %s %v", status, failure)
			}
		})
	}
}

func TestRefusedTransfers(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	sr := r.sr("Local storage")
	vdi := r.disk(sr, "disk", 2*mib)
	cases := map[string]struct {
		method, path string
		params       []string
		status       int
		failure      string // the task's code, when it is told
	}{
		"unknown format":               {"GET", "/export_raw_vdi", []string{"vdi", vdi, "format", "qcow9"}, 404, "INTERNAL_ERROR"},
		"no VDI":                       {"GET", "/export_raw_vdi", nil, 500, ""},
		"unknown VDI":                  {"GET", "/export_raw_vdi", []string{"vdi", "x"}, 500, ""},
		"import, unknown format":       {"PUT", "/import_raw_vdi", []string{"vdi", vdi, "format", "qcow9"}, 404, "INTERNAL_ERROR"},
		"import, chunked VHD":          {"PUT", "/import_raw_vdi", []string{"vdi", vdi, "format", "vhd", "chunked", "1"}, 404, "INTERNAL_ERROR"},
		"import, VHD without a disk":   {"PUT", "/import_raw_vdi", []string{"sr_id", sr, "format", "vhd"}, 400, "INTERNAL_ERROR"},
		"import without a place":       {"PUT", "/import_raw_vdi", nil, 400, "VDI_MISSING"},
		"no VM":                        {"GET", "/export", nil, 500, ""},
		"unknown VM":                   {"GET", "/export", []string{"uuid", "x"}, 500, ""},
		"import into an ISO library":   {"PUT", "/import", []string{"sr_id", r.sr("ISO library")}, 400, "SR_OPERATION_NOT_SUPPORTED"},
		"console that is not there":    {"GET", "/console", []string{"uuid", "x"}, 500, ""},
		"picture that is not there":    {"GET", "/vncsnapshot", []string{"uuid", "x"}, 500, ""},
		"statistics that are not kept": {"GET", "/host_rrd", nil, 404, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			task := r.newTask()
			answer := r.do(c.method, r.target(c.path, append(c.params, "task_id", task)...), nil)
			if answer.Response == nil || answer.StatusCode != c.status {
				t.Fatalf("answer %v (%v), want %d", answer.Response, answer.err, c.status)
			}
			if c.failure == "" {
				return
			}
			if status, failure, _ := r.ended(task); status != "failure" || failure[0] != c.failure {
				t.Errorf("the task: %s %v, want %s", status, failure, c.failure)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	for request, realm := range map[string]string{
		"GET /export_raw_vdi": "get_export_raw_vdi", "PUT /import_raw_vdi": "put_import_raw_vdi", "GET /export": "get_export",
		"PUT /import": "put_import", "GET /export_metadata": "get_export_metadata", "PUT /import_metadata": "put_import_metadata",
		"GET /vncsnapshot": "get_vncsnapshot", "GET /rrd_updates": "rrd_updates", "GET /vm_rrd": "vm_rrd",
	} {
		method, path, _ := strings.Cut(request, " ")
		answer := r.do(method, r.base+path+"?session_id=OpaqueRef:0", nil)
		if answer.Response == nil || answer.StatusCode != http.StatusUnauthorized || answer.Header.Get("WWW-Authenticate") != `Basic realm="`+realm+`"` {
			t.Errorf("%s with a bad session: %v (%v)", request, answer.Response, answer.err)
		}
	}
}

// TestAnotherHostHasTheDisk follows a redirect to the host that sees the disk's storage.
func TestAnotherHostHasTheDisk(t *testing.T) {
	r := newRig(t, Options{Hosts: 3})
	content := sparse(4 * mib)
	vdi := r.disk(r.sr("Local storage on xs2"), "disk", len(content))
	answer := r.put(nil, "/import_raw_vdi", "vdi", vdi)
	if answer.Response == nil || answer.StatusCode != http.StatusFound {
		t.Fatalf("%v (%v), want a redirect", answer.Response, answer.err)
	}
	location := answer.Header.Get("Location")
	hosts, _ := r.call("host.get_by_name_label", "xs2").([]any)
	if address, _ := r.field("host", hosts[0].(string), "address").(string); !strings.HasPrefix(location, "http://"+address+":") {
		t.Errorf("redirected to %s, the disk is at %s", location, address)
	}
	r.do(http.MethodPut, location, bytes.NewReader(content)).good(t)
	exported := r.get("/export_raw_vdi", "vdi", vdi)
	if exported.StatusCode != http.StatusFound {
		t.Fatalf("%v, want a redirect", exported.Response)
	}
	if !bytes.Equal(r.do(http.MethodGet, exported.Header.Get("Location"), nil).good(t), content) {
		t.Error("the bytes differ")
	}
}

func TestATransferIsCancelled(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vdi, task := r.disk(r.sr("Local storage"), "disk", 1<<30), r.newTask()
	answer, err := http.Get(r.target("/export_raw_vdi", "vdi", vdi, "task_id", task)) // which is not read
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	r.await(func() bool {
		return slices.Equal(r.DB().Get("task", task).Strs("allowed_operations"), []string{"cancel"})
	})
	r.call("task.cancel", task)
	if status, failure, _ := r.ended(task); status != "cancelled" || failure[0] != "TASK_CANCELLED" {
		t.Errorf("the task: %s %v", status, failure)
	}
	r.await(func() bool { return len(r.DB().Get("VDI", vdi).Strs("VBDs")) == 0 })
}

func TestADiskIsInUseWhileItTravels(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vdi := r.disk(r.sr("Local storage"), "disk", 1<<30)
	answer, err := http.Get(r.target("/export_raw_vdi", "vdi", vdi))
	if err != nil {
		t.Fatal(err)
	}
	r.await(func() bool { return len(r.DB().Get("VDI", vdi).Strs("VBDs")) == 1 })
	if _, failure := r.try("VDI.destroy", vdi); len(failure) == 0 || failure[0] != "VDI_IN_USE" {
		t.Errorf("VDI.destroy during the export: %v", failure)
	}
	_ = answer.Body.Close()
	r.await(func() bool { return len(r.DB().Get("VDI", vdi).Strs("VBDs")) == 0 })
	r.call("VDI.destroy", vdi)
}

func TestALargeSparseDiskIsSmallAsVHD(t *testing.T) {
	r := newRig(t, Options{Hosts: 1})
	vdi := r.disk(r.sr("Local storage"), "disk", 50<<30)
	r.put([]byte("boot sector"), "/import_raw_vdi", "vdi", vdi).good(t)
	if image := r.get("/export_raw_vdi", "vdi", vdi, "format", "vhd").good(t); len(image) > 3*mib {
		t.Errorf("%d bytes for eleven", len(image))
	}
}
