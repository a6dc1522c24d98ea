package classes

import (
	"testing"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

func TestPlacement(t *testing.T) {
	t.Run("a disabled host takes no VM", func(t *testing.T) {
		s := newSite(t, Guests{})
		vm, host := s.vm("web", false), s.Coordinator()
		s.call("host.disable", host)
		s.refused("NO_HOSTS_AVAILABLE", "VM.start", vm, false, false)
		s.refused("HOST_DISABLED", "VM.start_on", vm, host, false, false)
		s.refused("HOST_DISABLED", "VM.assert_can_boot_here", vm, host)
		s.call("host.enable", host)
		s.call("VM.start", vm, false, false)
	})
	t.Run("too little memory", func(t *testing.T) {
		s := newSite(t, Guests{})
		vm, huge := s.vm("web", false), 100*int(gib)
		s.call("VM.set_memory_limits", vm, huge, huge, huge, huge)
		s.refused("NO_HOSTS_AVAILABLE", "VM.start", vm, false, false)
		params := s.refused("HOST_NOT_ENOUGH_FREE_MEMORY", "VM.start_on", vm, s.Coordinator(), false, false)
		free := s.call("host.compute_free_memory", s.Coordinator())
		if len(params) != 2 || free.(int64) != 64404586496 || params[1] != "64404586496" {
			t.Errorf("needed and free memory %v, compute_free_memory %v, want 64404586496", params, free)
		}
	})
	t.Run("VMs go where there is most room, or where they belong", func(t *testing.T) {
		s := newSite(t, Guests{})
		second := s.host("xs2")
		shared := s.call("VM.create", vmOnNothing(s)).(string)
		s.call("VM.start", shared, false, false)
		if got := s.record("VM", shared).Str("resident_on"); got != s.Coordinator() {
			t.Errorf("started on %s, want the host with more memory, %s", got, s.Coordinator())
		}
		s.call("VM.hard_shutdown", shared)
		s.call("VM.set_affinity", shared, second)
		s.call("VM.start", shared, false, false)
		if got := s.record("VM", shared).Str("resident_on"); got != second {
			t.Errorf("started on %s, want its affinity %s", got, second)
		}
	})
	t.Run("local disks keep a VM on their host", func(t *testing.T) {
		s := newSite(t, Guests{})
		second, vm := s.host("xs2"), s.vm("web", false)
		params := s.refused("VM_REQUIRES_SR", "VM.start_on", vm, second, false, false)
		if len(params) != 2 || params[1] != s.named("SR", "Local storage") {
			t.Errorf("VM_REQUIRES_SR%v, want the local SR", params)
		}
		hosts := s.call("VM.get_possible_hosts", vm).([]string)
		if len(hosts) != 1 || hosts[0] != s.Coordinator() {
			t.Errorf("possible hosts %v, want the first one alone", hosts)
		}
	})
	t.Run("free memory follows VMs", func(t *testing.T) {
		s := newSite(t, Guests{})
		vm, host := s.vm("web", false), s.Coordinator()
		before := s.call("host.compute_free_memory", host).(int64)
		s.call("VM.start", vm, false, false)
		r := s.record("VM", vm)
		if after := s.call("host.compute_free_memory", host).(int64); before-after != memoryInUse(r) {
			t.Errorf("a running VM takes %d, want %d", before-after, memoryInUse(r))
		}
		if free := s.record("host_metrics", s.record("host", host).Str("metrics")).Int("memory_free"); free != before-memoryInUse(r) {
			t.Errorf("host_metrics says %d are free, want %d", free, before-memoryInUse(r))
		}
	})
}

// vmOnNothing is the record of a VM without devices.
func vmOnNothing(s *site) db.Fields {
	template := s.record("VM", s.named("VM", "Other install media"))
	fields := db.Fields{}
	for _, name := range []string{
		"name_label", "name_description", "memory_static_max", "memory_dynamic_max", "memory_dynamic_min",
		"memory_static_min", "VCPUs_params", "VCPUs_max", "VCPUs_at_startup", "actions_after_shutdown", "actions_after_reboot",
		"actions_after_crash", "PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args", "PV_legacy_args",
		"HVM_boot_policy", "HVM_boot_params", "platform", "PCI_bus", "recommendations", "user_version", "affinity",
	} {
		fields[name] = template.Get(name)
	}
	fields["is_a_template"], fields["other_config"] = false, map[string]string{}
	return fields
}
