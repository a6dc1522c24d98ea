package classes

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Snapshots, checkpoints and the way back to them (xapi_vm_snapshot.ml).

func (w *World) vmSnapshot(c *xapi.Call) (any, error) {
	vm, snapshot, name := c.Self(), "", c.Str("new_name")
	err := w.operate(c, vm, "snapshot", func() (err error) {
		c.Cancellable(true)
		snapshot, err = w.duplicate(c, vm, name, copyKind{operation: "snapshot", ignore: c.Strs("ignore_vdis")})
		return err
	})
	if err != nil {
		return nil, err
	}
	w.post(vm, "VM_SNAPSHOTTED", "snapshotted, snapshot name: "+name)
	return snapshot, nil
}

// post adds a message about a VM that is as it was.
func (w *World) post(vm, name, what string) {
	r := w.DB().Get("VM", vm)
	if r.Exists() {
		uuid := r.Str("uuid")
		w.Post(name, 5, "VM", uuid, fmt.Sprintf("VM '%s' (uuid: %s) %s", r.Str("name_label"), uuid, what))
	}
}

// vmCheckpoint is a snapshot with memory: a running VM is suspended, copied with its memory image, and resumed.
func (w *World) vmCheckpoint(c *xapi.Call) (any, error) {
	vm, snapshot, name := c.Self(), "", c.Str("new_name")
	err := w.operate(c, vm, "checkpoint", func() (err error) {
		r := w.DB().Get("VM", vm)
		kind := copyKind{operation: "checkpoint", info: map[string]string{}}
		if r.Str("power_state") != powerRunning {
			snapshot, err = w.duplicate(c, vm, name, kind)
			return err
		}
		kind.info = snapshotInfo(powerRunning)
		host := r.Str("resident_on")
		if err := w.suspend(c, vm); err != nil {
			return err
		}
		w.Set("VM", vm, db.Fields{"resident_on": host}) // it does not leave its host
		snapshot, err = w.duplicate(c, vm, name, kind)
		image := w.text("VM", vm, "suspend_VDI")
		w.domainResumes(vm, host, false)
		return firstError(err, w.destroyVDI(image))
	})
	if err != nil {
		return nil, err
	}
	w.tell(vm, "VM_CHECKPOINTED", "checkpointed, snapshot name: "+name)
	return snapshot, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// namespaces are prefixes of field names that the server's own database writes with two underscores.
var namespaces = []string{"name_", "memory_", "actions_", "VCPUs_", "PV_", "HVM_"}

// metadataText writes a record as snapshot_metadata holds it: pairs of names and values in quotes, the last name first.
func metadataText(ref string, vm db.Record) string {
	pairs := []string{fmt.Sprintf("('_ref' '%s')", ref)}
	for name, value := range vm.Members {
		for _, namespace := range namespaces {
			if rest, found := strings.CutPrefix(name, namespace); found {
				name = namespace + "_" + rest
			}
		}
		pairs = append(pairs, fmt.Sprintf("('%s' '%s')", name, metadataValue(value)))
	}
	slices.SortFunc(pairs, func(a, b string) int { return strings.Compare(b, a) })
	return "(" + strings.Join(pairs, " ") + ")"
}

func metadataValue(value any) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	switch value := value.(type) {
	case map[string]string:
		pairs := make([]string, 0, len(value))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			pairs = append(pairs, fmt.Sprintf("('%s' '%s')", quote.Replace(key), quote.Replace(value[key])))
		}
		return quote.Replace("(" + strings.Join(pairs, " ") + ")")
	case []string:
		items := make([]string, 0, len(value))
		for _, item := range value {
			items = append(items, "'"+quote.Replace(item)+"'")
		}
		return quote.Replace("(" + strings.Join(items, " ") + ")")
	}
	if at, isTime := value.(time.Time); isTime {
		return wire.FormatDate(at)
	}
	return quote.Replace(fmt.Sprint(value))
}

var uuidInMetadata = regexp.MustCompile(`\('uuid' '([^']*)'\)`)

// kept are the fields of a VM that going back to a snapshot does not touch.
var kept = []string{
	"uuid", "suspend_VDI", "power_state", "parent", "current_operations", "allowed_operations", "metrics", "guest_metrics",
	"resident_on", "domid", "protection_policy", "snapshot_schedule", "scheduled_to_be_resident_on", "tags", "affinity", "groups",
	"attached_PCIs", "is_snapshot_from_vmpp", "generation_id",
}

