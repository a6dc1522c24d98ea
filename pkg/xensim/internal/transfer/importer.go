package transfer

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// importer makes the objects of an archive, through the messages that a client would use.
type importer struct {
	*operation
	metadata xva.Metadata
	// sr is where the disks go; empty when only records are imported, for disks that are there.
	sr string
	// restore keeps uuids and MACs, and replaces VMs that are there.
	restore, force, dryRun bool

	refs map[string]string // what an archive's name stands for here
	made map[string]string // the disks that were made, by their name in the archive
	vms  []string          // the VMs that were made
	undo []func()
}

func newImporter(o *operation, metadata xva.Metadata) *importer {
	return &importer{operation: o, metadata: metadata, refs: map[string]string{}, made: map[string]string{},
		restore: o.x.Query.Get("restore") == "true", force: o.x.Query.Get("force") == "true"}
}

// run makes the objects and fills them. What was made goes again when either fails, unless the client wants it by force.
func (i *importer) run(fill func() error) error {
	err := i.makeObjects()
	if err == nil {
		err = fill()
	}
	for _, vm := range i.vms {
		i.setOperation(vm, "") // which must be gone before they can be destroyed
	}
	if err != nil && !i.force {
		for _, undo := range slices.Backward(i.undo) {
			undo()
		}
	}
	if err == nil {
		i.result = i.importedVMs()
	}
	return err
}

// importedVMs are what the task answers: the VMs, and snapshots only if there is nothing else.
func (i *importer) importedVMs() []string {
	i.Lock()
	defer i.Unlock()
	machines := slices.DeleteFunc(slices.Clone(i.vms), func(vm string) bool { return i.DB().Get("VM", vm).Bool("is_a_snapshot") })
	if len(machines) == 0 {
		return append([]string{}, i.vms...)
	}
	return machines
}

// makeObjects goes through the classes in the order in which they need each other.
func (i *importer) makeObjects() error {
	steps := []struct {
		class string
		make  func(xva.Object) error
	}{
		{"SR", i.findSR}, {"VDI", i.makeVDI}, {"VM", i.makeVM}, {"network", i.makeNetwork}, {"VBD", i.makeVBD}, {"VIF", i.makeVIF},
	}
	for _, step := range steps {
		for _, o := range i.metadata.Objects {
			if o.Class != step.class {
				continue
			}
			if err := step.make(o); err != nil {
				return err
			}
		}
	}
	i.linkSnapshots()
	return nil
}

// create makes one object as the archive describes it, with some members replaced, and remembers how to unmake it.
func (i *importer) create(o xva.Object, replaced map[string]any) (string, error) {
	if i.dryRun {
		i.refs[o.ID] = xapi.NewRef()
		return i.refs[o.ID], nil
	}
	value, err := i.call(o.Class+".create", i.resolved(o.Record, replaced))
	if err != nil {
		return "", err
	}
	ref := value.(string)
	i.refs[o.ID] = ref
	i.undo = append(i.undo, func() {
		if _, err := i.callIn(context.WithoutCancel(i.ctx), o.Class+".destroy", ref); err != nil {
			i.Logf("undo of import: destroy %s %s: %v", o.Class, ref, err)
		}
	})
	return ref, nil
}

// resolved is an archived record with references in place of names.
func (i *importer) resolved(record wire.Struct, replaced map[string]any) wire.Struct {
	out := wire.Struct{}
	for _, member := range record {
		value, ok := replaced[member.Name]
		if !ok {
			value = i.resolve(member.Value)
		}
		if m, isMap := value.(map[string]string); isMap {
			value = structOf(m)
		}
		out = append(out, wire.Member{Name: member.Name, Value: value})
	}
	return out
}

// structOf is a map as it comes over the wire.
func structOf(m map[string]string) wire.Struct {
	out := wire.Struct{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, wire.Member{Name: key, Value: m[key]})
	}
	return out
}

func (i *importer) resolve(value any) any {
	name, ok := value.(string)
	if !ok || !strings.HasPrefix(name, "Ref:") {
		return value
	}
	if ref := i.refs[name]; ref != "" {
		return ref
	}
	return db.NullRef
}

// findSR decides where the disks of an archived storage repository go or are.
func (i *importer) findSR(o xva.Object) error {
	if i.sr != "" {
		if text(o.Record, "content_type") != "iso" {
			i.refs[o.ID] = i.sr
		}
		return nil
	}
	i.Lock()
	defer i.Unlock()
	if ref, ok := i.DB().ByUUID("SR", text(o.Record, "uuid")); ok {
		i.refs[o.ID] = ref
	}
	return nil
}

