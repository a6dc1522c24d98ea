package wire

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// DateTime is a dateTime.iso8601 as it stood on the wire.
type DateTime string

// Int32 travels as <i4> in XML-RPC; only valid_ref_counts uses it.
type Int32 int32

// Member is one member of a Struct.
type Member struct {
	Name  string
	Value any
}

// Struct is a struct or object, in the order of its members.
type Struct []Member

// Get gives the value of the named member.
func (s Struct) Get(name string) (any, bool) {
	for _, m := range s {
		if m.Name == name {
			return m.Value, true
		}
	}
	return nil, false
}

// Marshaler is a value that knows its members.
type Marshaler interface {
	Members(yield func(name string, value any) bool)
}

// DateLayout is the form of dates in the XenAPI, always in UTC.
const DateLayout = "20060102T15:04:05Z"

// FormatDate writes a time as the XenAPI does.
func FormatDate(t time.Time) string { return t.UTC().Format(DateLayout) }

// ParseDate reads a date in the forms that the XenAPI accepts.
func ParseDate(text string) (time.Time, error) {
	for _, layout := range []string{DateLayout, "20060102T15:04:05", "2006-01-02T15:04:05Z", "20060102T15:04:05-07:00", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("not a date: %q", text)
}

// Describe writes a value as ocaml-rpc's Rpc.to_string does; error texts quote it.
func Describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "N"
	case string:
		return "S(" + v + ")"
	case int64:
		return "I(" + strconv.FormatInt(v, 10) + ")"
	case Int32:
		return "I32(" + strconv.Itoa(int(v)) + ")"
	case bool:
		return "B(" + strconv.FormatBool(v) + ")"
	case float64:
		return "F(" + shortFloat(v) + ")"
	case DateTime:
		return "D(" + string(v) + ")"
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = Describe(e)
		}
		return "[" + strings.Join(parts, ";") + "]"
	case Struct:
		parts := make([]string, len(v))
		for i, m := range v {
			parts[i] = m.Name + ":" + Describe(m.Value)
		}
		return "{" + strings.Join(parts, ";") + "}"
	}
	return fmt.Sprint(v)
}

// shortFloat is C's %g: six significant digits, exponents of at least two digits.
func shortFloat(v float64) string {
	text := strconv.FormatFloat(v, 'g', 6, 64)
	if mantissa, exponent, ok := strings.Cut(text, "e"); ok {
		if strings.Contains(mantissa, ".") {
			mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		}
		return mantissa + "e" + exponent
	}
	return text
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
