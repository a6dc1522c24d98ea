package xensim

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// bigState writes a dump of a pool with so many VMs.
func bigState(t testing.TB, vms int) *bytes.Buffer {
	t.Helper()
	p, err := New(Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Lock()
	template := p.DB().Get("VM", p.DB().ByName("VM", "Debian Bookworm 12")[0])
	for i := range vms {
		fields := template.Fields()
		delete(fields, "uuid")
		fields["name_label"] = fmt.Sprintf("vm-%05d", i)
		fields["is_a_template"], fields["is_default_template"] = false, false
		fields["metrics"] = p.Create("VM_metrics", p.DB().Get("VM_metrics", template.Str("metrics")).Fields())
		p.Create("VM", fields)
	}
	p.Unlock()
	var out bytes.Buffer
	if err := p.Dump(&out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// TestTenThousandVMs loads a big pool and holds the work of what clients do all the time against what one would bear:
// a change must not cost a look at every row.
func TestTenThousandVMs(t *testing.T) {
	const vms = 10_000
	state := bigState(t, vms)
	begin := time.Now()
	p, client := newTestPool(t, Options{State: state})
	t.Logf("loaded in %s", time.Since(begin))

	begin = time.Now()
	if n := len(client.must("VM.get_all_records").(map[string]any)); n < vms {
		t.Errorf("%d VMs", n)
	}
	t.Logf("all records in %s", time.Since(begin))

	vm := client.one("VM", "vm-04711")
	uuid := client.must("VM.get_uuid", vm)
	if found := client.must("VM.get_by_uuid", uuid); found != vm {
		t.Errorf("get_by_uuid gives %v, want %v", found, vm)
	}

	token := client.must("event.inject", "VM", vm)
	small := allocated(func() {
		batch := client.must("event.from", []string{"*"}, token, 1.0).(map[string]any)
		if n := len(batch["events"].([]any)); n != 1 {
			t.Errorf("%d events after one change", n)
		}
	})
	if small > 4<<20 {
		t.Errorf("one event among %d VMs costs %d bytes of memory", vms, small)
	}

	begin = time.Now()
	const changes = 200
	for i := range changes {
		client.must("VM.set_name_description", vm, fmt.Sprint(i))
		p.Lock()
		generation := p.DB().Generation()
		p.Unlock()
		token = fmt.Sprintf("%020d,%020d", generation-1, 0)
		client.must("event.from", []string{"vm"}, token, 1.0)
	}
	each := time.Since(begin) / changes
	t.Logf("a change and its event in %s", each)
	if each > 50*time.Millisecond {
		t.Errorf("a change and its event take %s", each)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
