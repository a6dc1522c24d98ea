package classes

import (
	"fmt"
	"slices"
	"strings"
)

// What may be done with a VM's devices when: the rules of xapi_vbd_helpers.ml and xapi_vif_helpers.ml. As in vm_lifecycle.go,
// facts go in and a decision comes out.

// The operations of VBDs and VIFs in the order in which allowed_operations lists them.
var (
	vbdOperations = []string{"attach", "unpause", "insert", "eject", "plug", "unplug", "unplug_force", "pause"}
	vifOperations = []string{"attach", "plug", "unplug"}
)

// hotplug operations change what a running guest sees.
var hotplugOperations = []string{"plug", "unplug", "unplug_force"}

// deviceVMFacts is what the VM of a device contributes.
type deviceVMFacts struct {
	ref               string
	powerState        string
	hvm               bool
	isDomainZero      bool
	isSystemDomain    bool
	currentOperations []string
	guest             guestFacts
	driversDetected   bool
	hotplug           string // what the guest says of hot-plug of this kind of device: yes, no, unspecified
}

// vbdFacts is what decides whether an operation may be done with a VBD.
type vbdFacts struct {
	ref               string
	vm                deviceVMFacts
	currentOperations []string
	vbdType           string
	unpluggable       bool
	empty             bool
	attached          bool
	writes            bool // mode RW
	vdi               vdiOfVBDFacts
}

// vdiOfVBDFacts is what the VDI of a VBD contributes; unset for an empty VBD.
type vdiOfVBDFacts struct {
	ref               string
	managed           bool
	sharable          bool
	readOnly          bool
	currentOperations []string
	otherUsers        int  // other VBDs that have the disk open
	otherWriters      bool // one of them writes
}

// vifFacts is what decides whether an operation may be done with a VIF.
type vifFacts struct {
	ref               string
	vm                deviceVMFacts
	currentOperations []string
	attached          bool
}

// refusals collects the first reason found against each operation.
type refusals map[string]refusal

func (r refusals) add(reason refusal, operations ...string) {
	for _, operation := range operations {
		if _, found := r[operation]; !found && reason.refused() {
			r[operation] = reason
		}
	}
}

func (r refusals) allowed(operations []string) []string {
	allowed := []string{}
	for _, operation := range operations {
		if _, refused := r[operation]; !refused {
			allowed = append(allowed, operation)
		}
	}
	return allowed
}

// vbdRefusals finds what stands against each operation on a VBD. Whether the disk is in use by others is looked at only when
// checkSharing is set: the list of allowed operations leaves it out, as on a real server.
func vbdRefusals(vbd vbdFacts, checkSharing bool) refusals {
	found := refusals{}
	vbdBusy(vbd, found)
	if !vbd.unpluggable {
		found.add(refuse("VBD_NOT_UNPLUGGABLE", vbd.ref), "unplug", "unplug_force")
	}
	if vbd.vbdType != "CD" {
		found.add(refuse("VBD_NOT_REMOVABLE_MEDIA", vbd.ref), "insert", "eject")
	}
	if vbd.empty {
		found.add(refuse("VBD_IS_EMPTY", vbd.ref), "eject")
	} else {
		found.add(refuse("VBD_NOT_EMPTY", vbd.ref), "insert")
	}
	vbdPower(vbd, found)
	deviceVMBusy(vbd.vm, found)
	if vbd.vm.powerState == powerRunning && vbd.vm.hvm {
		found.add(guestHotplug(vbd.vm, "VBD"), hotplugOperations...)
		if vbd.vbdType == "CD" {
			found.add(refuse("OPERATION_NOT_ALLOWED", "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected"),
				hotplugOperations...)
		}
	}
	if vbd.vbdType == "CD" && vbd.vm.powerState == powerSuspended {
		found.add(refuse("VM_BAD_POWER_STATE", vbd.vm.ref, "halted, running", "suspended"), "insert", "eject")
	}
	if !vbd.empty {
		vbdDisk(vbd, checkSharing, found)
	}
	return found
}

