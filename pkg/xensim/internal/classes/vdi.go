package classes

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Virtual disks. Their bytes are in the block store, under the VDI's uuid.

func (w *World) registerVDI() {
	w.Handle("VDI.create", w.vdiCreate)
	w.handle("VDI.destroy", w.vdiDestroy)
	w.handle("VDI.resize", w.vdiResize)
	w.Handle("VDI.snapshot", func(c *xapi.Call) (any, error) { return w.vdiBranch(c, "snapshot") })
	w.Handle("VDI.clone", func(c *xapi.Call) (any, error) { return w.vdiBranch(c, "clone") })
	w.Handle("VDI.copy", w.vdiCopy)
	w.handle("VDI.forget", w.vdiForget)
	w.Handle("VDI.introduce", w.vdiIntroduce)
	w.handle("VDI.update", func(c *xapi.Call) error {
		vdi := c.Self()
		return c.Operate("VDI", vdi, "update", func() error { return w.checkVDI(vdi, "update") }, func() error {
			w.measureVDI(vdi)
			return nil
		})
	})
	for _, field := range []string{"name_label", "name_description"} {
		w.handle("VDI.set_"+field, func(c *xapi.Call) error { return w.vdiRename(c, field) })
	}
	w.handle("VDI.set_on_boot", w.vdiSetOnBoot)
	w.handle("VDI.set_allow_caching", func(c *xapi.Call) error {
		if err := w.checkNotRunning(c.Self()); err != nil {
			return err
		}
		w.Set("VDI", c.Self(), db.Fields{"allow_caching": c.Bool("value")})
		return nil
	})
	w.handle("VDI.enable_cbt", func(c *xapi.Call) error { return w.vdiSetCBT(c, "enable_cbt", true) })
	w.handle("VDI.disable_cbt", func(c *xapi.Call) error { return w.vdiSetCBT(c, "disable_cbt", false) })
	w.handle("VDI.data_destroy", w.vdiDataDestroy)
	w.Handle("VDI.list_changed_blocks", w.vdiListChangedBlocks)
	w.Handle("VDI.get_nbd_info", func(*xapi.Call) (any, error) { return []any{}, nil }) // no network offers NBD
	w.Handle("VDI.read_database_pool_uuid", func(*xapi.Call) (any, error) { return "", nil })
	w.Handle("VDI.open_database", func(c *xapi.Call) (any, error) {
		if kind := w.text("VDI", c.Self(), "type"); kind != "metadata" {
			return nil, xapi.Fail("VDI_INCOMPATIBLE_TYPE", c.Self(), kind)
		}
		return nil, xapi.Fail("COULD_NOT_IMPORT_DATABASE", "Database does not match local schema.")
	})
}

// onStorage does something to a VDI, or to its SR alone, that both tell in their current_operations.
func (w *World) onStorage(c *xapi.Call, sr, srOperation, vdi, vdiOperation string, f func() error) error {
	check := func() error {
		if err := w.checkSR(sr, srOperation); err != nil || vdi == "" {
			return err
		}
		return w.checkVDI(vdi, vdiOperation)
	}
	run := f
	if vdi != "" {
		run = func() error { return c.Operate("VDI", vdi, vdiOperation, func() error { return nil }, f) }
	}
	return c.Operate("SR", sr, srOperation, check, run)
}

func (w *World) vdiCreate(c *xapi.Call) (any, error) {
	fields := c.Fields("args")
	if fields["type"] == "cbt_metadata" {
		return nil, xapi.Fail("VDI_INCOMPATIBLE_TYPE", "", "cbt_metadata")
	}
	sr, vdi := fields["SR"].(string), ""
	err := w.onStorage(c, sr, "vdi_create", "", "", func() (err error) {
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		vdi, err = w.createVDI(fields)
		return err
	})
	if err != nil {
		return nil, err
	}
	return vdi, nil
}

