package instance

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// maxNICDevice is the highest device number of an interface (xapi_vm_helpers.ml).
const maxNICDevice = 15

// MAC is the address of an interface that the spec gives none: locally administered, and the same whenever the VM is
// made again.
func MAC(installation string, owner xencache.Key, nic string) string {
	sum := sha256.Sum256([]byte(installation + "\x00" + owner.String() + "\x00" + nic))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}

// nics works out the interfaces that are asked for.
func (w *wanter) nics(spec *v1alpha1.XenInstanceSpec) {
	leftAlone := spec.Source.Existing != nil || w.complete() && asCaptured(spec)
	w.want.NICsListed = !leftAlone || len(spec.Networks) > 0
	w.capturedNICs()
	w.backupNICs()
	key := keyOf(w.in.Object)
	for _, entry := range spec.Networks {
		nic := WantNIC{Name: entry.Name, MAC: strings.ToLower(entry.MAC)}
		network, err := w.in.Resolver.Network(entry.Network)
		if w.note(err) {
			continue
		}
		nic.Network = network
		if nic.MAC == "" && !w.adopts(entry) {
			nic.MAC = MAC(w.in.Installation, key, entry.Name)
		}
		switch {
		case entry.RateLimitKBps != nil:
			nic.RateLimit = int64(*entry.RateLimitKBps)
		case w.in.Flavor != nil && w.in.Flavor.Spec.NetworkRateLimitKBps != nil:
			nic.RateLimit = int64(*w.in.Flavor.Spec.NetworkRateLimitKBps)
		}
		if entry.Device != nil {
			nic.Device = strconv.Itoa(int(*entry.Device))
		}
		w.want.NICs = append(w.want.NICs, nic)
	}
	w.numberNICs()
}

// adopts reports whether the entry names an interface that the adopted VM has already, by its device: it keeps the
// address that it has.
func (w *wanter) adopts(entry v1alpha1.NetworkInterface) bool {
	if w.in.Object.Spec.Source.Existing == nil || w.vm == nil || entry.Device == nil {
		return false
	}
	device := strconv.Itoa(int(*entry.Device))
	return slices.ContainsFunc(w.vm.NICs, func(n NIC) bool { return n.Device == device && n.Entry == "" })
}

// numberNICs gives a device number to the interfaces that have none: the one the VM has, the one status remembers,
// else the first free one.
func (w *wanter) numberNICs() {
	taken := map[string]bool{}
	latched := map[string]string{}
	for _, status := range w.in.Object.Status.Networks {
		if status.Device != nil {
			latched[status.Name] = strconv.Itoa(int(*status.Device))
		}
	}
	if w.vm != nil {
		for _, nic := range w.vm.NICs {
			switch {
			case nic.Entry != "":
				latched[nic.Entry] = nic.Device
			case w.complete():
				taken[nic.Device] = true // somebody else's interface keeps its place
			}
		}
	}
	numberDevices(len(w.want.NICs), 0, maxNICDevice, taken, latched, nil, func(i int) (string, *string) {
		return w.want.NICs[i].Name, &w.want.NICs[i].Device
	})
}

// numberDevices fills in device numbers: those given stay, then those remembered, then the first free ones.
func numberDevices(n, first, last int, taken map[string]bool, latched map[string]string, skip []int, entry func(int) (string, *string)) {
	for i := range n {
		if _, device := entry(i); *device != "" {
			taken[*device] = true
		}
	}
	for i := range n {
		if name, device := entry(i); *device == "" && latched[name] != "" && !taken[latched[name]] {
			*device = latched[name]
			taken[*device] = true
		}
	}
	next := first
	for i := range n {
		_, device := entry(i)
		if *device != "" {
			continue
		}
		for next <= last && (taken[strconv.Itoa(next)] || slices.Contains(skip, next)) {
			next++
		}
		if next > last {
			return
		}
		*device = strconv.Itoa(next)
		taken[*device] = true
	}
}

