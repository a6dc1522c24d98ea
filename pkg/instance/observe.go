package instance

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Observe gathers the facts about one instance. It reads memory only: the pool's objects are there already. Names are
// resolved between two looks at them; what changes in between comes as an event.
func Observe(cache *xencache.Cache, in *Inputs, executor *Executor) *Facts {
	f := &Facts{Me: me(in), Prior: in.Object.Status, Copy: in.Copy, CopyProblem: in.CopyProblem, Restores: in.Restores}
	cache.View(func(v xencache.View) {
		f.find(v, in)
		f.findRescue(v)
	})
	f.Want = wanted(in, f.VM, func(ref xenapi.VMRef) (template *Template) { // resolvers look into the cache themselves
		cache.View(func(v xencache.View) { template = observeTemplate(v, ref) })
		return template
	})
	cache.View(func(v xencache.View) {
		f.rescueTemplate(v, executor)
		f.Loose = f.looseDisks(v)
		f.observeResize(v)
		f.Hosts = f.observeHosts(v)
		f.OldFills = f.oldFills(v)
		f.Want.Problems = append(f.Want.Problems, f.duplicateMACs(v)...)
	})
	f.observeMove(cache, in.Resolver)
	if template := f.Want.Source.Template; template != nil && f.VM == nil {
		f.UnknownClone = slices.ContainsFunc(template.Cloning, func(task xenapi.TaskRef) bool { return !executor.Knows(task) })
	}
	return f
}

// me is what the object itself says of who it is and what holds it.
func me(in *Inputs) Me {
	object := in.Object
	return Me{
		Key: keyOf(object), UID: string(object.UID), Installation: in.Installation, Generation: object.Generation,
		BoundUUID:    object.Annotations[v1alpha1.AnnotationVMUUID],
		Deleting:     !object.DeletionTimestamp.IsZero(),
		PowerOnGates: v1alpha1.Gates(object.Annotations, v1alpha1.GatePowerOnPrefix),
		DeleteGates:  v1alpha1.Gates(object.Annotations, v1alpha1.GateDeletePrefix),
		Held:         in.Held, HeldReason: in.HeldReason,
	}
}

// find looks for the instance's VM: by the spec of an adopted one, by the annotation, then by the mark. Of several that
// carry the mark it keeps the one that annotation or status names, else one whose marks are complete, else the one with
// the smallest uuid: nothing on the wire tells which is older.
func (f *Facts) find(v xencache.View, in *Inputs) {
	named := firstNonEmpty(f.Me.BoundUUID, f.Prior.UUID)
	if existing := in.Object.Spec.Source.Existing; existing != nil {
		named = existing.UUID
	}
	var found []*VM
	if named != "" {
		if ref, record := v.VMByUUID(named); record != nil && !record.IsASnapshot {
			vm := observeVM(v, f.Me.Installation, f.Me.Key, ref)
			if in.AdoptDenied != nil && !isInstanceVM(vm, f.Me) {
				f.Denied = in.AdoptDenied
				return
			}
			found = append(found, vm)
		}
	}
	if in.Object.Spec.Source.Existing == nil {
		found = append(found, f.candidates(v, named)...)
	}
	if len(found) == 0 {
		return
	}
	f.VM = found[0]
	for _, twin := range found[1:] {
		f.Twins = append(f.Twins, *twin)
	}
	f.owner(in)
}

// candidates are the VMs that carry this instance's mark, the best first; the one called named is left out.
func (f *Facts) candidates(v xencache.View, named string) []*VM {
	var found []*VM
	for _, ref := range v.VMsByMark(f.Me.Installation, f.Me.Key) {
		record := v.VM(ref)
		if record == nil || record.IsASnapshot || record.UUID == named {
			continue
		}
		vm := observeVM(v, f.Me.Installation, f.Me.Key, ref)
		// A VM in the trash is found only by its uuid, a copy that somebody made is not ours.
		trashed := vm.OtherConfig[xencache.MarkTrashedAt] != ""
		copied := vm.Marks.IsCopyOf(vm.UUID) && vm.Name != f.Me.MarkName()
		if trashed || copied || !isInstanceVM(vm, f.Me) {
			continue
		}
		found = append(found, vm)
	}
	slices.SortFunc(found, bestFirst)
	return found
}

