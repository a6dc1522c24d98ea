package classes

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// What begins and ends with a domain: the records that say where a VM runs and what it has plugged. All functions expect the pool
// to be locked, and none waits.

// genericBIOSStrings are the strings of a VM that was given none.
var genericBIOSStrings = map[string]string{
	"bios-vendor": "Xen", "bios-version": "", "system-manufacturer": "Xen", "system-product-name": "HVM domU",
	"system-version": "", "system-serial-number": "", "baseboard-manufacturer": "", "baseboard-product-name": "",
	"baseboard-version": "", "baseboard-serial-number": "", "baseboard-asset-tag": "", "baseboard-location-in-chassis": "",
	"enclosure-asset-tag": "", "hp-rombios": "", "oem-1": "Xen", "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
}

// prepareToStart writes what a start fills in before a host is chosen, whether it succeeds or not.
func (w *World) prepareToStart(vm string) {
	r := w.DB().Get("VM", vm)
	fields := db.Fields{"domain_type": domainType(r)}
	if len(r.Map("bios_strings")) == 0 {
		fields["bios_strings"] = maps.Clone(genericBIOSStrings)
	}
	w.Set("VM", vm, fields)
	w.updateMemoryOverhead(vm)
}

// completePlatform writes back into platform what the device model will be (xapi_vm.ml, start).
func (w *World) completePlatform(vm string) {
	r := w.DB().Get("VM", vm)
	platform := maps.Clone(r.Map("platform"))
	if platform == nil {
		platform = map[string]string{}
	}
	model := "qemu-upstream-compat"
	if r.Map("HVM_boot_params")["firmware"] == "uefi" {
		model = "qemu-upstream-uefi"
	}
	if current, set := platform["device-model"]; domainType(r) == "hvm" && (!set || current == "qemu-trad") {
		platform["device-model"] = model
	}
	if platform["secureboot"] == "auto" {
		platform["secureboot"] = strconv.FormatBool(w.text("pool", w.PoolRef(), "uefi_certificates") != "")
	}
	w.Set("VM", vm, db.Fields{"platform": platform})
}

// domainStarts makes a VM run on a host.
func (w *World) domainStarts(vm, host string, paused bool) {
	w.nextDomain(vm, host)
	for _, vbd := range w.DB().Get("VM", vm).Strs("VBDs") {
		w.attachVBD(vbd)
	}
	for _, vif := range w.DB().Get("VM", vm).Strs("VIFs") {
		w.Set("VIF", vif, db.Fields{"currently_attached": true})
	}
	w.createConsoles(vm)
	w.boot(vm)
	state := powerRunning
	if paused {
		state = powerPaused
	}
	w.Set("VM", vm, db.Fields{"power_state": state})
	w.refreshDisks(vm)
	w.updateHostMemory(host)
}

// nextDomain gives a VM a new domain on a host.
func (w *World) nextDomain(vm, host string) {
	w.domids[host]++
	delete(w.scheduled, vm)
	r := w.DB().Get("VM", vm)
	kind := domainType(r)
	cpu := w.DB().Get("host", host).Map("cpu_info")
	w.Set("VM", vm, db.Fields{
		"resident_on": host, "scheduled_to_be_resident_on": db.NullRef, "domid": w.domids[host],
		"memory_target":       r.Int("memory_dynamic_max"),
		"last_boot_CPU_flags": map[string]string{"vendor": cpu["vendor"], "features": ""},
	})
	metrics := r.Str("metrics")
	if !w.valid("VM_metrics", metrics) {
		metrics = w.newMetrics()
		w.Set("VM", vm, db.Fields{"metrics": metrics})
	}
	w.Set("VM_metrics", metrics, db.Fields{
		"VCPUs_number": r.Int("VCPUs_at_startup"), "start_time": w.Now(), "hvm": kind == "hvm", "current_domain_type": kind,
		"nomigrate": platformFlag(r, "nomigrate"), "nested_virt": platformFlag(r, "nested-virt"),
	})
}

// domainReboots gives a running VM a new domain; devices and consoles stay.
func (w *World) domainReboots(vm string) {
	w.nextDomain(vm, w.text("VM", vm, "resident_on"))
	w.boot(vm)
	w.Set("VM", vm, db.Fields{"power_state": powerRunning})
}

// domainEnds leaves a VM halted or suspended. A suspended VM keeps what it has plugged.
func (w *World) domainEnds(vm, state string) {
	delete(w.guestOf, vm)
	host := w.text("VM", vm, "resident_on")
	r := w.DB().Get("VM", vm)
	w.Set("VM", vm, db.Fields{
		"power_state": state, "resident_on": db.NullRef, "scheduled_to_be_resident_on": db.NullRef, "domid": int64(-1),
	})
	if state == powerHalted {
		for _, vbd := range r.Strs("VBDs") {
			w.Set("VBD", vbd, db.Fields{"currently_attached": false})
		}
		for _, vif := range r.Strs("VIFs") {
			w.Set("VIF", vif, db.Fields{"currently_attached": false})
		}
		for _, console := range r.Strs("consoles") {
			w.DB().Delete("console", console)
		}
		w.Set("VM", vm, db.Fields{"requires_reboot": false, "memory_target": int64(0)})
		if w.valid("VM_metrics", r.Str("metrics")) {
			w.Set("VM_metrics", r.Str("metrics"), db.Fields{
				"VCPUs_number": int64(0), "start_time": db.Epoch, "hvm": false, "current_domain_type": "unspecified",
				"nomigrate": false, "nested_virt": false,
			})
		}
	}
	w.refreshDisks(vm)
	w.updateHostMemory(host)
}

// attachVBD opens the disk of a VBD for its running VM.
func (w *World) attachVBD(vbd string) {
	fields := db.Fields{"currently_attached": true}
	if number, ok := diskNumber(w.text("VBD", vbd, "userdevice")); ok {
		fields["device"] = linuxDevice(number)
	}
	w.Set("VBD", vbd, fields)
}

// createConsoles adds the screen and the serial line of a domain.
func (w *World) createConsoles(vm string) {
	address := w.text("host", w.text("VM", vm, "resident_on"), "address")
	for _, protocol := range []string{"rfb", "vt100"} {
		console := w.Create("console", db.Fields{"protocol": protocol, "VM": vm})
		location := fmt.Sprintf("https://%s/console?uuid=%s", address, w.text("console", console, "uuid"))
		w.Set("console", console, db.Fields{"location": location})
	}
}

// newMetrics adds the metrics of a VM that never ran.
func (w *World) newMetrics() string {
	return w.Create("VM_metrics", db.Fields{
		"VCPUs_utilisation": map[string]any{"0": 0.0}, "current_domain_type": "unspecified",
	})
}

// refreshDisks recomputes what may be done with a VM's disks.
func (w *World) refreshDisks(vm string) {
	for _, vbd := range w.DB().Get("VM", vm).Strs("VBDs") {
		w.Refresh("VDI", w.text("VBD", vbd, "VDI"))
	}
}

// refreshWithDevices recomputes what may be done with a VM and its devices.
func (w *World) refreshWithDevices(vm string) {
	r := w.DB().Get("VM", vm)
	if !r.Exists() {
		return
	}
	w.Refresh("VM", vm)
	for _, vbd := range r.Strs("VBDs") {
		w.Refresh("VBD", vbd)
	}
	w.refreshDisks(vm)
	for _, vif := range r.Strs("VIFs") {
		w.Refresh("VIF", vif)
	}
}