// createVDI makes an empty disk.
func (w *World) createVDI(fields db.Fields) (string, error) {
	sr, _ := fields["SR"].(string)
	r, err := w.Record("SR", sr)
	if err != nil {
		return "", err
	}
	if w.pluggedPBD(sr, "") == "" {
		return "", xapi.Fail("SR_HAS_NO_PBDS", sr)
	}
	size, refused := srDrivers[r.Str("type")].sizeOf(fields["virtual_size"].(int64))
	if refused.refused() {
		return "", refused.err()
	}
	if err := w.checkRoom(r, size); err != nil {
		return "", err
	}
	uuid := xapi.NewUUID()
	if err := w.disks.Create(uuid, size); err != nil {
		return "", fmt.Errorf("create disk %s: %w", uuid, err)
	}
	record := db.Fields{
		"uuid": uuid, "location": uuid, "managed": true, "virtual_size": size, "allow_caching": false, "on_boot": "persist",
	}
	for _, name := range []string{
		"name_label", "name_description", "SR", "type", "sharable", "read_only", "other_config", "xenstore_data", "sm_config", "tags",
	} {
		if value, given := fields[name]; given {
			record[name] = value
		}
	}
	vdi := w.Create("VDI", record)
	w.measureVDI(vdi)
	w.Refresh("VDI", vdi)
	return vdi, nil
}

// checkRoom says whether a new disk fits into an SR: all of it where disks are put aside whole, a first block elsewhere.
func (w *World) checkRoom(sr db.Record, size int64) error {
	if !srDrivers[sr.Str("type")].thick {
		size = vhdGranularity
	}
	if capacity := sr.Int("physical_size"); capacity > 0 && sr.Int("physical_utilisation")+size > capacity {
		return srFull.err()
	}
	return nil
}

// measureVDI writes how much room a disk takes, and its SR's sums.
func (w *World) measureVDI(ref string) {
	vdi := w.DB().Get("VDI", ref)
	if !vdi.Exists() {
		return
	}
	used := vdi.Int("virtual_size")
	sr := vdi.Str("SR")
	if driver := srDrivers[w.text("SR", sr, "type")]; !driver.thick && !driver.readOnly {
		used = w.disks.PhysicalUtilisation(vdi.Str("uuid"))
	}
	w.accountSR(sr, 0, used-vdi.Int("physical_utilisation"))
	w.Set("VDI", ref, db.Fields{"physical_utilisation": used})
}

// accountSR changes an SR's sums by what a disk was and is.
func (w *World) accountSR(sr string, virtual, physical int64) {
	r := w.DB().Get("SR", sr)
	if r.Exists() {
		w.Set("SR", sr, db.Fields{
			"virtual_allocation":   max(r.Int("virtual_allocation")+virtual, 0),
			"physical_utilisation": max(r.Int("physical_utilisation")+physical, 0),
		})
	}
}

func (w *World) vdiDestroy(c *xapi.Call) error {
	vdi := c.Self()
	return w.onStorage(c, w.text("VDI", vdi, "SR"), "vdi_destroy", vdi, "destroy", func() error {
		if err := w.checkDestroy(vdi); err != nil {
			return err
		}
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		return w.destroyVDI(vdi)
	})
}

func (w *World) checkDestroy(ref string) error {
	vdi := w.DB().Get("VDI", ref)
	switch sr := vdi.Str("SR"); {
	case w.pluggedPBD(sr, "") == "":
		return xapi.Fail("SR_HAS_NO_PBDS", sr)
	case !vdi.Bool("managed"):
		return xapi.Fail("VDI_NOT_MANAGED", ref)
	}
	return nil
}