// vbdBusy refuses what cannot run beside the VBD's current operations; only pausing can.
func vbdBusy(vbd vbdFacts, found refusals) {
	if len(vbd.currentOperations) == 0 {
		return
	}
	busy := refuse("OTHER_OPERATION_IN_PROGRESS", "VBD", vbd.ref, vbd.currentOperations[0])
	found.add(busy, "attach", "insert", "eject", "plug", "unplug", "unplug_force")
	for _, current := range vbd.currentOperations {
		if current != "pause" && current != "unpause" {
			found.add(busy, "pause")
			if current != "attach" { // a reboot marks its disks so, and unpauses them
				found.add(busy, "unpause")
			}
		}
	}
}

func vbdPower(vbd vbdFacts, found refusals) {
	switch {
	case vbd.vm.powerState == powerRunning && vbd.attached:
		found.add(refuse("DEVICE_ALREADY_ATTACHED", vbd.ref), "plug")
	case vbd.vm.powerState == powerRunning:
		found.add(refuse("DEVICE_ALREADY_DETACHED", vbd.ref), "unplug", "unplug_force")
	default:
		notRunning := refuse("VM_BAD_POWER_STATE", vbd.vm.ref, "running", strings.ToLower(vbd.vm.powerState))
		found.add(notRunning, hotplugOperations...)
		if vbd.vm.powerState != powerPaused {
			found.add(notRunning, "pause", "unpause")
		}
	}
}

// deviceVMBusy refuses hot-plug while the VM goes down or is being frozen.
func deviceVMBusy(vm deviceVMFacts, found refusals) {
	for _, current := range vm.currentOperations {
		switch current {
		case "clean_shutdown", "hard_shutdown", "suspend", "pause":
			found.add(refuse("OPERATION_NOT_ALLOWED", fmt.Sprintf("Current operation on VM:%s is %s", vm.ref, current)),
				"plug", "unplug")
		}
	}
}

// guestHotplug says why a guest of an HVM domain would not see a device come or go.
func guestHotplug(vm deviceVMFacts, class string) refusal {
	switch {
	case vm.hotplug == "yes":
		return refusal{}
	case vm.hotplug == "no":
		return refuse("OPERATION_NOT_ALLOWED", "VM states it does not support "+class+" hotplug.")
	case vm.driversDetected, vm.guest.hasPVDrivers:
		return refusal{}
	}
	return refuse("VM_MISSING_PV_DRIVERS", vm.ref)
}

func vbdDisk(vbd vbdFacts, checkSharing bool, found refusals) {
	vdi := vbd.vdi
	if !vdi.managed {
		found.add(refuse("VDI_NOT_MANAGED", vbd.ref), vbdOperations...)
	}
	uses := []string{"attach", "plug", "insert"}
	if slices.ContainsFunc(vdi.currentOperations, func(o string) bool { return o != "mirror" && o != "copy" }) {
		found.add(refuse("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi.ref, vdi.currentOperations[0]), uses...)
	}
	if vbd.attached || !checkSharing {
		return
	}
	if !vdi.sharable && !vbd.vm.isSystemDomain && (vdi.otherWriters || vbd.writes && vdi.otherUsers > 0) {
		found.add(refuse("VDI_IN_USE", vdi.ref), uses...)
	}
	if vbd.writes && vdi.readOnly {
		found.add(refuse("VDI_READONLY", vdi.ref), uses...)
	}
}

// vifRefusals finds what stands against each operation on a VIF.
func vifRefusals(vif vifFacts) refusals {
	found := refusals{}
	if len(vif.currentOperations) > 0 {
		found.add(refuse("OTHER_OPERATION_IN_PROGRESS", "VIF", vif.ref, vif.currentOperations[0]), vifOperations...)
	}
	if vif.vm.isDomainZero {
		found.add(refuse("OPERATION_NOT_ALLOWED", "Control domain does not support hotplug"), "plug")
	}
	switch {
	case vif.vm.powerState == powerRunning && vif.attached:
		found.add(refuse("DEVICE_ALREADY_ATTACHED", vif.ref), "plug")
	case vif.vm.powerState == powerRunning:
		found.add(refuse("DEVICE_ALREADY_DETACHED", vif.ref), "unplug")
	default:
		found.add(refuse("VM_BAD_POWER_STATE", vif.vm.ref, "running", strings.ToLower(vif.vm.powerState)), "plug", "unplug")
	}
	deviceVMBusy(vif.vm, found)
	if vif.vm.powerState == powerRunning && vif.vm.hvm {
		found.add(guestHotplug(vif.vm, "VIF"), "plug", "unplug")
	}
	return found
}