// bestFirst orders VMs that carry one mark: those whose marks are complete come first.
func bestFirst(a, b *VM) int {
	if complete := b2i(b.Marks.Self == b.UUID) - b2i(a.Marks.Self == a.UUID); complete != 0 {
		return complete
	}
	return strings.Compare(a.UUID, b.UUID)
}

// isInstanceVM tells the instance's own VM from others that carry its ref: a rescue VM, an image made from it.
func isInstanceVM(vm *VM, me Me) bool {
	return vm.Name == me.MarkName() || (me.Owns(vm.Marks) && vm.Marks.Role == xencache.RoleVM)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// owner fills in another living object that the VM's marks name. A mark of another installation is always another's; one
// that was copied along is none.
func (f *Facts) owner(in *Inputs) {
	marks := f.VM.Marks
	if marks.IsZero() || f.Me.Owns(marks) || marks.IsCopyOf(f.VM.UUID) || f.building() {
		return
	}
	switch {
	case marks.Installation != f.Me.Installation:
		f.Owner = marks.Ref.String() + " of installation " + marks.Installation
	case in.OwnerLives(marks.Ref):
		f.Owner = marks.Ref.String()
	}
}

// observeVM translates a VM record and all that hangs on it.
func observeVM(v xencache.View, installation string, key xencache.Key, ref xenapi.VMRef) *VM {
	record := v.VM(ref)
	if record == nil {
		return nil
	}
	vm := &VM{
		Ref: ref, UUID: record.UUID, Name: record.NameLabel, Description: record.NameDescription, Tags: record.Tags,
		Template: record.IsATemplate, Power: v1alpha1.PowerState(record.PowerState), Size: observeSize(record),
		OtherConfig: record.OtherConfig, Platform: record.Platform, VCPUsParams: record.VCPUsParams, MemoryOverhead: record.MemoryOverhead,
		Blocked: map[string]string{}, Marks: xencache.ReadMarks(record.OtherConfig), Running: map[xenapi.TaskRef]string{},
	}
	for operation, text := range record.BlockedOperations {
		vm.Blocked[string(operation)] = text
	}
	for task, operation := range record.CurrentOperations {
		vm.Running[xenapi.TaskRef(task)] = string(operation)
	}
	if metrics := v.VMMetrics(record.Metrics); metrics != nil && metrics.StartTime.Unix() > 0 {
		vm.StartedAt = metrics.StartTime
	}
	if host := v.Host(record.ResidentOn); host != nil {
		vm.HostName, vm.Host = host.NameLabel, record.ResidentOn
	}
	if v.Host(record.Affinity) != nil {
		vm.Affinity = record.Affinity
	}
	vm.Guest = observeGuest(v, record)
	mine := func(marks xencache.Marks) bool { return marks.Installation == installation && marks.Ref == key }
	vm.Disks = observeDisks(v, ref, mine)
	vm.NICs = observeNICs(v, ref, mine)
	return vm
}

func observeSize(record *xenapi.VM) Size {
	number := func(m map[string]string, key string) int64 {
		n, _ := strconv.ParseInt(m[key], 10, 64) // what does not parse is not set
		return n
	}
	return Size{
		VCPUs: record.VCPUsAtStartup, MaxVCPUs: record.VCPUsMax, CoresPerSocket: number(record.Platform, platformCores),
		StaticMin: record.MemoryStaticMin, MinMemory: record.MemoryDynamicMin, Memory: record.MemoryDynamicMax, MaxMemory: record.MemoryStaticMax,
		Weight: number(record.VCPUsParams, paramWeight), Cap: number(record.VCPUsParams, paramCap),
	}
}

// observeGuest reads what the agent reports. Its record stays when the VM is halted, and is stale then.
func observeGuest(v xencache.View, record *xenapi.VM) Guest {
	if record.PowerState != xenapi.VMPowerStateRunning {
		return Guest{}
	}
	metrics := v.VMGuestMetrics(record.GuestMetrics)
	if metrics == nil {
		return Guest{}
	}
	drivers := metrics.PVDriversDetected || len(metrics.PVDriversVersion) > 0
	return Guest{
		Reports:     drivers || len(metrics.OSVersion) > 0,
		CanShutDown: drivers || metrics.Other["feature-shutdown"] == "1",
		CanMove:     drivers || metrics.Other["feature-suspend"] == "1",
		Hotplug:     drivers,
		HotplugCPU:  drivers || metrics.Other["feature-vcpu-hotplug"] == "1",
		Balloon:     drivers,
		Addresses:   guestAddresses(metrics.Networks),
	}
}

// guestAddresses groups addresses by the interface's device number. Keys are 0/ip, 0/ipv4/0, 0/ipv6/0 and so on; the
// first repeats one of the second.
func guestAddresses(networks map[string]string) map[string][]string {
	addresses := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(networks)) {
		device, kind, _ := strings.Cut(key, "/")
		address := networks[key]
		if !strings.HasPrefix(kind, "ip") || address == "" || slices.Contains(addresses[device], address) {
			continue
		}
		addresses[device] = append(addresses[device], address)
	}
	return addresses
}

