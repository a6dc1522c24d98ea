package snapshot

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// MarkInstance is the key of other_config under which a snapshot names the uuid of the VM that it is of: snapshot_of dangles
// once that VM is destroyed.
const MarkInstance = "kubexen.io/instance-uuid"

// rootName is the name of the root disk, rootDevice its position.
const (
	rootName   = "root"
	rootDevice = "0"
)

// Snapshot is what is asked, and by whom.
type Snapshot struct {
	// Key names it in marks, UID is its incarnation.
	Key xencache.Key
	UID string
	// Spec is what is asked.
	Spec *v1alpha1.XenSnapshotSpec
	// KnownUUID is the snapshot VM that status or annotation name, "" if none was known.
	KnownUUID string
}

// MarkName is the name under which the snapshot is taken.
func (s Snapshot) MarkName(installation string) string {
	return xencache.MarkName(installation, s.Key, xencache.RoleSnapshot)
}

// Facts are what a pool shows of a snapshot and of the VM that it is of.
type Facts struct {
	// Source is the VM to capture, nil if it is not there (any more).
	Source *Source
	// Local is the snapshot on the pool, nil if there is none.
	Local *Local
	// Twins are further ones with the same mark.
	Twins []Local
}

// Source is a VM to be captured.
type Source struct {
	Ref         xenapi.VMRef
	UUID, Name  string
	Power       xenapi.VMPowerState
	OtherConfig map[string]string
	// Running are the operations under way on it, by task.
	Running map[xenapi.TaskRef]string
	// Disks are its disks, the config drive among them.
	Disks []Disk
}

// inRescue reports whether another VM runs in the place of this one.
func (s *Source) inRescue() bool { return s.operation() == "Rescue" }

// changing reports whether the VM is on its way to another size, or to other disks.
func (s *Source) changing() bool { return s.operation() != "" }

// operation is what the journal on the VM is of, "" without one.
func (s *Source) operation() string {
	var journal struct {
		Operation string `json:"operation"`
		VM        string `json:"vm"`
	}
	if json.Unmarshal([]byte(s.OtherConfig[xencache.MarkJournal]), &journal) != nil || journal.VM != s.UUID {
		return ""
	}
	return journal.Operation
}

// Local is a snapshot VM.
type Local struct {
	Ref         xenapi.VMRef
	UUID, Name  string
	OtherConfig map[string]string
	Marks       xencache.Marks
	TakenAt     time.Time
	// Memory is the image of the guest's memory, null without one.
	Memory xenapi.VDIRef
	// Disks are those that were captured.
	Disks []Disk
	// VM is the whole record: the manifest is written from it.
	VM *xenapi.VM
	// NICs are its interfaces, by device.
	NICs []NIC
}

// Disk is a disk of the VM, or of the snapshot.
type Disk struct {
	Name   string
	Device int32
	Ref    xenapi.VDIRef
	UUID   string
	Size   int64 // bytes, as the guest sees it
	SR     xenapi.SRRef
	// Drive says that it is the config drive.
	Drive bool
	// Links is how many disks stand behind it in its chain, as far as the storage tells.
	Links int
	// Shared says that somebody else uses the disk too.
	Shared   bool
	Snapshot bool
	Bootable bool
}

// NIC is an interface of the VM when it was captured.
type NIC struct {
	Name, Device, MAC, Network string
}

// Observe reads what the pool shows. sourceUUID is the VM of the instance, "" if it has none.
func Observe(v xencache.View, installation string, s Snapshot, sourceUUID string) Facts {
	var f Facts
	if ref, record := v.VMByUUID(sourceUUID); record != nil && !record.IsASnapshot {
		f.Source = observeSource(v, ref, record)
	}
	for _, ref := range v.VMsByMark(installation, s.Key) {
		record := v.VM(ref)
		marks := xencache.VMMarks(record)
		if !record.IsASnapshot || marks.Role != xencache.RoleSnapshot || marks.IsCopyOf(record.UUID) {
			continue
		}
		f.Twins = append(f.Twins, observeLocal(v, ref, record, marks))
	}
	slices.SortFunc(f.Twins, func(a, b Local) int {
		return cmp.Or(rank(a, s)-rank(b, s), strings.Compare(a.UUID, b.UUID))
	})
	if len(f.Twins) > 0 {
		f.Local, f.Twins = &f.Twins[0], f.Twins[1:]
	}
	return f
}

// rank orders snapshots with the same mark: the known one first, then one with all its marks.
func rank(l Local, s Snapshot) int {
	switch {
	case l.UUID == s.KnownUUID:
		return 0
	case l.Marks.Self == l.UUID:
		return 1
	}
	return 2
}