// destroyVDI removes a disk, and the VBDs that lead to it.
func (w *World) destroyVDI(ref string) error {
	vdi := w.DB().Get("VDI", ref)
	if !vdi.Exists() {
		return nil
	}
	neighbour := w.disks.ShorterWithout(vdi.Str("uuid"))
	if err := w.disks.Destroy(vdi.Str("uuid")); err != nil && !errors.Is(err, blockstore.ErrNotFound) {
		return fmt.Errorf("destroy disk %s: %w", vdi.Str("uuid"), err)
	}
	w.accountSR(vdi.Str("SR"), 0, -vdi.Int("physical_utilisation"))
	w.coalesceLater(neighbour)
	vbds := vdi.Strs("VBDs")
	w.DB().Delete("VDI", ref)
	for _, vbd := range vbds {
		w.DB().Delete("VBD", vbd) // its metrics stay, as on a real server
	}
	if vdi.Str("type") != "suspend" {
		return nil
	}
	for _, vm := range w.DB().Refs("VM") {
		if w.text("VM", vm, "suspend_VDI") == ref {
			w.Set("VM", vm, db.Fields{"suspend_VDI": db.NullRef})
		}
	}
	return nil
}

// coalesceLater shortens the chain of a disk that shared blocks with one that is gone, a while after as the real collector
// does; "" is no disk.
func (w *World) coalesceLater(uuid string) {
	if uuid == "" {
		return
	}
	w.After(w.durations.Coalesce, func() {
		if _, err := w.disks.Coalesce(context.Background(), uuid); err != nil && !errors.Is(err, blockstore.ErrNotFound) {
			w.Logf("coalesce disk %s: %v", uuid, err)
		}
		if ref, found := w.DB().ByUUID("VDI", uuid); found {
			w.measureVDI(ref)
		}
	})
}

func (w *World) vdiResize(c *xapi.Call) error {
	vdi := c.Self()
	return w.onStorage(c, w.text("VDI", vdi, "SR"), "vdi_resize", vdi, "resize", func() error {
		if err := w.checkDestroy(vdi); err != nil {
			return err
		}
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		r := w.DB().Get("VDI", vdi)
		sr := w.DB().Get("SR", r.Str("SR"))
		size, refused := srDrivers[sr.Str("type")].grownSize(r.Int("virtual_size"), c.Int("size"))
		if refused.refused() {
			return refused.err()
		}
		if err := w.checkRoom(sr, size-r.Int("virtual_size")); err != nil {
			return err
		}
		w.ensureDisk(r)
		if err := w.disks.Resize(r.Str("uuid"), size); err != nil {
			return fmt.Errorf("resize disk %s: %w", r.Str("uuid"), err)
		}
		w.Set("VDI", vdi, db.Fields{"virtual_size": size})
		w.measureVDI(vdi)
		return nil
	})
}

// ensureDisk makes bytes for a VDI that came with a loaded state.
func (w *World) ensureDisk(vdi db.Record) {
	w.disks.Ensure(vdi.Str("uuid"), vdi.Int("virtual_size"))
}

// vdiBranch is VDI.snapshot and VDI.clone: copy-on-write copies on the same SR.
func (w *World) vdiBranch(c *xapi.Call, operation string) (any, error) {
	vdi, copied := c.Self(), ""
	err := w.onStorage(c, w.text("VDI", vdi, "SR"), "vdi_"+operation, vdi, operation, func() (err error) {
		if err := w.checkDestroy(vdi); err != nil {
			return err
		}
		if err := c.Wait(2 * w.durations.Disk); err != nil {
			return err
		}
		copied, err = w.branchVDI(vdi, operation == "snapshot")
		return err
	})
	if err != nil {
		return nil, err
	}
	return copied, nil
}

