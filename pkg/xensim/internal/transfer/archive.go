package transfer

import (
	"fmt"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// archiveClasses are the classes whose objects an archive holds, in its order (export.ml, make_all).
var archiveClasses = []string{"VM", "VM_guest_metrics", "VBD", "VIF", "network", "VDI", "SR"}

// exportRules say how the records of VMs are written.
type exportRules struct {
	// snapshots takes the VMs' snapshots into the archive, and what links them.
	snapshots bool
	// powerState keeps VMs suspended, and devices attached.
	powerState bool
}

// collection is the objects of an archive, with the names they have in it. The pool is locked while it is used.
type collection struct {
	*service
	rules exportRules
	ids   map[string]string // name in the archive by reference
}

func (s *service) collect(rules exportRules, vms ...string) *collection {
	c := &collection{service: s, rules: rules, ids: map[string]string{}}
	for _, vm := range vms {
		c.addVM(vm)
	}
	return c
}

// add takes an object into the archive, if it is there and not in it yet.
func (c *collection) add(class, ref string) (r db.Record, added bool) {
	r = c.DB().Get(class, ref)
	if !r.Exists() || c.ids[ref] != "" {
		return r, false
	}
	c.ids[ref] = fmt.Sprintf("Ref:%d", len(c.ids))
	return r, true
}

// addVM takes a VM and all that belongs to it.
func (c *collection) addVM(ref string) {
	vm, added := c.add("VM", ref)
	if !added {
		return
	}
	for _, vif := range vm.Strs("VIFs") {
		if r, added := c.add("VIF", vif); added {
			c.add("network", r.Str("network"))
		}
	}
	for _, vbd := range vm.Strs("VBDs") {
		if r, added := c.add("VBD", vbd); added && !r.Bool("empty") {
			c.addVDI(r.Str("VDI"))
		}
	}
	if c.rules.snapshots {
		for _, snapshot := range vm.Strs("snapshots") {
			c.addVM(snapshot)
		}
	}
	if c.rules.powerState && vm.Str("power_state") == "Suspended" {
		c.addVDI(vm.Str("suspend_VDI"))
	}
	c.add("VM_guest_metrics", vm.Str("guest_metrics"))
}

func (c *collection) addVDI(ref string) {
	if vdi, added := c.add("VDI", ref); added {
		c.add("SR", vdi.Str("SR"))
	}
}

// metadata writes the records down.
func (c *collection) metadata() xva.Metadata {
	m := xva.Metadata{Version: c.version()}
	for _, class := range archiveClasses {
		for _, ref := range c.DB().Refs(class) {
			if id := c.ids[ref]; id != "" {
				m.Objects = append(m.Objects, xva.Object{Class: class, ID: id, Record: c.record(class, ref)})
			}
		}
	}
	return m
}

func (c *collection) record(class, ref string) wire.Struct {
	written := wire.Struct{}
	model := c.Model.Class(class)
	for name, value := range c.DB().Get(class, ref).Members {
		value = c.rename(model.Field(name).Type, value)
		if replaced, ok := c.rules.replace(class, name, value); ok {
			value = replaced
		}
		written = append(written, wire.Member{Name: name, Value: value})
	}
	return written
}

// rename turns references into names of the archive; those that lead out of it are gone.
func (c *collection) rename(t *datamodel.Type, value any) any {
	switch {
	case t.Kind == datamodel.Ref:
		if id := c.ids[value.(string)]; id != "" {
			return id
		}
		return db.NullRef
	case t.Kind == datamodel.Set && t.Elem.Kind == datamodel.Ref:
		inside := []string{}
		for _, ref := range value.([]string) {
			if id := c.ids[ref]; id != "" {
				inside = append(inside, id)
			}
		}
		return inside
	case t.Kind == datamodel.Map && (t.Elem.Kind == datamodel.Ref || t.Key.Kind == datamodel.Ref):
		return map[string]string{}
	}
	return value
}

// replace gives what a field is written as where that is not its value.
func (rules exportRules) replace(class, field string, value any) (any, bool) {
	switch field {
	case "allowed_operations":
		return []string{}, true
	case "current_operations":
		return map[string]string{}, true
	case "currently_attached":
		return false, !rules.powerState
	case "power_state":
		return "Halted", class == "VM" && (!rules.powerState || value != "Suspended")
	case "is_a_snapshot":
		return false, class == "VM" && !rules.snapshots
	case "snapshot_time":
		return db.Epoch, class == "VM" && !rules.snapshots
	}
	return nil, false
}

// version tells who made an archive.
func (s *service) version() wire.Struct {
	software := map[string]string{}
	if host := s.DB().Get("host", s.Coordinator()); host.Exists() {
		software = host.Map("software_version")
	}
	major, minor := xapiVersion(software)
	version := wire.Struct{}
	for _, name := range []string{"hostname", "date", "product_version", "product_brand", "build_number"} {
		version = append(version, wire.Member{Name: name, Value: software[name]})
	}
	return append(version,
		wire.Member{Name: "xapi_major", Value: int64(major)},
		wire.Member{Name: "xapi_minor", Value: int64(minor)},
		wire.Member{Name: "export_vsn", Value: int64(2)})
}

// xapiVersion reads "24.19" or "24.19.2".
func xapiVersion(software map[string]string) (major, minor int) {
	if _, err := fmt.Sscanf(software["xapi"], "%d.%d", &major, &minor); err != nil {
		return 0, 0
	}
	return major, minor
}
