package db

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// Epoch is the date that was never set.
var Epoch = time.Unix(0, 0).UTC()

// Zero gives the value that a field of the type has when nothing says more.
func Zero(t *datamodel.Type) any {
	switch t.Kind {
	case datamodel.Int:
		return int64(0)
	case datamodel.Float:
		return float64(0)
	case datamodel.Bool:
		return false
	case datamodel.DateTime:
		return Epoch
	case datamodel.Ref:
		return NullRef
	case datamodel.Set:
		if t.Elem.Textual() {
			return []string{}
		}
		return []any{}
	case datamodel.Map:
		if t.Key.Textual() && t.Elem.Textual() {
			return map[string]string{}
		}
		return map[string]any{}
	case datamodel.Option:
		return []any{}
	default:
		return ""
	}
}

// Default gives the value that a new object's field has.
func Default(f *datamodel.Field) any {
	if !f.HasDefault {
		return Zero(f.Type)
	}
	return ParseDefault(f.Type, f.Default)
}

// ParseDefault reads a default as the data model writes it.
func ParseDefault(t *datamodel.Type, text string) any {
	text = strings.Trim(text, `"`)
	switch t.Kind {
	case datamodel.String, datamodel.Enum:
		return text
	case datamodel.Int:
		n, _ := strconv.ParseInt(text, 10, 64)
		return n
	case datamodel.Float:
		v, _ := strconv.ParseFloat(text, 64)
		return v
	case datamodel.Bool:
		return text == "true"
	case datamodel.DateTime:
		if at, err := wire.ParseDate(text); err == nil {
			return at
		}
	default: // what has no default but its zero
	}
	return Zero(t)
}

// FromJSON turns a value as encoding/json gives it into one of the type.
func FromJSON(t *datamodel.Type, v any) (any, error) {
	switch t.Kind {
	case datamodel.Int:
		if n, ok := v.(float64); ok {
			return int64(n), nil
		}
		if s, ok := v.(string); ok {
			return strconv.ParseInt(s, 10, 64)
		}
	case datamodel.Float:
		if n, ok := v.(float64); ok {
			return n, nil
		}
	case datamodel.DateTime:
		if s, ok := v.(string); ok {
			return wire.ParseDate(s)
		}
	case datamodel.Set, datamodel.Option:
		if list, ok := v.([]any); ok {
			return setFromJSON(t, list)
		}
	case datamodel.Map:
		if m, ok := v.(map[string]any); ok {
			return mapFromJSON(t, m)
		}
	case datamodel.Bool:
		if b, ok := v.(bool); ok {
			return b, nil
		}
	case datamodel.Record, datamodel.Other:
		return v, nil
	default:
		if s, ok := v.(string); ok {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%T is no value of the type", v)
}

func setFromJSON(t *datamodel.Type, list []any) (any, error) {
	if t.Elem.Textual() && t.Kind == datamodel.Set {
		out := make([]string, len(list))
		for i, e := range list {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%T in a set of text", e)
			}
			out[i] = s
		}
		return out, nil
	}
	out := make([]any, len(list))
	for i, e := range list {
		v, err := FromJSON(t.Elem, e)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func mapFromJSON(t *datamodel.Type, m map[string]any) (any, error) {
	if t.Key.Textual() && t.Elem.Textual() {
		out := make(map[string]string, len(m))
		for k, e := range m {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%T in a map of text", e)
			}
			out[k] = s
		}
		return out, nil
	}
	out := make(map[string]any, len(m))
	for k, e := range m {
		v, err := FromJSON(t.Elem, e)
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, nil
}

// conforms says whether a value may stand in a field of the type, so that a mistake shows where it is made.
func conforms(t *datamodel.Type, v any) bool {
	if t.Kind == datamodel.Other || t.Kind == datamodel.Record || t.Kind == datamodel.Option {
		return true
	}
	return reflect.TypeOf(v) == reflect.TypeOf(Zero(t))
}

func equal(a, b any) bool {
	switch a := a.(type) {
	case []string:
		b, ok := b.([]string)
		return ok && slices.Equal(a, b)
	case map[string]string:
		b, ok := b.(map[string]string)
		return ok && maps.Equal(a, b)
	case []any, map[string]any:
		return reflect.DeepEqual(a, b)
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Equal(b)
	}
	return a == b
}
