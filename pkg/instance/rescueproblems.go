package instance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// rescueProblems is why a rescue is not begun. Nothing has been touched then.
func (f *Facts) rescueProblems() []Problem {
	problems := slices.Clone(f.Want.Rescue.Problems)
	add := func(reason string, passing bool, format string, args ...any) {
		problems = append(problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...), Passing: passing})
	}
	vm := f.VM
	if vm.Power == v1alpha1.PowerStateSuspended || vm.Power == v1alpha1.PowerStatePaused {
		add(v1alpha1.ReasonIllegalTransition, false,
			"a VM that is %s cannot be rescued: what it has in memory would not fit its disks any more; set powerState to Running or Halted first", vm.Power)
	}
	if text, blocked := vm.Blocked[string(xenapi.VMOperationHardShutdown)]; blocked && f.running() {
		add(v1alpha1.ReasonOperationBlocked, false, "hard_shutdown is blocked on the VM (blocked_operations), so it cannot be stopped for a rescue: %s", text)
	}
	if j := f.resizeJournal(); j != nil {
		add(v1alpha1.ReasonInstanceBusy, true, "resize %s of the VM is not over: set resize.confirm to it, or flavorRef back to %s, first",
			j.ID, orElse(j.From.Flavor, "what it was"))
	} else if vm.OtherConfig[xencache.MarkJournal] != "" {
		add(v1alpha1.ReasonInstanceBusy, true, "another operation on the VM is not over: its journal is there")
	}
	if minimum := f.Want.Rescue.MinMemory; minimum > vm.Size.Memory {
		add(v1alpha1.ReasonRescueImageUnsuitable, false, "image %s needs %s of memory and the VM has %s; name a smaller image in rescue.imageRef",
			f.Want.Rescue.Image, bytesText(minimum), bytesText(vm.Size.Memory))
	}
	if len(f.loanable()) == 0 {
		add(v1alpha1.ReasonDiskNotFound, false, "the VM has no disk that could be repaired")
	}
	if text := f.lacksStorageForRescue(); text != "" {
		add(v1alpha1.ReasonInsufficientStorage, true, "%s", text)
	}
	if !f.hasRoomForRescue() {
		add(v1alpha1.ReasonInsufficientMemory, true, "no host has %s of memory free for the rescue VM", bytesText(vm.Size.Memory))
	}
	return problems
}

// hasRoomForRescue reports whether a host will have the memory once the VM is off, as far as the hosts' figures tell.
func (f *Facts) hasRoomForRescue() bool {
	if len(f.Hosts) == 0 {
		return true
	}
	return slices.ContainsFunc(f.Hosts, func(h Host) bool {
		free := h.MemoryFree
		if f.running() && f.VM.HostName == h.Name {
			free += f.VM.Size.Memory
		}
		return h.Enabled && (h.MemoryTotal == 0 || free >= f.VM.Size.Memory) // without a total nothing is known of it
	})
}

// rescueStorage is where the rescue VM's own disks go, and what they take there.
type rescueStorage struct {
	// Name is the storage repository's, Free what it has left in bytes, -1 if it does not tell.
	Name string
	Free int64
	// Needed is what the copy of the image takes at once, in bytes; the config drive comes on top.
	Needed int64
}

// rescueSR is the storage repository that the rescue VM's own disks go to, and whether the image must be copied there.
// Where its disk is on storage of one host, and the disks to be repaired elsewhere, no host could run the two together.
func (f *Facts) rescueSR(template *Template) (sr xenapi.SRRef, copied bool) {
	if loans := f.loanable(); !template.RootShared && len(loans) > 0 && loans[0].VDI.SR != template.RootSR {
		return loans[0].VDI.SR, true
	}
	return template.RootSR, false
}

// thick tells storage that puts the whole size of a disk aside for each copy of it, by type (sm, LVMSR.py).
func thick(sr *xenapi.SR) bool { return strings.HasPrefix(sr.Type, "lvm") }

// observeRescueStorage looks at the storage before a rescue is begun.
func (f *Facts) observeRescueStorage(v xencache.View) {
	template := f.Want.Rescue.Template
	if f.VM == nil || template == nil || !f.Want.Rescue.On {
		return
	}
	ref, copied := f.rescueSR(template)
	sr := v.SR(ref)
	if sr == nil {
		return
	}
	storage := &rescueStorage{Name: sr.NameLabel, Free: -1}
	if sr.PhysicalSize > 0 {
		storage.Free = max(0, sr.PhysicalSize-sr.PhysicalUtilisation)
	}
	switch {
	case thick(sr):
		storage.Needed = template.RootSize
	case copied:
		storage.Needed = rootUtilisation(v, template.Ref)
	}
	f.Want.Rescue.storage = storage
}

// rootUtilisation is how much of a template's root disk was ever written, as its storage says.
func rootUtilisation(v xencache.View, template xenapi.VMRef) int64 {
	for _, ref := range v.VBDsOf(template) {
		if vbd := v.VBD(ref); vbd != nil && vbd.UserDevice == strconv.Itoa(rootDevice) {
			if vdi := v.VDI(vbd.VDI); vdi != nil {
				return vdi.PhysicalUtilisation
			}
		}
	}
	return 0
}

// lacksStorageForRescue says that the storage has no room for the rescue VM's own disks, "" if it has or does not tell.
func (f *Facts) lacksStorageForRescue() string {
	storage := f.Want.Rescue.storage
	if storage == nil || storage.Free < 0 || storage.Free >= storage.Needed+driveSize {
		return ""
	}
	return fmt.Sprintf("storage repository %s has %s free, and the rescue VM of image %s needs %s there; free some space, or name a smaller image in rescue.imageRef",
		storage.Name, bytesText(storage.Free), f.Want.Rescue.Image, bytesText(storage.Needed+driveSize))
}
