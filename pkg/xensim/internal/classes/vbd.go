package classes

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Block devices: the disks and CDs of VMs.

func (w *World) registerVBD() {
	w.Handle("VBD.create", w.vbdCreate)
	w.handle("VBD.destroy", w.vbdDestroy)
	w.handle("VBD.plug", w.vbdPlug)
	w.handle("VBD.unplug", func(c *xapi.Call) error { return w.vbdUnplug(c, "unplug") })
	w.handle("VBD.unplug_force", func(c *xapi.Call) error { return w.vbdUnplug(c, "unplug_force") })
	w.handle("VBD.insert", w.vbdInsert)
	w.handle("VBD.eject", w.vbdEject)
	w.handle("VBD.assert_attachable", func(c *xapi.Call) error { return w.checkVBD(c.Self(), "attach") })
	w.handle("VBD.set_mode", func(c *xapi.Call) error {
		if err := w.checkHalted(w.text("VBD", c.Self(), "VM")); err != nil {
			return err
		}
		w.Set("VBD", c.Self(), db.Fields{"mode": c.Str("value")})
		return nil
	})
}

// checkHalted wants a VM halted, and says so in the words of calls without an operation of their own.
func (w *World) checkHalted(vm string) error {
	state := w.text("VM", vm, "power_state")
	if state == "" || state == powerHalted {
		return nil
	}
	return refuse("VM_BAD_POWER_STATE", vm, "halted", lower(state)).err()
}

func (w *World) vbdCreate(c *xapi.Call) (any, error) {
	fields := c.Fields("args")
	vm, vdi := fields["VM"].(string), fields["VDI"].(string)
	r, err := c.Record("VM", vm)
	if err != nil {
		return nil, err
	}
	if err := w.checkNewVBD(fields, vdi); err != nil {
		return nil, err
	}
	for _, operation := range currentOperations(r) {
		if operation == "migrate_send" || operation == "pool_migrate" {
			return nil, xapi.Fail("OTHER_OPERATION_IN_PROGRESS", "VM", vm, operation)
		}
	}
	device, err := w.chooseDevice(vm, fields["userdevice"].(string), fields["type"].(string))
	if err != nil {
		return nil, err
	}
	fields["userdevice"] = device
	if r.Str("power_state") != powerSuspended {
		fields["device"], fields["currently_attached"] = "", false
	}
	if kind, set := w.DB().Get("VDI", vdi), "backend-kind"; kind.Exists() && kind.Map("sm_config")[set] != "" {
		otherConfig := cloned(fields["other_config"].(map[string]string))
		otherConfig[set] = kind.Map("sm_config")[set]
		fields["other_config"] = otherConfig
	}
	vbd := w.newVBD(fields)
	w.Refresh("VBD", vbd)
	return vbd, nil
}

