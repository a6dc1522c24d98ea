package instance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// change brings a complete VM to what the spec says now, as far as its power state and its guest allow. What they do not
// allow is passed over: it stands in pendingChanges and is done when the VM is off next.
var change = Sequence{
	{Name: "MarkVM", Holds: vmMarked, Act: markVM}, // after a restore the incarnation is another
	{Name: "NameVM", Holds: named, Act: nameVM},
	{Name: "DescribeVM", Holds: described, Act: describe},
	withoutAsking(sizeLive[0]), // the rest of a size is whenResizing's
	withoutAsking(sizeLive[1]),
	{Name: "RecordFlavor", Holds: flavorRecorded, Needs: sizeIsSettled, Act: recordFlavor},
	{Name: "MakeDisks", Holds: disksMade, Act: makeDisks},
	{Name: "MarkDisks", Holds: disksMarked, Act: markDisks},
	{Name: "GrowDisks", Holds: dataDisksLarge, Needs: canGrow, Act: growDataDisks},
	{Name: "DetachDisks", Holds: noDroppedDisks, Needs: droppedCanGo, Act: detachDisks},
	{Name: "DiscardDisks", Holds: noDiscarded, Act: discardDisks},
	{Name: "MoveDisks", Holds: disksInPlace, Needs: (*Facts).halted, Act: moveDisks},
	{Name: "AttachDisks", Holds: disksAttached, Needs: placesFree, Act: attachDisks},
	{Name: "PlugDisks", Holds: disksPlugged, Needs: guestHotplugs, Act: plugDisks},
	{Name: "RemoveNICs", Holds: noUnfitNICs, Needs: unfitNICsCanGo, Act: removeNICs},
	{Name: "MakeNICs", Holds: nicsMade, Needs: noUnfitNICs, Act: makeNICs},
	{Name: "SetNICs", Holds: nicsSet, Act: setNICs},
	{Name: "PlugNICs", Holds: nicsPlugged, Needs: guestHotplugs, Act: plugNICs},
	{Name: "RemoveConfigDrive", Holds: driveKept, Needs: driveCanGo, Act: removeDrive},
}

// whenChanged carries out what can be carried out now. With a name that cannot be resolved nothing is changed: an entry
// that is missing for that reason must not look as if it had been taken out.
func whenChanged(f *Facts, _ time.Time) (Plan, bool) {
	if len(f.Want.Problems) > 0 || f.VM.Power == v1alpha1.PowerStatePaused || swapPending(f) {
		return undecided()
	}
	if unmet := change.Next(f); len(unmet) > 0 {
		return Plan{Operation: operationChange, Steps: unmet}, true
	}
	return undecided()
}

// sizeIsSettled reports whether the VM has the size that is asked for, and no resize that may still be taken back.
func sizeIsSettled(f *Facts) bool { return sized(f) && f.resizeJournal() == nil }

// smallDataDisks are disks other than the root disk that are smaller than asked for.
func smallDataDisks(f *Facts) []WantDisk {
	return slices.DeleteFunc(smallDisks(f), func(w WantDisk) bool { return w.Role == xencache.RoleRootDisk })
}

func dataDisksLarge(f *Facts) bool { return len(smallDataDisks(f)) == 0 }

func growDataDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.grow(ctx, smallDataDisks(r.Facts))
}

// DiskGrowth is what the disks that a complete VM lacks, and those that are to grow, the root disk apart, would take more than
// it has, in bytes.
func (f *Facts) DiskGrowth() (bytes int64) {
	if f.VM == nil || f.Me.Deleting || f.Want.Observe || f.building() {
		return 0
	}
	for _, want := range missingDisks(f) {
		bytes += want.Size
	}
	for _, want := range smallDataDisks(f) {
		bytes += want.Size - f.diskFor(want).Size
	}
	return bytes
}

// flavorRecorded reports whether the VM carries a copy of the sizes that it has.
func flavorRecorded(f *Facts) bool {
	return f.Want.Size == nil || f.VM.OtherConfig[markFlavor] == writeFlavorMark(&f.Want)
}

func recordFlavor(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.setMark(ctx, markFlavor, writeFlavorMark(&r.Want))
}

// Pending lists the differences between spec and VM that are not carried out at once, and what each waits for: the plan
// before it is carried out. For a VM that is only observed, or whose adoption is held, it is what would be done.
func Pending(f *Facts) []v1alpha1.PendingChange {
	if f.VM == nil || f.building() {
		return nil
	}
	var pending []v1alpha1.PendingChange
	add := func(field string, requires v1alpha1.ChangeRequires, format string, args ...any) {
		if f.Want.Observe || adoptionHeld(f) || f.journal() != nil {
			requires = v1alpha1.RequiresHold
		}
		pending = append(pending, v1alpha1.PendingChange{Field: field, Requires: requires, Message: fmt.Sprintf(format, args...)})
	}
	pendingResize(f, add)
	pendingMove(f, add)
	pendingDisks(f, add)
	pendingNICs(f, add)
	pendingRescue(f, add)
	if f.Want.Observe || adoptionHeld(f) {
		pendingIdentity(f, add)
	}
	return pending
}