// duplicateMACs are the problems with addresses that are to be given to new interfaces: two entries with one address,
// or another VM of the network that has it.
func (f *Facts) duplicateMACs(v xencache.View) []Problem {
	var problems []Problem
	entries := map[string]string{}
	sought := map[string]WantNIC{}
	for _, want := range f.Want.NICs {
		if other, twice := entries[want.MAC]; twice && want.MAC != "" {
			problems = append(problems, Problem{Reason: v1alpha1.ReasonDuplicateMAC, Message: fmt.Sprintf(
				"networks %s and %s have the same MAC address %s; change one", other, want.Name, want.MAC)})
		}
		entries[want.MAC] = want.Name
		if f.VM == nil || f.nicFor(want) == nil {
			sought[want.MAC] = want
		}
	}
	if len(sought) == 0 {
		return problems
	}
	for _, nic := range v.VIFs() {
		want, same := sought[strings.ToLower(nic.MAC)]
		if !same || want.MAC == "" || nic.Network != want.Network || (f.VM != nil && nic.VM == f.VM.Ref) {
			continue
		}
		if vm := v.VM(nic.VM); vm != nil && !vm.IsATemplate && !f.Me.Owns(xencache.ReadMarks(vm.OtherConfig)) {
			problems = append(problems, Problem{Reason: v1alpha1.ReasonDuplicateMAC, Message: macIsTaken(want)})
		}
	}
	return problems
}

// macIsTaken says what to do about an address that another VM has: one that came with a backup is in no spec.
func macIsTaken(want WantNIC) string {
	if device, captured := strings.CutPrefix(want.Name, capturedPrefix); captured {
		return fmt.Sprintf("interface %s of the backup: another VM on the network has its MAC address %s; list networks in the spec, without addresses for new ones", device, want.MAC)
	}
	return fmt.Sprintf("networks[%s]: another VM on the network has the MAC address %s; choose another, or leave it out", want.Name, want.MAC)
}

// nicFor finds the VM's interface for an entry: by its mark, else, on an adopted VM, by its device.
func (f *Facts) nicFor(want WantNIC) *NIC {
	for i := range f.VM.NICs {
		if f.VM.NICs[i].Entry == want.Name {
			return &f.VM.NICs[i]
		}
	}
	if f.Want.Source.ExistingUUID == "" {
		return nil
	}
	for i := range f.VM.NICs {
		if nic := &f.VM.NICs[i]; nic.Entry == "" && nic.Device == want.Device {
			return nic
		}
	}
	return nil
}

// fits reports whether the interface is what the entry asks for, as far as it cannot be changed.
func (n *NIC) fits(want WantNIC) bool {
	return (want.MAC == "" || n.MAC == want.MAC) && n.Device == want.Device
}

// unfitNICs are the VM's interfaces that must go: entries taken out of the spec or changed, and while the VM is being
// built whatever the template brought along.
func unfitNICs(f *Facts) []*NIC {
	if !f.Want.NICsListed {
		return nil
	}
	var unfit []*NIC
	for i := range f.VM.NICs {
		nic := &f.VM.NICs[i]
		if nic.Entry == "" && !f.building() {
			continue // not ours
		}
		entry := slices.IndexFunc(f.Want.NICs, func(w WantNIC) bool { return w.Name == nic.Entry })
		if entry < 0 || !nic.fits(f.Want.NICs[entry]) {
			unfit = append(unfit, nic)
		}
	}
	return unfit
}

// missingNICs are the entries without an interface.
func missingNICs(f *Facts) []WantNIC {
	var missing []WantNIC
	for _, want := range f.Want.NICs {
		if f.nicFor(want) == nil {
			missing = append(missing, want)
		}
	}
	return missing
}

// unsetNICs are the interfaces that are there but not on their network, or not limited as asked.
func unsetNICs(f *Facts) []WantNIC {
	var unset []WantNIC
	for _, want := range f.Want.NICs {
		if nic := f.nicFor(want); nic != nil && (nic.Network != want.Network || nic.RateLimit != want.RateLimit) {
			unset = append(unset, want)
		}
	}
	return unset
}

// unpluggedNICs are the interfaces that the running guest does not have yet.
func unpluggedNICs(f *Facts) []*NIC {
	if !f.running() {
		return nil
	}
	var unplugged []*NIC
	for _, want := range f.Want.NICs {
		if nic := f.nicFor(want); nic != nil && !nic.Attached {
			unplugged = append(unplugged, nic)
		}
	}
	return unplugged
}

