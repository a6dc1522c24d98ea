package xencache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// largePool has n of our VMs, each with a disk, an interface, metrics and a guest that reports, as large as real
// records are.
func largePool(n int) map[string][]xenapi.Event {
	objects := map[string][]xenapi.Event{"pool": {added("pool", "p", xenapi.Pool{UUID: "pool"})}}
	add := func(class, ref string, record any) {
		objects[class] = append(objects[class], added(class, ref, record))
	}
	for i := range n {
		ref := func(kind string) string { return fmt.Sprintf("OpaqueRef:%s-%08d-0000-0000-0000-000000000000", kind, i) }
		uuid := func(kind string) string { return fmt.Sprintf("%s-%08d-0000-0000-000000000000", kind, i) }
		owner := Key{"XenInstance", fmt.Sprintf("team-%d", i%50), fmt.Sprintf("vm-%d", i)}
		marks := Marks{Installation: "ours", Ref: owner, UID: uuid("uid"), Self: uuid("vm"), Role: RoleVM}
		vm := xenapi.VM{
			UUID: uuid("vm"), NameLabel: owner.String(), OtherConfig: marks.OtherConfig(), PowerState: xenapi.VMPowerStateRunning,
			Metrics: xenapi.VMMetricsRef(ref("m")), GuestMetrics: xenapi.VMGuestMetricsRef(ref("g")),
			Platform:         map[string]string{"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "viridian": "false", "vga": "std", "videoram": "8"},
			HVMBootParams:    map[string]string{"order": "cd", "firmware": "bios"},
			LastBootedRecord: strings.Repeat("x", 6000), Recommendations: strings.Repeat("y", 1500),
			AllowedOperations: make([]xenapi.VMOperation, 30), CurrentOperations: map[string]xenapi.VMOperation{},
			BlockedOperations: map[xenapi.VMOperation]string{}, XenstoreData: map[string]string{}, NVRAM: map[string]string{},
			MemoryStaticMax: 1 << 30, VCPUsMax: 2, VCPUsAtStartup: 2,
		}
		add("vm", ref("vm"), vm)
		add("vm_metrics", ref("m"), xenapi.VMMetrics{UUID: uuid("m"), VCPUsNumber: 2, VCPUsUtilisation: map[int64]float64{0: .5, 1: .2}})
		add("vm_guest_metrics", ref("g"), xenapi.VMGuestMetrics{
			UUID: uuid("g"), Networks: map[string]string{"0/ip": "10.0.0.1", "0/ipv4/0": "10.0.0.1"},
			OSVersion: map[string]string{"name": "Debian", "distro": "debian", "major": "12"}, Memory: map[string]string{"free": "1"},
			PVDriversVersion: map[string]string{"major": "8", "minor": "3"}, Other: map[string]string{"feature-balloon": "1", "feature-shutdown": "1"},
		})
		add("vdi", ref("d"), xenapi.VDI{UUID: uuid("d"), NameLabel: "root", OtherConfig: marks.OtherConfig(), SMConfig: map[string]string{"vdi_type": "vhd"}, VirtualSize: 8 << 30})
		add("vbd", ref("b"), xenapi.VBD{UUID: uuid("b"), VM: xenapi.VMRef(ref("vm")), VDI: xenapi.VDIRef(ref("d")), UserDevice: "0"})
		add("vif", ref("i"), xenapi.VIF{UUID: uuid("i"), VM: xenapi.VMRef(ref("vm")), MAC: "02:00:00:00:00:01", Device: "0"})
	}
	return objects
}

// memoryPerVM is what a VM with its disk, interface and metrics may cost in memory.
const memoryPerVM = 16 << 10

func TestTenThousandVMsFitIntoMemory(t *testing.T) {
	const n = 10_000
	cache := New(Options{Pool: t.Name(), Installation: "ours"})
	before := heap()
	source := &script{objects: largePool(n)}
	start := time.Now()
	if err := cache.Follow(t.Context(), source, func() {}); !errors.Is(err, errScriptOver) {
		t.Fatal(err)
	}
	took := time.Since(start)
	source.objects = nil
	held := heap() - before
	t.Logf("%d VMs: %d KiB each, taken over in %s", n, held/n/1024, took)
	if held/n > memoryPerVM {
		t.Errorf("a VM costs %d bytes, more than %d", held/n, memoryPerVM)
	}
	runtime.KeepAlive(cache)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func BenchmarkOneChangeAmongTenThousand(b *testing.B) {
	cache := New(Options{Pool: b.Name(), Installation: "ours"})
	objects := largePool(10_000)
	if err := cache.Follow(context.Background(), &script{objects: objects}, func() {}); !errors.Is(err, errScriptOver) {
		b.Fatal(err)
	}
	vm := objects["vm"][5000]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		record := vm.Record.(xenapi.VM)
		record.DomID = int64(i)
		cache.update(tokenAt(i+2), func(batch *batch) { batch.apply(added("vm", vm.Ref, record)) })
	}
}
