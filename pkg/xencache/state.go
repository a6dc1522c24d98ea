package xencache

import (
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// markKey is what the indexes by mark are keyed with.
type markKey struct {
	installation string
	owner        Key
}

// state is all that is known of a pool.
type state struct {
	pools        *table[xenapi.PoolRef, xenapi.Pool]
	hosts        *table[xenapi.HostRef, xenapi.Host]
	hostMetrics  *table[xenapi.HostMetricsRef, xenapi.HostMetrics]
	srs          *table[xenapi.SRRef, xenapi.SR]
	pbds         *table[xenapi.PBDRef, xenapi.PBD]
	sms          *table[xenapi.SMRef, xenapi.SM]
	networks     *table[xenapi.NetworkRef, xenapi.Network]
	pifs         *table[xenapi.PIFRef, xenapi.PIF]
	vms          *table[xenapi.VMRef, xenapi.VM]
	vmMetrics    *table[xenapi.VMMetricsRef, xenapi.VMMetrics]
	guestMetrics *table[xenapi.VMGuestMetricsRef, xenapi.VMGuestMetrics]
	vdis         *table[xenapi.VDIRef, xenapi.VDI]
	vbds         *table[xenapi.VBDRef, xenapi.VBD]
	vifs         *table[xenapi.VIFRef, xenapi.VIF]
	tasks        *table[xenapi.TaskRef, xenapi.Task]

	vmsByMark      *index[markKey, xenapi.VMRef, xenapi.VM]
	vmsByName      *index[string, xenapi.VMRef, xenapi.VM]
	vmByMetrics    *index[xenapi.VMMetricsRef, xenapi.VMRef, xenapi.VM]
	vmByGuest      *index[xenapi.VMGuestMetricsRef, xenapi.VMRef, xenapi.VM]
	snapshotsOfVM  *index[xenapi.VMRef, xenapi.VMRef, xenapi.VM]
	vdisByMark     *index[markKey, xenapi.VDIRef, xenapi.VDI]
	snapshotsOfVDI *index[xenapi.VDIRef, xenapi.VDIRef, xenapi.VDI]
	vbdsOfVM       *index[xenapi.VMRef, xenapi.VBDRef, xenapi.VBD]
	vbdsOfVDI      *index[xenapi.VDIRef, xenapi.VBDRef, xenapi.VBD]
	vifsOfVM       *index[xenapi.VMRef, xenapi.VIFRef, xenapi.VIF]
}

func newState() *state {
	s := &state{
		vmsByMark: newIndex[markKey, xenapi.VMRef](func(vm *xenapi.VM) (markKey, bool) {
			return keyOf(VMMarks(vm))
		}),
		vmsByName:   newIndex[string, xenapi.VMRef](func(vm *xenapi.VM) (string, bool) { return vm.NameLabel, true }),
		vmByMetrics: newIndex[xenapi.VMMetricsRef, xenapi.VMRef](func(vm *xenapi.VM) (xenapi.VMMetricsRef, bool) { return present(vm.Metrics) }),
		vmByGuest: newIndex[xenapi.VMGuestMetricsRef, xenapi.VMRef](func(vm *xenapi.VM) (xenapi.VMGuestMetricsRef, bool) {
			return present(vm.GuestMetrics)
		}),
		snapshotsOfVM: newIndex[xenapi.VMRef, xenapi.VMRef](func(vm *xenapi.VM) (xenapi.VMRef, bool) { return present(vm.SnapshotOf) }),
		vdisByMark: newIndex[markKey, xenapi.VDIRef](func(vdi *xenapi.VDI) (markKey, bool) {
			return keyOf(VDIMarks(vdi))
		}),
		snapshotsOfVDI: newIndex[xenapi.VDIRef, xenapi.VDIRef](func(vdi *xenapi.VDI) (xenapi.VDIRef, bool) { return present(vdi.SnapshotOf) }),
		vbdsOfVM:       newIndex[xenapi.VMRef, xenapi.VBDRef](func(vbd *xenapi.VBD) (xenapi.VMRef, bool) { return present(vbd.VM) }),
		vbdsOfVDI:      newIndex[xenapi.VDIRef, xenapi.VBDRef](func(vbd *xenapi.VBD) (xenapi.VDIRef, bool) { return present(vbd.VDI) }),
		vifsOfVM:       newIndex[xenapi.VMRef, xenapi.VIFRef](func(vif *xenapi.VIF) (xenapi.VMRef, bool) { return present(vif.VM) }),
	}
	s.pools = newTable[xenapi.PoolRef](func(r *xenapi.Pool) string { return r.UUID })
	s.hosts = newTable[xenapi.HostRef](func(r *xenapi.Host) string { return r.UUID })
	s.hostMetrics = newTable[xenapi.HostMetricsRef, xenapi.HostMetrics](nil)
	s.srs = newTable[xenapi.SRRef](func(r *xenapi.SR) string { return r.UUID })
	s.pbds = newTable[xenapi.PBDRef, xenapi.PBD](nil)
	s.sms = newTable[xenapi.SMRef, xenapi.SM](nil)
	s.networks = newTable[xenapi.NetworkRef](func(r *xenapi.Network) string { return r.UUID })
	s.pifs = newTable[xenapi.PIFRef, xenapi.PIF](nil)
	s.vms = newTable[xenapi.VMRef](func(r *xenapi.VM) string { return r.UUID },
		s.vmsByMark, s.vmsByName, s.vmByMetrics, s.vmByGuest, s.snapshotsOfVM)
	s.vmMetrics = newTable[xenapi.VMMetricsRef, xenapi.VMMetrics](nil)
	s.guestMetrics = newTable[xenapi.VMGuestMetricsRef, xenapi.VMGuestMetrics](nil)
	s.vdis = newTable[xenapi.VDIRef](func(r *xenapi.VDI) string { return r.UUID }, s.vdisByMark, s.snapshotsOfVDI)
	s.vbds = newTable[xenapi.VBDRef, xenapi.VBD](nil, s.vbdsOfVM, s.vbdsOfVDI)
	s.vifs = newTable[xenapi.VIFRef, xenapi.VIF](nil, s.vifsOfVM)
	s.tasks = newTable[xenapi.TaskRef, xenapi.Task](nil)
	return s
}

// VMMarks reads the marks of a VM: its own in other_config, else its name if that is a mark, else what other_config says.
func VMMarks(vm *xenapi.VM) Marks { return marksOf(vm.UUID, vm.OtherConfig, vm.NameLabel) }

// VDIMarks reads the marks of a disk, as VMMarks does.
func VDIMarks(vdi *xenapi.VDI) Marks { return marksOf(vdi.UUID, vdi.OtherConfig, vdi.NameLabel) }

// marksOf prefers the name where it is a mark: a fresh clone still carries its source's other_config, and its name
// is the only thing about it that is its own. Marks that name the object itself are no copy, and a name, which other
// people give too, does not outdo them.
func marksOf(uuid string, otherConfig map[string]string, name string) Marks {
	marks := ReadMarks(otherConfig)
	if marks.Self != "" && marks.Self == uuid {
		return marks
	}
	if named, ok := ParseMarkName(name); ok {
		return named
	}
	return marks
}

func keyOf(m Marks) (markKey, bool) {
	return markKey{m.Installation, m.Ref}, !m.IsZero()
}

// present tells a reference from the null reference.
func present[R interface {
	~string
	IsNull() bool
}](ref R) (R, bool) {
	return ref, !ref.IsNull()
}

// counts returns the number of rows by class, as events name them.
func (s *state) counts() map[string]int {
	return map[string]int{
		"pool": len(s.pools.rows), "host": len(s.hosts.rows), "host_metrics": len(s.hostMetrics.rows),
		"sr": len(s.srs.rows), "pbd": len(s.pbds.rows), "sm": len(s.sms.rows), "network": len(s.networks.rows), "pif": len(s.pifs.rows),
		"vm": len(s.vms.rows), "vm_metrics": len(s.vmMetrics.rows), "vm_guest_metrics": len(s.guestMetrics.rows),
		"vdi": len(s.vdis.rows), "vbd": len(s.vbds.rows), "vif": len(s.vifs.rows), "task": len(s.tasks.rows),
	}
}

// refs returns the references of the rows of a class.
func (s *state) refs(class string) []string {
	switch class {
	case "pool":
		return refsOf(s.pools)
	case "host":
		return refsOf(s.hosts)
	case "host_metrics":
		return refsOf(s.hostMetrics)
	case "sr":
		return refsOf(s.srs)
	case "pbd":
		return refsOf(s.pbds)
	case "sm":
		return refsOf(s.sms)
	case "network":
		return refsOf(s.networks)
	case "pif":
		return refsOf(s.pifs)
	case "vm":
		return refsOf(s.vms)
	case "vm_metrics":
		return refsOf(s.vmMetrics)
	case "vm_guest_metrics":
		return refsOf(s.guestMetrics)
	case "vdi":
		return refsOf(s.vdis)
	case "vbd":
		return refsOf(s.vbds)
	case "vif":
		return refsOf(s.vifs)
	case "task":
		return refsOf(s.tasks)
	}
	return nil
}

func refsOf[R ~string, T any](t *table[R, T]) []string {
	refs := make([]string, 0, len(t.rows))
	for ref := range t.rows {
		refs = append(refs, string(ref))
	}
	return refs
}