func noUnfitNICs(f *Facts) bool { return len(unfitNICs(f)) == 0 }
func nicsMade(f *Facts) bool    { return !f.Want.NICsListed || len(missingNICs(f)) == 0 }
func nicsSet(f *Facts) bool     { return len(unsetNICs(f)) == 0 }
func nicsPlugged(f *Facts) bool { return len(unpluggedNICs(f)) == 0 }
func unfitNICsCanGo(f *Facts) bool {
	return f.halted() || !slices.ContainsFunc(unfitNICs(f), (*NIC).isAttached) || f.VM.Guest.Hotplug
}
func guestHotplugs(f *Facts) bool { return f.running() && f.VM.Guest.Hotplug }
func (n *NIC) isAttached() bool   { return n.Attached }

// removeNICs takes away the interfaces that must go.
func removeNICs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, nic := range unfitNICs(r.Facts) {
		if nic.Attached {
			if err := r.Client.VIF.Unplug(ctx, nic.Ref); err != nil {
				return "", r.doing(err, "unplug the network interface at %s", nic.Device)
			}
		}
		if err := r.Client.VIF.Destroy(ctx, nic.Ref); err != nil {
			return "", r.doing(err, "remove the network interface at %s", nic.Device)
		}
	}
	return "", nil
}

// makeNICs makes the interfaces that are missing; each carries its mark from the start.
func makeNICs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range missingNICs(r.Facts) {
		marks := r.Me.Marks(xencache.RoleVM, "")
		marks.NIC = want.Name
		vif := xenapi.VIF{
			VM: r.VM.Ref, Network: want.Network, Device: want.Device, MAC: want.MAC, MTU: 1500,
			OtherConfig: nicMarks(marks), LockingMode: xenapi.VIFLockingModeNetworkDefault,
		}
		if want.RateLimit > 0 {
			vif.QoSAlgorithmType = rateLimitAlgorithm
			vif.QoSAlgorithmParams = rateLimitParams(want.RateLimit)
		}
		if _, err := r.Client.VIF.Create(ctx, vif); err != nil {
			return "", r.doing(err, "make network interface %s", want.Name)
		}
	}
	return "", nil
}

// nicMarks are the marks of an interface; it needs no role.
func nicMarks(marks xencache.Marks) map[string]string {
	marks.Role = ""
	return marks.OtherConfig()
}

const rateLimitAlgorithm = "ratelimit"

func rateLimitParams(kbps int64) map[string]string {
	return map[string]string{"kbps": strconv.FormatInt(kbps, 10)}
}

// setNICs moves interfaces to their network (it works while the guest runs) and sets their limits (at the next plug).
func setNICs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, want := range unsetNICs(r.Facts) {
		nic := r.nicFor(want)
		if nic.Network != want.Network {
			if err := r.Client.VIF.Move(ctx, nic.Ref, want.Network); err != nil {
				return "", r.doing(err, "move network interface %s", want.Name)
			}
		}
		if nic.RateLimit == want.RateLimit {
			continue
		}
		algorithm, params := rateLimitAlgorithm, rateLimitParams(want.RateLimit)
		if want.RateLimit == 0 {
			algorithm, params = "", map[string]string{}
		}
		if err := r.Client.VIF.SetQoSAlgorithmType(ctx, nic.Ref, algorithm); err != nil {
			return "", r.doing(err, "limit network interface %s", want.Name)
		}
		if err := r.Client.VIF.SetQoSAlgorithmParams(ctx, nic.Ref, params); err != nil {
			return "", r.doing(err, "limit network interface %s", want.Name)
		}
	}
	return "", nil
}

// plugNICs gives interfaces to the running guest.
func plugNICs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, nic := range unpluggedNICs(r.Facts) {
		if err := r.Client.VIF.Plug(ctx, nic.Ref); err != nil && !errors.Is(err, xenapi.ErrDeviceAlreadyAttached) {
			return "", r.doing(err, "plug the network interface at %s", nic.Device)
		}
	}
	return "", nil
}
