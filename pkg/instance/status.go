package instance

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Limits of the API on what status may hold.
const (
	maxPendingChanges   = 64
	maxDisks            = 64
	maxNetworks         = 32
	maxAddresses        = 64
	maxUnmanagedDevices = 64
	maxText             = 1024
	percentStep         = 5
)

// Report is what a pass has to say besides the facts.
type Report struct {
	Plan    Plan
	Outcome reconcile.Outcome
	Now     time.Time
	// Leads is the power state into which an act of ours is bringing the VM, "" without one.
	Leads v1alpha1.PowerState
	// Percent is how far the task under way is, nil without one.
	Percent *int32
	// PasswordSecret is the name of the Secret with the generated password, "" without one.
	PasswordSecret string
}

// Status is what the user sees. It is pure, and the only place that sets the conditions of an instance (Ready,
// Reconciling, Stalled and Paused follow from the outcome and are set when the pass closes). While the VM is being made
// only the operation is shown, so that making one does not write a status for each of its parts.
func Status(f *Facts, report Report) v1alpha1.XenInstanceStatus {
	status := *f.Prior.DeepCopy()
	status.Operation = operation(f, report)
	if f.VM != nil && !firstBuild(f, report) {
		shown := f.shown()
		status.UUID = f.VM.UUID
		status.PowerState = shown.VM.Power
		status.Flavor = flavorStatus(f)
		status.RootDisk = rootStatus(f)
		status.Disks = diskStatuses(f)
		status.Networks = networkStatuses(f)
		status.UnmanagedDevices = unmanagedDevices(f)
		status.HostName = shown.VM.HostName
		status.Addresses = addresses(shown)
		status.PrimaryAddress = primaryAddress(shown)
		status.RestartToken = restartToken(shown)
		status.PendingChanges = capped(Pending(f), maxPendingChanges)
	}
	if report.PasswordSecret != "" {
		status.PasswordSecretRef = &v1alpha1.LocalSecretReference{Name: report.PasswordSecret}
	}
	setProvisioned(&status, f, report)
	setFlavorApplied(&status, f, report)
	setPowerStateSynced(&status, f, report)
	status.Rescue = rescueStatus(f)
	status.Resize = resizeStatus(f, report.Now)
	status.RestorePoints = number(int64(len(f.RestorePoints)))
	setRescued(&status, f, report)
	setGuestReady(&status, f.shown())
	return status
}

// firstBuild reports whether the VM is on its way from nothing to its first Ready: being made, or being started for the
// first time.
func firstBuild(f *Facts, report Report) bool {
	starting := report.Plan.Operation == operationCreate && report.Outcome.Kind() == reconcile.KindWait
	return f.Prior.UUID == "" && f.Want.Source.ExistingUUID == "" && (f.building() || starting)
}

// operation is what is being done, nil at rest. It begins when it is first planned and keeps its beginning.
func operation(f *Facts, report Report) *v1alpha1.Operation {
	kind := report.Plan.Operation
	if kind == "" || report.Outcome.IsDone() {
		return nil
	}
	now := metav1.NewTime(report.Now.Truncate(time.Second))
	current := &v1alpha1.Operation{Type: kind, ID: report.Plan.ID, StartedAt: &now}
	if prior := f.Prior.Operation; prior != nil && prior.Type == current.Type && prior.ID == current.ID {
		*current = *prior
	}
	if report.Outcome.Kind() == reconcile.KindRetry {
		current.Attempts++
		current.LastError = cut(report.Outcome.Message(), maxText)
	}
	current.Percent = coarse(current.Percent, report.Percent)
	return current
}

// coarse keeps a percentage from being written for every small step. That a task is at its end is told by what follows.
func coarse(shown, percent *int32) *int32 {
	switch {
	case percent == nil || *percent == 0:
		return nil
	case *percent >= 100, shown != nil && *percent-*shown < percentStep && *percent >= *shown:
		return shown
	}
	rounded := *percent / percentStep * percentStep
	return &rounded
}

// flavorStatus is the size that the VM has.
func flavorStatus(f *Facts) *v1alpha1.AppliedFlavor {
	size := f.VM.Size
	applied := &v1alpha1.AppliedFlavor{
		VCPUs: number(size.VCPUs), MaxVCPUs: number(size.MaxVCPUs), CoresPerSocket: number(size.CoresPerSocket),
		Memory: quantity(size.Memory), MaxMemory: quantity(size.MaxMemory),
	}
	if mark, ok := readFlavorMark(f.VM.OtherConfig); ok && f.VM.Size.covers(mark.Size) {
		applied.Name = mark.Name
	} else if f.Want.Size != nil && sized(f) {
		applied.Name = f.Want.Flavor
	}
	return applied
}

