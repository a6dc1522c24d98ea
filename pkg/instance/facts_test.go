package instance

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// The instance and the moment of all tests on values.
var (
	testKey  = xencache.Key{Kind: "XenInstance", Namespace: "team-a", Name: "web"}
	testTime = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
)

const (
	gib      = int64(1) << 30
	testUUID = "11111111-1111-1111-1111-111111111111"
	testRoot = "22222222-2222-2222-2222-222222222222"
)

// factsOption changes facts.
type factsOption func(*Facts)

// given are facts about an instance that asks for a small VM from a template, and that has none yet.
func given(options ...factsOption) *Facts {
	size := Size{VCPUs: 2, MaxVCPUs: 2, MinMemory: 2 * gib, Memory: 2 * gib, MaxMemory: 2 * gib}
	f := &Facts{
		Me: Me{Key: testKey, UID: "uid-1", Installation: "home", Generation: 1},
		Want: Want{
			Name: "team-a/web", Flavor: "small", Size: &size, DisksListed: true, NICsListed: true,
			Source: Source{Template: &Template{Ref: "template", Name: "debian", RootSize: 4 * gib, RootSR: "sr"}},
			Disks: []WantDisk{{
				Name: rootName, Role: xencache.RoleRootDisk, Device: "0", Size: 10 * gib, SR: "sr", Cloned: true, Bootable: true, DeleteOnEnd: true,
			}},
			NICs:  []WantNIC{{Name: "lan", Device: "0", Network: "net", MAC: "02:00:00:00:00:01"}},
			Power: v1alpha1.PowerStateRunning, Drift: v1alpha1.PowerDriftEnforce, DriftGrace: 30 * time.Second,
			Off: v1alpha1.PowerOffTrySoft, OffTimeout: 300 * time.Second, Deletion: v1alpha1.DeletionTrash,
		},
		Hosts: []Host{{Ref: "host", Name: "xs1", Enabled: true, Live: true, Sees: map[xenapi.SRRef]bool{"sr": true}, CPUs: 16, MemoryTotal: 64 * gib, MemoryFree: 32 * gib}},
	}
	for _, option := range options {
		option(f)
	}
	return f
}

// complete gives the instance a VM that is as asked, in a power state.
func complete(power v1alpha1.PowerState) factsOption {
	return func(f *Facts) {
		marks := f.Me.Marks(xencache.RoleVM, testUUID)
		f.VM = &VM{
			Ref: "vm", UUID: testUUID, Name: f.Want.Name, Power: power, Size: *f.Want.Size,
			Marks: marks, OtherConfig: marks.OtherConfig(), StartedAt: testTime.Add(-time.Hour),
			Blocked: map[string]string{}, Running: map[xenapi.TaskRef]string{},
			Disks: []Disk{{Ref: "vbd", UUID: "vbd-uuid", Device: "0", Attached: power == v1alpha1.PowerStateRunning}},
			NICs: []NIC{{
				Ref: "vif", UUID: "vif-uuid", Device: "0", Entry: "lan", MAC: "02:00:00:00:00:01", Network: "net",
				Attached: power == v1alpha1.PowerStateRunning,
			}},
		}
		f.VM.OtherConfig[markFlavor] = writeFlavorMark(&f.Want)
		vdi := VDI{Ref: "vdi", UUID: testRoot, Size: 10 * gib, SR: "sr", Attached: power == v1alpha1.PowerStateRunning, Users: 1}
		vdi.OtherConfig = f.diskMarks(f.Want.Disks[0], testRoot)
		vdi.Marks = xencache.ReadMarks(vdi.OtherConfig)
		f.VM.Disks[0].VDI, f.VM.Disks[0].Entry = vdi, rootName
		if power == v1alpha1.PowerStateRunning {
			f.VM.Guest = Guest{Reports: true, CanShutDown: true, Hotplug: true, Addresses: map[string][]string{"0": {"10.0.0.5"}}}
		}
		f.Want.Source.Template = nil
		f.Prior.UUID = testUUID
		f.Prior.PowerState = power
		f.Prior.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionPowerStateSynced, Status: metav1.ConditionTrue, Reason: powerReasons[power],
		}}
		if power != f.Want.Power {
			f.Prior.Conditions[0].Status, f.Prior.Conditions[0].Reason = metav1.ConditionFalse, v1alpha1.ReasonProgressing
		}
	}
}

