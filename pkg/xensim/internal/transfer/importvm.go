package transfer

import (
	"fmt"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// makeVM makes a VM, or finds that it stands for one that is there: a default template is never made twice.
func (i *importer) makeVM(o xva.Object) error {
	config := archivedMap(o.Record, "other_config")
	isDefault, _ := o.Record.Get("is_default_template")
	if isDefault == true || config["default_template"] == "true" {
		i.Lock()
		same := i.DB().ByName("VM", text(o.Record, "name_label"))
		i.Unlock()
		if len(same) > 0 {
			i.refs[o.ID] = same[0]
			i.vms = append(i.vms, same[0])
			return nil
		}
	}
	if skip, err := i.makeRoom(o); skip || err != nil {
		return err
	}
	config["import_task"] = i.task
	if !i.restore {
		config["mac_seed"] = xapi.NewUUID()
	}
	version := int64(0)
	if i.restore {
		version = integer(o.Record, "version") + 1
	}
	replaced := map[string]any{"other_config": config, "version": fmt.Sprint(version),
		"suspend_VDI": db.NullRef, "power_state": "Halted", "appliance": db.NullRef, "protection_policy": db.NullRef}
	if !i.force {
		delete(config, "default_template")
		replaced["is_default_template"] = false
	}
	ref, err := i.create(o, replaced)
	if err != nil || i.dryRun {
		return err
	}
	i.vms = append(i.vms, ref)
	i.keepUUID(o, ref)
	i.finishVM(o, ref)
	i.setOperation(ref, "import")
	return nil
}

// makeRoom decides what becomes of a VM that has the uuid of one that is restored. It says whether to leave the archived
// one out.
func (i *importer) makeRoom(o xva.Object) (skip bool, err error) {
	i.Lock()
	ref, exists := i.DB().ByUUID("VM", text(o.Record, "uuid"))
	vm := i.DB().Get("VM", ref)
	i.Unlock()
	if !i.restore || !exists {
		return false, nil
	}
	if state := vm.Str("power_state"); state != "Halted" {
		if i.force {
			return true, nil
		}
		return false, xapi.Fail("VM_BAD_POWER_STATE", ref, "halted", state)
	}
	if here, archived := vm.Int("version"), integer(o.Record, "version"); here >= archived && !i.force {
		return false, xapi.Fail("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", ref, fmt.Sprint(here), fmt.Sprint(archived))
	}
	if i.dryRun {
		return false, nil
	}
	for class, refs := range map[string][]string{"VIF": vm.Strs("VIFs"), "VBD": vm.Strs("VBDs")} {
		for _, device := range refs {
			if _, err := i.call(class+".destroy", device); err != nil {
				return false, err
			}
		}
	}
	_, err = i.call("VM.destroy", ref)
	return false, err
}

// finishVM writes what VM.create does not take.
func (i *importer) finishVM(o xva.Object, ref string) {
	i.Lock()
	defer i.Unlock()
	fields := db.Fields{"bios_strings": archivedMap(o.Record, "bios_strings"), "snapshot_info": archivedMap(o.Record, "snapshot_info")}
	if snapshot, _ := o.Record.Get("is_a_snapshot"); snapshot == true {
		fields["is_a_snapshot"] = true
		if at, _ := o.Record.Get("snapshot_time"); at != nil {
			if date, isDate := at.(wire.DateTime); isDate {
				if parsed, err := wire.ParseDate(string(date)); err == nil {
					fields["snapshot_time"] = parsed
				}
			}
		}
	}
	if memory := i.refs[text(o.Record, "suspend_VDI")]; text(o.Record, "power_state") == "Suspended" && memory != "" {
		fields["power_state"], fields["suspend_VDI"] = "Suspended", memory
	}
	i.Set("VM", ref, fields)
	i.Refresh("VM", ref)
}

// linkSnapshots joins imported snapshots with the VMs that they are of, once all are there.
func (i *importer) linkSnapshots() {
	if i.dryRun {
		return
	}
	i.Lock()
	defer i.Unlock()
	for _, o := range i.metadata.Objects {
		vm := i.refs[o.ID]
		if o.Class != "VM" || !i.DB().Get("VM", vm).Exists() {
			continue
		}
		for _, field := range []string{"snapshot_of", "parent"} {
			if other := i.refs[text(o.Record, field)]; other != "" {
				i.Set("VM", vm, db.Fields{field: other})
			}
		}
		i.Refresh("VM", vm)
	}
}

// archivedMap reads a map of text to text of an archived record.
func archivedMap(record wire.Struct, name string) map[string]string {
	value, _ := record.Get(name)
	out := map[string]string{}
	members, _ := value.(wire.Struct)
	for _, m := range members {
		if s, ok := m.Value.(string); ok {
			out[m.Name] = s
		}
	}
	return out
}
