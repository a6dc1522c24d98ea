package xencache

import (
	"reflect"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// classes are what we follow, in the order in which they are read at first: what others refer to comes before them.
var classes = []string{
	"pool", "host", "host_metrics", "sr", "pbd", "sm", "network", "pif",
	"vdi", "vm_metrics", "vm_guest_metrics", "vm", "vbd", "vif", "task",
}

// batch collects whom one batch of events concerns. Owners are looked up only when all of it is applied: an answer
// is not in the order of events, so a VBD may come before its VM.
type batch struct {
	state   *state
	watch   watches
	keys    map[Key]struct{}
	vms     map[xenapi.VMRef]struct{}
	vdis    map[xenapi.VDIRef]struct{}
	ended   []Key
	pool    bool
	counts  bool
	changed bool
	only    string // installation whose marks count
}

func (c *Cache) newBatch() *batch {
	return &batch{
		state: c.state, watch: c.watch, only: c.options.Installation,
		keys: map[Key]struct{}{}, vms: map[xenapi.VMRef]struct{}{}, vdis: map[xenapi.VDIRef]struct{}{},
	}
}

// apply takes one event over into the state.
func (b *batch) apply(e xenapi.Event) {
	s := b.state
	switch e.Class {
	case "pool":
		apply(b, s.pools, e, trimPool, func(_ xenapi.PoolRef, _, _ *xenapi.Pool) { b.pool = true })
	case "host":
		apply(b, s.hosts, e, trimHost, func(_ xenapi.HostRef, _, _ *xenapi.Host) { b.pool = true })
	case "host_metrics":
		apply(b, s.hostMetrics, e, trimHostMetrics, b.hostMetricsChanged)
	case "sr":
		apply(b, s.srs, e, trimSR, b.srChanged)
	case "pbd":
		apply(b, s.pbds, e, func(*xenapi.PBD) {}, func(_ xenapi.PBDRef, _, _ *xenapi.PBD) { b.pool = true })
	case "sm":
		apply(b, s.sms, e, trimSM, func(_ xenapi.SMRef, _, _ *xenapi.SM) {})
	case "network":
		apply(b, s.networks, e, trimNetwork, func(_ xenapi.NetworkRef, _, _ *xenapi.Network) { b.pool = true })
	case "pif":
		apply(b, s.pifs, e, trimPIF, func(_ xenapi.PIFRef, _, _ *xenapi.PIF) {})
	case "vm":
		apply(b, s.vms, e, trimVM, b.vmChanged)
	case "vm_metrics":
		apply(b, s.vmMetrics, e, trimVMMetrics, func(ref xenapi.VMMetricsRef, _, _ *xenapi.VMMetrics) {
			b.touchVMs(s.vmByMetrics.refs[ref])
		})
	case "vm_guest_metrics":
		apply(b, s.guestMetrics, e, trimGuestMetrics, func(ref xenapi.VMGuestMetricsRef, _, _ *xenapi.VMGuestMetrics) {
			b.touchVMs(s.vmByGuest.refs[ref])
		})
	case "vdi":
		apply(b, s.vdis, e, trimVDI, b.vdiChanged)
	case "vbd":
		apply(b, s.vbds, e, trimVBD, b.vbdChanged)
	case "vif":
		apply(b, s.vifs, e, trimVIF, b.vifChanged)
	case "task":
		apply(b, s.tasks, e, trimTask, b.taskChanged)
	}
}

// apply puts one event into its table and notes what changed. A record that differs only in what was trimmed away
// (heart-beats) is no change.
func apply[R ~string, T any](b *batch, t *table[R, T], e xenapi.Event, trim func(*T), changed func(ref R, old, row *T)) {
	ref := R(e.Ref)
	record, ok := e.Record.(T)
	if e.Operation == xenapi.EventOperationDel || !ok {
		if old := t.drop(ref); old != nil {
			b.changed = true
			changed(ref, old, nil)
		}
		return
	}
	trim(&record)
	if old := t.rows[ref]; old != nil && reflect.DeepEqual(*old, record) {
		return
	}
	old := t.put(ref, &record)
	b.changed = true
	changed(ref, old, &record)
}

func (b *batch) vmChanged(ref xenapi.VMRef, old, row *xenapi.VM) {
	b.vms[ref] = struct{}{}
	if old != nil {
		// The VM may have lost its mark or be gone altogether: the present state no longer tells whose it was.
		b.addOwner(VMMarks(old))
		b.watch.of(old.UUID, b.keys)
	}
	if old == nil || row == nil || VMMarks(old) != VMMarks(row) || old.IsATemplate != row.IsATemplate ||
		old.OtherConfig[MarkTrashedAt] != row.OtherConfig[MarkTrashedAt] {
		b.counts = true
	}
}

func (b *batch) vdiChanged(ref xenapi.VDIRef, old, row *xenapi.VDI) {
	b.vdis[ref] = struct{}{}
	if old != nil {
		b.addOwner(VDIMarks(old))
		b.watch.of(old.UUID, b.keys)
	}
	if old == nil || row == nil || VDIMarks(old) != VDIMarks(row) {
		b.counts = true
	}
}

func (b *batch) vbdChanged(_ xenapi.VBDRef, old, row *xenapi.VBD) {
	for _, vbd := range []*xenapi.VBD{old, row} {
		if vbd != nil {
			b.vms[vbd.VM] = struct{}{}
			b.vdis[vbd.VDI] = struct{}{}
		}
	}
}

func (b *batch) vifChanged(_ xenapi.VIFRef, old, row *xenapi.VIF) {
	for _, vif := range []*xenapi.VIF{old, row} {
		if vif != nil {
			b.vms[vif.VM] = struct{}{}
		}
	}
}

func (b *batch) taskChanged(ref xenapi.TaskRef, _, row *xenapi.Task) {
	if row != nil && !taskEnded(row) {
		return
	}
	if key, found := b.watch.takeTask(ref); found {
		b.keys[key] = struct{}{}
		b.ended = append(b.ended, key)
	}
}

// hostMetricsChanged wakes the pool only when a host comes to life or dies: free memory changes all the time.
func (b *batch) hostMetricsChanged(_ xenapi.HostMetricsRef, old, row *xenapi.HostMetrics) {
	if old == nil || row == nil || old.Live != row.Live {
		b.pool = true
	}
}

// srChanged wakes the pool only for what its status shows: utilisation changes all the time.
func (b *batch) srChanged(_ xenapi.SRRef, old, row *xenapi.SR) {
	if old == nil || row == nil || old.NameLabel != row.NameLabel || old.Shared != row.Shared || old.Type != row.Type {
		b.pool = true
	}
}

func (b *batch) touchVMs(refs []xenapi.VMRef) {
	for _, ref := range refs {
		b.vms[ref] = struct{}{}
	}
}

func (b *batch) addOwner(m Marks) {
	if !m.IsZero() && m.Installation == b.only {
		b.keys[m.Ref] = struct{}{}
	}
}

// change looks up whose the touched objects are, now that all of the batch is applied.
func (b *batch) change() Change {
	for ref := range b.vdis {
		if vdi := b.state.vdis.rows[ref]; vdi != nil {
			b.addOwner(VDIMarks(vdi))
			b.watch.of(vdi.UUID, b.keys)
		}
		for _, vbd := range b.state.vbdsOfVDI.refs[ref] {
			b.vms[b.state.vbds.rows[vbd].VM] = struct{}{}
		}
	}
	for ref := range b.vms {
		if vm := b.state.vms.rows[ref]; vm != nil {
			b.addOwner(VMMarks(vm))
			b.watch.of(vm.UUID, b.keys)
		}
	}
	keys := make([]Key, 0, len(b.keys))
	for key := range b.keys {
		keys = append(keys, key)
	}
	return Change{Keys: keys, TasksEnded: b.ended, Pool: b.pool, Counts: b.counts}
}

// replace makes the events, all of them adds, the whole truth about a class: what they do not name is gone.
func (b *batch) replace(class string, events []xenapi.Event) {
	named := make(map[string]struct{}, len(events))
	for _, e := range events {
		if e.Class == class && e.Operation != xenapi.EventOperationDel {
			named[e.Ref] = struct{}{}
			b.apply(e)
		}
	}
	for _, ref := range b.state.refs(class) {
		if _, found := named[ref]; !found {
			b.apply(xenapi.Event{Class: class, Operation: xenapi.EventOperationDel, Ref: ref})
		}
	}
}