// unfinishedClone gives the instance the VM that a clone has just made: the template's size, disk and interface, no
// marks but the name.
func unfinishedClone(f *Facts) {
	f.VM = &VM{
		Ref: "vm", UUID: testUUID, Name: f.Me.MarkName(), Template: true, Power: v1alpha1.PowerStateHalted,
		Size:        Size{VCPUs: 1, MaxVCPUs: 1, MinMemory: gib, Memory: gib, MaxMemory: gib},
		OtherConfig: map[string]string{"mac_seed": "x", provisionKey: "<provision/>", xencache.MarkRole: "image"},
		Blocked:     map[string]string{}, Running: map[xenapi.TaskRef]string{},
		Disks: []Disk{{Ref: "vbd", UUID: "vbd-uuid", Device: "0", VDI: VDI{Ref: "vdi", UUID: testRoot, Size: 4 * gib, SR: "sr", Users: 1}}},
		NICs:  []NIC{{Ref: "template-vif", UUID: "template-vif-uuid", Device: "0", MAC: "02:aa:bb:cc:dd:ee", Network: "net"}},
	}
}

// wanting changes what is asked for.
func wanting(change func(*Want)) factsOption { return func(f *Facts) { change(&f.Want) } }

// having changes the VM.
func having(change func(*VM)) factsOption { return func(f *Facts) { change(f.VM) } }

// deleting has the object deleted.
func deleting(policy v1alpha1.DeletionPolicy) factsOption {
	return func(f *Facts) { f.Me.Deleting, f.Want.Deletion = true, policy }
}

// priorly changes the stored status.
func priorly(change func(*v1alpha1.XenInstanceStatus)) factsOption {
	return func(f *Facts) { change(&f.Prior) }
}

// wasRunning says that the VM was Running as asked when the status was written last.
func wasRunning(f *Facts) {
	f.Prior.PowerState = v1alpha1.PowerStateRunning
	f.Prior.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionPowerStateSynced, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonRunning}}
}

// captured says that a snapshot with memory is being taken of the VM.
func captured(f *Facts) { f.VM.Running["task"] = string(xenapi.VMOperationCheckpoint) }

// noAgent takes the guest's agent away.
func noAgent(f *Facts) { f.VM.Guest = Guest{} }

// dataDisk asks for a data disk.
func dataDisk(name, device string, size int64) factsOption {
	return wanting(func(w *Want) {
		w.Disks = append(w.Disks, WantDisk{Name: name, Role: xencache.RoleDataDisk, Device: device, Size: size, SR: "sr"})
	})
}

// attached puts a data disk of ours on the VM.
func attached(name, device string, size int64, otherConfig map[string]string) factsOption {
	return func(f *Facts) {
		want := WantDisk{Name: name, Role: xencache.RoleDataDisk}
		marks := f.diskMarks(want, name+"-uuid")
		maps.Copy(marks, otherConfig)
		f.VM.Disks = append(f.VM.Disks, Disk{
			Ref: xenapi.VBDRef(name + "-vbd"), UUID: name + "-vbd-uuid", Device: device, Entry: name, Attached: f.VM.Power == v1alpha1.PowerStateRunning,
			VDI: VDI{
				Ref: xenapi.VDIRef(name + "-vdi"), UUID: name + "-uuid", Size: size, SR: "sr", OtherConfig: marks,
				Marks: xencache.ReadMarks(marks), Attached: f.VM.Power == v1alpha1.PowerStateRunning, Users: 1,
			},
		})
	}
}
