package instance

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Repository is a storage repository that the instance's disks may go to.
type Repository struct {
	Ref  xenapi.SRRef
	Name string
	Type string
	// Shared says that several hosts see it.
	Shared bool
	// Free is the room that is left, in bytes.
	Free int64
	// Thick says that a disk takes all of its size at once.
	Thick bool
}

// HostFit is how a host fits the VM: why it cannot run there, or what it takes.
type HostFit struct {
	Host *Host
	// Reason is why it cannot run there, as conditions name it; "" if it can.
	Reason string
	// Why are all reasons, for people: figures included.
	Why []string
	// Moves are the disks that the host does not see, and where they would go; Missing are those that could go nowhere.
	Moves   []DiskMove
	Missing []*Disk
}

// DiskMove is a disk and the storage repository that it goes to.
type DiskMove struct {
	Disk *Disk
	To   *Repository
}

// Fits reports whether the VM can run on the host, perhaps after a move of disks.
func (h *HostFit) Fits() bool { return h.Reason == "" }

// SeesDisks reports whether the host sees all of the VM's disks.
func (h *HostFit) SeesDisks() bool { return len(h.Moves) == 0 && len(h.Missing) == 0 }

// text shows the fit of one host to people.
func (h *HostFit) text() string {
	if h.Fits() {
		return h.Host.Name + ": could now"
	}
	return h.Host.Name + ": " + strings.Join(h.Why, ", ")
}

// explain says per host why the VM cannot run there.
func explain(fits []HostFit) string {
	texts := make([]string, len(fits))
	for i := range fits {
		texts[i] = fits[i].text()
	}
	return strings.Join(texts, "; ")
}

// placements says of every host how the VM would fit there with a size. It is pure; the pool has the last word.
func (f *Facts) placements(size Size) []HostFit {
	fits := make([]HostFit, len(f.Hosts))
	for i := range f.Hosts {
		fits[i] = f.placement(&f.Hosts[i], size)
	}
	return fits
}

// placement says how the VM would fit on a host. What it has of that host already, if it runs there, counts for it.
func (f *Facts) placement(host *Host, size Size) HostFit {
	fit := HostFit{Host: host}
	here := f.VM != nil && f.VM.Host == host.Ref && f.VM.Power != v1alpha1.PowerStateHalted
	if f.Want.Pinned && host.Ref != f.Want.Host {
		fit.lacks(v1alpha1.ReasonNoHostAvailable, "not the host that placement.pin names")
	}
	switch {
	case !host.Live:
		fit.lacks(v1alpha1.ReasonNoHostAvailable, "not reachable")
	case !host.Enabled && !here:
		fit.lacks(v1alpha1.ReasonNoHostAvailable, "disabled")
	}
	if host.CPUs > 0 && size.MaxVCPUs > host.CPUs {
		fit.lacks(v1alpha1.ReasonNoHostAvailable, "has %d CPUs, needed %d", host.CPUs, size.MaxVCPUs)
	}
	free, needed := host.MemoryFree, f.memoryNeeded(size)
	if here {
		free += f.memoryNeeded(f.VM.Size)
	}
	if host.MemoryFree > 0 && free < needed { // 0 is what a host says that has not measured yet
		fit.lacks(v1alpha1.ReasonInsufficientMemory, "%s of memory free, needed %s", mebibytes(free), mebibytes(needed))
	}
	for _, nic := range f.nics() {
		if host.Lacks[nic.Network] {
			fit.lacks(v1alpha1.ReasonNoHostAvailable, "has no network %q", nic.NetworkName)
		}
	}
	f.fitDisks(&fit)
	return fit
}

// lacks adds a reason for which the VM cannot run on the host.
func (h *HostFit) lacks(reason, format string, args ...any) {
	h.Reason = firstNonEmpty(h.Reason, reason)
	h.Why = append(h.Why, fmt.Sprintf(format, args...))
}

