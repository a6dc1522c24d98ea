package classes

import (
	"fmt"
	"maps"
	"math/rand/v2"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Making VMs from a record or a template, and removing them.

// macSeed in other_config is what the addresses of a VM's interfaces are made of.
const macSeed = "mac_seed"

// ignoredAtCreation are fields that VM.create takes and does not use.
var ignoredAtCreation = []string{
	"blocked_operations", "protection_policy", "is_snapshot_from_vmpp", "snapshot_schedule", "is_vmss_snapshot", "groups",
	"suspend_VDI", "last_booted_record", "last_boot_CPU_flags",
}

// vmCreate checks nothing of the values: a VM whose memory or VCPUs make no sense is refused when it starts.
func (w *World) vmCreate(c *xapi.Call) (any, error) {
	fields := c.Fields("args")
	suspended := fields["power_state"] == powerSuspended
	if suspended && !canCreateSuspended(fields) {
		return nil, xapi.Fail("VM_BAD_POWER_STATE", xapi.NewRef(), "halted", "suspended")
	}
	if !suspended {
		fields["power_state"] = powerHalted
		for _, name := range ignoredAtCreation {
			delete(fields, name)
		}
	}
	otherConfig := cloned(fields["other_config"].(map[string]string))
	if otherConfig[macSeed] == "" {
		otherConfig[macSeed] = xapi.NewUUID()
	}
	fields["other_config"] = otherConfig
	fields["metrics"] = w.newMetrics()
	fields["domid"] = int64(-1)
	vm := w.Create("VM", fields)
	w.Set("VM", vm, db.Fields{"domain_type": domainType(w.DB().Get("VM", vm))})
	w.updateMemoryOverhead(vm)
	w.updateHardwareVersion(vm)
	w.Refresh("VM", vm)
	return vm, nil
}

// canCreateSuspended says whether a record has all that a suspended VM needs to be resumed.
func canCreateSuspended(fields db.Fields) bool {
	flags, _ := fields["last_boot_CPU_flags"].(map[string]string)
	record, _ := fields["last_booted_record"].(string)
	image, _ := fields["suspend_VDI"].(string)
	return len(flags) > 0 && record != "" && image != "" && image != db.NullRef
}

// updateHardwareVersion raises a VM's virtual hardware to what it visibly needs.
func (w *World) updateHardwareVersion(vm string) {
	const withVendorDevice = 2
	r := w.DB().Get("VM", vm)
	if r.Bool("has_vendor_device") && r.Int("hardware_platform_version") < withVendorDevice {
		w.Set("VM", vm, db.Fields{"hardware_platform_version": int64(withVendorDevice)})
	}
}

// vmDestroy removes a VM's records. Its disks stay, and so do its snapshots.
func (w *World) vmDestroy(c *xapi.Call) error {
	vm := c.Self()
	return w.operate(c, vm, "destroy", func() error {
		r := w.DB().Get("VM", vm)
		for _, child := range r.Strs("children") {
			w.Set("VM", child, db.Fields{"parent": r.Str("parent")})
		}
		if r.Map("other_config")["default_template"] == "true" {
			return xapi.Fail("VM_CANNOT_DELETE_DEFAULT_TEMPLATE")
		}
		w.deleteVM(vm)
		return nil
	})
}

// deleteVM removes a VM and everything that is a part of it.
func (w *World) deleteVM(vm string) {
	r := w.DB().Get("VM", vm)
	for _, vtpm := range r.Strs("VTPMs") {
		w.DB().Delete("VTPM", vtpm)
	}
	for _, vbd := range r.Strs("VBDs") {
		w.deleteVBD(vbd)
	}
	for _, vif := range r.Strs("VIFs") {
		w.deleteVIF(vif)
	}
	for _, console := range r.Strs("consoles") {
		w.DB().Delete("console", console)
	}
	w.DB().Delete("VM_metrics", r.Str("metrics"))
	w.DB().Delete("VM_guest_metrics", r.Str("guest_metrics"))
	w.DB().Delete("VM", vm)
	delete(w.guestOf, vm)
	delete(w.snapshotted, vm)
}

// vmProvision makes a VM of a template and creates the disks that it describes. As on a real server the VM is no template any
// more when that fails.
func (w *World) vmProvision(c *xapi.Call) error {
	vm := c.Self()
	return w.operate(c, vm, "provision", func() error {
		config := w.DB().Get("VM", vm).Map("other_config")
		text, described := config[disksKey]
		_, scripted := config[postInstallKey]
		disks, ok := parseProvisionedDisks(text)
		if described && !ok {
			return xapi.Fail("INTERNAL_ERROR", "Xapi_templates.Parse_failure")
		}
		w.installed(vm)
		c.Progress(0.1)
		if err := w.provisionDisks(c, vm, disks); err != nil {
			return err
		}
		if len(disks) > 0 || scripted { // a description of no disks stays (recording 2078)
			w.RemoveFrom("VM", vm, "other_config", disksKey)
			w.RemoveFrom("VM", vm, "other_config", postInstallKey)
		}
		return nil
	})
}

// installed ends a VM's life as a template.
func (w *World) installed(vm string) {
	w.Set("VM", vm, db.Fields{"is_a_template": false})
	if metrics := w.text("VM", vm, "metrics"); w.valid("VM_metrics", metrics) {
		w.Set("VM_metrics", metrics, db.Fields{"install_time": w.Now()})
	}
}

// provisionDisks creates a template's disks, and removes them where one fails.
func (w *World) provisionDisks(c *xapi.Call, vm string, disks []provisionedDisk) error {
	var vbds, vdis []string
	for _, disk := range disks {
		vdi, vbd, err := w.provisionDisk(c, vm, disk)
		if err == nil {
			vbds, vdis = append(vbds, vbd), append(vdis, vdi)
			continue
		}
		for i := range vbds {
			w.deleteVBD(vbds[i])
			if dropped := w.destroyVDI(vdis[i]); dropped != nil {
				w.Logf("drop a disk of a failed provisioning: %v", dropped)
			}
		}
		return err
	}
	return nil
}

func (w *World) provisionDisk(c *xapi.Call, vm string, disk provisionedDisk) (vdi, vbd string, err error) {
	sr, found := w.DB().ByUUID("SR", disk.sr)
	if !found {
		return "", "", xapi.Fail("UUID_INVALID", "sr", disk.sr)
	}
	err = w.onStorage(c, sr, "vdi_create", "", "", func() (err error) {
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		vdi, err = w.createVDI(db.Fields{
			"name_description": "Created by template provisioner", "SR": sr, "virtual_size": disk.size, "type": disk.vdiType,
			"sm_config": map[string]string{"vmhint": w.text("VM", vm, "uuid")},
		})
		return err
	})
	if err != nil {
		return "", "", err
	}
	device, err := w.chooseDevice(vm, disk.device, "Disk")
	if err != nil {
		return "", "", errorAfter(err, w.destroyVDI(vdi))
	}
	vbd = w.newVBD(db.Fields{
		"VM": vm, "VDI": vdi, "userdevice": device, "bootable": disk.bootable, "mode": "RW", "type": "Disk",
		"unpluggable": disk.vdiType != "system", "empty": false, "other_config": map[string]string{"owner": ""},
	})
	w.Refresh("VBD", vbd)
	w.Set("VDI", vdi, db.Fields{"name_label": device})
	return vdi, vbd, nil
}

// errorAfter keeps the first of two errors in sight.
func errorAfter(err, cleanup error) error {
	if cleanup != nil {
		return fmt.Errorf("%w (and cleaning up: %w)", err, cleanup)
	}
	return err
}

// freshGenerationID is a new one for a VM that has one.
func freshGenerationID(current string) string {
	if current == "" {
		return ""
	}
	return fmt.Sprintf("%d:%d", rand.Int64(), rand.Int64()) //nolint:gosec // tells copies apart, protects nothing
}

// copyMetrics makes a VM's metrics for a copy of it.
func (w *World) copyMetrics(vm string) string {
	r := w.DB().Get("VM_metrics", w.text("VM", vm, "metrics"))
	if !r.Exists() {
		return w.newMetrics()
	}
	return w.Create("VM_metrics", without(r.Fields(), "uuid"))
}

// copyGuestMetrics makes a VM's guest metrics for a copy of it.
func (w *World) copyGuestMetrics(vm string) string {
	r := w.DB().Get("VM_guest_metrics", w.text("VM", vm, "guest_metrics"))
	if !r.Exists() {
		return db.NullRef
	}
	return w.Create("VM_guest_metrics", without(r.Fields(), "uuid"))
}

// without is fields less some.
func without(fields db.Fields, names ...string) db.Fields {
	rest := maps.Clone(fields)
	for _, name := range names {
		delete(rest, name)
	}
	return rest
}
