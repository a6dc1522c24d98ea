package xencache

import (
	"iter"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// View reads the pool's objects as they were after one batch of events. It is valid inside Cache.View alone;
// the records that it returns are never changed and may be kept. A record that is not there is nil.
type View struct{ s *state }

// Pool returns the pool's own record.
func (v View) Pool() (xenapi.PoolRef, *xenapi.Pool) {
	for ref, row := range v.s.pools.rows {
		return ref, row
	}
	return "", nil
}

// VM returns the VM, template, snapshot or control domain with the reference.
func (v View) VM(ref xenapi.VMRef) *xenapi.VM { return v.s.vms.rows[ref] }

// VMByUUID finds a VM by uuid.
func (v View) VMByUUID(uuid string) (xenapi.VMRef, *xenapi.VM) { return v.s.vms.findUUID(uuid) }

// VMs ranges over all VMs, templates and snapshots included.
func (v View) VMs() iter.Seq2[xenapi.VMRef, *xenapi.VM] { return v.s.vms.all() }

// VMsByMark finds the VMs that carry the owner's mark, in other_config or as their name; copies included.
func (v View) VMsByMark(installation string, owner Key) []xenapi.VMRef {
	return v.s.vmsByMark.find(markKey{installation, owner})
}

// VMsByName finds VMs by name-label. Names are not unique, and people change them.
func (v View) VMsByName(name string) []xenapi.VMRef { return v.s.vmsByName.find(name) }

// SnapshotsOf finds the snapshots of a VM, whoever took them.
func (v View) SnapshotsOf(vm xenapi.VMRef) []xenapi.VMRef { return v.s.snapshotsOfVM.find(vm) }

// VMMetrics returns what the pool measures of a VM.
func (v View) VMMetrics(ref xenapi.VMMetricsRef) *xenapi.VMMetrics { return v.s.vmMetrics.rows[ref] }

// VMGuestMetrics returns what the guest reports; nil until its agent has reported for the first time.
func (v View) VMGuestMetrics(ref xenapi.VMGuestMetricsRef) *xenapi.VMGuestMetrics {
	return v.s.guestMetrics.rows[ref]
}

// VDI returns a disk.
func (v View) VDI(ref xenapi.VDIRef) *xenapi.VDI { return v.s.vdis.rows[ref] }

// VDIByUUID finds a disk by uuid.
func (v View) VDIByUUID(uuid string) (xenapi.VDIRef, *xenapi.VDI) { return v.s.vdis.findUUID(uuid) }

// VDIs ranges over all disks.
func (v View) VDIs() iter.Seq2[xenapi.VDIRef, *xenapi.VDI] { return v.s.vdis.all() }

// VDIsByMark finds the disks that carry the owner's mark; copies included.
func (v View) VDIsByMark(installation string, owner Key) []xenapi.VDIRef {
	return v.s.vdisByMark.find(markKey{installation, owner})
}

// VDISnapshotsOf finds the snapshots of a disk, whoever took them.
func (v View) VDISnapshotsOf(vdi xenapi.VDIRef) []xenapi.VDIRef { return v.s.snapshotsOfVDI.find(vdi) }

// VBD returns a block device: a VM's connection to a disk.
func (v View) VBD(ref xenapi.VBDRef) *xenapi.VBD { return v.s.vbds.rows[ref] }

// VBDsOf finds the block devices of a VM.
func (v View) VBDsOf(vm xenapi.VMRef) []xenapi.VBDRef { return v.s.vbdsOfVM.find(vm) }

// VBDsOfVDI finds the block devices through which VMs use a disk.
func (v View) VBDsOfVDI(vdi xenapi.VDIRef) []xenapi.VBDRef { return v.s.vbdsOfVDI.find(vdi) }

// VIF returns a network interface.
func (v View) VIF(ref xenapi.VIFRef) *xenapi.VIF { return v.s.vifs.rows[ref] }

// VIFsOf finds the network interfaces of a VM.
func (v View) VIFsOf(vm xenapi.VMRef) []xenapi.VIFRef { return v.s.vifsOfVM.find(vm) }

// VIFs ranges over all network interfaces.
func (v View) VIFs() iter.Seq2[xenapi.VIFRef, *xenapi.VIF] { return v.s.vifs.all() }

// SR returns a storage repository.
func (v View) SR(ref xenapi.SRRef) *xenapi.SR { return v.s.srs.rows[ref] }

// SRByUUID finds a storage repository by uuid.
func (v View) SRByUUID(uuid string) (xenapi.SRRef, *xenapi.SR) { return v.s.srs.findUUID(uuid) }

// SRs ranges over all storage repositories.
func (v View) SRs() iter.Seq2[xenapi.SRRef, *xenapi.SR] { return v.s.srs.all() }

// PBDs ranges over the connections of hosts to storage repositories.
func (v View) PBDs() iter.Seq2[xenapi.PBDRef, *xenapi.PBD] { return v.s.pbds.all() }

// SMs ranges over the storage drivers of the pool.
func (v View) SMs() iter.Seq2[xenapi.SMRef, *xenapi.SM] { return v.s.sms.all() }

// Network returns a network.
func (v View) Network(ref xenapi.NetworkRef) *xenapi.Network { return v.s.networks.rows[ref] }

// NetworkByUUID finds a network by uuid.
func (v View) NetworkByUUID(uuid string) (xenapi.NetworkRef, *xenapi.Network) {
	return v.s.networks.findUUID(uuid)
}

// Networks ranges over all networks.
func (v View) Networks() iter.Seq2[xenapi.NetworkRef, *xenapi.Network] { return v.s.networks.all() }

// PIFs ranges over the interfaces of all hosts.
func (v View) PIFs() iter.Seq2[xenapi.PIFRef, *xenapi.PIF] { return v.s.pifs.all() }

// Host returns a host.
func (v View) Host(ref xenapi.HostRef) *xenapi.Host { return v.s.hosts.rows[ref] }

// HostByUUID finds a host by uuid.
func (v View) HostByUUID(uuid string) (xenapi.HostRef, *xenapi.Host) { return v.s.hosts.findUUID(uuid) }

// Hosts ranges over all hosts.
func (v View) Hosts() iter.Seq2[xenapi.HostRef, *xenapi.Host] { return v.s.hosts.all() }

// HostMetrics returns what the pool measures of a host.
func (v View) HostMetrics(ref xenapi.HostMetricsRef) *xenapi.HostMetrics {
	return v.s.hostMetrics.rows[ref]
}

// Task returns a task.
func (v View) Task(ref xenapi.TaskRef) *xenapi.Task { return v.s.tasks.rows[ref] }

// Tasks ranges over all tasks, whoever began them.
func (v View) Tasks() iter.Seq2[xenapi.TaskRef, *xenapi.Task] { return v.s.tasks.all() }