// keptFromSnapshot are the fields that are kept as well when the VM's record at the time is not known, and the snapshot's own has
// to do.
var keptFromSnapshot = []string{
	"name_label", "is_a_snapshot", "is_a_template", "is_default_template", "snapshot_of", "snapshot_time",
	"transportable_snapshot_id", "snapshot_info", "snapshot_metadata",
}

// vmRevert brings a VM back to a snapshot: its record, its devices and its disks, which are clones of the snapshot's.
func (w *World) vmRevert(c *xapi.Call) error {
	snapshot := c.Self()
	if err := w.checkVM(snapshot, "revert"); err != nil && !isBusy(err) {
		return err
	}
	vm := w.text("VM", snapshot, "snapshot_of")
	if !w.valid("VM", vm) {
		vm = w.resurrect(snapshot)
	}
	err := w.operate(c, snapshot, "revert", func() error {
		return w.operate(c, vm, "reverting", func() error {
			if w.text("VM", vm, "power_state") != powerHalted {
				if err := w.hardStop(c, vm); err != nil {
					return err
				}
			}
			w.revertFields(vm, snapshot)
			return w.revertParts(c, vm, snapshot)
		})
	})
	if err != nil {
		return err
	}
	r := w.DB().Get("VM", snapshot)
	w.post(vm, "VM_SNAPSHOT_REVERTED", fmt.Sprintf("reverted to snapshot: %s (uuid %s)", r.Str("name_label"), r.Str("uuid")))
	return nil
}

func isBusy(err error) bool {
	var known *xapi.Error
	return asError(err, &known) && known.Code == "OTHER_OPERATION_IN_PROGRESS"
}

// resurrect makes the VM of an orphaned snapshot anew, with its old uuid, and gives it its snapshots back.
func (w *World) resurrect(snapshot string) string {
	r := w.DB().Get("VM", snapshot)
	old := r.Str("snapshot_of")
	fields := without(r.Fields(), emptyInDuplicate...)
	for field, value := range (db.Fields{
		"power_state": powerHalted, "domid": int64(-1), "is_a_template": false, "is_a_snapshot": false,
		"metrics": w.newMetrics(), "guest_metrics": db.NullRef,
	}) {
		fields[field] = value
	}
	if found := uuidInMetadata.FindStringSubmatch(r.Str("snapshot_metadata")); found != nil {
		fields["uuid"] = found[1]
	}
	vm := w.Create("VM", fields)
	for _, other := range w.DB().Refs("VM") {
		if w.text("VM", other, "snapshot_of") == old {
			w.Set("VM", other, db.Fields{"snapshot_of": vm})
		}
	}
	w.revertFields(vm, snapshot)
	w.Refresh("VM", vm)
	return vm
}

// revertFields writes a VM's fields as they were.
func (w *World) revertFields(vm, snapshot string) {
	then, known := w.snapshotted[snapshot]
	skip := kept
	if !known {
		then, skip = w.DB().Get("VM", snapshot), append(slices.Clone(kept), keptFromSnapshot...)
	}
	fields := db.Fields{}
	for name, value := range then.Members {
		if _, derived := datamodel.Derived("VM", name); derived || slices.Contains(skip, name) {
			continue
		}
		fields[name] = value
	}
	fields["ha_always_run"] = false
	fields["generation_id"] = freshGenerationID(then.Str("generation_id"))
	w.Set("VM", vm, fields)
}

