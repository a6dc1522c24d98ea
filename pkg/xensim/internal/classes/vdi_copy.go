package classes

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Full copies of disks, and the transient VBDs by which the control domain reads and writes them meanwhile.

const gib = int64(1) << 30

func (w *World) vdiCopy(c *xapi.Call) (any, error) {
	vdi, copied := c.Self(), ""
	err := c.Operate("VDI", vdi, "copy", func() error { return w.checkVDI(vdi, "copy") }, func() (err error) {
		copied, err = w.copyVDI(c, vdi, c.Str("sr"), c.Str("into_vdi"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return copied, nil
}

// copyVDI copies a disk to an SR, or into a disk that is there already. It holds the disk open from the beginning, where a real
// server begins with the copy's making and leaves a gap for a destroy.
func (w *World) copyVDI(c *xapi.Call, ref, sr, into string) (string, error) {
	vdi := w.DB().Get("VDI", ref)
	if !vdi.Bool("managed") {
		return "", xapi.Fail("VDI_NOT_MANAGED", ref)
	}
	closeSource, err := w.AttachToControlDomain(ref, "RO")
	if err != nil {
		return "", err
	}
	defer closeSource()
	target, made := into, false
	if !w.valid("VDI", into) {
		if err := c.Wait(w.durations.Disk); err != nil {
			return "", copyFailed(err)
		}
		if target, err = w.createVDI(copyFields(vdi, sr)); err != nil {
			return "", err
		}
		made = true
	}
	err = w.checkCopyTarget(vdi, target)
	if err == nil {
		err = w.copyBytes(c, ref, target)
	}
	if err == nil {
		return target, nil
	}
	if made {
		if dropped := w.destroyVDI(target); dropped != nil {
			w.Logf("drop an unfinished copy: %v", dropped)
		}
	}
	return "", copyFailed(err)
}

// copyFields are what a copy takes over: everything that is not the storage's own.
func copyFields(vdi db.Record, sr string) db.Fields {
	fields := db.Fields{
		"SR": sr, "read_only": false, "sm_config": map[string]string{}, "other_config": maps.Clone(vdi.Map("other_config")),
		"xenstore_data": maps.Clone(vdi.Map("xenstore_data")),
	}
	for _, name := range []string{"name_label", "name_description", "virtual_size", "type", "sharable", "tags"} {
		fields[name] = vdi.Get(name)
	}
	return fields
}

func (w *World) checkCopyTarget(vdi db.Record, target string) error {
	r := w.DB().Get("VDI", target)
	switch {
	case r.Bool("read_only"):
		return xapi.Fail("VDI_READONLY", target)
	case r.Int("virtual_size") < vdi.Int("virtual_size"):
		return xapi.Fail("VDI_TOO_SMALL", target, strconv.FormatInt(vdi.Int("virtual_size"), 10))
	}
	return nil
}

// copyFailed is how a cancelled copy ends on a real server: as a failure of its own kind.
func copyFailed(err error) error {
	var known *xapi.Error
	if asError(err, &known) && known.Code == "TASK_CANCELLED" && len(known.Params) > 0 {
		return xapi.Fail("VDI_COPY_FAILED", fmt.Sprintf("Server_error(TASK_CANCELLED, [ %s ])", known.Params[0]))
	}
	return err
}

// copyBytes moves a disk's contents while the control domain has both disks open.
func (w *World) copyBytes(c *xapi.Call, from, to string) error {
	source := w.DB().Get("VDI", from)
	closeTarget, err := w.AttachToControlDomain(to, "RW")
	if err != nil {
		return err
	}
	defer closeTarget()
	duration := time.Duration(float64(w.durations.CopyPerGiB) * float64(source.Int("virtual_size")) / float64(gib))
	if err := w.take(c, duration); err != nil {
		return err
	}
	w.ensureDisk(source)
	fromUUID, toUUID, size := source.Str("uuid"), w.text("VDI", to, "uuid"), w.DB().Get("VDI", to).Int("virtual_size")
	err = c.Yield(func(ctx context.Context) error {
		if err := w.disks.Destroy(toUUID); err != nil {
			return fmt.Errorf("make room for a copy: %w", err)
		}
		if err := w.disks.Copy(ctx, fromUUID, toUUID, nil); err != nil {
			return fmt.Errorf("copy disk %s: %w", fromUUID, err)
		}
		return w.disks.Resize(toUUID, size)
	})
	if err != nil {
		return err
	}
	w.measureVDI(to)
	return nil
}

// AttachToControlDomain opens a disk for the control domain of a host that sees it, as exports, imports and copies do: a VBD more
// is in the disk's VBDs until the returned function is called. The pool must be locked for both.
func (w *World) AttachToControlDomain(vdi, mode string) (detach func(), err error) {
	r, err := w.Record("VDI", vdi)
	if err != nil {
		return nil, err
	}
	pbd := w.pluggedPBD(r.Str("SR"), w.Coordinator())
	if pbd == "" {
		pbd = w.pluggedPBD(r.Str("SR"), "")
	}
	if pbd == "" {
		return nil, xapi.Fail("SR_HAS_NO_PBDS", r.Str("SR"))
	}
	host := w.DB().Get("host", w.text("PBD", pbd, "host"))
	domain := host.Str("control_domain")
	vbd := w.newVBD(db.Fields{
		"VM": domain, "VDI": vdi, "userdevice": w.freeDevice(domain), "mode": mode, "type": "Disk", "bootable": false,
		"unpluggable": true, "empty": false,
	})
	if err := w.checkVBD(vbd, "attach"); err != nil {
		w.deleteVBD(vbd)
		return nil, err
	}
	w.attachVBD(vbd)
	w.opened(vdi, host.Str("uuid"), mode == "RW")
	w.Refresh("VBD", vbd)
	w.Refresh("VDI", vdi)
	return func() {
		w.deleteVBD(vbd)
		w.closed(vdi, host.Str("uuid"))
		w.Refresh("VDI", vdi)
	}, nil
}

// opened and closed leave the traces of an attached disk in its record: the storage's read cache, and a name for its contents
// that holds until the next writer (storage_smapiv1.ml).
func (w *World) opened(vdi, host string, write bool) {
	r := w.DB().Get("VDI", vdi)
	smConfig, otherConfig := cloned(r.Map("sm_config")), cloned(r.Map("other_config"))
	smConfig["read-caching-enabled-on-"+host], smConfig["read-caching-reason-"+host] = "false", ""
	if write {
		delete(otherConfig, "content_id")
	}
	w.Set("VDI", vdi, db.Fields{"sm_config": smConfig, "other_config": otherConfig})
}

func (w *World) closed(vdi, host string) {
	r := w.DB().Get("VDI", vdi)
	if !r.Exists() {
		return
	}
	smConfig, otherConfig := cloned(r.Map("sm_config")), cloned(r.Map("other_config"))
	delete(smConfig, "read-caching-enabled-on-"+host)
	delete(smConfig, "read-caching-reason-"+host)
	if _, named := otherConfig["content_id"]; !named {
		otherConfig["content_id"] = xapi.NewUUID()
	}
	w.Set("VDI", vdi, db.Fields{"sm_config": smConfig, "other_config": otherConfig})
}

// cloned copies a map that may be nil.
func cloned(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
