package db

import (
	"container/list"
	"fmt"
	"slices"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
)

// How many deleted objects a table remembers: when there are more than deletedMost, the newest deletedKept stay
// (db_cache_types.ml). Whoever asks for older changes misses them.
const (
	deletedMost = 512
	deletedKept = 256
)

// DB is the database of one pool.
type DB struct {
	model      *datamodel.Model
	tables     map[string]*table
	generation int64
}

type table struct {
	class   *datamodel.Class
	rows    map[string]*row
	byUUID  map[string]string
	byName  map[string]map[string]bool
	sorted  []string   // references in the server's order, nil when stale
	recent  *list.List // *row, the one changed last at the back
	deleted []Deleted  // oldest first
}

type row struct {
	ref               string
	record            Record
	created, modified int64
	place             *list.Element
}

// Deleted tells of an object that is no more.
type Deleted struct {
	Ref              string
	Created, Removed int64
}

// New makes an empty database.
func New(model *datamodel.Model) *DB {
	d := &DB{model: model, tables: map[string]*table{}, generation: 1}
	for _, class := range model.Classes {
		d.tables[class.Name] = &table{class: class, rows: map[string]*row{}, byUUID: map[string]string{},
			byName: map[string]map[string]bool{}, recent: list.New()}
	}
	return d
}

// Model gives the data model of the database.
func (d *DB) Model() *datamodel.Model { return d.model }

// Generation is the number of the newest change.
func (d *DB) Generation() int64 { return d.generation }

// SetGeneration moves the counter, as a database restored from an older copy does.
func (d *DB) SetGeneration(g int64) { d.generation = g }

// Settle forgets when the objects were made and changed, as if all of them had come at once: who has heard of any has
// heard of all. It is for a database that was just filled. The task under which that was done was there from the
// beginning and is gone; the real server tells of that for as long as it remembers (recordings 0509, 0534).
func (d *DB) Settle(task string) {
	d.generation++
	d.tables["task"].deleted = append(d.tables["task"].deleted, Deleted{Ref: task, Created: 0, Removed: d.generation})
	for _, t := range d.tables {
		for _, r := range t.rows {
			r.created, r.modified = d.generation, d.generation
		}
	}
}

// Get gives the record of an object; the zero Record when there is none.
func (d *DB) Get(class, ref string) Record {
	if t := d.tables[class]; t != nil {
		if r := t.rows[ref]; r != nil {
			return r.record
		}
	}
	return Record{}
}

// ByUUID gives the reference of the object with the uuid.
func (d *DB) ByUUID(class, uuid string) (string, bool) {
	ref, ok := d.tables[class].byUUID[uuid]
	return ref, ok
}

// ByName gives the references of the objects with the name, in the server's order.
func (d *DB) ByName(class, name string) []string {
	refs := make([]string, 0, len(d.tables[class].byName[name]))
	for ref := range d.tables[class].byName[name] {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b string) int { return strings.Compare(b, a) })
	return refs
}

// Count is the number of objects of a class.
func (d *DB) Count(class string) int { return len(d.tables[class].rows) }

// Refs gives the references of all objects of a class in the server's order: descending.
func (d *DB) Refs(class string) []string {
	t := d.tables[class]
	if t == nil {
		return nil
	}
	if t.sorted == nil {
		t.sorted = make([]string, 0, len(t.rows))
		for ref := range t.rows {
			t.sorted = append(t.sorted, ref)
		}
		slices.SortFunc(t.sorted, func(a, b string) int { return strings.Compare(b, a) })
	}
	return t.sorted
}

// ClassOf finds the class of an object by its reference alone.
func (d *DB) ClassOf(ref string) string {
	for name, t := range d.tables {
		if t.rows[ref] != nil {
			return name
		}
	}
	return ""
}

// Create adds an object. Fields that are not given have their defaults.
func (d *DB) Create(class, ref string, fields Fields) Record {
	t := d.table(class)
	if t.rows[ref] != nil {
		panic(fmt.Sprintf("db: %s %s exists", class, ref))
	}
	values := make([]any, len(t.class.Fields))
	for i, f := range t.class.Fields {
		values[i] = Default(f)
	}
	d.generation++
	r := &row{ref: ref, record: Record{t.class, values}, created: d.generation, modified: d.generation}
	r.place = t.recent.PushBack(r)
	t.rows[ref] = r
	t.sorted = nil
	d.write(t, r, fields, true)
	return r.record
}

// Update writes fields of an object and reports whether there is one. Writing what is already there is no change.
func (d *DB) Update(class, ref string, fields Fields) bool {
	t := d.table(class)
	r := t.rows[ref]
	if r == nil {
		return false
	}
	d.write(t, r, fields, false)
	return true
}

// Touch marks an object as changed without changing it.
func (d *DB) Touch(class, ref string) bool {
	t := d.table(class)
	r := t.rows[ref]
	if r == nil {
		return false
	}
	d.stamp(t, r)
	return true
}