func rootStatus(f *Facts) *v1alpha1.DiskStatus {
	root := f.VM.rootDisk()
	if root == nil {
		return nil
	}
	status := diskStatus(rootName, root.Device, &root.VDI, root.Attached)
	return &status
}

func diskStatus(name, device string, vdi *VDI, attached bool) v1alpha1.DiskStatus {
	return v1alpha1.DiskStatus{
		Name: name, Device: deviceNumber(device), VDIUUID: vdi.UUID, Size: quantity(vdi.Size), StorageRepository: vdi.SRName,
		Attached: attached,
	}
}

// diskStatuses lists the disks of the spec's entries, and keeps the device numbers of those that are not there yet.
func diskStatuses(f *Facts) []v1alpha1.DiskStatus {
	var statuses []v1alpha1.DiskStatus
	for _, want := range f.Want.Disks {
		if want.Role == xencache.RoleRootDisk || isImplied(want.Name) {
			continue
		}
		if disk := f.attachedDisk(want); disk != nil {
			statuses = append(statuses, diskStatus(want.Name, disk.Device, &disk.VDI, disk.Attached))
		} else if vdi := f.diskFor(want); vdi != nil {
			statuses = append(statuses, diskStatus(want.Name, want.Device, vdi, false))
		}
	}
	return capped(statuses, maxDisks)
}

func networkStatuses(f *Facts) []v1alpha1.NetworkStatus {
	var statuses []v1alpha1.NetworkStatus
	for _, want := range f.Want.NICs {
		if nic := f.nicFor(want); nic != nil {
			statuses = append(statuses, v1alpha1.NetworkStatus{
				Name: want.Name, Device: deviceNumber(nic.Device), VIFUUID: nic.UUID, Network: nic.NetworkName, MAC: nic.MAC,
				Attached: nic.Attached,
			})
		}
	}
	return capped(statuses, maxNetworks)
}

// unmanagedDevices lists what hangs on the VM and neither the spec nor we put there.
func unmanagedDevices(f *Facts) []v1alpha1.UnmanagedDevice {
	managed := map[string]bool{}
	for _, want := range f.Want.Disks {
		if disk := f.attachedDisk(want); disk != nil {
			managed[disk.UUID] = true
		}
	}
	if device := f.driveDevice(); device != nil && device.VDI.Marks.Role != "" && f.driveDisk() != nil {
		managed[device.UUID] = true
	}
	var devices []v1alpha1.UnmanagedDevice
	for _, disk := range f.VM.Disks {
		if managed[disk.UUID] || disk.Entry != "" {
			continue
		}
		kind := v1alpha1.DeviceDisk
		if disk.CD {
			kind = v1alpha1.DeviceCD
		}
		devices = append(devices, v1alpha1.UnmanagedDevice{UUID: disk.UUID, Type: kind, Device: disk.Device, Name: disk.VDI.Name})
	}
	for i := range f.VM.NICs {
		nic := &f.VM.NICs[i]
		if nic.Entry != "" || slices.ContainsFunc(f.Want.NICs, func(w WantNIC) bool { return f.nicFor(w) == nic }) {
			continue
		}
		devices = append(devices, v1alpha1.UnmanagedDevice{
			UUID: nic.UUID, Type: v1alpha1.DeviceNetwork, Device: nic.Device, Name: nic.NetworkName,
		})
	}
	return capped(devices, maxUnmanagedDevices)
}

// addresses are those the guest reports, by interface.
func addresses(f *Facts) []v1alpha1.Address {
	var list []v1alpha1.Address
	for _, nic := range f.VM.NICs {
		for _, address := range f.VM.Guest.Addresses[nic.Device] {
			list = append(list, v1alpha1.Address{Type: family(address), Address: address, Network: nic.Entry})
		}
	}
	return capped(list, maxAddresses)
}

func family(address string) v1alpha1.AddressType {
	if strings.Contains(address, ":") {
		return v1alpha1.AddressIPv6
	}
	return v1alpha1.AddressIPv4
}