// makeVDI makes a disk, or finds it: an ISO by its location, and every disk when only records are imported.
func (i *importer) makeVDI(o xva.Object) error {
	if i.isISO(text(o.Record, "SR")) {
		if ref := i.findVDI(o, func(sr db.Record) bool { return sr.Str("content_type") == "iso" && sr.Str("type") != "udev" }); ref != "" {
			i.refs[o.ID] = ref
		}
		return nil
	}
	if i.sr == "" {
		return i.foundVDI(o)
	}
	config := archivedMap(o.Record, "sm_config")
	config["import_task"] = i.task
	ref, err := i.create(o, map[string]any{"sm_config": config})
	if err == nil {
		i.made[o.ID] = ref
	}
	return err
}

// isISO tells whether an archived storage repository is a library of ISO images.
func (i *importer) isISO(id string) bool {
	return slices.ContainsFunc(i.metadata.Objects, func(o xva.Object) bool {
		return o.Class == "SR" && o.ID == id && text(o.Record, "content_type") == "iso"
	})
}

// findVDI looks for a disk by its location in the storage repositories that will do.
func (i *importer) findVDI(o xva.Object, in func(sr db.Record) bool) string {
	i.Lock()
	defer i.Unlock()
	for _, ref := range i.DB().Refs("VDI") {
		vdi := i.DB().Get("VDI", ref)
		sr := i.DB().Get("SR", vdi.Str("SR"))
		if sr.Exists() && vdi.Str("location") == text(o.Record, "location") && in(sr) {
			return ref
		}
	}
	return ""
}

func (i *importer) foundVDI(o xva.Object) error {
	sr := i.refs[text(o.Record, "SR")]
	ref := ""
	if sr != "" {
		i.Lock()
		uuid := i.DB().Get("SR", sr).Str("uuid")
		i.Unlock()
		ref = i.findVDI(o, func(r db.Record) bool { return r.Str("uuid") == uuid })
	}
	switch {
	case ref != "":
		i.refs[o.ID] = ref
	case i.force:
	case sr == "":
		return xapi.Fail("VDI_CONTENT_ID_MISSING")
	default:
		return xapi.Fail("VDI_LOCATION_MISSING", sr, text(o.Record, "location"))
	}
	return nil
}

// makeNetwork finds a network by name, else by bridge, else makes it.
func (i *importer) makeNetwork(o xva.Object) error {
	i.Lock()
	names := i.DB().ByName("network", text(o.Record, "name_label"))
	if len(names) == 0 {
		for _, ref := range i.DB().Refs("network") {
			if i.DB().Get("network", ref).Str("bridge") == text(o.Record, "bridge") {
				names = append(names, ref)
			}
		}
	}
	i.Unlock()
	if len(names) > 0 {
		i.refs[o.ID] = names[0]
		return nil
	}
	_, err := i.create(o, nil)
	return err
}

// makeVBD makes a device; a CD whose image is not here is ejected, and a disk that is not here is left out.
func (i *importer) makeVBD(o xva.Object) error {
	id := text(o.Record, "VDI")
	replaced := map[string]any{"device": "", "currently_attached": false}
	if i.refs[id] == "" {
		if text(o.Record, "type") == "Disk" {
			return nil
		}
		replaced["VDI"], replaced["empty"] = db.NullRef, true
	}
	ref, err := i.create(o, replaced)
	if err == nil {
		i.keepUUID(o, ref)
	}
	return err
}

// makeVIF makes a network device. Only a restored VM keeps its MAC.
func (i *importer) makeVIF(o xva.Object) error {
	replaced := map[string]any{"currently_attached": false}
	if !i.restore {
		replaced["MAC"] = ""
	}
	ref, err := i.create(o, replaced)
	if err == nil {
		i.keepUUID(o, ref)
	}
	return err
}

// keepUUID gives a restored object the uuid that it had.
func (i *importer) keepUUID(o xva.Object, ref string) {
	if i.restore && !i.dryRun {
		i.Lock()
		defer i.Unlock()
		i.Set(o.Class, ref, db.Fields{"uuid": text(o.Record, "uuid")})
	}
}

// integer reads a number of an archived record.
func integer(record wire.Struct, name string) int64 {
	n, err := strconv.ParseInt(text(record, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
