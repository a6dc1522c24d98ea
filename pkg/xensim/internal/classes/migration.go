package classes

import (
	"fmt"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Moving VMs between hosts and disks between SRs, within the pool (xapi_vm_migrate.ml).

func (w *World) registerMigration() {
	w.handle("VM.pool_migrate", w.vmPoolMigrate)
	w.Handle("VM.migrate_send", w.vmMigrateSend)
	w.handle("VM.assert_can_migrate", func(c *xapi.Call) error {
		vm := c.Self()
		if err := w.checkVM(vm, "migrate_send"); err != nil {
			return err
		}
		_, err := w.planMigration(c, vm)
		return err
	})
	w.Handle("VDI.pool_migrate", w.vdiPoolMigrate)
	w.Handle("host.migrate_receive", w.hostMigrateReceive)
}

// vmPoolMigrate moves a running VM to another host that sees its disks.
func (w *World) vmPoolMigrate(c *xapi.Call) error {
	vm, host := c.Self(), c.Str("host")
	if _, err := c.Record("host", host); err != nil {
		return err
	}
	source := w.text("VM", vm, "resident_on")
	err := w.operate(c, vm, "pool_migrate", func() error {
		source = w.text("VM", vm, "resident_on")
		if err := w.checkCanBoot(vm, host, true, host != source); err != nil {
			return err
		}
		return w.reserved(c, vm, host, "vm_migrate", func() error {
			if err := w.take(c, w.durations.Migrate); err != nil {
				return err
			}
			w.moveDomain(vm, host)
			return nil
		})
	})
	if err == nil {
		w.tell(vm, "VM_MIGRATED", w.journey(source, host))
	}
	return err
}

// journey says from where to where a VM went.
func (w *World) journey(from, to string) string {
	a, b := w.DB().Get("host", from), w.DB().Get("host", to)
	if !a.Exists() || !b.Exists() {
		return "migrated"
	}
	return fmt.Sprintf("migrated from host '%s' (uuid: %s) to host '%s' (uuid: %s)",
		a.Str("name_label"), a.Str("uuid"), b.Str("name_label"), b.Str("uuid"))
}

// moveDomain lets a VM run on another host as it ran: the guest does not notice, its consoles are new.
func (w *World) moveDomain(vm, host string) {
	old := w.DB().Get("VM", vm)
	metrics := w.DB().Get("VM_metrics", old.Str("metrics"))
	w.nextDomain(vm, host)
	if metrics.Exists() {
		w.Set("VM_metrics", old.Str("metrics"), db.Fields{
			"start_time": metrics.Time("start_time"), "VCPUs_number": metrics.Int("VCPUs_number"),
		})
	}
	w.Set("VM", vm, db.Fields{"memory_target": old.Int("memory_target")})
	for _, console := range old.Strs("consoles") {
		w.DB().Delete("console", console)
	}
	w.createConsoles(vm)
	w.refreshWithDevices(vm)
	w.updateHostMemory(old.Str("resident_on"))
	w.updateHostMemory(host)
}

// migration is where a VM and its disks go.
type migration struct {
	host  string
	disks map[string]string // target SR by VDI, of those that move
}

// planMigration reads the call's maps and finds what stands against them. Within a pool the networks stay as they are, and the
// host must be able to run the VM, whether it runs now or not.
func (w *World) planMigration(c *xapi.Call, vm string) (migration, error) {
	plan := migration{host: c.Map("dest")["host"], disks: map[string]string{}}
	if !w.valid("host", plan.host) {
		return plan, xapi.Fail("CANNOT_CONTACT_HOST", c.Map("dest")["master"])
	}
	if err := w.planDisks(c, vm, plan); err != nil {
		return plan, err
	}
	if len(c.Map("vif_map")) > 0 {
		return plan, xapi.Fail("OPERATION_NOT_ALLOWED",
			"VIF mapping is not allowed for intra-pool migration -all VIFs must be on the same network")
	}
	live := w.text("VM", vm, "power_state") == powerRunning
	if live && plan.host == w.text("VM", vm, "resident_on") {
		return plan, nil
	}
	if err := w.checkCanBoot(vm, plan.host, false, true); err != nil {
		return plan, err
	}
	if !live && len(w.possibleHosts(vm)) == 0 { // what sends the disks is a host that could run the VM as it is
		return plan, xapi.Fail("NO_HOSTS_AVAILABLE")
	}
	return plan, nil
}

// planDisks finds where the VM's disks go, and what stands against that. Each of them must be in the map, also one that stays;
// those of its snapshots go with the disk that they are of.
func (w *World) planDisks(c *xapi.Call, vm string, plan migration) error {
	wanted := c.Map("vdi_map")
	for _, vdi := range w.blockDisksOf(vm) {
		target, mapped := wanted[vdi]
		switch {
		case !mapped:
			return xapi.Fail("VDI_NOT_IN_MAP", vdi)
		case !w.valid("SR", target):
			return xapi.HandleInvalid("SR", target)
		case w.text("VDI", vdi, "on_boot") == "reset":
			return xapi.Fail("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", vdi)
		case w.pluggedPBD(target, plan.host) == "":
			return xapi.Fail("VM_REQUIRES_SR", vm, target)
		case target != w.text("VDI", vdi, "SR"):
			plan.disks[vdi] = target
		}
	}
	for _, snapshot := range w.DB().Get("VM", vm).Strs("snapshots") {
		for _, vdi := range w.blockDisksOf(snapshot) {
			if target := plan.disks[w.text("VDI", vdi, "snapshot_of")]; target != "" {
				plan.disks[vdi] = target
			}
		}
	}
	for vdi := range plan.disks {
		if w.DB().Get("VDI", vdi).Bool("cbt_enabled") {
			return xapi.Fail("VDI_CBT_ENABLED", vdi)
		}
	}
	return nil
}

// blockDisksOf are the VDIs of a VM's disks; what lies in its CD drives is none.
func (w *World) blockDisksOf(vm string) []string {
	var disks []string
	for _, vbd := range w.DB().Get("VM", vm).Strs("VBDs") {
		r := w.DB().Get("VBD", vbd)
		if vdi := r.Str("VDI"); r.Str("type") != "CD" && w.valid("VDI", vdi) {
			disks = append(disks, vdi)
		}
	}
	return disks
}

// vmMigrateSend moves a VM with disks: between hosts, between SRs, or both.
func (w *World) vmMigrateSend(c *xapi.Call) (any, error) {
	vm := c.Self()
	source := w.text("VM", vm, "resident_on")
	var plan migration
	err := w.operate(c, vm, "migrate_send", func() (err error) {
		if plan, err = w.planMigration(c, vm); err != nil {
			return err
		}
		source = w.text("VM", vm, "resident_on")
		return w.reserved(c, vm, plan.host, "vm_migrate", func() error { return w.migrate(c, vm, plan) })
	})
	if err != nil {
		return nil, err
	}
	w.tell(vm, "VM_MIGRATED", w.journey(source, plan.host))
	return vm, nil
}

// migrate copies the disks, then moves the guest, then puts the copies in the place of the disks.
func (w *World) migrate(c *xapi.Call, vm string, plan migration) error {
	w.ejectStrayCDs(c, vm)
	return w.mirrored(c, plan.disks, func() error {
		if w.text("VM", vm, "power_state") != powerRunning || plan.host == w.text("VM", vm, "resident_on") {
			return nil
		}
		if err := c.Wait(w.durations.Migrate); err != nil {
			return err
		}
		w.moveDomain(vm, plan.host)
		return nil
	})
}

// ejectStrayCDs empties the CD drives: what the map does not say to stay where it is goes (find_cds_to_eject).
func (w *World) ejectStrayCDs(c *xapi.Call, vm string) {
	for _, vbd := range w.DB().Get("VM", vm).Strs("VBDs") {
		r := w.DB().Get("VBD", vbd)
		vdi := r.Str("VDI")
		if r.Str("type") == "CD" && w.valid("VDI", vdi) && c.Map("vdi_map")[vdi] != w.text("VDI", vdi, "SR") {
			w.Set("VBD", vbd, db.Fields{"VDI": db.NullRef, "empty": true})
		}
	}
}

// vdiPoolMigrate moves a disk to another SR through the VM that has it.
func (w *World) vdiPoolMigrate(c *xapi.Call) (any, error) {
	vdi, sr, moved := c.Self(), c.Str("sr"), ""
	r := w.DB().Get("VDI", vdi)
	vbds := r.Strs("VBDs")
	if len(vbds) == 0 {
		return nil, xapi.Fail("VDI_NEEDS_VM_FOR_MIGRATE", vdi)
	}
	vm := w.text("VBD", vbds[0], "VM")
	err := w.operate(c, vm, "migrate_send", func() (err error) {
		if _, err := c.Record("SR", sr); err != nil {
			return err
		}
		host, err := w.hostForMirror(vm, sr)
		if err != nil {
			return err
		}
		switch {
		case r.Str("type") == "cbt_metadata":
			return xapi.Fail("VDI_INCOMPATIBLE_TYPE", vdi, "cbt_metadata")
		case r.Bool("cbt_enabled"):
			return xapi.Fail("VDI_CBT_ENABLED", vdi)
		}
		vbd := vbds[0]
		return w.reserved(c, vm, host, "vm_migrate", func() error {
			err := w.mirrored(c, map[string]string{vdi: sr}, func() error { return nil })
			moved = w.text("VBD", vbd, "VDI")
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

// hostForMirror is the host that moves a disk: the VM's, else one that could run it; it must see the target.
func (w *World) hostForMirror(vm, sr string) (string, error) {
	if host := w.text("VM", vm, "resident_on"); w.valid("host", host) {
		if w.pluggedPBD(sr, host) == "" {
			return "", xapi.Fail("VM_REQUIRES_SR", vm, sr)
		}
		return host, nil
	}
	for _, host := range w.possibleHosts(vm) {
		if w.pluggedPBD(sr, host) != "" {
			return host, nil
		}
	}
	return "", xapi.Fail("NO_HOSTS_AVAILABLE")
}

// hostMigrateReceive tells where a VM may be sent to, as VM.migrate_send takes it.
func (w *World) hostMigrateReceive(c *xapi.Call) (any, error) {
	host, network := c.Self(), c.Str("network")
	r, err := c.Record("network", network)
	if err != nil {
		return nil, err
	}
	for _, ref := range r.Strs("PIFs") {
		pif := w.DB().Get("PIF", ref)
		if pif.Str("host") != host {
			continue
		}
		address := pif.Str("IP")
		switch {
		case address != "":
			return map[string]string{
				"SM":   "http://" + address + "/services/SM?session_id=" + c.Session,
				"host": host, "xenops": "http://" + address + "/services/xenops?session_id=" + c.Session,
				"session_id": c.Session, "master": "http://" + w.text("host", w.Coordinator(), "address"),
			}, nil
		case pif.Str("ip_configuration_mode") == "None":
			return nil, xapi.Fail("PIF_HAS_NO_NETWORK_CONFIGURATION", ref)
		}
		return nil, xapi.Fail("INTERFACE_HAS_NO_IP", ref)
	}
	return nil, xapi.Fail("HOST_CANNOT_ATTACH_NETWORK", host, network)
}
