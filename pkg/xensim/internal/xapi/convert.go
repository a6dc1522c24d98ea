package xapi

import (
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// typed turns a value from the wire into one of the type. What does not fit is an INTERNAL_ERROR with the text of the
// OCaml exception (recordings 0084–0091, 0109, 2023, 2035), never FIELD_TYPE_ERROR.
func (p *Pool) typed(class string, t *datamodel.Type, v any) (any, error) {
	switch t.Kind {
	case datamodel.Int:
		return toInt(v)
	case datamodel.Float:
		return toFloat(v)
	case datamodel.Bool:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, expected("bool", v)
	case datamodel.DateTime:
		return toDate(v)
	case datamodel.Enum:
		return p.toEnum(class, t, v)
	case datamodel.Set, datamodel.Option:
		return p.toSet(class, t, v)
	case datamodel.Map:
		return p.toMap(class, t, v)
	case datamodel.Record:
		return p.toRecord(t.Class, v)
	default:
		return toString(v)
	}
}

func expected(what string, v any) *Error {
	return failure("Expected %s, got '%s'", what, wire.Describe(v))
}

func toString(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case wire.DateTime:
		return string(v), nil
	}
	return "", expected("string", v)
}

func toInt(v any) (any, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case string:
		n, err := strconv.ParseInt(strings.TrimPrefix(v, "+"), 0, 64)
		if err != nil {
			return nil, failure("Int64.of_string")
		}
		return n, nil
	}
	return nil, expected("int64", v)
}

func toFloat(v any) (any, error) {
	switch v := v.(type) {
	case float64:
		return v, nil
	case int64:
		return float64(v), nil
	case string:
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return nil, failure("float_of_string")
		}
		return f, nil
	}
	return nil, expected("float", v)
}

func toDate(v any) (any, error) {
	text := ""
	switch v := v.(type) {
	case wire.DateTime:
		text = string(v)
	case string:
		text = v
	default:
		return nil, expected("DateTime", v)
	}
	t, err := wire.ParseDate(text)
	if err != nil {
		return nil, failure("Expected ISO8601 date, got '%s'", text)
	}
	return t, nil
}

// toEnum accepts the values of the enum in any case, as the real one does.
func (p *Pool) toEnum(class string, t *datamodel.Type, v any) (any, error) {
	text, err := toString(v)
	if err != nil {
		return nil, err
	}
	for _, value := range p.Model.Enum(class, t.Name) {
		if strings.EqualFold(value, text) {
			return value, nil
		}
	}
	return nil, failure("Unknown tag/contents")
}

func (p *Pool) toSet(class string, t *datamodel.Type, v any) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, expected("set", v)
	}
	texts, others := make([]string, 0, len(list)), make([]any, 0, len(list))
	for _, e := range list {
		converted, err := p.typed(class, t.Elem, e)
		if err != nil {
			return nil, err
		}
		if text, ok := converted.(string); ok {
			texts = append(texts, text)
		}
		others = append(others, converted)
	}
	if t.Kind == datamodel.Set && t.Elem.Textual() {
		return texts, nil
	}
	return others, nil
}

func (p *Pool) toMap(class string, t *datamodel.Type, v any) (any, error) {
	members, ok := v.(wire.Struct)
	if !ok {
		return nil, failure("Expecting Rpc.Dict, but found '%s'", wire.Describe(v))
	}
	texts, others := map[string]string{}, map[string]any{}
	for _, m := range members {
		if _, err := p.typed(class, t.Key, m.Name); err != nil {
			return nil, err
		}
		converted, err := p.typed(class, t.Elem, m.Value)
		if err != nil {
			return nil, err
		}
		if text, ok := converted.(string); ok {
			texts[m.Name] = text
		}
		others[m.Name] = converted
	}
	if t.Key.Textual() && t.Elem.Textual() {
		return texts, nil
	}
	return others, nil
}

// toRecord reads the record of a constructor: fields that a constructor takes, in the data model's order; a field
// without a default must be given, an unknown one is ignored (recordings 0100–0105).
func (p *Pool) toRecord(class string, v any) (any, error) {
	members, ok := v.(wire.Struct)
	if !ok {
		return nil, failure("bad __structure")
	}
	fields := db.Fields{}
	for _, f := range p.Model.Class(class).Fields {
		if f.Qualifier == "RO/runtime" {
			continue
		}
		raw, given := members.Get(f.Name)
		if !given {
			if !f.HasDefault {
				return nil, internal("Server_helpers.Dispatcher_FieldNotFound(%s)", ocamlString(f.Name))
			}
			fields[f.Name] = db.Default(f)
			continue
		}
		converted, err := p.typed(class, f.Type, raw)
		if err != nil {
			return nil, err
		}
		fields[f.Name] = converted
	}
	return fields, nil
}
