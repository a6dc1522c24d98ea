package xenapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// simulate starts the demonstration pool and connects to it.
func simulate(t *testing.T, change func(*xensim.Options, *xenapi.Config)) (*xensim.Pool, *xenapi.Client) {
	t.Helper()
	options := xensim.Options{User: "root", Password: "correct horse", ClockScale: 100, DataDir: t.TempDir()}
	cfg := xenapi.Config{Username: "root", Password: "correct horse"}
	if change != nil {
		change(&options, &cfg)
	}
	pool, err := xensim.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	url, err := pool.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Endpoints = []string{url}
	if !options.HTTP && len(cfg.FingerprintsSHA256) == 0 && !cfg.InsecureSkipVerify {
		cfg.CABundle = pool.CACert()
	}
	client, err := xenapi.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return pool, client
}

// localSR finds a local storage repository, and a host that sees it.
func localSR(t *testing.T, c *xenapi.Client) xenapi.SRRef {
	t.Helper()
	srs, err := c.SR.GetAllRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for ref, sr := range srs {
		if sr.ContentType != "iso" && sr.Shared && len(sr.PBDs) > 0 {
			return ref
		}
	}
	t.Fatalf("no storage repository among %d", len(srs))
	return ""
}

func emptyDisk(t *testing.T, c *xenapi.Client, size int64) xenapi.VDIRef {
	t.Helper()
	ref, err := c.VDI.Create(t.Context(), xenapi.VDI{
		NameLabel: "disk", SR: localSR(t, c), VirtualSize: size, Type: xenapi.VDITypeUser, OtherConfig: map[string]string{"a<b>&\"": "ü\n<&>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestEveryClassOfTheSimulatorReads(t *testing.T) {
	t.Parallel()
	_, c := simulate(t, nil)
	for _, class := range []string{"pool", "host", "SR", "PBD", "SM", "VDI", "VBD", "VIF", "network", "PIF", "VM", "VM_metrics", "VM_guest_metrics", "console", "task"} {
		if _, err := c.Call(t.Context(), class+".get_all_records"); err != nil {
			t.Errorf("%s: %v", class, err)
		}
	}
	vms, err := c.VM.GetAllRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for ref, vm := range vms {
		if len(vm.Extra) > 0 || vm.UUID == "" {
			t.Errorf("%s: uuid %q, extra %v", ref, vm.UUID, vm.Extra)
		}
		one, err := c.VM.GetByUUID(t.Context(), vm.UUID)
		if err != nil || one != ref {
			t.Errorf("by uuid: %s, %v", one, err)
		}
	}
	_, err = c.VM.GetRecord(t.Context(), "OpaqueRef:no-such")
	if !errors.Is(err, xenapi.ErrHandleInvalid) {
		t.Errorf("err %v", err)
	}
}

// template copies what VM.create needs from a template, as the operator does.
func newVM(t *testing.T, c *xenapi.Client, name string) xenapi.VMRef {
	t.Helper()
	templates, err := c.VM.GetByNameLabel(t.Context(), "Other install media")
	if err != nil || len(templates) == 0 {
		t.Fatalf("%d templates, %v", len(templates), err)
	}
	record, err := c.VM.GetRecord(t.Context(), templates[0])
	if err != nil {
		t.Fatal(err)
	}
	record.NameLabel, record.IsATemplate, record.OtherConfig = name, false, map[string]string{"mark": name}
	vm, err := c.VM.Create(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestALifeOfAVMWithTasksAndEvents(t *testing.T) {
	t.Parallel()
	_, c := simulate(t, nil)
	ctx := t.Context()
	before, err := c.EventFrom(ctx, []string{"vm", "task"}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	vm := newVM(t, c, "web")
	seen := make(chan xenapi.VMPowerState, 100)
	go func() {
		defer close(seen)
		for token := before.Token; ; {
			batch, err := c.EventFrom(ctx, []string{"vm"}, token, 10*time.Second)
			if err != nil {
				t.Errorf("events: %v", err)
				return
			}
			token = batch.Token
			for _, event := range batch.Events {
				if record, ok := event.Record.(xenapi.VM); ok && xenapi.VMRef(event.Ref) == vm {
					seen <- record.PowerState
				}
				if event.Operation == xenapi.EventOperationDel && xenapi.VMRef(event.Ref) == vm {
					return
				}
			}
		}
	}()
	task, err := c.VM.StartAsync(ctx, vm, false, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitTask(ctx, task, nil); err != nil {
		t.Fatal(err)
	}
	for state := range seen {
		if state == xenapi.VMPowerStateRunning {
			break
		}
	}
	if state, err := c.VM.GetPowerState(ctx, vm); err != nil || state != xenapi.VMPowerStateRunning {
		t.Fatalf("%s, %v", state, err)
	}
	task, err = c.VM.StartAsync(ctx, vm, false, false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.WaitTask(ctx, task, nil)
	var refusal *xenapi.Error
	if !errors.Is(err, xenapi.ErrVMBadPowerState) || !errors.As(err, &refusal) || refusal.Param(2) != "running" {
		t.Errorf("starting it again: %v", err)
	}
	if _, err := c.Task.GetRecord(ctx, task); !errors.Is(err, xenapi.ErrHandleInvalid) {
		t.Errorf("the failed task was not destroyed: %v", err)
	}
	if err := c.VM.HardShutdown(ctx, vm); err != nil {
		t.Fatal(err)
	}
	if err := c.VM.Destroy(ctx, vm); err != nil {
		t.Fatal(err)
	}
	for range seen { // to the event of its end
		continue
	}
}

func TestDisksThereAndBack(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*xensim.Options, *xenapi.Config){
		"https": nil,
		"http":  func(o *xensim.Options, _ *xenapi.Config) { o.HTTP = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c := simulate(t, change)
			const size = 8 << 20
			data := make([]byte, size)
			if _, err := rand.Read(data[1<<20 : 3<<20]); err != nil {
				t.Fatal(err)
			}
			disk := emptyDisk(t, c, size)
			record, err := c.VDI.GetRecord(t.Context(), disk)
			if err != nil || record.OtherConfig["a<b>&\""] != "ü\n<&>" {
				t.Fatalf("%v, %v", record.OtherConfig, err)
			}
			if err := c.ImportVDI(t.Context(), xenapi.ImportVDI{VDI: disk, Body: bytes.NewReader(data), Size: size}); err != nil {
				t.Fatal(err)
			}
			if got := export(t, c, xenapi.ExportVDI{VDI: disk}); !bytes.Equal(got, data) {
				t.Error("the raw disk came back different")
			}
			vhd := export(t, c, xenapi.ExportVDI{VDI: disk, Format: xenapi.FormatVHD})
			if len(vhd) < 2<<20 || len(vhd) > 5<<20 || !bytes.Contains(vhd[:512], []byte("conectix")) {
				t.Errorf("a VHD of %d bytes", len(vhd))
			}
			other := emptyDisk(t, c, size)
			if err := c.ImportVDI(t.Context(), xenapi.ImportVDI{VDI: other, Format: xenapi.FormatVHD, Body: bytes.NewReader(vhd), Size: int64(len(vhd))}); err != nil {
				t.Fatal(err)
			}
			if got := export(t, c, xenapi.ExportVDI{VDI: other}); !bytes.Equal(got, data) {
				t.Error("the disk differs after VHD and back")
			}
		})
	}
}

// TestOnlyWhatChanged takes what changed since a snapshot, and puts it on a copy of that snapshot.
func TestOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	_, c := simulate(t, nil)
	const size = 16 << 20
	data := make([]byte, size)
	if _, err := rand.Read(data[:12<<20]); err != nil {
		t.Fatal(err)
	}
	disk := emptyDisk(t, c, size)
	write := func(vdi xenapi.VDIRef, format xenapi.DiskFormat, body []byte) {
		t.Helper()
		err := c.ImportVDI(t.Context(), xenapi.ImportVDI{VDI: vdi, Format: format, Body: bytes.NewReader(body), Size: int64(len(body))})
		if err != nil {
			t.Fatal(err)
		}
	}
	write(disk, xenapi.FormatRaw, data)
	base, err := c.VDI.Snapshot(t.Context(), disk, nil)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[5<<20:], bytes.Repeat([]byte("changed "), 1<<10))
	write(disk, xenapi.FormatRaw, data[:6<<20]) // what is beyond stays as it was
	changes := export(t, c, xenapi.ExportVDI{VDI: disk, Format: xenapi.FormatVHD, Base: base})
	whole := export(t, c, xenapi.ExportVDI{VDI: disk, Format: xenapi.FormatVHD})
	if len(changes) >= len(whole) {
		t.Errorf("%d bytes of changes, %d of the whole disk", len(changes), len(whole))
	}
	restored, err := c.VDI.Clone(t.Context(), base, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(restored, xenapi.FormatVHD, changes)
	if !bytes.Equal(export(t, c, xenapi.ExportVDI{VDI: restored}), data) {
		t.Error("the snapshot with its changes is not the disk")
	}
}

func export(t *testing.T, c *xenapi.Client, o xenapi.ExportVDI) []byte {
	t.Helper()
	d, err := c.ExportVDI(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(d)
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAVMAsAnArchive(t *testing.T) {
	t.Parallel()
	_, c := simulate(t, nil)
	vm := newVM(t, c, "archived")
	d, err := c.ExportVM(t.Context(), xenapi.ExportVM{VM: vm})
	if err != nil {
		t.Fatal(err)
	}
	xva, err := io.ReadAll(d)
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	vms, err := c.ImportVM(t.Context(), xenapi.ImportVM{SR: localSR(t, c), Body: bytes.NewReader(xva), Size: int64(len(xva))})
	if err != nil || len(vms) != 1 {
		t.Fatalf("%v, %v", vms, err)
	}
	if name, err := c.VM.GetNameLabel(t.Context(), vms[0]); err != nil || name != "archived" {
		t.Errorf("%q, %v", name, err)
	}
	garbage := bytes.Repeat([]byte("no archive"), 1000)
	if _, err := c.ImportVM(t.Context(), xenapi.ImportVM{Body: bytes.NewReader(garbage), Size: int64(len(garbage))}); err == nil {
		t.Error("garbage was imported")
	}
}

func TestConsoleOfARunningVM(t *testing.T) {
	t.Parallel()
	_, c := simulate(t, nil)
	ctx := t.Context()
	vm := newVM(t, c, "screen")
	if err := c.VM.Start(ctx, vm, false, false); err != nil {
		t.Fatal(err)
	}
	record, err := c.VM.GetRecord(ctx, vm)
	if err != nil {
		t.Fatal(err)
	}
	host, err := c.Host.GetRecord(ctx, record.ResidentOn)
	if err != nil {
		t.Fatal(err)
	}
	locations := []string{xenapi.ConsoleLocation(host.Address, record.UUID)}
	for _, ref := range record.Consoles {
		console, err := c.Console.GetRecord(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		if console.Protocol == xenapi.ConsoleProtocolRfb {
			locations = append(locations, console.Location)
		}
	}
	if len(locations) < 2 {
		t.Fatalf("consoles %v", record.Consoles)
	}
	for _, location := range locations {
		conn, err := c.DialConsole(ctx, location)
		if err != nil {
			t.Fatalf("%s: %v", location, err)
		}
		greeting := make([]byte, 12)
		if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting[:4]) != "RFB " {
			t.Errorf("%s: %q, %v", location, greeting, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.VM.HardShutdown(ctx, vm); err != nil {
		t.Fatal(err)
	}
	if conn, err := c.DialConsole(ctx, locations[0]); err == nil {
		conn.Close()
		t.Error("a halted VM has a console")
	}
}

func TestNewerServersLimitConsoles(t *testing.T) {
	t.Parallel()
	_, c := simulate(t, func(o *xensim.Options, _ *xenapi.Config) { o.Profile = "26.17" })
	ctx := t.Context()
	pools, err := c.Pool.GetAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Pool.SetLimitConsoleSessions(ctx, pools[0], true); err != nil {
		t.Fatal(err)
	}
	vm := newVM(t, c, "screen")
	if err := c.VM.Start(ctx, vm, false, false); err != nil {
		t.Fatal(err)
	}
	record, err := c.VM.GetRecord(ctx, vm)
	if err != nil {
		t.Fatal(err)
	}
	address, err := c.Host.GetAddress(ctx, record.ResidentOn)
	if err != nil {
		t.Fatal(err)
	}
	location := xenapi.ConsoleLocation(address, record.UUID)
	first, err := c.DialConsole(ctx, location)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := c.DialConsole(ctx, location); !errors.Is(err, xenapi.ErrConsoleLimit) {
		t.Errorf("a second connection: %v, %v", second, err)
	}
}

func TestAToolstackRestart(t *testing.T) {
	t.Parallel()
	pool, c := simulate(t, nil)
	ctx := t.Context()
	vm := newVM(t, c, "survivor")
	task, err := c.Task.Create(ctx, "a task that the restart loses", "")
	if err != nil {
		t.Fatal(err)
	}
	serial := c.SessionSerial()
	waited := make(chan error, 1)
	go func() { _, err := c.WaitTask(ctx, task, nil); waited <- err }()
	pool.RestartToolstack(0)
	if name, err := c.VM.GetNameLabel(ctx, vm); err != nil || name != "survivor" {
		t.Fatalf("after a restart: %q, %v", name, err)
	}
	if c.SessionSerial() == serial {
		t.Error("the session's serial has not changed")
	}
	if err := <-waited; !errors.Is(err, xenapi.ErrOutcomeUnknown) {
		t.Errorf("waiting for a task that is gone: %v", err)
	}
}

func TestTrustByFingerprint(t *testing.T) {
	t.Parallel()
	pool, c := simulate(t, func(_ *xensim.Options, cfg *xenapi.Config) { cfg.InsecureSkipVerify = true })
	block, _ := pem.Decode(pool.CACert())
	sum := sha256.Sum256(block.Bytes)
	_, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{"https://" + c.Coordinator()}, Username: "root", Password: "correct horse", FingerprintsSHA256: []string{hex.EncodeToString(sum[:])},
	})
	if !errors.Is(err, xenapi.ErrTLSVerification) {
		t.Errorf("the authority's fingerprint in place of the server's: %v", err)
	}
}

// Whatever befalls the connection, a read is read in the end, and a write that may have happened says so.
func TestFaultsOfTheWire(t *testing.T) {
	t.Parallel()
	pool, c := simulate(t, nil)
	vm := newVM(t, c, "unlucky")
	for name, fault := range map[string]xensim.Fault{
		"dropped before": {Call: "VM.get_record", Drop: "before", Count: 2}, "dropped after": {Call: "VM.get_record", Drop: "after", Count: 2},
		"truncated": {Call: "VM.get_record", TruncateBody: 700, Count: 2}, "session lost": {Call: "VM.get_record", LoseSession: true, Count: 1},
		"too busy": {Call: "VM.get_record", Error: "TOO_BUSY", Count: 1},
	} {
		pool.SetFaults([]xensim.Fault{fault})
		record, err := c.VM.GetRecord(t.Context(), vm)
		if err != nil || record.NameLabel != "unlucky" {
			t.Errorf("%s: %q, %v", name, record.NameLabel, err)
		}
	}
	pool.SetFaults([]xensim.Fault{{Call: "VM.set_name_description", Drop: "after", Count: 1}})
	err := c.VM.SetNameDescription(t.Context(), vm, "changed")
	if !xenapi.OutcomeUnknown(err) || xenapi.RetrySafe(err) {
		t.Errorf("a write whose answer was lost: %v", err)
	}
	pool.SetFaults(nil)
	if text, err := c.VM.GetNameDescription(t.Context(), vm); err != nil || text != "changed" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestTheRoleOfCoordinatorMoves(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{false, true} {
		pool, c := simulate(t, nil)
		vm := newVM(t, c, "moved")
		hosts, err := c.Host.GetAllRecords(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pools, err := c.Pool.GetAllRecords(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var old, next xenapi.HostRef
		for _, p := range pools {
			old = p.Master
		}
		for ref, host := range hosts {
			c.AddMembers(host.Address)
			if ref != old {
				next = ref
			}
		}
		before := c.Coordinator()
		if dies {
			if err := pool.KillHost(string(old)); err != nil {
				t.Fatal(err)
			}
		}
		if err := pool.SetCoordinator(string(next)); err != nil {
			t.Fatal(err)
		}
		if name, err := c.VM.GetNameLabel(t.Context(), vm); err != nil || name != "moved" {
			t.Errorf("old coordinator dead %v: %q, %v", dies, name, err)
		}
		if c.Coordinator() == before {
			t.Errorf("old coordinator dead %v: still at %s", dies, before)
		}
	}
}
