package classes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Copies of disks on other SRs that take their place, while the disks may be in use (vdi_copy_fun, xapi_vm_migrate.ml).

// mirrored makes a copy of each disk on the SR that it goes to, runs f, and then puts the copies in the place of the disks. When
// anything fails the copies go and the disks stay. A restart of the toolstack in the middle leaves the copies lying about.
func (w *World) mirrored(c *xapi.Call, disks map[string]string, f func() error) error {
	copies := map[string]string{}
	err := w.mirrorAll(c, disks, copies, f)
	var refused *xapi.Error
	if err != nil && errors.As(err, &refused) {
		for _, moved := range copies {
			err = errorAfter(err, w.destroyVDI(moved))
		}
	}
	return err
}

func (w *World) mirrorAll(c *xapi.Call, disks, copies map[string]string, f func() error) error {
	var total, done int64
	for vdi := range disks {
		total += w.DB().Get("VDI", vdi).Int("virtual_size")
	}
	order := slices.Sorted(maps.Keys(disks))
	for _, vdi := range order {
		r := w.DB().Get("VDI", vdi)
		if err := w.checkVDI(vdi, "mirror"); err != nil {
			return err
		}
		moved, err := w.createVDI(mirrorFields(r, disks[vdi]))
		if err != nil {
			return err
		}
		copies[vdi] = moved
		err = c.Operate("VDI", vdi, "mirror", func() error { return nil }, func() error {
			return w.copyFor(c, r.Int("virtual_size"), &done, total)
		})
		if err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	for _, vdi := range order {
		if err := w.mirrorBytes(c, w.DB().Get("VDI", vdi), copies[vdi]); err != nil {
			return err
		}
	}
	for _, vdi := range order {
		if err := w.replaceVDI(vdi, copies[vdi]); err != nil {
			return err
		}
		delete(copies, vdi)
	}
	return nil
}

// mirrorFields is what the record of a disk's copy has from it. The storage driver knows names and sizes; tags, other_config and
// xenstore_data are the database's, so the copy has none (update_vdis, xapi_sr.ml).
func mirrorFields(vdi db.Record, sr string) db.Fields {
	fields := copyFields(vdi, sr)
	fields["other_config"], fields["xenstore_data"], fields["tags"] = map[string]string{}, map[string]string{}, []string{}
	return fields
}

// copyFor lets the time pass that a copy of some bytes takes.
func (w *World) copyFor(c *xapi.Call, size int64, done *int64, total int64) error {
	const steps = 8
	c.Cancellable(true)
	defer c.Cancellable(false)
	duration := time.Duration(float64(w.durations.CopyPerGiB) * float64(size) / float64(gib))
	for step := range steps {
		if err := c.Wait(duration / steps); err != nil {
			return err
		}
		c.Progress((float64(*done) + float64(size)*float64(step+1)/steps) / float64(total) * 0.9)
	}
	*done += size
	return nil
}

func (w *World) mirrorBytes(c *xapi.Call, vdi db.Record, target string) error {
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

// syncedKeys are the entries of other_config that a disk has after its journey too (vdi_other_config_sync_keys).
var syncedKeys = []string{"config-drive"}

// replaceVDI puts a copy in the place of a disk: its VBDs and snapshots follow, and it is removed.
func (w *World) replaceVDI(ref, moved string) error {
	vdi := w.DB().Get("VDI", ref)
	kept := map[string]string{}
	for _, key := range syncedKeys {
		if value, has := vdi.Map("other_config")[key]; has {
			kept[key] = value
		}
	}
	w.Set("VDI", moved, db.Fields{
		"other_config": kept, "is_a_snapshot": vdi.Bool("is_a_snapshot"), "snapshot_of": vdi.Str("snapshot_of"),
		"snapshot_time": vdi.Time("snapshot_time"),
	})
	for _, vbd := range slices.Clone(vdi.Strs("VBDs")) {
		w.Set("VBD", vbd, db.Fields{"VDI": moved})
	}
	w.adoptSnapshots(ref, moved)
	w.Refresh("VDI", moved)
	return w.destroyVDI(ref)
}
