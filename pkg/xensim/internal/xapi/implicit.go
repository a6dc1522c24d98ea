package xapi

import (
	"maps"
	"slices"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// implicit answers a message that the server derives from the class's fields.
func (p *Pool) implicit(c *Call) (any, error) {
	m := c.Message
	class := m.Class
	switch m.Name {
	case "get_record":
		return p.db.Get(class, c.Self()), nil
	case "get_all":
		return p.db.Refs(class), nil
	case "get_all_records":
		return p.records(class, func(db.Record) bool { return true }), nil
	case "get_all_records_where":
		return p.recordsWhere(class, c.Str("expr"))
	case "get_by_uuid":
		if ref, ok := p.db.ByUUID(class, c.Str("uuid")); ok {
			return ref, nil
		}
		return nil, Fail("UUID_INVALID", class, c.Str("uuid"))
	case "get_by_name_label":
		return p.db.ByName(class, c.Str("label")), nil
	case "create":
		if fields, ok := c.args[m.Params[0].Name].(db.Fields); ok {
			return p.Create(class, fields), nil
		}
		return nil, Fail("NOT_IMPLEMENTED", m.FullName())
	case "destroy":
		p.db.Delete(class, c.Self())
		return nil, nil
	}
	return p.accessor(c)
}

// accessor answers a getter or a setter of one field.
func (p *Pool) accessor(c *Call) (any, error) {
	class, ref := c.Message.Class, c.Self()
	name := c.Message.Name
	switch {
	case strings.HasPrefix(name, "get_"):
		return p.db.Get(class, ref).Get(name[len("get_"):]), nil
	case strings.HasPrefix(name, "set_"):
		p.Set(class, ref, db.Fields{name[len("set_"):]: c.args[c.Message.Params[1].Name]})
	case strings.HasPrefix(name, "add_to_"):
		return nil, p.AddTo(class, ref, name[len("add_to_"):], c.Str("key"), c.Str("value"))
	case strings.HasPrefix(name, "remove_from_"):
		p.RemoveFrom(class, ref, name[len("remove_from_"):], c.Str("key"))
	case strings.HasPrefix(name, "add_"):
		p.addMember(class, ref, name[len("add_"):], c.Str("value"))
	case strings.HasPrefix(name, "remove_"):
		p.removeMember(class, ref, name[len("remove_"):], c.Str("value"))
	}
	return nil, nil
}

// AddTo adds a key to a map field. A key that is there is an error, even with the same value.
func (p *Pool) AddTo(class, ref, field, key, value string) error {
	old := p.db.Get(class, ref).Map(field)
	if _, taken := old[key]; taken {
		return Fail("MAP_DUPLICATE_KEY", class, field, ref, key)
	}
	next := maps.Clone(old)
	if next == nil {
		next = map[string]string{}
	}
	next[key] = value
	p.Set(class, ref, db.Fields{field: next})
	return nil
}

// RemoveFrom removes a key from a map field, if it is there.
func (p *Pool) RemoveFrom(class, ref, field, key string) {
	next := maps.Clone(p.db.Get(class, ref).Map(field))
	delete(next, key)
	if next != nil {
		p.Set(class, ref, db.Fields{field: next})
	}
}

func (p *Pool) addMember(class, ref, field, value string) {
	old := p.db.Get(class, ref).Strs(field)
	if !slices.Contains(old, value) {
		p.Set(class, ref, db.Fields{field: append([]string{value}, old...)})
	}
}

func (p *Pool) removeMember(class, ref, field, value string) {
	old := p.db.Get(class, ref).Strs(field)
	p.Set(class, ref, db.Fields{field: slices.DeleteFunc(slices.Clone(old), func(s string) bool { return s == value })})
}

func (p *Pool) records(class string, keep func(db.Record) bool) wire.Struct {
	refs := p.db.Refs(class)
	out := make(wire.Struct, 0, len(refs))
	for _, ref := range refs {
		if r := p.db.Get(class, ref); keep(r) {
			out = append(out, wire.Member{Name: ref, Value: r})
		}
	}
	return out
}

func (p *Pool) recordsWhere(class, expr string) (any, error) {
	filter, err := parseFilter(p.Model.Class(class), expr)
	if err != nil {
		return nil, err
	}
	return p.records(class, filter), nil
}

// textOf writes a value as the database keeps it, for comparison in filters.
func textOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []string:
		parts := make([]string, len(v))
		for i, s := range v {
			parts[i] = "'" + s + "'"
		}
		return "(" + strings.Join(parts, " ") + ")"
	case map[string]string:
		parts := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, "('"+k+"' '"+v[k]+"')")
		}
		return "(" + strings.Join(parts, " ") + ")"
	}
	return strings.Trim(string(wire.AppendJSON(nil, v)), `"`)
}
