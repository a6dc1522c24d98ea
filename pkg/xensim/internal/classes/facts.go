package classes

import (
	"maps"
	"slices"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// This file reads from the database what the rules decide on, and writes the allowed operations that follow.

func currentOperations(r db.Record) []string {
	current := r.Map("current_operations")
	var operations []string
	for _, task := range slices.Sorted(maps.Keys(current)) {
		operations = append(operations, current[task])
	}
	return operations
}

// domainType is the kind of domain that a VM is, or will be.
func domainType(vm db.Record) string {
	switch kind := vm.Str("domain_type"); {
	case kind != "" && kind != "unspecified":
		return kind
	case vm.Str("HVM_boot_policy") == "":
		return "pv"
	}
	return "hvm"
}

func (w *World) guestFacts(vm db.Record) guestFacts {
	facts := guestFacts{}
	if metrics := w.DB().Get("VM_metrics", vm.Str("metrics")); metrics.Exists() {
		switch metrics.Str("current_domain_type") {
		case "pv", "pvh", "pv_in_pvh":
			facts.bootedPV = true
		}
	}
	if metrics := w.DB().Get("VM_guest_metrics", vm.Str("guest_metrics")); metrics.Exists() {
		facts.features = metrics.Map("other")
		version := metrics.Map("PV_drivers_version")
		_, noMajor := strconv.Atoi(version["major"])
		_, noMinor := strconv.Atoi(version["minor"])
		facts.hasPVDrivers = noMajor == nil && noMinor == nil
	}
	return facts
}

// platformFlag reads a switch of VM.platform.
func platformFlag(vm db.Record, key string) bool {
	value := vm.Map("platform")[key]
	return value == "true" || value == "1"
}

func (w *World) vmFacts(ref string) vmFacts {
	vm := w.DB().Get("VM", ref)
	otherConfig := vm.Map("other_config")
	facts := vmFacts{
		ref: ref, powerState: vm.Str("power_state"), isTemplate: vm.Bool("is_a_template"), isSnapshot: vm.Bool("is_a_snapshot"),
		isDefaultTemplate: vm.Bool("is_default_template") || otherConfig["default_template"] == "true",
		isControlDomain:   vm.Bool("is_control_domain"),
		isDomainZero:      vm.Bool("is_control_domain") && vm.Int("domid") == 0,
		isSystemDomain:    otherConfig["is_system_domain"] == "true",
		blocked:           vm.Map("blocked_operations"), currentOperations: currentOperations(vm), guest: w.guestFacts(vm),
		hasVGPU: len(vm.Strs("VGPUs")) > 0, hasVUSB: len(vm.Strs("VUSBs")) > 0, hasPCI: len(vm.Strs("attached_PCIs")) > 0,
		vtpms: len(vm.Strs("VTPMs")),
	}
	if w.valid("VM_appliance", vm.Str("appliance")) {
		facts.appliance = vm.Str("appliance")
	}
	nomigrate, nested := platformFlag(vm, "nomigrate"), platformFlag(vm, "nested-virt")
	if metrics := w.DB().Get("VM_metrics", vm.Str("metrics")); metrics.Exists() {
		nomigrate, nested = metrics.Bool("nomigrate"), metrics.Bool("nested_virt")
	}
	facts.immobile, facts.nestedVirt = nomigrate || nested, nested
	for _, vbd := range vm.Strs("VBDs") {
		if vdi := w.DB().Get("VDI", w.text("VBD", vbd, "VDI")); vdi.Exists() && vdi.Str("on_boot") == "reset" {
			facts.resetOnBoot = true
			facts.cachedResetOnBoot = facts.cachedResetOnBoot || vdi.Bool("allow_caching")
		}
	}
	return facts
}

// checkVM says why an operation may not be done with a VM now.
func (w *World) checkVM(vm, operation string) error {
	if !w.DB().Get("VM", vm).Exists() {
		return xapi.HandleInvalid("VM", vm)
	}
	return checkVMOperation(w.vmFacts(vm), operation, true).err()
}

func (w *World) refreshVM(ref string) {
	w.Set("VM", ref, db.Fields{"allowed_operations": allowedVMOperations(w.vmFacts(ref))})
	vm := w.DB().Get("VM", ref)
	for _, vtpm := range vm.Strs("VTPMs") {
		allowed := []string{}
		if vm.Str("power_state") == powerHalted {
			allowed = append(allowed, "destroy")
		}
		w.Set("VTPM", vtpm, db.Fields{"allowed_operations": allowed})
	}
}

func (w *World) deviceVMFacts(ref, hotplugField string) deviceVMFacts {
	vm := w.DB().Get("VM", ref)
	if !vm.Exists() {
		return deviceVMFacts{ref: ref}
	}
	facts := deviceVMFacts{
		ref: ref, powerState: vm.Str("power_state"), hvm: domainType(vm) == "hvm", currentOperations: currentOperations(vm),
		isDomainZero:   vm.Bool("is_control_domain") && vm.Int("domid") == 0,
		isSystemDomain: vm.Map("other_config")["is_system_domain"] == "true", guest: w.guestFacts(vm),
	}
	if metrics := w.DB().Get("VM_guest_metrics", vm.Str("guest_metrics")); metrics.Exists() {
		facts.driversDetected = metrics.Bool("PV_drivers_detected")
		facts.hotplug = metrics.Str(hotplugField)
	}
	return facts
}

func (w *World) vbdFacts(ref string) vbdFacts {
	vbd := w.DB().Get("VBD", ref)
	facts := vbdFacts{
		ref: ref, vm: w.deviceVMFacts(vbd.Str("VM"), "can_use_hotplug_vbd"), currentOperations: currentOperations(vbd),
		vbdType: vbd.Str("type"), unpluggable: vbd.Bool("unpluggable"), empty: vbd.Bool("empty"),
		attached: vbd.Bool("currently_attached"), writes: vbd.Str("mode") == "RW",
	}
	vdi := w.DB().Get("VDI", vbd.Str("VDI"))
	if facts.empty || !vdi.Exists() {
		facts.empty = true
		return facts
	}
	facts.vdi = vdiOfVBDFacts{
		ref: vbd.Str("VDI"), managed: vdi.Bool("managed"), sharable: vdi.Bool("sharable"), readOnly: vdi.Bool("read_only"),
		currentOperations: currentOperations(vdi),
	}
	for _, other := range vdi.Strs("VBDs") {
		if other == ref || !w.usesDisk(other) {
			continue
		}
		facts.vdi.otherUsers++
		facts.vdi.otherWriters = facts.vdi.otherWriters || w.text("VBD", other, "mode") == "RW"
	}
	return facts
}

// usesDisk says whether a VBD has its disk open, or is about to. Suspended VMs do not count, nor do control domains, which share
// disks knowingly.
func (w *World) usesDisk(ref string) bool {
	vbd := w.DB().Get("VBD", ref)
	vm := w.DB().Get("VM", vbd.Str("VM"))
	if !vm.Exists() || vm.Str("power_state") == powerSuspended || vm.Map("other_config")["is_system_domain"] == "true" {
		return false
	}
	return vbd.Bool("currently_attached") || len(vbd.Map("current_operations")) > 0
}

func (w *World) checkVBD(ref, operation string) error {
	if !w.DB().Get("VBD", ref).Exists() {
		return xapi.HandleInvalid("VBD", ref)
	}
	return vbdRefusals(w.vbdFacts(ref), true)[operation].err()
}

func (w *World) refreshVBD(ref string) {
	w.Set("VBD", ref, db.Fields{"allowed_operations": vbdRefusals(w.vbdFacts(ref), false).allowed(vbdOperations)})
}

func (w *World) vifFacts(ref string) vifFacts {
	vif := w.DB().Get("VIF", ref)
	return vifFacts{
		ref: ref, vm: w.deviceVMFacts(vif.Str("VM"), "can_use_hotplug_vif"), currentOperations: currentOperations(vif),
		attached: vif.Bool("currently_attached"),
	}
}

func (w *World) checkVIF(ref, operation string) error {
	if !w.DB().Get("VIF", ref).Exists() {
		return xapi.HandleInvalid("VIF", ref)
	}
	return vifRefusals(w.vifFacts(ref))[operation].err()
}

func (w *World) refreshVIF(ref string) {
	w.Set("VIF", ref, db.Fields{"allowed_operations": vifRefusals(w.vifFacts(ref)).allowed(vifOperations)})
}

// features are the capabilities of the driver of a kind of SR, as its SM record lists them.
func (w *World) features(srType string) map[string]int64 {
	for _, ref := range w.DB().Refs("SM") {
		sm := w.DB().Get("SM", ref)
		if sm.Str("type") != srType {
			continue
		}
		features := map[string]int64{}
		listed, _ := sm.Get("features").(map[string]any)
		for name, version := range listed {
			number, _ := version.(int64)
			features[name] = number
		}
		return features
	}
	return nil
}

func (w *World) vdiFacts(ref string) vdiFacts {
	vdi := w.DB().Get("VDI", ref)
	facts := vdiFacts{
		ref: ref, vdiType: vdi.Str("type"), sr: vdi.Str("SR"), currentOperations: currentOperations(vdi),
		sharable: vdi.Bool("sharable"), isSnapshot: vdi.Bool("is_a_snapshot"), cbtEnabled: vdi.Bool("cbt_enabled"),
		resetOnBoot: vdi.Str("on_boot") == "reset",
	}
	if sr := w.DB().Get("SR", facts.sr); sr.Exists() {
		facts.srType, facts.isToolsSR = sr.Str("type"), sr.Bool("is_tools_sr")
		facts.features = w.features(facts.srType)
		facts.srPlugged = w.pluggedPBD(facts.sr, "") != ""
	}
	for _, vbdRef := range vdi.Strs("VBDs") {
		vbd := w.DB().Get("VBD", vbdRef)
		facts.vbdBusy = facts.vbdBusy || len(vbd.Map("current_operations")) > 0
		if !vbd.Bool("currently_attached") {
			continue
		}
		facts.attached++
		if vbd.Str("mode") == "RW" {
			facts.attachedRW++
		}
		if vm := w.DB().Get("VM", vbd.Str("VM")); vm.Exists() && !vm.Bool("is_a_snapshot") {
			facts.attachedElsewhere = true
		}
	}
	return facts
}

func (w *World) checkVDI(ref, operation string) error {
	if !w.DB().Get("VDI", ref).Exists() {
		return xapi.HandleInvalid("VDI", ref)
	}
	return checkVDIOperation(w.vdiFacts(ref), operation).err()
}

func (w *World) refreshVDI(ref string) {
	w.Set("VDI", ref, db.Fields{"allowed_operations": allowedVDIOperations(w.vdiFacts(ref))})
}

func (w *World) srFacts(ref string) srFacts {
	sr := w.DB().Get("SR", ref)
	facts := srFacts{
		ref: ref, isToolsSR: sr.Bool("is_tools_sr"), features: w.features(sr.Str("type")), pbds: len(sr.Strs("PBDs")),
		currentOperations: currentOperations(sr),
	}
	for _, pbd := range sr.Strs("PBDs") {
		if w.DB().Get("PBD", pbd).Bool("currently_attached") {
			facts.pluggedPBDs++
		}
	}
	facts.managedVDIs = slices.ContainsFunc(sr.Strs("VDIs"), func(vdi string) bool {
		r := w.DB().Get("VDI", vdi)
		return r.Bool("managed") && r.Str("type") != "rrd"
	})
	return facts
}

func (w *World) checkSR(ref, operation string) error {
	if !w.DB().Get("SR", ref).Exists() {
		return xapi.HandleInvalid("SR", ref)
	}
	return srRefusals(w.srFacts(ref))[operation].err()
}

func (w *World) refreshSR(ref string) {
	w.Set("SR", ref, db.Fields{"allowed_operations": srRefusals(w.srFacts(ref)).allowed(srOperations)})
}

// pluggedPBD finds the connection by which a host sees an SR; any host's when host is empty. It is empty when there is none.
func (w *World) pluggedPBD(sr, host string) string {
	for _, ref := range w.DB().Get("SR", sr).Strs("PBDs") {
		pbd := w.DB().Get("PBD", ref)
		if pbd.Bool("currently_attached") && (host == "" || pbd.Str("host") == host) {
			return ref
		}
	}
	return ""
}
