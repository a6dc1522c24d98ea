package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const model26 = "../../pkg/xensim/internal/datamodel/datamodel.json.gz"

func TestTheGeneratedFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := run(model26, dir); err != nil {
		t.Fatal(err)
	}
	fresh, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(fresh) < 20 {
		t.Fatalf("%d files, %v", len(fresh), err)
	}
	for _, path := range fresh {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		if have, err := os.ReadFile(filepath.Join("../../pkg/xenapi", name)); err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is not what the generator writes: run go run ./hack/xenapigen (%v)", name, err)
		}
	}
}

func TestEveryDocNamesSomethingThatThereIs(t *testing.T) {
	t.Parallel()
	m, err := loadModel(model26)
	if err != nil {
		t.Fatal(err)
	}
	anywhere := map[string]bool{}
	for _, class := range m.Classes {
		for name := range class.Fields {
			anywhere[name] = true
		}
	}
	for key := range fieldDocs {
		class, field, qualified := strings.Cut(key, ".")
		if _, ok := m.Classes[class].Fields[field]; qualified && !ok || !qualified && !anywhere[key] {
			t.Errorf("no field %s", key)
		}
	}
	for _, table := range []map[string]string{methodDocs, keysOf(handwritten), keysOf(withoutAsync)} {
		for key := range table {
			class, name, qualified := strings.Cut(key, ".")
			if _, ok := m.Classes[class].Messages[name]; qualified && !ok {
				t.Errorf("no message %s", key)
			}
		}
	}
	for key := range optionalParams {
		class, rest, _ := strings.Cut(key, ".")
		name, parameter, _ := strings.Cut(rest, ".")
		found := false
		for _, p := range m.Classes[class].Messages[name].Params {
			found = found || p[0] == parameter
		}
		if !found {
			t.Errorf("no parameter %s", key)
		}
	}
}

func keysOf(set map[string]bool) map[string]string {
	out := map[string]string{}
	for key := range set {
		out[key] = ""
	}
	return out
}

func TestNames(t *testing.T) {
	t.Parallel()
	for wire, want := range map[string]string{
		"VCPUs_at_startup": "VCPUsAtStartup", "uuid": "UUID", "HVM_boot_params": "HVMBootParams", "is_a_snapshot": "IsASnapshot", "VM_guest_metrics": "VMGuestMetrics",
		"suspend_SR": "SuspendSR", "ipv4_allowed": "IPv4Allowed", "crash_dump_sr": "CrashDumpSR", "get_by_uuid": "GetByUUID", "resident_VMs": "ResidentVMs",
	} {
		if got := goName(wire); got != want {
			t.Errorf("%s: %s, want %s", wire, got, want)
		}
	}
	for wire, want := range map[string]string{"vM": "vm", "type": "kind", "interface": "interfaceName", "new_name": "name", "SR": "sr", "ignore_vdis": "ignoreVDIs", "dest": "dest"} {
		if got := paramName(wire); got != want {
			t.Errorf("parameter %s: %s, want %s", wire, got, want)
		}
	}
	if got := errorName("VM_BAD_POWER_STATE"); got != "VMBadPowerState" {
		t.Error(got)
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	g := newGenerator(&model{}, nil)
	for text, want := range map[string]string{
		"string": "string", "(int -> string set) map": "map[int64][]string", "VM ref set": "[]VMRef", "(VM ref -> (string -> string) map) map": "map[VMRef]map[string]string",
		"enum vm_operations set": "[]VMOperation", "string set set": "[][]string", "datetime": "time.Time",
	} {
		if got := g.goType(mustParse("test", text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, bad := range []string{"", "thing", "string option", "(string string) map"} {
		if _, err := parseType(bad); err == nil {
			t.Errorf("%q was taken for a type", bad)
		}
	}
}
