package classes

import (
	"slices"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Storage repositories and what connects hosts to them (PBDs).

func (w *World) registerSR() {
	w.Handle("SR.create", w.srCreate)
	w.Handle("SR.introduce", func(c *xapi.Call) (any, error) { return w.srIntroduce(c, c.Str("uuid")) })
	w.handle("SR.destroy", func(c *xapi.Call) error { return w.srRemove(c, "destroy") })
	w.handle("SR.forget", func(c *xapi.Call) error { return w.srRemove(c, "forget") })
	w.handle("SR.scan", w.srScan)
	w.handle("SR.update", func(c *xapi.Call) error {
		sr := c.Self()
		if err := w.checkSR(sr, "update"); err != nil {
			return err
		}
		w.recountSR(sr)
		return nil
	})
	w.Handle("SR.probe", func(c *xapi.Call) (any, error) {
		return "<?xml version=\"1.0\" ?>\n<SRlist>\n</SRlist>\n", w.checkDriver(c.Str("type"))
	})
	w.Handle("SR.probe_ext", func(c *xapi.Call) (any, error) { return []any{}, w.checkDriver(c.Str("type")) })
	w.Handle("SR.make", func(*xapi.Call) (any, error) { return nil, xapi.Fail("MESSAGE_DEPRECATED") })
	w.Handle("SR.get_supported_types", func(*xapi.Call) (any, error) {
		types := []string{}
		for _, sm := range w.DB().Refs("SM") {
			types = append(types, w.text("SM", sm, "type"))
		}
		return types, nil
	})
	for _, field := range []string{"name_label", "name_description"} {
		w.handle("SR.set_"+field, func(c *xapi.Call) error {
			w.Set("SR", c.Self(), db.Fields{field: c.Str("value")})
			return nil
		})
	}
	w.handle("SR.set_physical_size", func(c *xapi.Call) error {
		w.Set("SR", c.Self(), db.Fields{"physical_size": c.Int("value")})
		return nil
	})
	w.handle("SR.set_shared", w.srSetShared)
	w.Handle("SR.get_data_sources", func(*xapi.Call) (any, error) { return []any{}, nil })
	w.Handle("PBD.create", w.pbdCreate)
	w.handle("PBD.destroy", w.pbdDestroy)
	w.handle("PBD.plug", w.pbdPlug)
	w.handle("PBD.unplug", w.pbdUnplug)
	w.handle("PBD.set_device_config", func(c *xapi.Call) error {
		w.Set("PBD", c.Self(), db.Fields{"device_config": c.Map("value")})
		return nil
	})
}

func (w *World) checkDriver(srType string) error {
	known := slices.ContainsFunc(w.DB().Refs("SM"), func(sm string) bool { return w.text("SM", sm, "type") == srType })
	if !known {
		return xapi.Fail("SR_UNKNOWN_DRIVER", srType)
	}
	return nil
}

// srIntroduce adds the record of an SR.
func (w *World) srIntroduce(c *xapi.Call, uuid string) (string, error) {
	if err := w.checkDriver(c.Str("type")); err != nil {
		return "", err
	}
	if _, taken := w.DB().ByUUID("SR", uuid); taken {
		return "", xapi.Fail("SR_UUID_EXISTS", uuid)
	}
	sr := w.Create("SR", db.Fields{
		"uuid": uuid, "name_label": c.Str("name_label"), "name_description": c.Str("name_description"), "type": c.Str("type"),
		"content_type": c.Str("content_type"), "shared": c.Bool("shared"), "sm_config": c.Map("sm_config"),
	})
	w.Refresh("SR", sr)
	return sr, nil
}

// srCreate makes an SR and connects it: to its host, or to all hosts if it is shared.
func (w *World) srCreate(c *xapi.Call) (any, error) {
	host := c.Str("host")
	if _, err := c.Record("host", host); err != nil {
		return nil, err
	}
	if err := w.checkDriver(c.Str("type")); err != nil {
		return nil, err
	}
	if err := c.Wait(w.durations.Disk); err != nil {
		return nil, err
	}
	sr, err := w.srIntroduce(c, xapi.NewUUID())
	if err != nil {
		return nil, err
	}
	size := c.Int("physical_size")
	if size == 0 {
		const usual = int64(1) << 40
		size = usual
	}
	if srDrivers[c.Str("type")].readOnly {
		size = 0
	}
	w.Set("SR", sr, db.Fields{"physical_size": size})
	hosts := []string{host}
	if c.Bool("shared") {
		hosts = w.DB().Refs("host")
	}
	for _, host := range hosts {
		w.Create("PBD", db.Fields{"host": host, "SR": sr, "device_config": c.Map("device_config"), "currently_attached": true})
	}
	w.Refresh("SR", sr)
	return sr, nil
}

// srRemove is SR.destroy, which erases the disks, and SR.forget, which leaves them.
func (w *World) srRemove(c *xapi.Call, operation string) error {
	sr := c.Self()
	return c.Operate("SR", sr, operation, func() error { return w.checkSR(sr, operation) }, func() error {
		r := w.DB().Get("SR", sr)
		if operation == "destroy" && r.Map("other_config")["indestructible"] == "true" {
			return xapi.Fail("SR_INDESTRUCTIBLE", sr)
		}
		for _, vdi := range r.Strs("VDIs") {
			if operation == "forget" {
				w.DB().Delete("VDI", vdi)
			} else if err := w.destroyVDI(vdi); err != nil {
				return err
			}
		}
		for _, pbd := range r.Strs("PBDs") {
			w.DB().Delete("PBD", pbd)
		}
		w.DB().Delete("SR", sr)
		return nil
	})
}

func (w *World) srScan(c *xapi.Call) error {
	sr := c.Self()
	return c.Operate("SR", sr, "scan", func() error { return w.checkSR(sr, "scan") }, func() error {
		if w.pluggedPBD(sr, "") == "" {
			return xapi.Fail("SR_HAS_NO_PBDS", sr)
		}
		if err := c.Wait(2 * w.durations.Disk); err != nil {
			return err
		}
		w.recountSR(sr)
		return nil
	})
}

// recountSR sums up what the disks of an SR take.
func (w *World) recountSR(sr string) {
	for _, vdi := range w.DB().Get("SR", sr).Strs("VDIs") {
		w.measureVDI(vdi)
	}
	var virtual, physical int64
	for _, vdi := range w.DB().Get("SR", sr).Strs("VDIs") {
		r := w.DB().Get("VDI", vdi)
		virtual += r.Int("virtual_size")
		physical += r.Int("physical_utilisation")
	}
	w.Set("SR", sr, db.Fields{"virtual_allocation": virtual, "physical_utilisation": physical})
}

func (w *World) srSetShared(c *xapi.Call) error {
	sr := c.Self()
	if pbds := w.DB().Get("SR", sr).Strs("PBDs"); !c.Bool("value") && len(pbds) > 1 {
		return xapi.Fail("SR_HAS_MULTIPLE_PBDS", pbds...)
	}
	w.Set("SR", sr, db.Fields{"shared": c.Bool("value")})
	return nil
}

func (w *World) pbdCreate(c *xapi.Call) (any, error) {
	fields := c.Fields("args")
	host, sr := fields["host"].(string), fields["SR"].(string)
	if _, err := c.Record("SR", sr); err != nil {
		return nil, err
	}
	if _, err := c.Record("host", host); err != nil {
		return nil, err
	}
	if err := w.checkSR(sr, "pbd_create"); err != nil {
		return nil, err
	}
	for _, pbd := range w.DB().Get("SR", sr).Strs("PBDs") {
		if w.text("PBD", pbd, "host") == host {
			return nil, xapi.Fail("PBD_EXISTS", sr, host, pbd)
		}
	}
	fields["currently_attached"] = false
	pbd := w.Create("PBD", fields)
	w.Refresh("SR", sr)
	return pbd, nil
}

func (w *World) pbdDestroy(c *xapi.Call) error {
	pbd := c.Self()
	r := w.DB().Get("PBD", pbd)
	if err := w.checkSR(r.Str("SR"), "pbd_destroy"); err != nil {
		return err
	}
	if r.Bool("currently_attached") {
		return xapi.Fail("OPERATION_NOT_ALLOWED", "PBD is currently plugged; unplug first")
	}
	w.DB().Delete("PBD", pbd)
	w.Refresh("SR", r.Str("SR"))
	return nil
}

func (w *World) pbdPlug(c *xapi.Call) error {
	pbd := c.Self()
	sr := w.text("PBD", pbd, "SR")
	return c.Operate("SR", sr, "plug", func() error { return w.checkSR(sr, "plug") }, func() error {
		r := w.DB().Get("SR", sr)
		if others := len(r.Strs("PBDs")); !r.Bool("shared") && others > 1 {
			return xapi.Fail("SR_NOT_SHARABLE", sr, w.text("PBD", pbd, "host"))
		}
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		w.Set("PBD", pbd, db.Fields{"currently_attached": true})
		w.refreshVDIsOf(sr)
		return nil
	})
}

// pbdUnplug takes an SR from a host, unless VMs there use its disks.
func (w *World) pbdUnplug(c *xapi.Call) error {
	pbd := c.Self()
	r := w.DB().Get("PBD", pbd)
	sr, host := r.Str("SR"), r.Str("host")
	if !r.Bool("currently_attached") {
		return nil
	}
	return c.Operate("SR", sr, "unplug", func() error { return w.checkSR(sr, "unplug") }, func() error {
		var used []string
		for _, vdi := range w.DB().Get("SR", sr).Strs("VDIs") {
			if w.openOn(vdi, host) {
				used = append(used, vdi)
			}
		}
		if len(used) > 0 {
			return xapi.Fail("VDI_IN_USE", used...)
		}
		if err := c.Wait(w.durations.Disk); err != nil {
			return err
		}
		w.Set("PBD", pbd, db.Fields{"currently_attached": false})
		w.refreshVDIsOf(sr)
		return nil
	})
}

// openOn says whether a VM on a host has a disk open.
func (w *World) openOn(vdi, host string) bool {
	return slices.ContainsFunc(w.DB().Get("VDI", vdi).Strs("VBDs"), func(vbd string) bool {
		r := w.DB().Get("VBD", vbd)
		return r.Bool("currently_attached") && w.text("VM", r.Str("VM"), "resident_on") == host
	})
}

func (w *World) refreshVDIsOf(sr string) {
	for _, vdi := range w.DB().Get("SR", sr).Strs("VDIs") {
		w.Refresh("VDI", vdi)
	}
}
