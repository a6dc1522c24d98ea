package db

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// Load adds the objects of a dump, {class: {ref: record}} as get_all_records gives them. Sets that mirror references
// keep the order they have in the dump.
func (d *DB) Load(r io.Reader) error {
	var dump map[string]map[string]map[string]any
	if err := json.NewDecoder(r).Decode(&dump); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	type object struct {
		class, ref string
		fields     Fields
	}
	var objects []object
	for _, class := range d.model.Classes {
		refs := make([]string, 0, len(dump[class.Name]))
		for ref := range dump[class.Name] {
			refs = append(refs, ref)
		}
		sort.Strings(refs)
		for _, ref := range refs {
			fields, err := readFields(class, dump[class.Name][ref])
			if err != nil {
				return fmt.Errorf("read state: %s %s: %w", class.Name, ref, err)
			}
			objects = append(objects, object{class.Name, ref, fields})
		}
	}
	for _, o := range objects {
		d.Create(o.class, o.ref, o.fields)
	}
	for _, o := range objects {
		d.restoreRelations(o.class, o.ref, o.fields)
	}
	return nil
}

func readFields(class *datamodel.Class, record map[string]any) (Fields, error) {
	fields := Fields{}
	for name, raw := range record {
		f := class.Field(name)
		if f == nil {
			continue // a member of another version
		}
		v, err := FromJSON(f.Type, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fields[name] = v
	}
	return fields, nil
}

// restoreRelations adds the object to the sets that mirror its references, for dumps in which they disagree.
func (d *DB) restoreRelations(class, ref string, fields Fields) {
	for name := range fields {
		if end, ok := datamodel.Mirror(class, name); ok && d.tables[end.Class] != nil {
			for _, owner := range refsOf(fields[name]) {
				d.setMember(end, owner, ref, true)
			}
		}
	}
}

// Dump writes all objects in the form that Load reads.
func (d *DB) Dump(w io.Writer) error {
	out := []byte("{")
	for i, class := range d.model.Classes {
		if i > 0 {
			out = append(out, ",\n"...)
		}
		if class.Name == "session" { // references of sessions are credentials, and die with the toolstack
			out = append(out, `"session":{}`...)
			continue
		}
		out = append(wire.AppendJSON(out, class.Name), ":{"...)
		for j, ref := range d.Refs(class.Name) {
			if j > 0 {
				out = append(out, ",\n"...)
			}
			out = append(wire.AppendJSON(out, ref), ':')
			out = wire.AppendJSON(out, d.Get(class.Name, ref))
		}
		out = append(out, '}')
	}
	if _, err := w.Write(append(out, "}\n"...)); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
