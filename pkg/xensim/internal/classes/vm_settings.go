package classes

import (
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Settings of VMs that are more than a field: memory, VCPUs, kind of domain, template or not.

func (w *World) registerVMSettings() {
	w.registerMemory()
	w.handle("VM.set_VCPUs_max", w.vmSetVCPUsMax)
	w.handle("VM.set_VCPUs_at_startup", w.vmSetVCPUsAtStartup)
	w.handle("VM.set_VCPUs_number_live", w.vmSetVCPUsLive)
	w.handle("VM.add_to_VCPUs_params_live", func(c *xapi.Call) error {
		return w.operate(c, c.Self(), "changing_VCPUs_live", func() error {
			return xapi.Fail("NOT_IMPLEMENTED", "add_to_VCPUs_params_live")
		})
	})
	w.handle("VM.set_HVM_shadow_multiplier", func(c *xapi.Call) error {
		return w.setShadow(c, "changing_shadow_memory", c.Float("value"))
	})
	w.handle("VM.set_shadow_multiplier_live", func(c *xapi.Call) error {
		return w.setShadow(c, "changing_shadow_memory_live", c.Float("multiplier"))
	})
	w.handle("VM.set_NVRAM", func(c *xapi.Call) error {
		return w.changeNVRAM(c, func(vm string) error {
			w.Set("VM", vm, db.Fields{"NVRAM": c.Map("value")})
			return nil
		})
	})
	w.handle("VM.add_to_NVRAM", func(c *xapi.Call) error {
		return w.changeNVRAM(c, func(vm string) error { return w.AddTo("VM", vm, "NVRAM", c.Str("key"), c.Str("value")) })
	})
	w.handle("VM.remove_from_NVRAM", func(c *xapi.Call) error {
		return w.changeNVRAM(c, func(vm string) error {
			w.RemoveFrom("VM", vm, "NVRAM", c.Str("key"))
			return nil
		})
	})
	w.handle("VM.set_is_a_template", w.vmSetIsATemplate)
	w.handle("VM.set_is_default_template", w.vmSetIsDefaultTemplate)
	w.handle("VM.set_bios_strings", w.vmSetBIOSStrings)
	w.handle("VM.copy_bios_strings", w.vmCopyBIOSStrings)
	w.handle("VM.set_domain_type", w.vmSetDomainType)
	w.handle("VM.set_HVM_boot_policy", func(c *xapi.Call) error {
		kind := "hvm"
		if c.Str("value") == "" {
			kind = "pv"
		}
		w.Set("VM", c.Self(), db.Fields{"HVM_boot_policy": c.Str("value"), "domain_type": kind})
		return nil
	})
	w.handle("VM.set_has_vendor_device", func(c *xapi.Call) error {
		if err := w.checkHalted(c.Self()); err != nil {
			return err
		}
		w.Set("VM", c.Self(), db.Fields{"has_vendor_device": c.Bool("value")})
		w.updateHardwareVersion(c.Self())
		return nil
	})
	w.handle("VM.set_suspend_VDI", w.vmSetSuspendVDI)
	w.handle("VM.set_actions_after_crash", func(c *xapi.Call) error {
		w.Set("VM", c.Self(), db.Fields{"actions_after_crash": c.Str("value")})
		return nil
	})
	w.registerOrder()
	w.registerPolicies()
}

// registerOrder: how VMs of an appliance follow each other.
func (w *World) registerOrder() {
	for _, field := range []string{"start_delay", "shutdown_delay", "order"} {
		w.handle("VM.set_"+field, func(c *xapi.Call) error {
			if value := c.Int("value"); value < 0 {
				return xapi.Fail("INVALID_VALUE", field+" must be non-negative", strconv.FormatInt(value, 10))
			}
			w.Set("VM", c.Self(), db.Fields{field: c.Int("value")})
			return nil
		})
	}
	w.handle("VM.set_appliance", func(c *xapi.Call) error {
		if vm := w.vmFacts(c.Self()); vm.isControlDomain || vm.isTemplate || vm.isSnapshot {
			return xapi.Fail("OPERATION_NOT_ALLOWED", "Control domains, templates and snapshots cannot be assigned to appliances.")
		}
		w.Set("VM", c.Self(), db.Fields{"appliance": c.Str("value")})
		w.Refresh("VM", c.Self())
		return nil
	})
	w.handle("VM.set_groups", func(c *xapi.Call) error {
		groups := c.Strs("value")
		switch vm := w.vmFacts(c.Self()); {
		case vm.isControlDomain, vm.isTemplate, vm.isSnapshot:
			return xapi.Fail("OPERATION_NOT_ALLOWED", "Control domains, templates, and snapshots cannot be added to VM groups.")
		case len(groups) > 1:
			return xapi.Fail("TOO_MANY_GROUPS")
		}
		w.Set("VM", c.Self(), db.Fields{"groups": groups})
		return nil
	})
}

// registerPolicies: high availability and schedules.
func (w *World) registerPolicies() {
	w.handle("VM.set_ha_restart_priority", func(c *xapi.Call) error { return w.setRestartPriority(c.Self(), c.Str("value")) })
	w.handle("VM.set_ha_always_run", func(c *xapi.Call) error {
		priority := ""
		if c.Bool("value") {
			priority = "restart"
		}
		return w.setRestartPriority(c.Self(), priority)
	})
	w.handle("VM.set_protection_policy", func(*xapi.Call) error { return xapi.Fail("MESSAGE_REMOVED") })
	w.handle("VM.set_snapshot_schedule", func(c *xapi.Call) error {
		switch schedule := c.Str("value"); {
		case schedule != db.NullRef && schedule != "" && !w.valid("VMSS", schedule):
			return xapi.Fail("INVALID_VALUE", schedule)
		case schedule != db.NullRef && w.DB().Get("VM", c.Self()).Bool("is_a_template"):
			return xapi.Fail("VM_IS_TEMPLATE", c.Self())
		}
		w.Set("VM", c.Self(), db.Fields{"snapshot_schedule": c.Str("value")})
		w.Refresh("VM", c.Self())
		return nil
	})
}

func (w *World) setRestartPriority(vm, priority string) error {
	if priority != "" && priority != "restart" && priority != "best-effort" {
		return xapi.Fail("INVALID_VALUE", "ha_restart_priority", priority)
	}
	r := w.DB().Get("VM", vm)
	if r.Str("ha_restart_priority") != priority {
		w.Set("VM", vm, db.Fields{"ha_restart_priority": priority})
		if r.Str("power_state") == powerRunning {
			w.Set("VM", vm, db.Fields{"ha_always_run": priority == "restart"})
		}
	}
	w.Refresh("VM", vm)
	return nil
}

func (w *World) registerMemory() {
	w.handle("VM.set_memory_limits", func(c *xapi.Call) error {
		return w.setLimits(c, "changing_memory_limits", func(memoryLimits) memoryLimits {
			return memoryLimits{staticMin: c.Int("static_min"), staticMax: c.Int("static_max"),
				dynamicMin: c.Int("dynamic_min"), dynamicMax: c.Int("dynamic_max"), target: c.Int("dynamic_min")}
		})
	})
	w.handle("VM.set_memory", func(c *xapi.Call) error {
		return w.setLimits(c, "changing_memory_limits", func(old memoryLimits) memoryLimits {
			value := c.Int("value")
			return memoryLimits{staticMin: old.staticMin, staticMax: value, dynamicMin: value, dynamicMax: value, target: value}
		})
	})
	static := func(c *xapi.Call, change func(*memoryLimits)) error {
		return w.setLimits(c, "changing_static_range", func(old memoryLimits) memoryLimits {
			change(&old)
			return old
		})
	}
	w.handle("VM.set_memory_static_range", func(c *xapi.Call) error {
		return static(c, func(l *memoryLimits) { l.staticMin, l.staticMax = c.Int("min"), c.Int("max") })
	})
	w.handle("VM.set_memory_static_min", func(c *xapi.Call) error {
		return static(c, func(l *memoryLimits) { l.staticMin = c.Int("value") })
	})
	w.handle("VM.set_memory_static_max", func(c *xapi.Call) error {
		return static(c, func(l *memoryLimits) { l.staticMax = c.Int("value") })
	})
	dynamic := func(c *xapi.Call, change func(*memoryLimits)) error {
		return w.setLimits(c, "changing_dynamic_range", func(old memoryLimits) memoryLimits {
			change(&old)
			old.target = old.dynamicMin
			return old
		})
	}
	w.handle("VM.set_memory_dynamic_range", func(c *xapi.Call) error {
		return dynamic(c, func(l *memoryLimits) { l.dynamicMin, l.dynamicMax = c.Int("min"), c.Int("max") })
	})
	w.handle("VM.set_memory_dynamic_min", func(c *xapi.Call) error {
		return dynamic(c, func(l *memoryLimits) { l.dynamicMin = c.Int("value") })
	})
	w.handle("VM.set_memory_dynamic_max", func(c *xapi.Call) error {
		return dynamic(c, func(l *memoryLimits) { l.dynamicMax = c.Int("value") })
	})
	for message, operation := range map[string]string{
		"VM.set_memory_target_live": "changing_memory_live", "VM.wait_memory_target_live": "awaiting_memory_live",
	} {
		w.handle(message, func(c *xapi.Call) error {
			return w.operate(c, c.Self(), operation, func() error { return nil })
		})
	}
}

func limitsOf(vm db.Record) memoryLimits {
	return memoryLimits{
		staticMin: vm.Int("memory_static_min"), dynamicMin: vm.Int("memory_dynamic_min"), target: vm.Int("memory_target"),
		dynamicMax: vm.Int("memory_dynamic_max"), staticMax: vm.Int("memory_static_max"),
	}
}

// setLimits changes a VM's memory limits, when the new ones are in order.
func (w *World) setLimits(c *xapi.Call, operation string, change func(memoryLimits) memoryLimits) error {
	vm := c.Self()
	return w.operate(c, vm, operation, func() error {
		r := w.DB().Get("VM", vm)
		limits := change(limitsOf(r))
		if err := checkLimits(r, w.vmFacts(vm), limits); err != nil {
			return err
		}
		w.Set("VM", vm, db.Fields{
			"memory_static_min": limits.staticMin, "memory_dynamic_min": limits.dynamicMin, "memory_target": limits.target,
			"memory_dynamic_max": limits.dynamicMax, "memory_static_max": limits.staticMax,
		})
		w.updateMemoryOverhead(vm)
		if r.Str("power_state") == powerRunning {
			w.balloon(vm, r)
		}
		return nil
	})
}

func checkLimits(vm db.Record, facts vmFacts, limits memoryLimits) error {
	switch {
	case vm.Bool("is_control_domain") && !limits.pinned():
		return xapi.Fail("MEMORY_CONSTRAINT_VIOLATION_MAXPIN", "control domain")
	case facts.nestedVirt && !limits.pinned():
		return xapi.Fail("MEMORY_CONSTRAINT_VIOLATION_MAXPIN", "nested virt")
	case !limits.ordered():
		return xapi.Fail("MEMORY_CONSTRAINT_VIOLATION_ORDER")
	}
	return nil
}

// balloon lets a running guest take or give memory as its new limits say.
func (w *World) balloon(vm string, r db.Record) {
	if r.Bool("is_control_domain") {
		w.Set("VM", vm, db.Fields{"requires_reboot": true})
	}
	w.updateHostMemory(r.Str("resident_on"))
}

const vcpuOrder = "VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max"

func (w *World) vmSetVCPUsMax(c *xapi.Call) error {
	vm, value := c.Self(), c.Int("value")
	return w.operate(c, vm, "changing_VCPUs", func() error {
		if value < 1 || value < w.DB().Get("VM", vm).Int("VCPUs_at_startup") {
			return xapi.Fail("INVALID_VALUE", vcpuOrder, strconv.FormatInt(value, 10))
		}
		w.Set("VM", vm, db.Fields{"VCPUs_max": value})
		w.updateMemoryOverhead(vm)
		return nil
	})
}

func (w *World) vmSetVCPUsAtStartup(c *xapi.Call) error {
	vm, value := c.Self(), c.Int("value")
	r := w.DB().Get("VM", vm)
	switch {
	case r.Bool("is_control_domain") && r.Int("domid") == 0:
		return xapi.Fail("OPERATION_NOT_ALLOWED", "set_VCPUs_at_startup is not allowed on dom0")
	case value < 1 || value > r.Int("VCPUs_max"):
		return xapi.Fail("INVALID_VALUE", vcpuOrder, strconv.FormatInt(value, 10))
	}
	w.Set("VM", vm, db.Fields{"VCPUs_at_startup": value})
	w.updateMemoryOverhead(vm)
	return nil
}

func (w *World) vmSetVCPUsLive(c *xapi.Call) error {
	vm, number := c.Self(), c.Int("nvcpu")
	return w.operate(c, vm, "changing_VCPUs_live", func() error {
		r := w.DB().Get("VM", vm)
		if most := r.Int("VCPUs_max"); number < 1 || number > most {
			return xapi.Fail("INVALID_VALUE", "VCPU values must satisfy: 0 < VCPUs ≤ VCPUs_max", strconv.FormatInt(most, 10))
		}
		w.Set("VM", vm, db.Fields{"VCPUs_at_startup": number})
		if w.valid("VM_metrics", r.Str("metrics")) {
			w.Set("VM_metrics", r.Str("metrics"), db.Fields{"VCPUs_number": number})
		}
		return nil
	})
}

// setShadow sets the shadow multiplier. Live it is for the domain alone: it does not show in the record.
func (w *World) setShadow(c *xapi.Call, operation string, multiplier float64) error {
	vm := c.Self()
	return w.operate(c, vm, operation, func() error {
		if multiplier < 1 {
			return xapi.Fail("INVALID_VALUE", "multiplier", ocamlFloat(multiplier))
		}
		if operation == "changing_shadow_memory" {
			w.Set("VM", vm, db.Fields{"HVM_shadow_multiplier": multiplier})
		}
		w.updateMemoryOverhead(vm)
		return nil
	})
}

func (w *World) changeNVRAM(c *xapi.Call, change func(vm string) error) error {
	vm := c.Self()
	return w.operate(c, vm, "changing_NVRAM", func() error { return change(vm) })
}

// vmSetIsATemplate: a VM becomes a template only when it may; a template becomes a VM without a question.
func (w *World) vmSetIsATemplate(c *xapi.Call) error {
	vm := c.Self()
	if !c.Bool("value") {
		w.installed(vm)
		return nil
	}
	return w.operate(c, vm, "make_into_template", func() error {
		w.makeTemplate(vm)
		return nil
	})
}

func (w *World) makeTemplate(vm string) {
	w.DB().Delete("VM_metrics", w.text("VM", vm, "metrics"))
	w.Set("VM", vm, db.Fields{"is_a_template": true, "ha_always_run": false, "metrics": db.NullRef})
	if w.Model.Class("VM").Field("groups") != nil {
		w.Set("VM", vm, db.Fields{"groups": []string{}})
	}
}

func (w *World) vmSetIsDefaultTemplate(c *xapi.Call) error {
	vm, value := c.Self(), c.Bool("value")
	change := func() error {
		if value && !w.DB().Get("VM", vm).Bool("is_a_template") {
			w.makeTemplate(vm)
		}
		otherConfig := cloned(w.DB().Get("VM", vm).Map("other_config"))
		otherConfig["default_template"] = strconv.FormatBool(value)
		w.Set("VM", vm, db.Fields{"is_default_template": value, "other_config": otherConfig})
		return nil
	}
	if value && !w.DB().Get("VM", vm).Bool("is_a_template") {
		return w.operate(c, vm, "make_into_template", change)
	}
	err := change()
	w.Refresh("VM", vm)
	return err
}

// settableBIOSStrings are the keys that a client may set.
var settableBIOSStrings = map[string]bool{
	"bios-vendor": true, "bios-version": true, "system-manufacturer": true, "system-product-name": true, "system-version": true,
	"system-serial-number": true, "baseboard-manufacturer": true, "baseboard-product-name": true, "baseboard-version": true,
	"baseboard-serial-number": true, "baseboard-asset-tag": true, "baseboard-location-in-chassis": true, "enclosure-asset-tag": true,
}

// vmSetBIOSStrings sets them once; those that are not given get what every VM has.
func (w *World) vmSetBIOSStrings(c *xapi.Call) error {
	vm, values := c.Self(), c.Map("value")
	if len(w.DB().Get("VM", vm).Map("bios_strings")) > 0 {
		return xapi.Fail("VM_BIOS_STRINGS_ALREADY_SET")
	}
	complete := cloned(genericBIOSStrings)
	for key, value := range values {
		const longest = 512
		notPrintable := func(r rune) bool { return r < 32 || r >= 127 }
		switch {
		case !settableBIOSStrings[key]:
			return xapi.Fail("INVALID_VALUE", key, "Unknown key")
		case value == "":
			return xapi.Fail("INVALID_VALUE", key, "Value provided is empty")
		case len(value) > longest:
			return xapi.Fail("INVALID_VALUE", key, value+" has length more than 512 characters")
		case strings.ContainsFunc(value, notPrintable):
			return xapi.Fail("INVALID_VALUE", key, value+" has non-printable ASCII characters")
		}
		complete[key] = value
	}
	w.Set("VM", vm, db.Fields{"bios_strings": complete})
	return nil
}

func (w *World) vmCopyBIOSStrings(c *xapi.Call) error {
	vm, host := c.Self(), c.Str("host")
	r, err := c.Record("host", host)
	if err != nil {
		return err
	}
	if len(w.DB().Get("VM", vm).Map("bios_strings")) > 0 {
		return xapi.Fail("VM_BIOS_STRINGS_ALREADY_SET")
	}
	w.Set("VM", vm, db.Fields{"bios_strings": cloned(r.Map("bios_strings")), "affinity": host})
	return nil
}

func (w *World) vmSetDomainType(c *xapi.Call) error {
	kind, policy := c.Str("value"), ""
	switch kind {
	case "unspecified":
		return xapi.Fail("INVALID_VALUE", "domain_type", kind)
	case "hvm":
		policy = "BIOS order"
	}
	w.Set("VM", c.Self(), db.Fields{"domain_type": kind, "HVM_boot_policy": policy})
	return nil
}

func (w *World) vmSetSuspendVDI(c *xapi.Call) error {
	vm, image := c.Self(), c.Str("value")
	r := w.DB().Get("VM", vm)
	if state := r.Str("power_state"); state != powerSuspended {
		return xapi.Fail("VM_BAD_POWER_STATE", vm, "suspended", lower(state))
	}
	if _, err := c.Record("VDI", image); err != nil {
		return err
	}
	w.Set("VM", vm, db.Fields{"suspend_VDI": image})
	return nil
}

func lower(state string) string { return strings.ToLower(state) }
