package instance

import (
	"slices"
	"strconv"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Facts is what is known of one instance at one moment: who it is, what is asked for, and what the pool has. It is all
// that Decide and Status look at.
type Facts struct {
	Me   Me
	Want Want
	// Prior is the status as it was last stored: latched device numbers, deadlines, what power state was reached.
	Prior v1alpha1.XenInstanceStatus
	// VM is the instance's VM, nil if there is none.
	VM *VM
	// Twins are other VMs that carry this instance's marks.
	Twins []VM
	// Rescue is the VM that takes the place of the instance's own, nil if there is none. RescueTwins are more of them.
	Rescue      *VM
	RescueTwins []VM
	// UnknownRescueClone says of the rescue image what UnknownClone says of the template.
	UnknownRescueClone bool
	// Loose are disks that carry this instance's marks and hang on no VM.
	Loose []VDI
	// Owner is another living object that the VM's marks name, "" if there is none.
	Owner string
	// Denied says why the VM that annotation or spec names may not be looked at, nil if it may: it is not the
	// instance's, and the namespace may not adopt. The VM is not among the facts then.
	Denied *Problem
	// UnknownClone says that a clone or copy of the template is under way which this process did not start: it may be
	// ours from before a restart, so nothing is created until it is over.
	UnknownClone bool
	// OldFills are the tasks of earlier attempts to fill the config drive, which a crash has left.
	OldFills []xenapi.TaskRef
	// Restores are the disks of a backup that this process makes, or has made, by their names there.
	Restores map[string]RestoreState
	// Hosts are the pool's hosts, for placement.
	Hosts []Host
	// RestorePoints are root disks as they were before a resize. Copies are those of them, and of the root disk, that have
	// not got their marks yet.
	RestorePoints, Copies []VDI
	// Copy is a smaller copy of the root disk that this process makes, or has made. CopyProblem is why none can be begun.
	Copy        *CopyState
	CopyProblem *Problem
	// Repositories are where the instance's disks may go when the VM moves; they are looked up only when it may have to.
	Repositories []Repository
	// Move is what a move of the VM's disks has to put right again, nil if there is none.
	Move *MoveFacts
}

// Me is the instance itself, apart from its spec.
type Me struct {
	Key          xencache.Key
	UID          string
	Installation string
	Generation   int64
	// BoundUUID is the annotation that names the VM.
	BoundUUID    string
	Deleting     bool
	PowerOnGates []string
	DeleteGates  []string
	// Held says why nothing may be started, stopped, moved or deleted on the pool at present, "" if it may.
	Held       string
	HeldReason string
}

// MarkName is the name under which the VM is made; it carries it until it is complete.
func (m Me) MarkName() string {
	return xencache.MarkName(m.Installation, m.Key, xencache.RoleVM)
}

// fillName is the name of the task that fills the config drive. It is the mark by which one is found again whose manager
// has died.
func (m Me) fillName() string {
	return xencache.MarkName(m.Installation, m.Key, xencache.RoleConfigDrive)
}

// Marks are the marks of an object of this instance.
func (m Me) Marks(role xencache.Role, self string) xencache.Marks {
	return xencache.Marks{Installation: m.Installation, Ref: m.Key, UID: m.UID, Self: self, Role: role}
}

// Owns reports whether the marks name this instance. The uid is only an incarnation.
func (m Me) Owns(marks xencache.Marks) bool {
	return marks.Installation == m.Installation && marks.Ref == m.Key
}

// VM is one virtual machine as the pool shows it.
type VM struct {
	Ref         xenapi.VMRef
	UUID        string
	Name        string
	Description string
	Tags        []string
	Template    bool
	Power       v1alpha1.PowerState
	Size        Size
	OtherConfig map[string]string
	Platform    map[string]string
	VCPUsParams map[string]string
	// Blocked are the operations that someone has blocked, each with the reason given.
	Blocked map[string]string
	Marks   xencache.Marks
	// StartedAt is the last boot or reboot, zero if the VM never ran.
	StartedAt time.Time
	HostName  string
	// Host is where it runs, Affinity where it should rather start; either may be none.
	Host, Affinity xenapi.HostRef
	// MemoryOverhead is what it costs a host beside its own memory, in bytes.
	MemoryOverhead int64
	Guest          Guest
	// Running are the operations under way on it, by task.
	Running map[xenapi.TaskRef]string
	Disks   []Disk
	NICs    []NIC
}

// Size is what a flavor sets, in the pool's terms. Memory is in bytes; 0 means not set.
type Size struct {
	VCPUs, MaxVCPUs, CoresPerSocket int64
	MinMemory, Memory, MaxMemory    int64
	Weight, Cap                     int64
	// StaticMin is the least that memory can be changed to while the guest runs. It follows from MinMemory and is not
	// asked for.
	StaticMin int64 `json:"-"`
}

// Guest is what the agent in the guest reports.
type Guest struct {
	// Reports says that an agent is there and alive.
	Reports bool
	// CanShutDown says that a clean shutdown or reboot is possible.
	CanShutDown bool
	// CanMove says that it can be suspended, and moved to another host while it runs.
	CanMove bool
	// Hotplug says that disks and network interfaces can come and go while it runs. HotplugCPU says it of VCPUs, which can
	// only come, and Balloon that its memory can be changed.
	Hotplug, HotplugCPU, Balloon bool
	// Addresses by the device number of the interface.
	Addresses map[string][]string
}

// Disk is a virtual block device and what is in it.
type Disk struct {
	Ref      xenapi.VBDRef
	UUID     string
	Device   string
	Entry    string
	CD       bool
	Empty    bool
	Attached bool
	ReadOnly bool
	// OtherConfig is the block device's own other_config.
	OtherConfig map[string]string
	// Record is the block device as the pool has it.
	Record *xenapi.VBD
	VDI    VDI
}

// VDI is a disk in a storage repository.
type VDI struct {
	Ref         xenapi.VDIRef
	UUID        string
	Name        string
	Description string
	Tags        []string
	Size        int64
	// Used is what it takes of its storage repository, in bytes.
	Used        int64
	SR          xenapi.SRRef
	SRName      string
	SRType      string
	SRShared    bool
	OtherConfig map[string]string
	Marks       xencache.Marks
	// TracksChanges and Resets say what keeps it where it is: changed block tracking, and being reset at each boot.
	TracksChanges, Resets bool
	// Attached says that some running VM has it plugged.
	Attached bool
	// Users is how many block devices of VMs hold it; those of dom0, which come and go with transfers, apart.
	Users    int
	Snapshot bool
	// SnapshotOf is the disk that it is a snapshot of, if it is one.
	SnapshotOf xenapi.VDIRef
	// SRFree is what its storage repository has free, in bytes, -1 where it does not tell.
	SRFree int64
	// Chain is how many disks stand behind it at least; it is looked up for a root disk alone.
	Chain int
}

// NIC is a virtual network interface.
type NIC struct {
	Ref         xenapi.VIFRef
	UUID        string
	Device      string
	Entry       string
	MAC         string
	Network     xenapi.NetworkRef
	NetworkName string
	Attached    bool
	RateLimit   int64
	OtherConfig map[string]string
	// Record is the interface as the pool has it.
	Record *xenapi.VIF
}

// Host is a member of the pool as far as placement goes. Memory is in bytes.
type Host struct {
	Ref         xenapi.HostRef
	UUID        string
	Name        string
	Enabled     bool
	Live        bool
	CPUs        int64
	MemoryTotal int64
	MemoryFree  int64
	// Sees are the storage repositories that it is connected to, Lacks those of the VM's networks that it does not reach.
	Sees  map[xenapi.SRRef]bool
	Lacks map[xenapi.NetworkRef]bool
	// Management is the network on which other hosts reach it.
	Management xenapi.NetworkRef
}

// building reports whether the VM is still being made: its mark-name goes only when everything else is there.
func (f *Facts) building() bool {
	return f.VM != nil && f.VM.Name == f.Me.MarkName()
}

// halted reports whether the VM is there and off.
func (f *Facts) halted() bool {
	return f.VM != nil && f.VM.Power == v1alpha1.PowerStateHalted
}

// running reports whether the guest executes.
func (f *Facts) running() bool {
	return f.VM != nil && f.VM.Power == v1alpha1.PowerStateRunning
}

// diskAt finds the block device with a device number; CDs included.
func (vm *VM) diskAt(device string) *Disk {
	i := slices.IndexFunc(vm.Disks, func(d Disk) bool { return d.Device == device })
	if i < 0 {
		return nil
	}
	return &vm.Disks[i]
}

// isRoot reports whether it is what the VM boots from. The root disk has a name of its own in the marks, which a data disk
// may have too.
func (d *Disk) isRoot() bool { return d.Device == strconv.Itoa(rootDevice) }

// rootDisk is the disk that the VM boots from: device 0.
func (vm *VM) rootDisk() *Disk {
	disk := vm.diskAt(strconv.Itoa(rootDevice))
	if disk == nil || disk.CD || disk.VDI.Ref.IsNull() {
		return nil
	}
	return disk
}

// neverRan reports whether the VM was never booted.
func (vm *VM) neverRan() bool {
	return vm.StartedAt.IsZero() && vm.Power == v1alpha1.PowerStateHalted
}
