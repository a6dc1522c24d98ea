package datamodel

// End is one end of a relation: a field of a class.
type End struct{ Class, Field string }

// relations pairs the fields that mirror each other (datamodel.ml, all_relations): the reference, then the set that
// the server derives from it. Both ends of a relation between sets are kept.
var relations = [][2]End{
	{{"VM", "snapshot_of"}, {"VM", "snapshots"}},
	{{"VDI", "snapshot_of"}, {"VDI", "snapshots"}},
	{{"VM", "parent"}, {"VM", "children"}},
	{{"task", "subtask_of"}, {"task", "subtasks"}},
	{{"PIF", "bond_slave_of"}, {"Bond", "slaves"}},
	{{"Bond", "master"}, {"PIF", "bond_master_of"}},
	{{"VLAN", "tagged_PIF"}, {"PIF", "VLAN_slave_of"}},
	{{"tunnel", "access_PIF"}, {"PIF", "tunnel_access_PIF_of"}},
	{{"tunnel", "transport_PIF"}, {"PIF", "tunnel_transport_PIF_of"}},
	{{"PBD", "host"}, {"host", "PBDs"}},
	{{"PBD", "SR"}, {"SR", "PBDs"}},
	{{"VBD", "VDI"}, {"VDI", "VBDs"}},
	{{"crashdump", "VDI"}, {"VDI", "crash_dumps"}},
	{{"VBD", "VM"}, {"VM", "VBDs"}},
	{{"crashdump", "VM"}, {"VM", "crash_dumps"}},
	{{"VIF", "VM"}, {"VM", "VIFs"}},
	{{"VIF", "network"}, {"network", "VIFs"}},
	{{"Cluster_host", "cluster"}, {"Cluster", "cluster_hosts"}},
	{{"PIF", "host"}, {"host", "PIFs"}},
	{{"PIF", "network"}, {"network", "PIFs"}},
	{{"VDI", "SR"}, {"SR", "VDIs"}},
	{{"VTPM", "VM"}, {"VM", "VTPMs"}},
	{{"console", "VM"}, {"VM", "consoles"}},
	{{"VM", "resident_on"}, {"host", "resident_VMs"}},
	{{"host_cpu", "host"}, {"host", "host_CPUs"}},
	{{"host_crashdump", "host"}, {"host", "crashdumps"}},
	{{"host_patch", "host"}, {"host", "patches"}},
	{{"host_patch", "pool_patch"}, {"pool_patch", "host_patches"}},
	{{"host", "updates"}, {"pool_update", "hosts"}},
	{{"VM", "protection_policy"}, {"VMPP", "VMs"}},
	{{"VM", "snapshot_schedule"}, {"VMSS", "VMs"}},
	{{"VM", "appliance"}, {"VM_appliance", "VMs"}},
	{{"PGPU", "GPU_group"}, {"GPU_group", "PGPUs"}},
	{{"VGPU", "GPU_group"}, {"GPU_group", "VGPUs"}},
	{{"VGPU", "type"}, {"VGPU_type", "VGPUs"}},
	{{"VGPU", "VM"}, {"VM", "VGPUs"}},
	{{"VGPU", "resident_on"}, {"PGPU", "resident_VGPUs"}},
	{{"PGPU", "supported_VGPU_types"}, {"VGPU_type", "supported_on_PGPUs"}},
	{{"PGPU", "enabled_VGPU_types"}, {"VGPU_type", "enabled_on_PGPUs"}},
	{{"GPU_group", "supported_VGPU_types"}, {"VGPU_type", "supported_on_GPU_groups"}},
	{{"GPU_group", "enabled_VGPU_types"}, {"VGPU_type", "enabled_on_GPU_groups"}},
	{{"PCI", "host"}, {"host", "PCIs"}},
	{{"PGPU", "host"}, {"host", "PGPUs"}},
	{{"VDI", "metadata_of_pool"}, {"pool", "metadata_VDIs"}},
	{{"SR", "introduced_by"}, {"DR_task", "introduced_SRs"}},
	{{"PVS_server", "site"}, {"PVS_site", "servers"}},
	{{"PVS_proxy", "site"}, {"PVS_site", "proxies"}},
	{{"PVS_cache_storage", "site"}, {"PVS_site", "cache_storage"}},
	{{"PUSB", "host"}, {"host", "PUSBs"}},
	{{"PUSB", "USB_group"}, {"USB_group", "PUSBs"}},
	{{"VUSB", "USB_group"}, {"USB_group", "VUSBs"}},
	{{"VUSB", "VM"}, {"VM", "VUSBs"}},
	{{"Feature", "host"}, {"host", "features"}},
	{{"network_sriov", "physical_PIF"}, {"PIF", "sriov_physical_PIF_of"}},
	{{"network_sriov", "logical_PIF"}, {"PIF", "sriov_logical_PIF_of"}},
	{{"Certificate", "host"}, {"host", "certificates"}},
	{{"VM", "groups"}, {"VM_group", "VMs"}},
	{{"Driver_variant", "driver"}, {"Host_driver", "variants"}},
	{{"Caller", "rate_limit"}, {"Rate_limit", "callers"}},
}

// Mirror tells which set mirrors a field that holds references, and whether there is one.
func Mirror(class, field string) (End, bool) {
	end, ok := mirrors[End{class, field}]
	return end, ok
}

// Derived tells which field a set is derived from; such a set is not written directly.
func Derived(class, field string) (End, bool) {
	end, ok := derived[End{class, field}]
	return end, ok
}

var mirrors, derived = func() (map[End]End, map[End]End) {
	to, from := map[End]End{}, map[End]End{}
	for _, r := range relations {
		to[r[0]], from[r[1]] = r[1], r[0]
	}
	return to, from
}()

// silent names the classes whose objects never appear in events (gen_events false in the data model).
var silent = map[string]bool{"session": true, "user": true, "data_source": true, "event": true, "message": true,
	"auth": true, "LVHD": true, "Diagnostics": true, "vdi_nbd_server_info": true, "probe_result": true, "sr_stat": true}

// HasEvents says whether changes of the class's objects appear in events.
func (c *Class) HasEvents() bool { return !silent[c.Name] }
