package classes

import (
	"testing"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// shared makes a VM with an agent whose disk is on the shared SR, and starts it on the first host.
func (s *site) shared(name string) (vm, vdi string) {
	s.t.Helper()
	fields := vmOnNothing(s)
	fields["name_label"], fields["xenstore_data"] = name, map[string]string{agentKey: "1"}
	vm, vdi = s.call("VM.create", fields).(string), s.disk("NFS virtual disk storage", int(gib))
	s.vbd(vm, vdi, "0")
	s.call("VM.start_on", vm, s.Coordinator(), false, false)
	return vm, vdi
}

func TestPoolMigrate(t *testing.T) {
	s := newSite(t, Guests{})
	second := s.host("xs2")
	vm, vdi := s.shared("web")
	before := s.record("VM", vm)
	started := s.record("VM_metrics", before.Str("metrics")).Time("start_time")
	s.call("VM.pool_migrate", vm, second, map[string]string{"live": "true"})
	after := s.record("VM", vm)
	switch {
	case after.Str("resident_on") != second || after.Str("power_state") != powerRunning:
		t.Errorf("migrated to %s, %s", after.Str("resident_on"), after.Str("power_state"))
	case after.Str("guest_metrics") != before.Str("guest_metrics"):
		t.Error("the guest has noticed")
	case after.Strs("consoles")[0] == before.Strs("consoles")[0]:
		t.Error("its console is still the old host's")
	case !s.record("VM_metrics", after.Str("metrics")).Time("start_time").Equal(started):
		t.Error("start_time has changed")
	case s.record("VBD", after.Strs("VBDs")[0]).Str("VDI") != vdi:
		t.Error("its disk has changed")
	}
	s.call("host.disable", s.Coordinator())
	s.refused("HOST_DISABLED", "VM.pool_migrate", vm, s.Coordinator(), map[string]string{})
}

func TestPoolMigrateRefusals(t *testing.T) {
	s := newSite(t, Guests{})
	second, local := s.host("xs2"), s.vm("local", true)
	s.refused("VM_BAD_POWER_STATE", "VM.pool_migrate", local, second, map[string]string{})
	s.call("VM.start", local, false, false)
	s.refused("VM_REQUIRES_SR", "VM.pool_migrate", local, second, map[string]string{})
	s.locked(func() { s.SetAgent(local, false) })
	s.refused("VM_LACKS_FEATURE", "VM.pool_migrate", local, second, map[string]string{})
}

func TestMigrateSendMovesDisks(t *testing.T) {
	s := newSite(t, Guests{})
	second, vm := s.host("xs2"), s.vm("web", true)
	nfs := s.named("SR", "NFS virtual disk storage")
	s.call("VM.start", vm, false, false)
	vdi := s.record("VBD", s.record("VM", vm).Strs("VBDs")[0]).Str("VDI")
	s.write(vdi, "contents", 0)
	snapshot := s.call("VDI.snapshot", vdi, map[string]string{}).(string)
	dest := s.call("host.migrate_receive", second, s.named("network", "Pool-wide network associated with eth0"), map[string]string{})
	none := map[string]string{}
	s.call("VDI.add_to_other_config", vdi, "mark", "ours")
	s.refused("VDI_NOT_IN_MAP", "VM.migrate_send", vm, dest, true, none, none, none)
	vif := s.call("VIF.create", db.Fields{"VM": vm, "network": s.named("network", "Pool-wide network associated with eth0"), "device": "7",
		"MAC": "", "MTU": 1500, "other_config": none, "qos_algorithm_type": "", "qos_algorithm_params": none}).(string)
	s.refused("OPERATION_NOT_ALLOWED", "VM.migrate_send", vm, dest, true, map[string]string{vdi: nfs},
		map[string]string{vif: s.named("network", "Pool-wide network associated with eth0")}, none)
	s.call("VM.migrate_send", vm, dest, true, map[string]string{vdi: nfs}, none, none)
	r := s.record("VM", vm)
	moved := s.record("VBD", r.Strs("VBDs")[0]).Str("VDI")
	switch {
	case r.Str("resident_on") != second || r.Str("power_state") != powerRunning:
		t.Errorf("sent to %s, %s", r.Str("resident_on"), r.Str("power_state"))
	case s.exists("VDI", vdi) || s.record("VDI", moved).Str("SR") != nfs:
		t.Errorf("its disk is on %s", s.record("VDI", moved).Str("SR"))
	case len(s.record("VDI", moved).Map("other_config")) != 0:
		t.Errorf("the storage driver has kept %v", s.record("VDI", moved).Map("other_config"))
	case s.read(moved, 0, len("contents")) != "contents":
		t.Error("its disk has lost its contents")
	case s.record("VDI", snapshot).Str("snapshot_of") != moved:
		t.Errorf("the snapshot is of %s, want %s", s.record("VDI", snapshot).Str("snapshot_of"), moved)
	}
}

func TestVDIPoolMigrate(t *testing.T) {
	s := newSite(t, Guests{})
	nfs := s.named("SR", "NFS virtual disk storage")
	s.refused("VDI_NEEDS_VM_FOR_MIGRATE", "VDI.pool_migrate", s.disk("Local storage", int(gib)), nfs, map[string]string{})
	vm := s.vm("web", false)
	vdi := s.record("VBD", s.record("VM", vm).Strs("VBDs")[0]).Str("VDI")
	moved := s.call("VDI.pool_migrate", vdi, nfs, map[string]string{}).(string)
	if moved == vdi || s.record("VBD", s.record("VM", vm).Strs("VBDs")[0]).Str("VDI") != moved || s.exists("VDI", vdi) {
		t.Errorf("moved to %s", moved)
	}
}

func TestEvacuate(t *testing.T) {
	s := newSite(t, Guests{})
	second := s.host("xs2")
	first, local := s.Coordinator(), s.vm("local", true)
	vm, _ := s.shared("web")
	s.call("VM.start", local, false, false)
	reasons := s.call("host.get_vms_which_prevent_evacuation", first).(map[string]any)
	if len(reasons) != 1 || reasons[local] == nil {
		t.Errorf("VMs that stay: %v, want the one with a local disk", reasons)
	}
	s.refused("VM_REQUIRES_SR", "host.evacuate", first)
	s.call("VM.hard_shutdown", local)
	s.call("host.disable", first)
	s.call("host.evacuate", first)
	if got := s.record("VM", vm).Str("resident_on"); got != second {
		t.Errorf("evacuated to %s, want %s", got, second)
	}
	pbd := s.record("SR", s.named("SR", "NFS virtual disk storage")).Strs("PBDs")
	for _, ref := range pbd {
		if s.record("PBD", ref).Str("host") == second {
			s.refused("VDI_IN_USE", "PBD.unplug", ref)
		} else {
			s.call("PBD.unplug", ref)
		}
	}
	if hosts := s.call("VM.get_possible_hosts", vm).([]string); len(hosts) != 1 {
		t.Errorf("possible hosts %v, want only the one that is enabled and sees the disk", hosts)
	}
}

func TestMigrateSendHalted(t *testing.T) {
	s := newSite(t, Guests{})
	second, vm := s.host("xs2"), s.vm("web", false)
	nfs, none := s.named("SR", "NFS virtual disk storage"), map[string]string{}
	vdi := s.record("VBD", s.record("VM", vm).Strs("VBDs")[0]).Str("VDI")
	s.call("VM.snapshot", vm, "before", []string{})
	dest := s.call("host.migrate_receive", second, s.named("network", "Pool-wide network associated with eth0"), none)
	s.call("VDI.enable_cbt", vdi)
	s.refused("VDI_CBT_ENABLED", "VM.migrate_send", vm, dest, true, map[string]string{vdi: nfs}, none, none)
	s.call("VDI.disable_cbt", vdi)
	s.call("host.disable", second)
	s.refused("HOST_DISABLED", "VM.migrate_send", vm, dest, true, map[string]string{vdi: nfs}, none, none)
	s.call("host.enable", second)
	s.call("host.disable", s.Coordinator())
	s.refused("NO_HOSTS_AVAILABLE", "VM.migrate_send", vm, dest, true, map[string]string{vdi: nfs}, none, none)
	s.call("host.enable", s.Coordinator())
	s.call("VM.migrate_send", vm, dest, true, map[string]string{vdi: nfs}, none, none)
	snapshot := s.record("VM", s.record("VM", vm).Strs("snapshots")[0])
	for _, vbd := range []string{s.record("VM", vm).Strs("VBDs")[0], snapshot.Strs("VBDs")[0]} {
		if sr := s.record("VDI", s.record("VBD", vbd).Str("VDI")).Str("SR"); sr != nfs {
			t.Errorf("a disk is on %s", sr)
		}
	}
	if got := s.record("VM", vm); got.Str("power_state") != powerHalted {
		t.Errorf("the VM is %s", got.Str("power_state"))
	}
}
