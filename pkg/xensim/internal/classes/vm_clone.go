package classes

import (
	"maps"
	"slices"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Clones, copies, snapshots and checkpoints of VMs: what each takes over, renames and makes anew (xapi_vm_clone.ml).

// copyKind is how a VM is duplicated.
type copyKind struct {
	operation string // clone, copy, snapshot, checkpoint: the VM's operation
	sr        string // for the disks of a copy; empty where they are
	ignore    []string
	info      map[string]string // snapshot_info, when the power state then is known already
}

func (k copyKind) isSnapshot() bool { return k.operation == "snapshot" || k.operation == "checkpoint" }

func (w *World) registerVMCopies() {
	w.Handle("VM.create", w.vmCreate)
	w.handle("VM.destroy", w.vmDestroy)
	w.handle("VM.provision", w.vmProvision)
	w.Handle("VM.clone", func(c *xapi.Call) (any, error) { return w.vmDuplicate(c, copyKind{operation: "clone"}) })
	w.Handle("VM.copy", w.vmCopy)
	w.Handle("VM.snapshot", w.vmSnapshot)
	w.Handle("VM.checkpoint", w.vmCheckpoint)
	w.handle("VM.revert", w.vmRevert)
}

// vmDuplicate is VM.clone and VM.copy.
func (w *World) vmDuplicate(c *xapi.Call, kind copyKind) (any, error) {
	vm, copied := c.Self(), ""
	err := w.operate(c, vm, kind.operation, func() (err error) {
		c.Cancellable(true)
		if copied, err = w.duplicate(c, vm, c.Str("new_name"), kind); err != nil {
			return err
		}
		if w.DB().Get("VM", vm).Bool("is_a_snapshot") && w.text("VM", copied, "power_state") != powerHalted {
			err = w.hardStop(c, copied)
			w.Refresh("VM", copied)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return copied, nil
}

func (w *World) vmCopy(c *xapi.Call) (any, error) {
	kind := copyKind{operation: "copy"}
	if sr := c.Str("sr"); w.valid("SR", sr) {
		kind.sr = sr
		if w.text("SR", sr, "content_type") == "iso" {
			if err := w.checkVM(c.Self(), "copy"); err != nil {
				return nil, err
			}
			return nil, xapi.Fail("OPERATION_NOT_ALLOWED", "Cannot copy a VM's disks to an ISO SR")
		}
	}
	return w.vmDuplicate(c, kind)
}

// newDisk is a disk that a duplicate of a VM gets for one of the VM's VBDs.
type newDisk struct {
	vbd, vdi string
	made     bool // it was made for the duplicate, not shared as CDs are
}

// duplicate makes the disks first, then the records. What was made is removed where something fails.
func (w *World) duplicate(c *xapi.Call, vm, name string, kind copyKind) (string, error) {
	var vbds []string
	for _, vbd := range w.DB().Get("VM", vm).Strs("VBDs") {
		if !kind.isSnapshot() || !slices.Contains(kind.ignore, w.text("VBD", vbd, "VDI")) {
			vbds = append(vbds, vbd)
		}
	}
	disks, err := w.duplicateDisks(c, vbds, kind)
	if err != nil {
		return "", err
	}
	image, err := w.duplicateImage(c, vm, kind)
	if err != nil {
		w.dropDisks(disks)
		return "", err
	}
	r, err := w.Record("VM", vm)
	if err != nil {
		w.dropDisks(append(disks, newDisk{vdi: image, made: true}))
		return "", err
	}
	state := stateOfDuplicate(r, kind)
	copied := w.duplicateRecord(vm, name, state, kind)
	w.Set("VM", copied, db.Fields{"suspend_VDI": image})
	for _, disk := range disks {
		w.duplicateVBD(copied, disk, state)
	}
	for _, vif := range r.Strs("VIFs") {
		if err := w.duplicateVIF(copied, vif, kind.isSnapshot(), state); err != nil {
			w.Logf("copy an interface of VM %s: %v", r.Str("uuid"), err)
		}
	}
	for _, vtpm := range r.Strs("VTPMs") {
		w.duplicateVTPM(copied, vtpm)
	}
	w.Refresh("VM", copied)
	return copied, nil
}

// stateOfDuplicate: what has a memory image stays suspended, all else is halted.
func stateOfDuplicate(vm db.Record, kind copyKind) string {
	state := vm.Str("power_state")
	switch {
	case kind.operation == "checkpoint" && (state == powerRunning || state == powerSuspended):
		return powerSuspended
	case !kind.isSnapshot() && state == powerSuspended:
		return powerSuspended
	}
	return powerHalted
}

func (w *World) duplicateDisks(c *xapi.Call, vbds []string, kind copyKind) ([]newDisk, error) {
	var disks []newDisk
	for i, vbd := range vbds {
		r := w.DB().Get("VBD", vbd)
		if !r.Exists() {
			continue
		}
		disk := newDisk{vbd: vbd, vdi: db.NullRef}
		var err error
		switch {
		case r.Bool("empty"):
		case r.Str("type") == "CD":
			disk.vdi = r.Str("VDI")
		default:
			disk.made = true
			disk.vdi, err = w.duplicateDisk(c, r.Str("VDI"), kind)
		}
		if err != nil {
			w.dropDisks(disks)
			return nil, err
		}
		disks = append(disks, disk)
		c.Progress(float64(i+1) / float64(len(vbds)+1))
	}
	return disks, nil
}

// duplicateDisk makes one disk for a duplicate, as VDI.clone, VDI.snapshot or VDI.copy would.
func (w *World) duplicateDisk(c *xapi.Call, vdi string, kind copyKind) (copied string, err error) {
	sr := w.text("VDI", vdi, "SR")
	if kind.operation == "copy" {
		target := kind.sr
		if target == "" {
			target = sr
		}
		err = c.Operate("VDI", vdi, "copy", func() error { return w.checkVDI(vdi, "copy") }, func() (err error) {
			copied, err = w.copyVDI(c, vdi, target, db.NullRef)
			return err
		})
		return copied, err
	}
	operation := "clone"
	if kind.isSnapshot() {
		operation = "snapshot"
	}
	err = w.onStorage(c, sr, "vdi_"+operation, vdi, operation, func() (err error) {
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		copied, err = w.branchVDI(vdi, kind.isSnapshot())
		return err
	})
	return copied, err
}

// duplicateImage copies the memory image of a suspended VM.
func (w *World) duplicateImage(c *xapi.Call, vm string, kind copyKind) (string, error) {
	image := w.text("VM", vm, "suspend_VDI")
	if !w.valid("VDI", image) || kind.operation == "snapshot" {
		return db.NullRef, nil
	}
	return w.duplicateDisk(c, image, kind)
}

// dropDisks removes disks of a duplicate that did not come to be.
func (w *World) dropDisks(disks []newDisk) {
	for _, disk := range disks {
		if !disk.made {
			continue
		}
		if err := w.destroyVDI(disk.vdi); err != nil {
			w.Logf("drop a disk of a failed copy: %v", err)
		}
	}
}

// emptyInDuplicate are fields that lead from a VM to its own parts and past; a duplicate begins without.
var emptyInDuplicate = []string{
	"VBDs", "VIFs", "VGPUs", "VUSBs", "VTPMs", "consoles", "crash_dumps", "snapshots", "children", "attached_PCIs",
	"pending_guidances", "pending_guidances_recommended", "pending_guidances_full", "groups", "blobs", "blocked_operations",
	"current_operations", "allowed_operations", "uuid", "resident_on", "scheduled_to_be_resident_on", "suspend_VDI",
	"protection_policy", "snapshot_schedule", "appliance", "suspend_SR", "start_delay", "shutdown_delay", "order", "version",
	"requires_reboot", "ha_always_run", "domarch", "transportable_snapshot_id", "is_snapshot_from_vmpp", "is_vmss_snapshot",
	"snapshot_info", "snapshot_time", "snapshot_of", "snapshot_metadata", "parent",
}

// duplicateRecord adds the VM's record.
func (w *World) duplicateRecord(vm, name, state string, kind copyKind) string {
	r := w.DB().Get("VM", vm)
	fields := without(r.Fields(), emptyInDuplicate...)
	for field, value := range (db.Fields{
		"name_label": name, "power_state": state, "domid": int64(-1), "is_default_template": false,
		"is_a_template": kind.isSnapshot() || r.Bool("is_a_template"), "is_a_snapshot": kind.isSnapshot(),
		"other_config": otherConfigOfDuplicate(r, kind), "generation_id": freshGenerationID(r.Str("generation_id")),
		"metrics": w.copyMetrics(vm), "guest_metrics": w.copyGuestMetrics(vm),
	}) {
		fields[field] = value
	}
	if kind.isSnapshot() {
		fields["snapshot_of"], fields["snapshot_time"], fields["parent"] = vm, w.Now(), r.Str("parent")
		fields["snapshot_info"] = kind.info
		if kind.info == nil {
			fields["snapshot_info"] = snapshotInfo(r.Str("power_state"))
		}
		fields["snapshot_metadata"] = metadataText(vm, r)
	}
	copied := w.Create("VM", fields)
	if kind.isSnapshot() {
		w.snapshotted[copied] = r
		w.Set("VM", vm, db.Fields{"parent": copied})
	}
	return copied
}

func snapshotInfo(state string) map[string]string {
	return map[string]string{"power-state-at-snapshot": state, "disk-snapshot-type": "crash_consistent"}
}

// otherConfigOfDuplicate: a clone gets other addresses, and remembers the template that it comes from.
func otherConfigOfDuplicate(vm db.Record, kind copyKind) map[string]string {
	otherConfig := cloned(vm.Map("other_config"))
	if !kind.isSnapshot() {
		otherConfig[macSeed] = xapi.NewUUID()
	}
	delete(otherConfig, "default_template")
	delete(otherConfig, "xensource_internal")
	if _, known := otherConfig["base_template_name"]; vm.Bool("is_a_template") && !known {
		otherConfig["base_template_name"] = vm.Str("name_label")
	}
	return otherConfig
}

// duplicateVBD adds a VBD like one of another VM. What may be done with it is found out later: a copy begins with an empty list.
func (w *World) duplicateVBD(vm string, disk newDisk, state string) {
	r := w.DB().Get("VBD", disk.vbd)
	if !r.Exists() {
		return
	}
	fields := without(r.Fields(), "uuid", "allowed_operations", "current_operations", "metrics", "runtime_properties")
	otherConfig := cloned(r.Map("other_config"))
	if _, owned := otherConfig["owner"]; !owned && r.Str("type") == "Disk" {
		otherConfig["owner"] = ""
	}
	for field, value := range (db.Fields{
		"VM": vm, "VDI": disk.vdi, "empty": r.Bool("empty") || disk.vdi == db.NullRef, "other_config": otherConfig,
		"currently_attached": r.Bool("currently_attached") && state == powerSuspended,
	}) {
		fields[field] = value
	}
	w.newVBD(fields)
}

// duplicateVIF adds an interface like one of another VM: with its address, or with a new one from the VM's own seed.
func (w *World) duplicateVIF(vm, vif string, keepAddress bool, state string) error {
	r := w.DB().Get("VIF", vif)
	fields := without(r.Fields(), "uuid", "allowed_operations", "current_operations", "metrics", "runtime_properties")
	fields["VM"] = vm
	fields["currently_attached"] = r.Bool("currently_attached") && state == powerSuspended
	if !keepAddress {
		fields["MAC"] = ""
	}
	_, err := w.createVIF(fields)
	return err
}

func (w *World) duplicateVTPM(vm, vtpm string) {
	r := w.DB().Get("VTPM", vtpm)
	fields := without(r.Fields(), "uuid", "allowed_operations", "current_operations")
	fields["VM"] = vm
	w.Create("VTPM", maps.Clone(fields))
}
