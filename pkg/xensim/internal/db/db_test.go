package db

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
)

func newDB(t *testing.T) *DB {
	t.Helper()
	model, err := datamodel.Load("24.19")
	if err != nil {
		t.Fatal(err)
	}
	return New(model)
}

func TestRelationsHaveTwoEnds(t *testing.T) {
	d := newDB(t)
	d.Create("VM", "vm1", Fields{"name_label": "one"})
	d.Create("VM", "vm2", Fields{})
	d.Create("VBD", "vbd1", Fields{"VM": "vm1"})
	before := d.Generation()
	d.Create("VBD", "vbd2", Fields{"VM": "vm1"})
	if got := d.Get("VM", "vm1").Strs("VBDs"); !slices.Equal(got, []string{"vbd2", "vbd1"}) {
		t.Errorf("VBDs are %v: new ones come first", got)
	}
	changed := false
	d.Since("VM", before, func(c Change) { changed = changed || c.Ref == "vm1" })
	if !changed {
		t.Error("a new VBD does not change its VM")
	}
	d.Update("VBD", "vbd1", Fields{"VM": "vm2"})
	d.Delete("VBD", "vbd2")
	if one, two := d.Get("VM", "vm1").Strs("VBDs"), d.Get("VM", "vm2").Strs("VBDs"); len(one) != 0 || !slices.Equal(two, []string{"vbd1"}) {
		t.Errorf("VBDs are %v and %v", one, two)
	}
}

func TestRecordsDoNotChange(t *testing.T) {
	d := newDB(t)
	d.Create("VM", "vm", Fields{"name_label": "old", "uuid": "u"})
	old := d.Get("VM", "vm")
	d.Update("VM", "vm", Fields{"name_label": "new"})
	if old.Str("name_label") != "old" || len(d.ByName("VM", "old")) != 0 || len(d.ByName("VM", "new")) != 1 {
		t.Errorf("record %q, found %v, %v", old.Str("name_label"), d.ByName("VM", "old"), d.ByName("VM", "new"))
	}
	generation := d.Generation()
	d.Update("VM", "vm", Fields{"name_label": "new"})
	if d.Generation() != generation {
		t.Error("writing what is there is a change")
	}
	if ref, ok := d.ByUUID("VM", "u"); !ok || ref != "vm" {
		t.Errorf("by uuid: %v %v", ref, ok)
	}
}

// TestForgetsDeletes holds the memory of deletes against db_cache_types.ml: up to 512 a class, then cut to 256.
func TestForgetsDeletes(t *testing.T) {
	d := newDB(t)
	for i := range deletedMost + 1 {
		d.Create("VDI", fmt.Sprint(i), Fields{})
	}
	since := d.Generation()
	remembered := func() (n int) {
		d.DeletedSince("VDI", since, func(Deleted) { n++ })
		return n
	}
	for i := range deletedMost {
		d.Delete("VDI", fmt.Sprint(i))
	}
	if n := remembered(); n != deletedMost {
		t.Errorf("%d of %d deletes are remembered", n, deletedMost)
	}
	d.Delete("VDI", fmt.Sprint(deletedMost))
	if n := remembered(); n != deletedKept {
		t.Errorf("%d deletes are remembered after one too many, want %d", n, deletedKept)
	}
}

func TestDumpLoads(t *testing.T) {
	d := newDB(t)
	d.Create("VM", "vm", Fields{"name_label": "ä \"quoted\"", "other_config": map[string]string{"k": "v"}, "memory_static_max": int64(1) << 50})
	d.Create("VBD", "vbd", Fields{"VM": "vm"})
	var first, second bytes.Buffer
	if err := d.Dump(&first); err != nil {
		t.Fatal(err)
	}
	again := newDB(t)
	if err := again.Load(bytes.NewReader(first.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := again.Dump(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("a dump comes back changed: %v", err)
	}
}
