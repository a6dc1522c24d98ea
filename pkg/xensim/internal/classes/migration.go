package classes

import (
	"context"
	"fmt"
	"slices"
	"time"

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

// planMigration reads the call's maps and finds what stands against them.
func (w *World) planMigration(c *xapi.Call, vm string) (migration, error) {
	plan := migration{host: c.Map("dest")["host"], disks: map[string]string{}}
	if !w.valid("host", plan.host) {
		return plan, xapi.Fail("CANNOT_CONTACT_HOST", c.Map("dest")["master"])
	}
	if err := w.planDisks(c, vm, plan); err != nil {
		return plan, err
	}
	for vif, network := range c.Map("vif_map") {
		if !w.valid("VIF", vif) || !w.valid("network", network) {
			return plan, xapi.Fail("VIF_NOT_IN_MAP", vif)
		}
	}
	isLive := w.text("VM", vm, "power_state") == powerRunning
	if isLive && plan.host != w.text("VM", vm, "resident_on") {
		return plan, w.checkCanBoot(vm, plan.host, false, true)
	}
	return plan, nil
}

// planDisks finds where the VM's disks go, and what stands against that.
func (w *World) planDisks(c *xapi.Call, vm string, plan migration) error {
	wanted := c.Map("vdi_map")
	for _, vdi := range w.disksOf(vm) {
		sr := w.text("VDI", vdi, "SR")
		target, mapped := wanted[vdi]
		switch {
		case mapped && !w.valid("SR", target):
			return xapi.HandleInvalid("SR", target)
		case !mapped && w.pluggedPBD(sr, plan.host) == "":
			return xapi.Fail("VDI_NOT_IN_MAP", vdi)
		case mapped && w.pluggedPBD(target, plan.host) == "":
			return xapi.Fail("VM_REQUIRES_SR", vm, target)
		case mapped && target != sr:
			plan.disks[vdi] = target
		}
		if r := w.DB().Get("VDI", vdi); plan.disks[vdi] != "" && r.Bool("cbt_enabled") {
			return xapi.Fail("VDI_CBT_ENABLED", vdi)
		}
	}
	return nil
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

func (w *World) migrate(c *xapi.Call, vm string, plan migration) error {
	for vdi, sr := range plan.disks {
		if _, err := w.moveVDI(c, vdi, sr); err != nil {
			return err
		}
	}
	for vif, network := range c.Map("vif_map") {
		w.Set("VIF", vif, db.Fields{"network": network})
	}
	if w.text("VM", vm, "power_state") != powerRunning || plan.host == w.text("VM", vm, "resident_on") {
		return nil
	}
	if err := w.take(c, w.durations.Migrate); err != nil {
		return err
	}
	w.moveDomain(vm, plan.host)
	return nil
}

// moveVDI mirrors a disk to another SR, lets its VBDs and snapshots follow, and removes the old one. It works while the disk is
// in use.
func (w *World) moveVDI(c *xapi.Call, ref, sr string) (moved string, err error) {
	check := func() error { return w.checkVDI(ref, "mirror") }
	err = c.Operate("VDI", ref, "mirror", check, func() error {
		vdi := w.DB().Get("VDI", ref)
		if moved, err = w.createVDI(copyFields(vdi, sr)); err != nil {
			return err
		}
		if err := w.mirrorBytes(c, vdi, moved); err != nil {
			return errorAfter(err, w.destroyVDI(moved))
		}
		w.Set("VDI", moved, db.Fields{
			"other_config": vdi.Map("other_config"), "xenstore_data": vdi.Map("xenstore_data"),
			"is_a_snapshot": vdi.Bool("is_a_snapshot"), "snapshot_of": vdi.Str("snapshot_of"),
			"snapshot_time": vdi.Time("snapshot_time"), "on_boot": vdi.Str("on_boot"),
		})
		for _, vbd := range slices.Clone(w.DB().Get("VDI", ref).Strs("VBDs")) {
			w.Set("VBD", vbd, db.Fields{"VDI": moved})
		}
		w.adoptSnapshots(ref, moved)
		return nil
	})
	if err != nil {
		return "", err
	}
	w.Refresh("VDI", moved)
	return moved, w.destroyVDI(ref)
}

func (w *World) mirrorBytes(c *xapi.Call, vdi db.Record, target string) error {
	duration := time.Duration(float64(w.durations.CopyPerGiB) * float64(vdi.Int("virtual_size")) / float64(gib))
	if err := w.take(c, duration); err != nil {
		return err
	}
	w.ensureDisk(vdi)
	from, to := vdi.Str("uuid"), w.text("VDI", target, "uuid")
	err := c.Yield(func(ctx context.Context) error {
		if err := w.disks.Destroy(to); err != nil {
			return fmt.Errorf("make room for a mirror: %w", err)
		}
		return w.disks.Copy(ctx, from, to, nil)
	})
	if err != nil {
		return err
	}
	w.measureVDI(target)
	return nil
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
		return w.reserved(c, vm, host, "vm_migrate", func() (err error) {
			moved, err = w.moveVDI(c, vdi, sr)
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
