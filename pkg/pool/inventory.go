package pool

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// kindInstance is the kind whose VMs are counted as instances.
const kindInstance = "XenInstance"

// Inventory is what a pool holds, as its status shows it.
type Inventory struct {
	Version             string
	Hosts               []v1alpha1.PoolHost
	StorageRepositories []v1alpha1.PoolStorageRepository
	Networks            []v1alpha1.PoolNetwork
	// Instances have their VM here, Unmanaged are VMs of nobody in this installation.
	Instances, Unmanaged int32
	// Trash are our VMs that were deleted and are kept for a while, Marked everything else with our marks.
	Trash  []Trashed
	Marked []Marked
	// Writer is the writer mark, "" if there is none.
	Writer string
}

// Trashed is a VM in the trash.
type Trashed struct {
	Ref       xenapi.VMRef
	UUID      string
	Owner     xencache.Key
	DeletedAt time.Time
}

// Marked is an object with our marks: a VM or a VDI.
type Marked struct {
	Class string
	Ref   string
	UUID  string
	Name  string
	Marks xencache.Marks
	// InUse says that something refers to it, so that it cannot be removed by itself.
	InUse bool
}

// TakeInventory reads what a pool holds.
func TakeInventory(v xencache.View, installation string) Inventory {
	var i Inventory
	if _, record := v.Pool(); record != nil {
		i.Writer = record.OtherConfig[xencache.MarkWriter]
		if coordinator := v.Host(record.Master); coordinator != nil {
			i.Version = productVersion(coordinator)
		}
	}
	for _, host := range v.Hosts() {
		live := v.HostMetrics(host.Metrics)
		i.Hosts = append(i.Hosts, v1alpha1.PoolHost{
			Name: limited(host.NameLabel), UUID: host.UUID, Address: host.Address,
			Enabled: host.Enabled && (live == nil || live.Live),
		})
	}
	for _, sr := range v.SRs() {
		i.StorageRepositories = append(i.StorageRepositories, v1alpha1.PoolStorageRepository{
			Name: limited(sr.NameLabel), UUID: sr.UUID, Type: sr.Type, Shared: sr.Shared,
		})
	}
	for _, network := range v.Networks() {
		i.Networks = append(i.Networks, v1alpha1.PoolNetwork{Name: limited(network.NameLabel), UUID: network.UUID})
	}
	i.addVMs(v, installation)
	i.addVDIs(v, installation)
	i.sort()
	return i
}

func (i *Inventory) addVMs(v xencache.View, installation string) {
	for ref, vm := range v.VMs() {
		marks := xencache.VMMarks(vm)
		ours := marks.Installation == installation && !marks.IsZero() && !marks.IsCopyOf(vm.UUID)
		trashed := vm.OtherConfig[xencache.MarkTrashedAt]
		switch {
		case vm.IsControlDomain || vm.IsASnapshot && !ours:
		case !ours && !vm.IsATemplate:
			i.Unmanaged++
		case !ours:
		case trashed != "":
			at, err := time.Parse(time.RFC3339, trashed)
			if err == nil {
				i.Trash = append(i.Trash, Trashed{Ref: ref, UUID: vm.UUID, Owner: marks.Ref, DeletedAt: at})
			}
		default:
			if marks.Ref.Kind == kindInstance && marks.Role == xencache.RoleVM {
				i.Instances++
			}
			i.Marked = append(i.Marked, Marked{
				Class: "VM", Ref: string(ref), UUID: vm.UUID, Name: limited(vm.NameLabel), Marks: marks,
				InUse: vm.PowerState != xenapi.VMPowerStateHalted || len(vm.CurrentOperations) > 0,
			})
		}
	}
}

func (i *Inventory) addVDIs(v xencache.View, installation string) {
	for ref, vdi := range v.VDIs() {
		marks := xencache.VDIMarks(vdi)
		if marks.Installation != installation || marks.IsZero() || marks.IsCopyOf(vdi.UUID) || ofTrash(v, ref) {
			continue
		}
		i.Marked = append(i.Marked, Marked{
			Class: "VDI", Ref: string(ref), UUID: vdi.UUID, Name: limited(vdi.NameLabel), Marks: marks,
			InUse: len(v.VBDsOfVDI(ref)) > 0 || len(vdi.CurrentOperations) > 0,
		})
	}
}