// fitDisks says of the disks that the host does not see where they would go.
func (f *Facts) fitDisks(fit *HostFit) {
	fit.Moves, fit.Missing = f.diskMoves(fit.Host)
	for _, disk := range fit.Missing {
		text := fmt.Sprintf("does not see %s, where disk %s is", disk.VDI.SRName, disk.title())
		if f.Move != nil { // it was looked up
			text += ", and nothing that it sees can take it"
		}
		fit.lacks(v1alpha1.ReasonNoHostAvailable, "%s", text)
	}
}

// memoryNeeded is what a host must have free for the VM: its least memory, and what it costs the host beside that. The pool
// tells the latter for the present size; each VCPU and each 128 MiB more cost about a mebibyte.
func (f *Facts) memoryNeeded(size Size) int64 {
	overhead := int64(0)
	if f.VM != nil {
		overhead = f.VM.MemoryOverhead + (size.MaxVCPUs-f.VM.Size.MaxVCPUs)<<20 + (size.MaxMemory-f.VM.Size.MaxMemory)/128
	}
	return size.MinMemory + max(overhead, 0)
}

func (f *Facts) nics() []NIC {
	if f.VM == nil {
		return nil
	}
	return f.VM.NICs
}

// diskMoves finds for each disk that a host does not see where it could go, and those for which there is no place.
func (f *Facts) diskMoves(host *Host) (moves []DiskMove, missing []*Disk) {
	if f.VM == nil {
		return nil, nil
	}
	taken := map[xenapi.SRRef]int64{}
	for i := range f.VM.Disks {
		disk := &f.VM.Disks[i]
		if disk.CD || disk.VDI.Ref.IsNull() || host.Sees[disk.VDI.SR] {
			continue
		}
		place := f.placeFor(disk, host, taken)
		if place == nil {
			missing = append(missing, disk)
			continue
		}
		taken[place.Ref] += disk.room(place)
		moves = append(moves, DiskMove{Disk: disk, To: place})
	}
	return moves, missing
}

// placeFor chooses where a disk goes on a host: what the spec names for it, else one of the same kind as it is on, else the
// one with the most room.
func (f *Facts) placeFor(disk *Disk, host *Host, taken map[xenapi.SRRef]int64) *Repository {
	asked := xenapi.SRRef("")
	for _, want := range f.Want.Disks {
		if found := f.attachedDisk(want); found != nil && found.Ref == disk.Ref {
			asked = want.SR
		}
	}
	var best *Repository
	rank := func(r *Repository) int {
		return 2*b2i(r.Ref == asked) + b2i(r.Type == disk.VDI.SRType && r.Shared == disk.VDI.SRShared)
	}
	for i := range f.Repositories {
		r := &f.Repositories[i]
		if !host.Sees[r.Ref] || r.Free-taken[r.Ref] < disk.room(r) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(rank(r), rank(best)), cmp.Compare(r.Free, best.Free)) > 0 {
			best = r
		}
	}
	return best
}

// room is what a disk takes of a storage repository, at least.
func (d *Disk) room(on *Repository) int64 {
	if on.Thick {
		return d.VDI.Size
	}
	return d.VDI.Used
}

// title is what people call a disk.
func (d *Disk) title() string {
	return firstNonEmpty(d.Entry, d.VDI.Name, d.Device)
}

// bestFit is the host that can take the VM with the least ado: without a move of disks before one with, then the one with the
// most free memory. It is nil if none can.
func bestFit(fits []HostFit) *HostFit {
	var best *HostFit
	for i := range fits {
		fit := &fits[i]
		if !fit.Fits() {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(b2i(fit.SeesDisks()), b2i(best.SeesDisks())), cmp.Compare(fit.Host.MemoryFree, best.Host.MemoryFree)) > 0 {
			best = fit
		}
	}
	return best
}

// noFit is the reason that stands for those of all hosts: memory, which may become free, before what does not.
func noFit(fits []HostFit) string {
	for i := range fits {
		if fits[i].Reason == v1alpha1.ReasonInsufficientMemory {
			return fits[i].Reason
		}
	}
	return v1alpha1.ReasonNoHostAvailable
}

// mebibytes shows memory in steps that people can compare.
func mebibytes(bytes int64) string { return bytesText(max(bytes, 0) >> 20 << 20) }
