package classes

import (
	"fmt"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Starting and stopping VMs (message_forwarding.ml, xapi_vm.ml, xapi_xenops.ml).

func (w *World) registerVMPower() {
	w.handle("VM.start", w.vmStart)
	w.handle("VM.start_on", w.vmStartOn)
	w.handle("VM.clean_shutdown", w.vmCleanShutdown)
	w.handle("VM.hard_shutdown", w.vmHardShutdown)
	w.handle("VM.shutdown", w.vmShutdown)
	w.handle("VM.clean_reboot", w.vmCleanReboot)
	w.handle("VM.hard_reboot", w.vmHardReboot)
	w.handle("VM.pause", w.vmPause)
	w.handle("VM.unpause", w.vmUnpause)
	w.handle("VM.suspend", w.vmSuspend)
	w.handle("VM.resume", w.vmResume)
	w.handle("VM.resume_on", w.vmResumeOn)
	w.handle("VM.power_state_reset", w.vmPowerStateReset)
}

// operate does something to a VM that its current_operations tells, when the VM's state allows it.
func (w *World) operate(c *xapi.Call, vm, operation string, f func() error) error {
	return c.Operate("VM", vm, operation, func() error { return w.checkVM(vm, operation) }, f)
}

// withDevices marks the VM's disks, and its interfaces if told, as being attached while f runs. A disk that another VM writes to
// stops it here.
func (w *World) withDevices(c *xapi.Call, vm string, interfaces bool, f func() error) error {
	r := w.DB().Get("VM", vm)
	run := f
	if interfaces {
		run = func() error { return w.marked(c, "VIF", r.Strs("VIFs"), w.checkVIF, f) }
	}
	return w.marked(c, "VBD", r.Strs("VBDs"), w.checkVBD, run)
}

func (w *World) marked(c *xapi.Call, class string, devices []string, check func(ref, operation string) error, f func() error) error {
	if len(devices) == 0 {
		return f()
	}
	first, rest := devices[0], devices[1:]
	return c.Operate(class, first, "attach", func() error { return check(first, "attach") }, func() error {
		return w.marked(c, class, rest, check, f)
	})
}

// tell posts a message about a VM and recomputes what may be done with it.
func (w *World) tell(vm, name, what string) {
	w.refreshWithDevices(vm)
	r := w.DB().Get("VM", vm)
	if r.Exists() {
		uuid := r.Str("uuid")
		w.Post(name, 5, "VM", uuid, fmt.Sprintf("VM '%s' (uuid: %s) %s", r.Str("name_label"), uuid, what))
	}
}

// take lets an operation's time pass and tells the task how far it is. Where it is cancelled in between, it stops there.
func (w *World) take(c *xapi.Call, d time.Duration) error {
	const steps = 4
	c.Cancellable(true)
	defer c.Cancellable(false)
	for step := range steps {
		if err := c.Wait(d / steps); err != nil {
			return err
		}
		c.Progress(float64(step+1) / (steps + 1))
	}
	return nil
}

func (w *World) vmStart(c *xapi.Call) error {
	vm, host := c.Self(), ""
	err := w.operate(c, vm, "start", func() error {
		return w.withDevices(c, vm, true, func() (err error) {
			w.prepareToStart(vm)
			if host, err = w.chooseHost(vm); err != nil {
				return err
			}
			return w.startOn(c, vm, host)
		})
	})
	if err == nil {
		w.tell(vm, "VM_STARTED", "started "+w.onHost(host))
	}
	return err
}

func (w *World) vmStartOn(c *xapi.Call) error {
	vm, host := c.Self(), c.Str("host")
	if _, err := c.Record("host", host); err != nil {
		return err
	}
	if w.evacuating(host) {
		return xapi.Fail("HOST_EVACUATE_IN_PROGRESS", host)
	}
	err := w.operate(c, vm, "start_on", func() error {
		return w.withDevices(c, vm, true, func() error {
			w.prepareToStart(vm)
			if err := w.checkCanBoot(vm, host, true, true); err != nil {
				return err
			}
			return w.startOn(c, vm, host)
		})
	})
	if err == nil {
		w.tell(vm, "VM_STARTED", "started "+w.onHost(host))
	}
	return err
}

// startOn starts a VM that is ready on a host that was found fit.
func (w *World) startOn(c *xapi.Call, vm, host string) error {
	paused := c.Bool("start_paused")
	return w.reserved(c, vm, host, "vm_start", func() error {
		if w.text("VM", vm, "ha_restart_priority") == "restart" {
			w.Set("VM", vm, db.Fields{"ha_always_run": true})
		}
		w.completePlatform(vm)
		w.dropGuestMetrics(vm)
		if err := w.take(c, w.durations.Start); err != nil {
			return err
		}
		w.domainStarts(vm, host, paused)
		return w.delay(c, vm, "start_delay")
	})
}

// delay waits as long as the VM's record says, in seconds, for the sake of what comes after it.
func (w *World) delay(c *xapi.Call, vm, field string) error {
	if seconds := w.DB().Get("VM", vm).Int(field); seconds > 0 {
		return c.Wait(time.Duration(seconds) * time.Second)
	}
	return nil
}

func (w *World) vmCleanShutdown(c *xapi.Call) error {
	vm := c.Self()
	err := w.operate(c, vm, "clean_shutdown", func() error { return w.cleanStop(c, vm, w.durations.GuestDeadline) })
	if err == nil {
		w.tell(vm, "VM_SHUTDOWN", "shutdown")
	}
	return err
}

// cleanStop asks the guest to shut down and waits until it has.
func (w *World) cleanStop(c *xapi.Call, vm string, deadline time.Duration) error {
	w.Set("VM", vm, db.Fields{"ha_always_run": false})
	c.Cancellable(true)
	if err := w.askToStop(c, vm, deadline); err != nil {
		return err
	}
	if w.text("VM", vm, "power_state") != powerHalted {
		w.domainEnds(vm, powerHalted)
	}
	return w.delay(c, vm, "shutdown_delay")
}

func (w *World) vmHardShutdown(c *xapi.Call) error {
	vm := c.Self()
	err := w.operate(c, vm, "hard_shutdown", func() error {
		if err := w.cancelOthers(c, vm, "clean_shutdown", "clean_reboot", "hard_reboot", "pool_migrate", "call_plugin", "shutdown",
			"suspend"); err != nil {
			return err
		}
		return w.hardStop(c, vm)
	})
	if err == nil {
		w.tell(vm, "VM_SHUTDOWN", "shutdown forcibly")
	}
	return err
}

// hardStop switches a VM off. A suspended one loses its memory image.
func (w *World) hardStop(c *xapi.Call, vm string) error {
	r := w.DB().Get("VM", vm)
	w.Set("VM", vm, db.Fields{"ha_always_run": false})
	switch r.Str("power_state") {
	case powerHalted:
		return nil
	case powerSuspended:
		if image := r.Str("suspend_VDI"); w.valid("VDI", image) {
			w.Set("VM", vm, db.Fields{"suspend_VDI": db.NullRef})
			if err := w.destroyVDI(image); err != nil {
				w.Logf("drop the memory image of VM %s: %v", r.Str("uuid"), err)
			}
		}
		w.domainEnds(vm, powerHalted)
		return nil
	}
	if err := c.Wait(w.durations.Stop); err != nil {
		return err
	}
	if w.text("VM", vm, "power_state") != powerHalted {
		w.domainEnds(vm, powerHalted)
	}
	return w.delay(c, vm, "shutdown_delay")
}

// cancelOthers cancels what else is under way with a VM, of the given operations, and waits until it has ended.
func (w *World) cancelOthers(c *xapi.Call, vm string, operations ...string) error {
	for task, operation := range w.DB().Get("VM", vm).Map("current_operations") {
		for _, other := range operations {
			if operation != other || task == c.Task || !w.valid("task", task) {
				continue
			}
			if _, err := c.Call("task.cancel", map[string]any{"task": task}); err != nil {
				continue // it ends by itself
			}
			for range 100 {
				if _, busy := w.DB().Get("VM", vm).Map("current_operations")[task]; !busy {
					break
				}
				if err := c.WaitChange(time.Second); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// vmShutdown shuts down cleanly, and forcibly where the guest does not help.
func (w *World) vmShutdown(c *xapi.Call) error {
	vm := c.Self()
	err := w.operate(c, vm, "shutdown", func() error {
		deadline := w.durations.GuestDeadline
		if seconds := w.DB().Get("VM", vm).Int("shutdown_delay"); seconds > 0 {
			deadline = time.Duration(seconds) * time.Second
		}
		if w.running(vm) && w.cleanStop(c, vm, deadline) == nil {
			return nil
		}
		return w.hardStop(c, vm)
	})
	if err == nil {
		w.tell(vm, "VM_SHUTDOWN", "shutdown")
	}
	return err
}

func (w *World) vmCleanReboot(c *xapi.Call) error {
	vm := c.Self()
	err := w.operate(c, vm, "clean_reboot", func() error {
		return w.withDevices(c, vm, true, func() error {
			c.Cancellable(true)
			if err := w.askToStop(c, vm, w.durations.GuestDeadline); err != nil {
				return err
			}
			w.domainReboots(vm)
			return nil
		})
	})
	if err == nil {
		w.tell(vm, "VM_REBOOTED", "rebooted cleanly")
	}
	return err
}

func (w *World) vmHardReboot(c *xapi.Call) error {
	vm := c.Self()
	err := w.operate(c, vm, "hard_reboot", func() error {
		if err := w.cancelOthers(c, vm, "clean_shutdown", "clean_reboot", "pool_migrate", "call_plugin", "suspend"); err != nil {
			return err
		}
		return w.withDevices(c, vm, true, func() error {
			if err := c.Wait(w.durations.Stop); err != nil {
				return err
			}
			if w.valid("host", w.text("VM", vm, "resident_on")) {
				w.domainReboots(vm)
			}
			return nil
		})
	})
	if err == nil {
		w.tell(vm, "VM_REBOOTED", "rebooted forcibly")
	}
	return err
}

func (w *World) vmPause(c *xapi.Call) error {
	return w.setPaused(c, "pause", powerPaused, "VM_PAUSED", "paused")
}

func (w *World) vmUnpause(c *xapi.Call) error {
	return w.setPaused(c, "unpause", powerRunning, "VM_UNPAUSED", "unpaused")
}

func (w *World) setPaused(c *xapi.Call, operation, state, message, what string) error {
	vm := c.Self()
	err := w.operate(c, vm, operation, func() error {
		if err := c.Wait(w.durations.Pause); err != nil {
			return err
		}
		w.Set("VM", vm, db.Fields{"power_state": state})
		return nil
	})
	if err == nil {
		w.tell(vm, message, what)
	}
	return err
}

func (w *World) vmSuspend(c *xapi.Call) error {
	vm := c.Self()
	err := w.operate(c, vm, "suspend", func() error {
		w.Set("VM", vm, db.Fields{"ha_always_run": false})
		return w.suspend(c, vm)
	})
	if err == nil {
		w.tell(vm, "VM_SUSPENDED", "suspended")
	}
	return err
}

// suspend saves the guest's memory to a new VDI and ends the domain.
func (w *World) suspend(c *xapi.Call, vm string) error {
	r := w.DB().Get("VM", vm)
	sr, err := w.suspendSR(r)
	if err != nil {
		return err
	}
	needed := int64(float64(r.Int("memory_static_max"))*1.2*1.05) + 100*mib
	image, err := w.createVDI(db.Fields{
		"name_label": "Suspend image", "name_description": "Suspend image", "SR": sr, "virtual_size": needed, "type": "suspend",
		"sm_config": map[string]string{},
	})
	if err != nil {
		return err
	}
	w.Set("VM", vm, db.Fields{"suspend_VDI": image})
	if err := c.Wait(w.durations.Suspend); err != nil {
		w.Set("VM", vm, db.Fields{"suspend_VDI": db.NullRef})
		if dropped := w.destroyVDI(image); dropped != nil {
			w.Logf("drop the memory image of VM %s: %v", r.Str("uuid"), dropped)
		}
		return err
	}
	w.domainEnds(vm, powerSuspended)
	w.Set("VM", vm, db.Fields{"last_booted_record": bootedRecord(r)})
	return nil
}

// bootedRecord stands for what the hypervisor keeps of a suspended domain; only that it is not empty matters.
func bootedRecord(vm db.Record) string {
	return fmt.Sprintf(`{"last_create_time":0,"uuid":%q,"vcpus":%d}`, vm.Str("uuid"), vm.Int("VCPUs_at_startup"))
}

// suspendSR is where a VM's memory is saved: its own choice, else the pool's, else its host's.
func (w *World) suspendSR(vm db.Record) (string, error) {
	host := vm.Str("resident_on")
	for _, sr := range []string{
		vm.Str("suspend_SR"), w.text("pool", w.PoolRef(), "suspend_image_SR"), w.text("host", host, "suspend_image_sr"),
	} {
		if w.valid("SR", sr) && w.pluggedPBD(sr, host) != "" {
			return sr, nil
		}
	}
	return "", xapi.Fail("VM_NO_SUSPEND_SR", w.refOf(vm))
}

// refOf finds the reference of a VM's record.
func (w *World) refOf(vm db.Record) string {
	ref, _ := w.DB().ByUUID("VM", vm.Str("uuid"))
	return ref
}

func (w *World) vmResume(c *xapi.Call) error {
	vm, host := c.Self(), ""
	err := w.operate(c, vm, "resume", func() error {
		return w.withDevices(c, vm, false, func() (err error) {
			if host, err = w.chooseHost(vm); err != nil {
				return err
			}
			return w.resume(c, vm, host)
		})
	})
	if err == nil {
		w.tell(vm, "VM_RESUMED", "resumed "+w.onHost(host))
	}
	return err
}

func (w *World) vmResumeOn(c *xapi.Call) error {
	vm, host := c.Self(), c.Str("host")
	if _, err := c.Record("host", host); err != nil {
		return err
	}
	err := w.operate(c, vm, "resume_on", func() error {
		return w.withDevices(c, vm, false, func() error {
			if err := w.checkCanBoot(vm, host, true, true); err != nil {
				return err
			}
			return w.resume(c, vm, host)
		})
	})
	if err == nil {
		w.tell(vm, "VM_RESUMED", "resumed "+w.onHost(host))
	}
	return err
}

// resume loads a VM's saved memory on a host and drops the image.
func (w *World) resume(c *xapi.Call, vm, host string) error {
	image := w.text("VM", vm, "suspend_VDI")
	if !w.valid("VDI", image) {
		w.domainEnds(vm, powerHalted)
		return xapi.Fail("VM_HAS_NO_SUSPEND_VDI", "VM", vm)
	}
	paused := c.Bool("start_paused")
	return w.reserved(c, vm, host, "vm_resume", func() error {
		if w.text("VM", vm, "ha_restart_priority") == "restart" {
			w.Set("VM", vm, db.Fields{"ha_always_run": true})
		}
		if err := w.take(c, w.durations.Suspend); err != nil {
			return err
		}
		w.domainResumes(vm, host, paused)
		return w.destroyVDI(image)
	})
}

// domainResumes makes a suspended VM run again, with the guest as it was.
func (w *World) domainResumes(vm, host string, paused bool) {
	started := w.DB().Get("VM_metrics", w.text("VM", vm, "metrics"))
	w.nextDomain(vm, host)
	if started.Exists() {
		w.Set("VM_metrics", w.text("VM", vm, "metrics"), db.Fields{"start_time": started.Time("start_time")})
	}
	r := w.DB().Get("VM", vm)
	for _, console := range r.Strs("consoles") {
		w.DB().Delete("console", console)
	}
	w.createConsoles(vm)
	w.guestOf[vm] = &guest{agent: w.vmFacts(vm).guest.hasPVDrivers}
	state := powerRunning
	if paused {
		state = powerPaused
	}
	w.Set("VM", vm, db.Fields{"power_state": state, "suspend_VDI": db.NullRef})
	w.refreshDisks(vm)
	w.updateHostMemory(host)
}

// vmPowerStateReset declares a VM halted whose host is gone.
func (w *World) vmPowerStateReset(c *xapi.Call) error {
	vm := c.Self()
	r := w.DB().Get("VM", vm)
	if r.Bool("is_control_domain") {
		return xapi.Fail("CANNOT_RESET_CONTROL_DOMAIN", vm)
	}
	if state := r.Str("power_state"); state == powerRunning || state == powerPaused {
		host := w.DB().Get("host", r.Str("resident_on"))
		switch {
		case r.Str("resident_on") == c.Coordinator():
			return xapi.Fail("DOMAIN_EXISTS", vm)
		case host.Exists() && w.DB().Get("host_metrics", host.Str("metrics")).Bool("live"):
			return xapi.Fail("HOST_IS_LIVE", r.Str("resident_on"))
		}
	}
	w.Set("VM", vm, db.Fields{"current_operations": map[string]string{}})
	w.domainEnds(vm, powerHalted)
	w.refreshWithDevices(vm)
	return nil
}