// adder adds one pending change.
type adder func(field string, requires v1alpha1.ChangeRequires, format string, args ...any)

// text shows a size to people.
func (have Size) text() string {
	text := fmt.Sprintf("%d VCPUs, %s", have.VCPUs, bytesText(have.Memory))
	if have.MaxVCPUs != have.VCPUs || have.MaxMemory != have.Memory {
		text += fmt.Sprintf(" (up to %d, %s)", have.MaxVCPUs, bytesText(have.MaxMemory))
	}
	return text
}

// diskField is how pendingChanges name a field of a disk.
func diskField(want WantDisk, field string) string {
	if want.Role == xencache.RoleRootDisk {
		return "rootDisk." + field
	}
	return fmt.Sprintf("disks[%s].%s", want.Name, field)
}

func pendingDisks(f *Facts, add adder) {
	for _, want := range smallDataDisks(f) {
		vdi := f.diskFor(want)
		add(diskField(want, "size"), live(!vdi.Attached, v1alpha1.RequiresPowerOff), "from %s to %s", bytesText(vdi.Size), bytesText(want.Size))
	}
	for _, want := range append(missingDisks(f), detachedDisks(f)...) {
		if f.placeTaken(want) {
			add(diskField(want, "device"), v1alpha1.RequiresHold, "device %s is taken; name a free one", want.Device)
			continue
		}
		add("disks["+want.Name+"]", live(f.VM.Guest.Hotplug || f.halted(), v1alpha1.RequiresRestart), "attach at device %s", want.Device)
	}
	for _, want := range unpluggedDisks(f) {
		add("disks["+want.Name+"]", live(f.VM.Guest.Hotplug, v1alpha1.RequiresRestart), "the guest gets the disk at device %s", want.Device)
	}
	for _, want := range misplacedDisks(f) {
		add(diskField(want, "device"), live(f.halted(), v1alpha1.RequiresPowerOff), "from %s to %s", f.attachedDisk(want).Device, want.Device)
	}
	for _, disk := range droppedDisks(f) {
		add("disks["+disk.Entry+"]", live(droppedCanGo(f), v1alpha1.RequiresPowerOff), "detach from device %s", disk.Device)
	}
}

func pendingNICs(f *Facts, add adder) {
	missing := missingNICs(f)
	for _, nic := range unfitNICs(f) {
		add("networks["+nic.Entry+"]", live(unfitNICsCanGo(f), v1alpha1.RequiresPowerOff), "remove the interface %s at device %s", nic.MAC, nic.Device)
	}
	for _, want := range missing {
		if slices.ContainsFunc(unfitNICs(f), func(n *NIC) bool { return n.Entry == want.Name }) {
			continue // said above: it is replaced
		}
		add("networks["+want.Name+"]", live(f.VM.Guest.Hotplug || f.halted(), v1alpha1.RequiresRestart), "add an interface %s at device %s", want.MAC, want.Device)
	}
	for _, want := range unsetNICs(f) {
		add("networks["+want.Name+"].network", v1alpha1.RequiresLive, "move or limit the interface at device %s", want.Device)
	}
	for _, nic := range unpluggedNICs(f) {
		add("networks["+nic.Entry+"]", live(f.VM.Guest.Hotplug, v1alpha1.RequiresRestart), "the guest gets the interface at device %s", nic.Device)
	}
}

// pendingIdentity lists what Manage would do to name and power state.
func pendingIdentity(f *Facts, add adder) {
	if !named(f) {
		add("nameLabel", v1alpha1.RequiresHold, "from %q to %q", f.VM.Name, f.Want.Name)
	}
	if !described(f) {
		add("description", v1alpha1.RequiresHold, "description or tags differ")
	}
	if f.Want.Power != "" && f.Want.Power != f.VM.Power {
		add("powerState", v1alpha1.RequiresHold, "from %s to %s", f.VM.Power, f.Want.Power)
	}
}

// live is Live if a change can be made now, else what it waits for.
func live(now bool, otherwise v1alpha1.ChangeRequires) v1alpha1.ChangeRequires {
	if now {
		return v1alpha1.RequiresLive
	}
	return otherwise
}

// requirement is the most that any of the changes waits for from the user: the VM off, a restart, or nothing.
func requirement(pending []v1alpha1.PendingChange) v1alpha1.ChangeRequires {
	most := v1alpha1.ChangeRequires("")
	for _, change := range pending {
		if change.Requires == v1alpha1.RequiresPowerOff {
			return change.Requires
		}
		if change.Requires == v1alpha1.RequiresRestart {
			most = change.Requires
		}
	}
	return most
}

// heldChange is the first change that is held until the spec changes.
func heldChange(f *Facts) *v1alpha1.PendingChange {
	pending := Pending(f)
	i := slices.IndexFunc(pending, func(c v1alpha1.PendingChange) bool { return c.Requires == v1alpha1.RequiresHold })
	if i < 0 {
		return nil
	}
	return &pending[i]
}
