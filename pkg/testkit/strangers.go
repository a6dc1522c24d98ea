package testkit

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
)

// guardedClasses are those whose objects of other people may not change.
var guardedClasses = []string{"VM", "VDI", "VBD", "VIF", "network", "SR", "PBD", "host", "VTPM"}

// computedFields follow from what else goes on in the pool and say nothing about who touched an object.
var computedFields = map[string]struct{}{
	"allowed_operations": {}, "current_operations": {}, "physical_utilisation": {}, "virtual_allocation": {},
	"VDIs": {}, "VIFs": {}, "resident_VMs": {}, "memory_free": {}, "memory_overhead": {}, "children": {}, "snapshots": {},
	"updates_requiring_reboot": {}, "metrics": {}, "recommended_guidances": {}, "blobs": {}, "features": {},
	"last_update_hash": {}, "update_sync": {}, "is_default_template": {},
}

// strangers are the objects on a pool that are not ours, as they were.
type strangers map[string]map[string]map[string]any // class, reference, field

// addStrangers puts machines of other people on a pool, also such as could be taken for ours, and remembers everything.
func addStrangers(t testing.TB, s *Simulator) strangers {
	t.Helper()
	addStranger(t, s, "someone's database", nil)
	// The same operator of another cluster, or of this one before it was set up anew under another id.
	addStranger(t, s, "kubexen/elsewhere/XenInstance/default/web/vm", map[string]string{
		"kubexen.io/installation": "elsewhere", "kubexen.io/ref": "XenInstance/default/web",
		"kubexen.io/role": "vm", "kubexen.io/format": "1",
	})
	return recordStrangers(s)
}

// addStranger makes a halted VM with a disk, a network interface, and a snapshot of all of it.
func addStranger(t testing.TB, s *Simulator, name string, marks map[string]string) {
	t.Helper()
	sr, network := anySR(t, s), anyOf(t, s, "network")
	vm := s.Insert("VM", map[string]any{"name_label": name, "power_state": "Halted", "other_config": maps.Clone(orEmpty(marks))})
	disk := s.Insert("VDI", map[string]any{"name_label": name, "SR": sr, "virtual_size": int64(1 << 30), "managed": true,
		"type": "user", "other_config": maps.Clone(orEmpty(marks))})
	s.Insert("VBD", map[string]any{"VM": vm, "VDI": disk, "userdevice": "0", "device": "xvda", "mode": "RW", "type": "Disk", "bootable": true})
	s.Insert("VIF", map[string]any{"VM": vm, "network": network, "device": "0", "MAC": "aa:bb:cc:00:00:01"})
	snapshot := s.Insert("VM", map[string]any{"name_label": name + " before the upgrade", "power_state": "Halted",
		"is_a_template": true, "is_a_snapshot": true, "snapshot_of": vm, "other_config": maps.Clone(orEmpty(marks))})
	copied := s.Insert("VDI", map[string]any{"name_label": name, "SR": sr, "virtual_size": int64(1 << 30), "managed": true,
		"type": "user", "is_a_snapshot": true, "snapshot_of": disk, "other_config": maps.Clone(orEmpty(marks))})
	s.Insert("VBD", map[string]any{"VM": snapshot, "VDI": copied, "userdevice": "0", "device": "xvda", "mode": "RW", "type": "Disk"})
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// anySR is a storage repository that can hold disks.
func anySR(t testing.TB, s *Simulator) string {
	t.Helper()
	for _, ref := range slices.Sorted(maps.Keys(s.Records("SR"))) {
		if contentType := s.Records("SR")[ref]["content_type"]; contentType == "user" || contentType == "" {
			return ref
		}
	}
	t.Fatal("the pool has no storage repository for disks")
	return ""
}

func anyOf(t testing.TB, s *Simulator, class string) string {
	t.Helper()
	refs := slices.Sorted(maps.Keys(s.Records(class)))
	if len(refs) == 0 {
		t.Fatalf("the pool has no %s", class)
	}
	return refs[0]
}

// recordStrangers remembers everything of the guarded classes that is on the pool now.
func recordStrangers(s *Simulator) strangers {
	found := strangers{}
	for _, class := range guardedClasses {
		found[class] = s.Records(class)
	}
	return found
}

// has tells whether an object was on the pool before us.
func (known strangers) has(class, ref string) bool {
	_, there := known[class][ref]
	return there
}

// forget gives up objects to us, as when a VM is adopted.
func (known strangers) forget(class string, refs ...string) {
	for _, ref := range refs {
		delete(known[class], ref)
	}
}

// check tells every object that is gone and every field that changed.
func (known strangers) check(s *Simulator) error {
	var problems []error
	for _, class := range guardedClasses {
		now := s.Records(class)
		for ref, before := range known[class] {
			after, there := now[ref]
			if !there {
				problems = append(problems, fmt.Errorf("%s %q (%s) of somebody else is gone", class, before["name_label"], ref))
				continue
			}
			for _, field := range slices.Sorted(maps.Keys(before)) {
				if _, computed := computedFields[field]; computed || same(before[field], after[field]) {
					continue
				}
				problems = append(problems, fmt.Errorf("%s %q (%s) of somebody else: %s was %v, is %v",
					class, before["name_label"], ref, field, before[field], after[field]))
			}
		}
	}
	return errors.Join(problems...)
}

// same compares two values of fields; an empty list is one that is not there.
func same(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	countable := func(v reflect.Value) bool { return v.Kind() == reflect.Map || v.Kind() == reflect.Slice }
	return x.IsValid() && y.IsValid() && countable(x) && countable(y) && x.Len() == 0 && y.Len() == 0
}

// Adopted says that a VM with its devices is not a stranger's any more: a workflow manages it.
func (w *World) Adopted(vm string) {
	record := w.Simulator.Records("VM")[vm]
	w.strangers.forget("VM", vm)
	for _, vbd := range stringsOf(record["VBDs"]) {
		w.strangers.forget("VBD", vbd)
		if disk, _ := w.Simulator.Records("VBD")[vbd]["VDI"].(string); disk != "" {
			w.strangers.forget("VDI", disk)
		}
	}
	w.strangers.forget("VIF", stringsOf(record["VIFs"])...)
}

// stringsOf reads a set of references, whichever Go type it has.
func stringsOf(set any) []string {
	switch values := set.(type) {
	case []string:
		return values
	case []any:
		var out []string
		for _, value := range values {
			if text, isText := value.(string); isText {
				out = append(out, text)
			}
		}
		return out
	}
	return nil
}