// revertParts replaces a VM's devices and disks by clones of the snapshot's.
func (w *World) revertParts(c *xapi.Call, vm, snapshot string) error {
	state := w.text("VM", snapshot, "power_state")
	err := w.revertDisks(c, vm, snapshot, state)
	if err != nil {
		w.Set("VM", vm, db.Fields{"power_state": powerHalted})
		var known *xapi.Error
		if asError(err, &known) && (strings.HasPrefix(known.Code, "SR_BACKEND_FAILURE_") || known.Code == "VDI_INCOMPATIBLE_TYPE") {
			return err
		}
		return xapi.Fail("VM_REVERT_FAILED", snapshot, vm)
	}
	w.dropGuestMetrics(vm)
	w.Set("VM", vm, db.Fields{"guest_metrics": w.copyGuestMetrics(snapshot)})
	w.DB().Delete("VM_metrics", w.text("VM", vm, "metrics"))
	w.Set("VM", vm, db.Fields{"metrics": w.copyMetrics(snapshot), "parent": snapshot})
	for _, vtpm := range w.DB().Get("VM", vm).Strs("VTPMs") {
		w.DB().Delete("VTPM", vtpm)
	}
	for _, vtpm := range w.DB().Get("VM", snapshot).Strs("VTPMs") {
		w.duplicateVTPM(vm, vtpm)
	}
	w.Set("VM", vm, db.Fields{"power_state": state})
	return nil
}

func (w *World) revertDisks(c *xapi.Call, vm, snapshot, state string) error {
	snapVBDs := w.DB().Get("VM", snapshot).Strs("VBDs")
	isDisk := func(vbd string) bool { return w.text("VBD", vbd, "type") == "Disk" }
	var disks, others, origins []string
	for _, vbd := range snapVBDs {
		if isDisk(vbd) {
			disks = append(disks, vbd)
			origins = append(origins, w.text("VDI", w.text("VBD", vbd, "VDI"), "snapshot_of"))
		} else {
			others = append(others, vbd)
		}
	}
	if err := w.dropOldDisks(vm, origins); err != nil {
		return err
	}
	c.Progress(0.2)
	clones, err := w.duplicateDisks(c, append(disks, others...), copyKind{operation: "clone"})
	if err != nil {
		return err
	}
	c.Progress(0.5)
	for i := range disks {
		w.adoptSnapshots(origins[i], clones[i].vdi)
	}
	image := db.NullRef
	if saved := w.text("VM", snapshot, "suspend_VDI"); w.valid("VDI", saved) {
		if image, err = w.duplicateDisk(c, saved, copyKind{operation: "clone"}); err != nil {
			w.dropDisks(clones)
			return err
		}
	}
	for _, disk := range clones {
		w.duplicateVBD(vm, disk, state)
	}
	w.Set("VM", vm, db.Fields{"suspend_VDI": image})
	for _, vif := range w.DB().Get("VM", vm).Strs("VIFs") {
		w.deleteVIF(vif)
	}
	for _, vif := range w.DB().Get("VM", snapshot).Strs("VIFs") {
		if err := w.duplicateVIF(vm, vif, true, state); err != nil {
			return err
		}
	}
	c.Progress(0.9)
	return nil
}

// dropOldDisks removes a VM's VBDs, and those disks that the snapshot has a copy of: room for the new ones comes first. Disks that
// are newer than the snapshot stay, without the VM.
func (w *World) dropOldDisks(vm string, origins []string) error {
	r := w.DB().Get("VM", vm)
	var doomed []string
	for _, vbd := range r.Strs("VBDs") {
		if vdi := w.text("VBD", vbd, "VDI"); w.text("VBD", vbd, "type") == "Disk" && slices.Contains(origins, vdi) {
			doomed = append(doomed, vdi)
		}
		w.deleteVBD(vbd)
	}
	if image := r.Str("suspend_VDI"); w.valid("VDI", image) {
		doomed = append(doomed, image)
	}
	for _, vdi := range doomed {
		if w.text("SR", w.text("VDI", vdi, "SR"), "content_type") == "iso" || !w.valid("VDI", vdi) {
			continue
		}
		if err := w.checkVDI(vdi, "destroy"); err != nil {
			return err
		}
		if err := w.destroyVDI(vdi); err != nil {
			return err
		}
	}
	return nil
}

// adoptSnapshots tells all snapshots of a disk that is gone that they are snapshots of the one in its place.
func (w *World) adoptSnapshots(old, replacement string) {
	if old == "" || old == db.NullRef {
		return
	}
	for _, sr := range w.DB().Refs("SR") {
		for _, vdi := range w.DB().Get("SR", sr).Strs("VDIs") {
			if w.text("VDI", vdi, "snapshot_of") == old {
				w.Set("VDI", vdi, db.Fields{"snapshot_of": replacement})
			}
		}
	}
}