func observeSource(v xencache.View, ref xenapi.VMRef, record *xenapi.VM) *Source {
	source := &Source{
		Ref: ref, UUID: record.UUID, Name: record.NameLabel, Power: record.PowerState, OtherConfig: record.OtherConfig,
		Running: map[xenapi.TaskRef]string{}, Disks: observeDisks(v, ref),
	}
	for task, operation := range record.CurrentOperations {
		source.Running[xenapi.TaskRef(task)] = string(operation)
	}
	return source
}

func observeLocal(v xencache.View, ref xenapi.VMRef, record *xenapi.VM, marks xencache.Marks) Local {
	local := Local{
		Ref: ref, UUID: record.UUID, Name: record.NameLabel, OtherConfig: record.OtherConfig, Marks: marks,
		TakenAt: record.SnapshotTime, Memory: record.SuspendVDI, Disks: observeDisks(v, ref), VM: record,
	}
	for _, vifRef := range v.VIFsOf(ref) {
		vif := v.VIF(vifRef)
		nic := NIC{Name: xencache.ReadMarks(vif.OtherConfig).NIC, Device: vif.Device, MAC: vif.MAC}
		if network := v.Network(vif.Network); network != nil {
			nic.Network = network.NameLabel
		}
		local.NICs = append(local.NICs, nic)
	}
	slices.SortFunc(local.NICs, func(a, b NIC) int { return strings.Compare(a.Device, b.Device) })
	return local
}

func observeDisks(v xencache.View, vm xenapi.VMRef) []Disk {
	var disks []Disk
	for _, ref := range v.VBDsOf(vm) {
		vbd := v.VBD(ref)
		vdi := v.VDI(vbd.VDI)
		if vbd.Type != xenapi.VBDTypeDisk || vdi == nil {
			continue // a CD is not captured: the snapshot has the very same one
		}
		marks := xencache.ReadMarks(vdi.OtherConfig)
		entry := xencache.ReadMarks(vbd.OtherConfig).Disk     // the instance's own word; a disk may have been another's
		device, _ := strconv.ParseInt(vbd.UserDevice, 10, 32) // what is no number is at the first position
		disk := Disk{
			Name: cmp.Or(entry, marks.Disk), Device: int32(device), Ref: vbd.VDI, UUID: vdi.UUID, Size: vdi.VirtualSize, SR: vdi.SR,
			Drive: marks.Role == xencache.RoleConfigDrive, Links: links(v, vdi), Snapshot: vdi.IsASnapshot, Bootable: vbd.Bootable,
		}
		switch {
		case vbd.UserDevice == rootDevice:
			disk.Name = rootName
		case disk.Name == "" || disk.Name == rootName:
			disk.Name = "disk" + vbd.UserDevice
		}
		for _, user := range v.VBDsOfVDI(vbd.VDI) {
			other := v.VBD(user)
			if owner := v.VM(other.VM); other.VM != vm && (owner == nil || !owner.IsControlDomain) {
				disk.Shared = true
			}
		}
		disks = append(disks, disk)
	}
	slices.SortFunc(disks, func(a, b Disk) int { return cmp.Or(int(a.Device-b.Device), strings.Compare(a.UUID, b.UUID)) })
	for i := range disks { // files are named after them
		if slices.ContainsFunc(disks[:i], func(other Disk) bool { return other.Name == disks[i].Name }) {
			disks[i].Name = fmt.Sprint("disk", disks[i].Device)
		}
	}
	return disks
}

// parentKey is where VHD storage drivers name the disk behind a disk.
const parentKey = "vhd-parent"

// links counts the disks behind a disk, as far as the storage names them. Living snapshots tell nothing: many may stand on
// one base, and bases stay for a while when their snapshots are gone. A storage that names no parents refuses by itself.
func links(v xencache.View, vdi *xenapi.VDI) int {
	named := 0
	for at := vdi; at != nil && named <= maxLinks; named++ {
		parent := at.SMConfig[parentKey]
		if parent == "" {
			break
		}
		_, at = v.VDIByUUID(parent)
	}
	return named
}

// Root returns the root disk, nil without one.
func Root(disks []Disk) *Disk {
	for i := range disks {
		if disks[i].Name == rootName {
			return &disks[i]
		}
	}
	return nil
}

// Captured are the disks that the snapshot is of: without the config drive, which a checkpoint takes along.
func (l *Local) Captured() []Disk {
	return slices.DeleteFunc(slices.Clone(l.Disks), func(d Disk) bool { return d.Drive })
}