func (w *World) checkNewVBD(fields db.Fields, vdi string) error {
	empty, _ := fields["empty"].(bool)
	isCD, writes := fields["type"] == "CD", fields["mode"] == "RW"
	r := w.DB().Get("VDI", vdi)
	switch {
	case !empty && !r.Exists():
		return xapi.HandleInvalid("VDI", vdi)
	case !empty && !vbdTakes(r.Str("type")):
		return xapi.Fail("VDI_INCOMPATIBLE_TYPE", vdi, r.Str("type"))
	case isCD && writes:
		return xapi.Fail("VBD_CDS_MUST_BE_READONLY")
	case !isCD && empty:
		return xapi.Fail("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
	case writes && r.Exists() && r.Bool("read_only"):
		return xapi.Fail("VDI_READONLY", vdi)
	}
	return nil
}

// vbdTakes says whether disks of a type may be given to VMs.
func vbdTakes(vdiType string) bool {
	switch vdiType {
	case "system", "user", "ephemeral", "suspend", "crashdump", "metadata", "rrd", "pvs_cache":
		return true
	}
	return false
}

// chooseDevice is the position that a new VBD gets.
func (w *World) chooseDevice(vm, wanted, vbdType string) (string, error) {
	if !validUserdevice(wanted, vbdType) {
		return "", xapi.Fail("INVALID_DEVICE", wanted)
	}
	if wanted == autodetect {
		device := w.freeDevice(vm)
		if device == "" {
			return "", xapi.Fail("INVALID_DEVICE", wanted)
		}
		return device, nil
	}
	if number, ok := diskNumber(wanted); ok && w.usedDevices(vm)[number] {
		return "", xapi.Fail("DEVICE_ALREADY_EXISTS", wanted)
	}
	return wanted, nil
}

// usedDevices are the positions that a VM's VBDs take, by userdevice or by device.
func (w *World) usedDevices(vm string) map[int]bool {
	used := map[int]bool{}
	for _, ref := range w.DB().Get("VM", vm).Strs("VBDs") {
		vbd := w.DB().Get("VBD", ref)
		for _, name := range []string{vbd.Str("userdevice"), vbd.Str("device")} {
			if number, ok := diskNumber(name); ok {
				used[number] = true
			}
		}
	}
	return used
}

// freeDevices are the positions that a VM has left.
func (w *World) freeDevices(vm string) []string {
	used, free := w.usedDevices(vm), []string{}
	for number := range vbdDevices {
		if !used[number] {
			free = append(free, strconv.Itoa(number))
		}
	}
	return free
}

func (w *World) freeDevice(vm string) string {
	if free := w.freeDevices(vm); len(free) > 0 {
		return free[0]
	}
	return ""
}

// newVBD adds a VBD and its metrics.
func (w *World) newVBD(fields db.Fields) string {
	with := db.Fields{"metrics": w.Create("VBD_metrics", db.Fields{})}
	for name, value := range fields {
		with[name] = value
	}
	return w.Create("VBD", with)
}

// deleteVBD removes a VBD and its metrics.
func (w *World) deleteVBD(vbd string) {
	w.DB().Delete("VBD_metrics", w.text("VBD", vbd, "metrics"))
	w.DB().Delete("VBD", vbd)
}

func (w *World) vbdDestroy(c *xapi.Call) error {
	vbd := c.Self()
	r := w.DB().Get("VBD", vbd)
	if r.Bool("currently_attached") {
		return xapi.Fail("OPERATION_NOT_ALLOWED",
			fmt.Sprintf("VBD '%s' still attached to '%s'", r.Str("uuid"), w.text("VM", r.Str("VM"), "uuid")))
	}
	w.deleteVBD(vbd)
	return nil
}

// onVBD does something to a VBD that its current_operations tells, and recomputes what may be done then.
func (w *World) onVBD(c *xapi.Call, vbd, operation string, f func() error) error {
	err := c.Operate("VBD", vbd, operation, func() error { return w.checkVBD(vbd, operation) }, f)
	w.Refresh("VBD", vbd)
	w.Refresh("VDI", w.text("VBD", vbd, "VDI"))
	return err
}

func (w *World) vbdPlug(c *xapi.Call) error {
	vbd := c.Self()
	return w.onVBD(c, vbd, "plug", func() error {
		r := w.DB().Get("VBD", vbd)
		vm := w.DB().Get("VM", r.Str("VM"))
		if domainType(vm) == "hvm" && r.Str("type") != "CD" && r.Str("mode") == "RO" {
			return xapi.Fail("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", vbd)
		}
		if err := w.checkSeesStorage(r.Str("VM"), vm.Str("resident_on")); err != nil {
			return err
		}
		if err := c.Wait(w.durations.Plug); err != nil {
			return err
		}
		w.attachVBD(vbd)
		return nil
	})
}

func (w *World) vbdUnplug(c *xapi.Call, operation string) error {
	vbd := c.Self()
	return w.onVBD(c, vbd, operation, func() error {
		if err := c.Wait(w.durations.Plug); err != nil {
			return err
		}
		w.Set("VBD", vbd, db.Fields{"currently_attached": false})
		return nil
	})
}

func (w *World) vbdInsert(c *xapi.Call) error {
	vbd, vdi := c.Self(), c.Str("vdi")
	return w.onVBD(c, vbd, "insert", func() error {
		r, err := c.Record("VDI", vdi)
		if err != nil {
			return err
		}
		if !r.Bool("managed") {
			return xapi.Fail("VDI_NOT_MANAGED", vdi)
		}
		return w.changeMedium(c, vbd, db.Fields{"VDI": vdi, "empty": false})
	})
}

func (w *World) vbdEject(c *xapi.Call) error {
	vbd := c.Self()
	old := w.text("VBD", vbd, "VDI")
	defer func() { w.Refresh("VDI", old) }()
	return w.onVBD(c, vbd, "eject", func() error {
		return w.changeMedium(c, vbd, db.Fields{"VDI": db.NullRef, "empty": true})
	})
}

func (w *World) changeMedium(c *xapi.Call, vbd string, fields db.Fields) error {
	if w.text("VM", w.text("VBD", vbd, "VM"), "power_state") != powerHalted {
		if err := c.Wait(w.durations.Plug); err != nil {
			return err
		}
	}
	w.Set("VBD", vbd, fields)
	return nil
}

func asError(err error, target **xapi.Error) bool { return errors.As(err, target) }