// ofTrash reports whether a disk hangs on a VM in the trash: it goes, or comes back, with that one, and is no orphan.
func ofTrash(v xencache.View, vdi xenapi.VDIRef) bool {
	return slices.ContainsFunc(v.VBDsOfVDI(vdi), func(ref xenapi.VBDRef) bool {
		vbd := v.VBD(ref)
		if vbd == nil {
			return false
		}
		vm := v.VM(vbd.VM)
		return vm != nil && vm.OtherConfig[xencache.MarkTrashedAt] != ""
	})
}

// sort makes the order that of the status, so that nothing changes there but what changes on the pool.
func (i *Inventory) sort() {
	slices.SortFunc(i.Hosts, func(a, b v1alpha1.PoolHost) int { return byName(a.Name, b.Name, a.UUID, b.UUID) })
	slices.SortFunc(i.StorageRepositories, func(a, b v1alpha1.PoolStorageRepository) int {
		return byName(a.Name, b.Name, a.UUID, b.UUID)
	})
	slices.SortFunc(i.Networks, func(a, b v1alpha1.PoolNetwork) int { return byName(a.Name, b.Name, a.UUID, b.UUID) })
	slices.SortFunc(i.Trash, func(a, b Trashed) int {
		return cmp.Or(a.DeletedAt.Compare(b.DeletedAt), strings.Compare(a.UUID, b.UUID))
	})
	slices.SortFunc(i.Marked, func(a, b Marked) int { return byName(a.Name, b.Name, a.UUID, b.UUID) })
}

func byName(a, b, uuidA, uuidB string) int {
	return cmp.Or(strings.Compare(a, b), strings.Compare(uuidA, uuidB))
}

// productVersion is brand and version as the product shows them.
func productVersion(host *xenapi.Host) string {
	return strings.TrimSpace(host.SoftwareVersion["product_brand"] + " " + host.SoftwareVersion["product_version"])
}

// nameLimit is how long the API server lets a name in status be.
const nameLimit = 255

// limited cuts a name-label, which the XenAPI does not limit.
func limited(name string) string {
	if len(name) <= nameLimit {
		return name
	}
	return strings.ToValidUTF8(name[:nameLimit], "")
}

// Expired returns those in the trash whose retention is over, and when the next one's will be (zero: none).
func Expired(trash []Trashed, retention time.Duration, now time.Time) (expired []Trashed, next time.Time) {
	for _, vm := range trash {
		at := vm.DeletedAt.Add(retention)
		switch {
		case !at.After(now):
			expired = append(expired, vm)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return expired, next
}

// Orphans returns what carries our marks although its owner is gone.
func Orphans(marked []Marked, exists func(xencache.Key) bool) []Marked {
	var orphans []Marked
	for _, m := range marked {
		if !exists(m.Marks.Ref) {
			orphans = append(orphans, m)
		}
	}
	return orphans
}

// trashStatus shows the trash, the first to go first.
func trashStatus(trash []Trashed, retention time.Duration) []v1alpha1.TrashedInstance {
	shown := make([]v1alpha1.TrashedInstance, 0, min(len(trash), v1alpha1.MaxReportedTrash))
	for _, vm := range trash[:min(len(trash), v1alpha1.MaxReportedTrash)] {
		deleted, expires := metav1.NewTime(vm.DeletedAt), metav1.NewTime(vm.DeletedAt.Add(retention))
		shown = append(shown, v1alpha1.TrashedInstance{
			UUID: vm.UUID, Namespace: vm.Owner.Namespace, Name: vm.Owner.Name, DeletedAt: &deleted, ExpiresAt: &expires,
		})
	}
	return shown
}

func orphanStatus(orphans []Marked) []v1alpha1.Orphan {
	shown := make([]v1alpha1.Orphan, 0, min(len(orphans), v1alpha1.MaxReportedOrphans))
	for _, o := range orphans[:min(len(orphans), v1alpha1.MaxReportedOrphans)] {
		shown = append(shown, v1alpha1.Orphan{
			UUID: o.UUID, Class: o.Class, Name: o.Name, Role: string(o.Marks.Role), Owner: o.Marks.Ref.String(),
		})
	}
	return shown
}
