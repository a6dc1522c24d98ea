package classes

import (
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Questions about VMs, and calls to what runs in them.

func (w *World) registerVMQueries() {
	w.handle("VM.update_allowed_operations", func(c *xapi.Call) error {
		w.Refresh("VM", c.Self())
		return nil
	})
	w.handle("VM.assert_operation_valid", func(c *xapi.Call) error { return w.checkVM(c.Self(), c.Str("op")) })
	w.handle("VM.assert_can_boot_here", func(c *xapi.Call) error {
		if _, err := c.Record("host", c.Str("host")); err != nil {
			return err
		}
		return w.checkCanBoot(c.Self(), c.Str("host"), true, true)
	})
	w.Handle("VM.get_possible_hosts", func(c *xapi.Call) (any, error) { return w.possibleHosts(c.Self()), nil })
	w.Handle("VM.compute_memory_overhead", func(c *xapi.Call) (any, error) { return overheadOf(w.DB().Get("VM", c.Self())), nil })
	w.Handle("VM.maximise_memory", func(c *xapi.Call) (any, error) {
		vm := w.DB().Get("VM", c.Self())
		return maximiseMemory(domainType(vm), c.Int("total"), vm.Int("VCPUs_max"), vm.Float("HVM_shadow_multiplier"),
			c.Bool("approximate")), nil
	})
	w.Handle("VM.get_allowed_VBD_devices", func(c *xapi.Call) (any, error) { return w.freeDevices(c.Self()), nil })
	w.Handle("VM.get_allowed_VIF_devices", w.vmAllowedVIFDevices)
	w.Handle("VM.get_boot_record", func(c *xapi.Call) (any, error) {
		vm := c.Self()
		if err := w.operate(c, vm, "get_boot_record", func() error { return nil }); err != nil {
			return nil, err
		}
		return w.DB().Get("VM", vm), nil
	})
	w.Handle("VM.get_cooperative", func(*xapi.Call) (any, error) { return true, nil })
	w.Handle("VM.query_services", func(c *xapi.Call) (any, error) {
		if err := w.checkVM(c.Self(), "query_services"); err != nil {
			return nil, err
		}
		return nil, xapi.Fail("NOT_IMPLEMENTED", "query_services")
	})
	w.registerRecovery()
	w.registerGuestCalls()
}

// registerRecovery: what a VM would need elsewhere.
func (w *World) registerRecovery() {
	w.Handle("VM.get_SRs_required_for_recovery", func(c *xapi.Call) (any, error) {
		missing := []string{}
		for _, vdi := range w.disksOf(c.Self()) {
			if sr := w.text("VDI", vdi, "SR"); w.pluggedPBD(sr, "") == "" {
				missing = append(missing, sr)
			}
		}
		return missing, nil
	})
	w.handle("VM.assert_agile", func(c *xapi.Call) error {
		for _, vdi := range w.disksOf(c.Self()) {
			if sr := w.text("VDI", vdi, "SR"); !w.DB().Get("SR", sr).Bool("shared") {
				return xapi.Fail("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", sr)
			}
		}
		return nil
	})
	w.Handle("VM.retrieve_wlb_recommendations", func(*xapi.Call) (any, error) { return nil, xapi.Fail("WLB_NOT_INITIALIZED") })
	w.Handle("VM.get_data_sources", func(c *xapi.Call) (any, error) {
		return []any{}, w.checkVM(c.Self(), "data_source_op")
	})
	w.Handle("VM.get_secureboot_readiness", func(c *xapi.Call) (any, error) {
		vm := w.DB().Get("VM", c.Self())
		switch _, stored := vm.Map("NVRAM")["EFI-variables"]; {
		case vm.Map("HVM_boot_params")["firmware"] != "uefi":
			return "not_supported", nil
		case !platformFlag(vm, "secureboot"):
			return "disabled", nil
		case !stored:
			return "first_boot", nil
		}
		return "setup_mode", nil
	})
}

// registerGuestCalls: what a client asks of the guest.
func (w *World) registerGuestCalls() {
	for message, operation := range map[string]string{"VM.send_sysrq": "send_sysrq", "VM.send_trigger": "send_trigger"} {
		w.handle(message, func(c *xapi.Call) error {
			return w.operate(c, c.Self(), operation, func() error { return xapi.Fail("NOT_IMPLEMENTED", operation) })
		})
	}
	w.Handle("VM.call_plugin", w.vmCallPlugin)
	w.handle("VM.set_xenstore_data", func(c *xapi.Call) error {
		w.Set("VM", c.Self(), db.Fields{"xenstore_data": c.Map("value")})
		return nil
	})
	w.handle("VM.restart_device_models", func(c *xapi.Call) error {
		vm := w.DB().Get("VM", c.Self())
		if state := vm.Str("power_state"); state != powerRunning {
			return xapi.Fail("VM_BAD_POWER_STATE", c.Self(), powerRunning, state)
		}
		_, err := c.Call("VM.pool_migrate", map[string]any{
			"vm": c.Self(), "host": vm.Str("resident_on"), "options": map[string]string{"live": "true"},
		})
		return err
	})
}

func (w *World) vmAllowedVIFDevices(c *xapi.Call) (any, error) {
	used, free := map[string]bool{}, []string{}
	for _, vif := range w.DB().Get("VM", c.Self()).Strs("VIFs") {
		used[w.text("VIF", vif, "device")] = true
	}
	for number := range vifDevices {
		if device := strconv.Itoa(number); !used[device] {
			free = append(free, device)
		}
	}
	return free, nil
}

// vmCallPlugin knows the one plug-in that there is, and no guest that offers what it can do.
func (w *World) vmCallPlugin(c *xapi.Call) (any, error) {
	vm := c.Self()
	err := w.operate(c, vm, "call_plugin", func() error {
		const agentPlugin = "guest-agent-operation"
		plugin, function := c.Str("plugin"), c.Str("fn")
		if plugin != agentPlugin {
			return xapi.Fail("XENAPI_MISSING_PLUGIN", plugin)
		}
		switch function {
		case "request-rdp-on", "request-rdp-off":
			text := `The requested fn "` + function + `" of plugin "` + plugin +
				`" could not be executed for lack of guest agent control feature.`
			return xapi.Fail("XENAPI_PLUGIN_FAILURE", "failed to execute fn", text, text)
		case "run-script":
			return xapi.Fail("FEATURE_RESTRICTED")
		}
		text := `The requested fn "` + function + `" could not be found in plugin "` + plugin + `".`
		return xapi.Fail("XENAPI_PLUGIN_FAILURE", "failed to find fn", text, text)
	})
	return "", err
}