// primaryAddress is the first address of the first interface that has one, IPv4 before IPv6.
func primaryAddress(f *Facts) string {
	for _, nic := range f.VM.NICs {
		list := f.VM.Guest.Addresses[nic.Device]
		if i := slices.IndexFunc(list, func(a string) bool { return family(a) == v1alpha1.AddressIPv4 }); i >= 0 {
			return list[i]
		}
		if len(list) > 0 {
			return list[0]
		}
	}
	return ""
}

// setProvisioned says whether VM and root disk exist.
func setProvisioned(status *v1alpha1.XenInstanceStatus, f *Facts, report Report) {
	set := setter(status, v1alpha1.ConditionProvisioned)
	switch {
	case f.VM == nil && report.Outcome.Kind() != reconcile.KindDone:
		set(metav1.ConditionFalse, orElse(report.Outcome.Reason(), v1alpha1.ReasonCreating), report.Outcome.Message())
	case f.VM == nil || f.building() || firstBuild(f, report):
		set(metav1.ConditionFalse, v1alpha1.ReasonCreating, "the VM is being made")
	case f.Want.Source.ExistingUUID != "":
		set(metav1.ConditionTrue, v1alpha1.ReasonAdopted, "VM "+f.VM.UUID+" existed before")
	case !rootDiskThere(f):
		set(metav1.ConditionFalse, v1alpha1.ReasonExternallyDeleted, "the root disk is gone")
	default:
		set(metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "VM "+f.VM.UUID+" and its root disk exist")
	}
}

// setFlavorApplied says whether the VM has the size that the flavor says.
func setFlavorApplied(status *v1alpha1.XenInstanceStatus, f *Facts, report Report) {
	set := setter(status, v1alpha1.ConditionFlavorApplied)
	switch {
	case f.Want.Flavor == "":
		set(metav1.ConditionTrue, v1alpha1.ReasonNotRequested, "no flavor is asked for")
	case f.Want.Size == nil:
		set(metav1.ConditionFalse, v1alpha1.ReasonFlavorNotFound, "there is no XenFlavor "+f.Want.Flavor)
	case f.VM == nil || f.building() || firstBuild(f, report):
		set(metav1.ConditionFalse, v1alpha1.ReasonApplying, "the VM is being made")
	case f.Want.Refused != nil:
		set(metav1.ConditionFalse, f.Want.Refused.Reason, f.refusalText())
	case sized(f) && f.awaitsConfirmation(report.Now):
		set(metav1.ConditionTrue, v1alpha1.ReasonAwaitingConfirmation, f.Want.Flavor+": "+f.VM.Size.text())
	case sized(f):
		set(metav1.ConditionTrue, v1alpha1.ReasonSucceeded, f.Want.Flavor+": "+f.VM.Size.text())
	default:
		setFlavorPending(set, f, report)
	}
}

// setFlavorPending says why the VM does not have the size of its flavor yet.
func setFlavorPending(set func(metav1.ConditionStatus, string, string), f *Facts, report Report) {
	switch {
	case f.Want.Observe:
		set(metav1.ConditionFalse, v1alpha1.ReasonObserved, "the VM has "+f.VM.Size.text())
	case adoptionHeld(f):
		set(metav1.ConditionFalse, v1alpha1.ReasonAdoptionHeld, "the VM has "+f.VM.Size.text())
	case (f.resizeJournal() == nil || !onTarget(f)) && len(resizeProblems(f)) > 0:
		set(metav1.ConditionFalse, resizeProblems(f)[0].Reason, resizeProblems(f)[0].Message)
	case f.halted() || report.Plan.Operation == operationResize:
		set(metav1.ConditionFalse, v1alpha1.ReasonApplying, "from "+f.VM.Size.text()+" to "+f.Want.Size.text())
	default:
		set(metav1.ConditionFalse, v1alpha1.ReasonPowerOffRequired,
			"from "+f.VM.Size.text()+" to "+f.Want.Size.text()+" when the VM is off; a new restartToken turns it off and on")
	}
}

// powerReasons are the reasons for being in a power state as asked.
var powerReasons = map[v1alpha1.PowerState]string{
	v1alpha1.PowerStateRunning: v1alpha1.ReasonRunning, v1alpha1.PowerStateHalted: v1alpha1.ReasonHalted,
	v1alpha1.PowerStateSuspended: v1alpha1.ReasonSuspended, v1alpha1.PowerStatePaused: v1alpha1.ReasonVMPaused,
}