// Delete removes an object and reports whether there was one.
func (d *DB) Delete(class, ref string) bool {
	t := d.table(class)
	r := t.rows[ref]
	if r == nil {
		return false
	}
	for _, f := range t.class.Fields {
		if _, ok := datamodel.Mirror(class, f.Name); ok {
			d.mirror(t.class, f, ref, r.record.values[f.Index], Zero(f.Type))
		}
	}
	d.generation++
	t.unindex(ref, r.record)
	t.recent.Remove(r.place)
	delete(t.rows, ref)
	t.sorted = nil
	t.deleted = append(t.deleted, Deleted{Ref: ref, Created: r.created, Removed: d.generation})
	if len(t.deleted) > deletedMost {
		t.deleted = slices.Clone(t.deleted[len(t.deleted)-deletedKept:])
	}
	return true
}

func (d *DB) table(class string) *table {
	t := d.tables[class]
	if t == nil {
		panic("db: no class " + class)
	}
	return t
}

func (d *DB) stamp(t *table, r *row) {
	d.generation++
	r.modified = d.generation
	t.recent.MoveToBack(r.place)
}

func (d *DB) write(t *table, r *row, fields Fields, fresh bool) {
	before := r.record
	values := slices.Clone(before.values)
	changed := false
	for _, f := range t.class.Fields {
		v, given := fields[f.Name]
		if !given {
			continue
		}
		if !conforms(f.Type, v) {
			panic(fmt.Sprintf("db: %T does not fit %s.%s", v, t.class.Name, f.Name))
		}
		if !equal(values[f.Index], v) {
			values[f.Index], changed = v, true
		}
	}
	for name := range fields {
		if t.class.Field(name) == nil {
			panic(fmt.Sprintf("db: %s has no field %s", t.class.Name, name))
		}
	}
	if fresh {
		t.index(r.ref, Record{t.class, values})
	}
	if !changed {
		return
	}
	if !fresh {
		t.unindex(r.ref, before)
		t.index(r.ref, Record{t.class, values})
		d.stamp(t, r)
	}
	r.record = Record{t.class, values}
	for name := range fields {
		f := t.class.Field(name)
		d.mirror(t.class, f, r.ref, before.values[f.Index], values[f.Index])
	}
}

// mirror keeps the set at the other end of a relation: the real database does so at every write.
func (d *DB) mirror(class *datamodel.Class, f *datamodel.Field, ref string, before, after any) {
	end, ok := datamodel.Mirror(class.Name, f.Name)
	if !ok || equal(before, after) || d.tables[end.Class] == nil {
		return
	}
	for _, gone := range refsOf(before) {
		if !slices.Contains(refsOf(after), gone) {
			d.setMember(end, gone, ref, false)
		}
	}
	for _, come := range refsOf(after) {
		if !slices.Contains(refsOf(before), come) {
			d.setMember(end, come, ref, true)
		}
	}
}

func refsOf(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []string:
		return v
	}
	return nil
}

func (d *DB) setMember(end datamodel.End, owner, member string, present bool) {
	t := d.tables[end.Class]
	r := t.rows[owner]
	f := t.class.Field(end.Field)
	if r == nil || f == nil {
		return
	}
	set := r.record.Strs(end.Field)
	if slices.Contains(set, member) == present {
		return
	}
	var next []string
	if present {
		next = append([]string{member}, set...) // the real one puts new members first
	} else {
		next = slices.DeleteFunc(slices.Clone(set), func(m string) bool { return m == member })
	}
	values := slices.Clone(r.record.values)
	values[f.Index] = next
	r.record = Record{t.class, values}
	d.stamp(t, r)
}

func (t *table) index(ref string, r Record) {
	if uuid := r.Str("uuid"); uuid != "" {
		t.byUUID[uuid] = ref
	}
	if t.class.Field("name_label") != nil {
		name := r.Str("name_label")
		if t.byName[name] == nil {
			t.byName[name] = map[string]bool{}
		}
		t.byName[name][ref] = true
	}
}

func (t *table) unindex(ref string, r Record) {
	if uuid := r.Str("uuid"); t.byUUID[uuid] == ref {
		delete(t.byUUID, uuid)
	}
	if name := r.Str("name_label"); t.byName[name] != nil {
		delete(t.byName[name], ref)
		if len(t.byName[name]) == 0 {
			delete(t.byName, name)
		}
	}
}

// Change is one object that was created or changed.
type Change struct {
	Ref               string
	Created, Modified int64
	Record            Record
}

// Since yields the objects of a class that changed after the generation, the newest change first.
func (d *DB) Since(class string, generation int64, yield func(Change)) {
	for e := d.tables[class].recent.Back(); e != nil; e = e.Prev() {
		r := e.Value.(*row)
		if r.modified <= generation {
			return
		}
		yield(Change{r.ref, r.created, r.modified, r.record})
	}
}

// DeletedSince yields the objects of a class that were removed after the generation, as far as they are remembered.
func (d *DB) DeletedSince(class string, generation int64, yield func(Deleted)) {
	deleted := d.tables[class].deleted
	for i := len(deleted) - 1; i >= 0 && deleted[i].Removed > generation; i-- {
		yield(deleted[i])
	}
}
