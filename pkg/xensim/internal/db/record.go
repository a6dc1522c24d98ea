package db

import (
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
)

// NullRef is the reference to nothing.
const NullRef = "OpaqueRef:NULL"

// Record is what an object held at one moment. The zero Record is no object.
//
// Values are string (also enums and references), int64, float64, bool, time.Time, []string (sets of text), []any
// (other sets), map[string]string, or map[string]any (other maps, and records within records).
type Record struct {
	class  *datamodel.Class
	values []any
}

// Exists says whether the record is one of an object.
func (r Record) Exists() bool { return r.class != nil }

// Class gives the class's name.
func (r Record) Class() string { return r.class.Name }

// Get gives the value of a field, or nil when the class has no such field.
func (r Record) Get(field string) any {
	if f := r.class.Field(field); f != nil {
		return r.values[f.Index]
	}
	return nil
}

// Str gives a string, an enum or a reference.
func (r Record) Str(field string) string {
	v, _ := r.Get(field).(string)
	return v
}

// Int gives an integer.
func (r Record) Int(field string) int64 {
	v, _ := r.Get(field).(int64)
	return v
}

// Float gives a float.
func (r Record) Float(field string) float64 {
	v, _ := r.Get(field).(float64)
	return v
}

// Bool gives a boolean.
func (r Record) Bool(field string) bool {
	v, _ := r.Get(field).(bool)
	return v
}

// Time gives a date.
func (r Record) Time(field string) time.Time {
	v, _ := r.Get(field).(time.Time)
	return v
}

// Strs gives a set of text. It must not be changed.
func (r Record) Strs(field string) []string {
	v, _ := r.Get(field).([]string)
	return v
}

// Map gives a map of text to text. It must not be changed.
func (r Record) Map(field string) map[string]string {
	v, _ := r.Get(field).(map[string]string)
	return v
}

// Members yields the fields in the server's order.
func (r Record) Members(yield func(name string, value any) bool) {
	for _, f := range r.class.Fields {
		if !yield(f.Name, r.values[f.Index]) {
			return
		}
	}
}

// Fields gives a copy of the fields as a map, to start a new object from.
func (r Record) Fields() Fields {
	out := make(Fields, len(r.values))
	for name, value := range r.Members {
		out[name] = value
	}
	return out
}

// Fields are values by field name, to be written.
type Fields map[string]any