// setPowerStateSynced says whether the VM is in the power state that is asked for, and if not, why.
func setPowerStateSynced(status *v1alpha1.XenInstanceStatus, f *Facts, report Report) {
	set := setter(status, v1alpha1.ConditionPowerStateSynced)
	switch {
	case f.VM == nil || f.building() || firstBuild(f, report):
		set(metav1.ConditionFalse, v1alpha1.ReasonCreating, "the VM is being made")
	case f.rescueUnderWay():
		setPowerInRescue(set, f, report)
	case f.Want.Power == "":
		set(metav1.ConditionTrue, v1alpha1.ReasonNotRequested, "the VM is "+string(f.VM.Power)+"; no power state is asked for")
	case f.VM.Power == f.Want.Power && report.Leads != "" && report.Leads != f.Want.Power:
		// Asked for and withdrawn: when the VM gets there that is our doing, and no drift.
		set(metav1.ConditionFalse, v1alpha1.ReasonProgressing, "the VM is on its way to "+string(report.Leads)+", from which it is brought back")
	case f.VM.Power == f.Want.Power && report.Plan.Operation != operationRestart:
		set(metav1.ConditionTrue, powerReasons[f.VM.Power], "the VM is "+string(f.VM.Power)+" as asked")
	default:
		set(metav1.ConditionFalse, powerReason(f, report), orElse(report.Outcome.Message(), "the VM is "+string(f.VM.Power)))
	}
}

// setPowerInRescue says of the power state that the rescue goes before it. A state that is to be left alone after the
// return is a drift from then on.
func setPowerInRescue(set func(metav1.ConditionStatus, string, string), f *Facts, report Report) {
	switch {
	case f.leavesPowerAlone(report.Now):
		set(metav1.ConditionFalse, v1alpha1.ReasonDrifted, "the VM stays as it was before the rescue")
	case f.rescueShown() && f.Rescue.Power == v1alpha1.PowerStateRunning:
		set(metav1.ConditionTrue, v1alpha1.ReasonInRescue, "the rescue VM runs; powerState counts after the return")
	default:
		set(metav1.ConditionFalse, orElse(report.Outcome.Reason(), v1alpha1.ReasonProgressing), orElse(report.Outcome.Message(), "on the way into rescue or back"))
	}
}

// powerReason says why the power state differs. A drift stays one until the state is put back: its beginning is how the
// grace is counted.
func powerReason(f *Facts, report Report) string {
	switch reason := report.Outcome.Reason(); {
	case drifted(f) && !f.beingCaptured() && report.Plan.Operation == "":
		return v1alpha1.ReasonDrifted
	case reason != "":
		return reason
	case f.Want.Observe:
		return v1alpha1.ReasonObserved
	}
	return v1alpha1.ReasonProgressing
}

// setGuestReady says whether the guest reports itself.
func setGuestReady(status *v1alpha1.XenInstanceStatus, f *Facts) {
	set := setter(status, v1alpha1.ConditionGuestReady)
	switch {
	case !f.running():
		set(metav1.ConditionFalse, v1alpha1.ReasonNotRunning, "the VM does not run")
	case !f.VM.Guest.Reports:
		set(metav1.ConditionFalse, v1alpha1.ReasonToolsNotInstalled, "the guest agent does not report; it may still be starting, or is not installed")
	case len(f.VM.Guest.Addresses) == 0:
		set(metav1.ConditionFalse, v1alpha1.ReasonWaitingForAddress, "the guest agent reports, but no address yet")
	default:
		set(metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "the guest reports itself")
	}
}

// setter sets one condition.
func setter(status *v1alpha1.XenInstanceStatus, kind string) func(metav1.ConditionStatus, string, string) {
	return func(value metav1.ConditionStatus, reason, message string) {
		reconcile.SetCondition(&status.Conditions, kind, value, reason, message)
	}
}

func orElse(text, otherwise string) string { return firstNonEmpty(text, otherwise) }

// capped cuts a list to what the API takes.
func capped[T any](list []T, limit int) []T { return list[:min(len(list), limit)] }

// cut cuts a text to what the API takes.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}

func quantity(bytes int64) *resource.Quantity { return resource.NewQuantity(bytes, resource.BinarySI) }

func number(n int64) int32 { return int32(min(max(n, 0), math.MaxInt32)) }

// deviceNumber is a device's number, nil if it is none.
func deviceNumber(device string) *int32 {
	n, err := strconv.ParseInt(device, 10, 32)
	if err != nil {
		return nil
	}
	value := int32(n)
	return &value
}