func observeDisks(v xencache.View, vm xenapi.VMRef, mine func(xencache.Marks) bool) []Disk {
	var disks []Disk
	for _, ref := range v.VBDsOf(vm) {
		record := v.VBD(ref)
		if record == nil {
			continue
		}
		disk := Disk{
			Ref: ref, UUID: record.UUID, Device: record.UserDevice, CD: record.Type != xenapi.VBDTypeDisk, Empty: record.Empty,
			Attached: record.CurrentlyAttached, ReadOnly: record.Mode == xenapi.VBDModeRO, OtherConfig: record.OtherConfig,
			Record: record,
		}
		if vdi := observeVDI(v, record.VDI); vdi != nil {
			disk.VDI = *vdi
			if mine(vdi.Marks) {
				disk.Entry = vdi.Marks.Disk
			}
		}
		if marks := xencache.ReadMarks(record.OtherConfig); mine(marks) && marks.Disk != "" {
			disk.Entry = marks.Disk
		}
		disks = append(disks, disk)
	}
	slices.SortFunc(disks, func(a, b Disk) int { return compareDevices(a.Device, b.Device) })
	return disks
}

// compareDevices orders device numbers as numbers.
func compareDevices(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func observeVDI(v xencache.View, ref xenapi.VDIRef) *VDI {
	record := v.VDI(ref)
	if record == nil {
		return nil
	}
	vdi := &VDI{
		Ref: ref, UUID: record.UUID, Name: record.NameLabel, Description: record.NameDescription, Tags: record.Tags, Size: record.VirtualSize, SR: record.SR,
		OtherConfig: record.OtherConfig, Marks: xencache.ReadMarks(record.OtherConfig), Snapshot: record.IsASnapshot, SnapshotOf: record.SnapshotOf, SRFree: -1,
		Used: record.PhysicalUtilisation, TracksChanges: record.CBTEnabled, Resets: record.OnBoot == xenapi.VDIOnBootReset,
	}
	if sr := v.SR(record.SR); sr != nil {
		vdi.SRName, vdi.SRType, vdi.SRShared = sr.NameLabel, sr.Type, sr.Shared
	}
	for _, user := range v.VBDsOfVDI(ref) {
		vbd := v.VBD(user)
		if vbd == nil {
			continue
		}
		vdi.Attached = vdi.Attached || vbd.CurrentlyAttached
		if vm := v.VM(vbd.VM); vm == nil || !vm.IsControlDomain { // a transfer plugs the disk into dom0 for a while
			vdi.Users++
		}
	}
	return vdi
}

func observeNICs(v xencache.View, vm xenapi.VMRef, mine func(xencache.Marks) bool) []NIC {
	var nics []NIC
	for _, ref := range v.VIFsOf(vm) {
		record := v.VIF(ref)
		if record == nil {
			continue
		}
		nic := NIC{
			Ref: ref, UUID: record.UUID, Device: record.Device, MAC: strings.ToLower(record.MAC), Network: record.Network,
			Attached: record.CurrentlyAttached, OtherConfig: record.OtherConfig, Record: record,
		}
		if network := v.Network(record.Network); network != nil {
			nic.NetworkName = network.NameLabel
		}
		if record.QoSAlgorithmType == rateLimitAlgorithm {
			nic.RateLimit, _ = strconv.ParseInt(record.QoSAlgorithmParams["kbps"], 10, 64) // what does not parse is no limit
		}
		if marks := xencache.ReadMarks(record.OtherConfig); mine(marks) {
			nic.Entry = marks.NIC
		}
		nics = append(nics, nic)
	}
	slices.SortFunc(nics, func(a, b NIC) int { return compareDevices(a.Device, b.Device) })
	return nics
}

// looseDisks are the disks that carry this instance's marks and hang on no VM of its own; on another's they may. A snapshot of a disk, or a copy
// that carries another's uuid, is not the instance's.
func (f *Facts) looseDisks(v xencache.View) []VDI {
	attached := map[xenapi.VDIRef]bool{}
	for _, vm := range append(f.Twins, f.own()...) {
		for _, disk := range vm.Disks {
			attached[disk.VDI.Ref] = true
		}
	}
	var loose []VDI
	for _, ref := range v.VDIsByMark(f.Me.Installation, f.Me.Key) {
		vdi := observeVDI(v, ref)
		if vdi == nil || attached[ref] || vdi.Snapshot || !f.Me.Owns(vdi.Marks) || vdi.Marks.IsCopyOf(vdi.UUID) {
			continue
		}
		loose = append(loose, *vdi)
	}
	slices.SortFunc(loose, func(a, b VDI) int { return strings.Compare(a.UUID, b.UUID) })
	return loose
}

// oldFills are tasks that carry the name of ours; they are looked for only while the config drive is not filled.
func (f *Facts) oldFills(v xencache.View) []xenapi.TaskRef {
	instanceDrive := f.building() && f.Want.Drive != nil
	rescueDrive := f.Rescue != nil && !f.rescueComplete()
	if !instanceDrive && !rescueDrive {
		return nil
	}
	var old []xenapi.TaskRef
	for ref, task := range v.Tasks() {
		if task.NameLabel == f.Me.fillName() {
			old = append(old, ref)
		}
	}
	slices.Sort(old)
	return old
}

// own is the VM as a list.
func (f *Facts) own() []VM {
	if f.VM == nil {
		return nil
	}
	return []VM{*f.VM}
}

// ObserveTask says what has become of a task, from memory.
func ObserveTask(cache *xencache.Cache, ref xenapi.TaskRef) TaskState {
	var state TaskState
	cache.View(func(v xencache.View) {
		task := v.Task(ref)
		if task == nil {
			return
		}
		state = TaskState{Seen: true, Percent: int32(task.Progress * 100)}
		state.Over = task.Status != xenapi.TaskStatusPending && task.Status != xenapi.TaskStatusCancelling
		if state.Over && task.Status != xenapi.TaskStatusSuccess {
			state.Err = taskError(task)
		}
	})
	return state
}

// taskError is the error that a task ended in.
func taskError(task *xenapi.Task) error {
	if len(task.ErrorInfo) == 0 {
		return &xenapi.Error{Code: xenapi.ErrTaskCancelled}
	}
	return &xenapi.Error{Code: xenapi.ErrorCode(task.ErrorInfo[0]), Params: task.ErrorInfo[1:]}
}