// branchVDI makes a copy-on-write copy. Tags stay behind.
func (w *World) branchVDI(ref string, snapshot bool) (string, error) {
	vdi := w.DB().Get("VDI", ref)
	sr := w.DB().Get("SR", vdi.Str("SR"))
	w.ensureDisk(vdi)
	switch {
	case srDrivers[sr.Str("type")].readOnly:
		return "", xapi.Fail("SR_OPERATION_NOT_SUPPORTED", vdi.Str("SR"))
	case w.disks.ChainDepth(vdi.Str("uuid")) >= vhdLongest:
		return "", chainTooLong.err()
	}
	if err := w.checkRoom(sr, vdi.Int("virtual_size")); err != nil {
		return "", err
	}
	uuid := xapi.NewUUID()
	if err := w.disks.Clone(vdi.Str("uuid"), uuid); err != nil {
		return "", fmt.Errorf("clone disk %s: %w", vdi.Str("uuid"), err)
	}
	fields := db.Fields{
		"uuid": uuid, "location": uuid, "managed": true, "snapshot_time": w.Now(),
		"sm_config": map[string]string{"vhd-parent": xapi.NewUUID()}, "other_config": maps.Clone(vdi.Map("other_config")),
		"xenstore_data": maps.Clone(vdi.Map("xenstore_data")), "is_a_snapshot": snapshot,
	}
	for _, name := range []string{
		"name_label", "name_description", "SR", "virtual_size", "type", "sharable", "read_only", "on_boot", "allow_caching",
	} {
		fields[name] = vdi.Get(name)
	}
	if snapshot {
		fields["snapshot_of"], fields["cbt_enabled"] = ref, vdi.Get("cbt_enabled")
	}
	copied := w.Create("VDI", fields)
	w.measureVDI(copied)
	w.Refresh("VDI", copied)
	return copied, nil
}

func (w *World) vdiForget(c *xapi.Call) error {
	vdi := c.Self()
	return c.Operate("VDI", vdi, "forget", func() error { return w.checkVDI(vdi, "forget") }, func() error {
		w.DB().Delete("VDI", vdi)
		return nil
	})
}

// vdiIntroduce adds the record of a disk that is on an SR.
func (w *World) vdiIntroduce(c *xapi.Call) (any, error) {
	sr, uuid, location := c.Str("SR"), c.Str("uuid"), c.Str("location")
	r, err := c.Record("SR", sr)
	if err != nil {
		return nil, err
	}
	if err := w.checkSR(sr, "vdi_introduce"); err != nil {
		return nil, err
	}
	for _, vdi := range r.Strs("VDIs") {
		if w.text("VDI", vdi, "location") == location && w.text("VDI", vdi, "uuid") != uuid {
			return nil, xapi.Fail("LOCATION_NOT_UNIQUE", sr, location)
		}
	}
	vdi := w.Create("VDI", db.Fields{
		"uuid": uuid, "location": location, "name_label": c.Str("name_label"), "name_description": c.Str("name_description"),
		"SR": sr, "type": c.Str("type"), "sharable": c.Bool("sharable"), "other_config": c.Map("other_config"),
		"xenstore_data": c.Map("xenstore_data"), "sm_config": c.Map("sm_config"), "managed": true,
		"virtual_size": c.Int("virtual_size"), "on_boot": "persist",
	})
	w.Refresh("VDI", vdi)
	return vdi, nil
}

func (w *World) vdiRename(c *xapi.Call, field string) error {
	vdi, value := c.Self(), c.Str("value")
	if err := c.Wait(w.durations.Disk); err != nil {
		return err
	}
	if !w.valid("VDI", vdi) {
		return xapi.HandleInvalid("VDI", vdi)
	}
	w.Set("VDI", vdi, db.Fields{field: value})
	return nil
}

// checkNotRunning wants all VMs of a disk halted.
func (w *World) checkNotRunning(vdi string) error {
	for _, vbd := range w.DB().Get("VDI", vdi).Strs("VBDs") {
		if err := w.checkHalted(w.text("VBD", vbd, "VM")); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) vdiSetOnBoot(c *xapi.Call) error {
	vdi := c.Self()
	if err := w.checkNotRunning(vdi); err != nil {
		return err
	}
	return w.onStorage(c, w.text("VDI", vdi, "SR"), "vdi_set_on_boot", vdi, "set_on_boot", func() error {
		w.Set("VDI", vdi, db.Fields{"on_boot": c.Str("value")})
		return nil
	})
}
