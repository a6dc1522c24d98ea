package xenapi

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Kind is the XML-RPC type that a [Value] had on the wire.
type Kind uint8

// The kinds of values. A XenAPI sends strings, references, enum values and 64-bit integers all as KindString.
const (
	KindString Kind = iota
	KindInt
	KindBool
	KindDouble
	KindTime
	KindBase64
	KindNil
	KindArray
	KindStruct
)

var kindNames = [...]string{"string", "int", "boolean", "double", "dateTime", "base64", "nil", "array", "struct"}

// String implements fmt.Stringer.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Value is a XenAPI value as it came over the wire: nothing is interpreted, so nothing is lost. The zero Value is the empty string, which is
// also what a call without a result answers.
type Value struct {
	kind    Kind
	text    string // scalars, as on the wire
	items   []Value
	members []Member
}

// Member is one entry of a struct value, in the order of the wire.
type Member struct {
	Name  string
	Value Value
}

// StringValue returns s as a Value.
func StringValue(s string) Value { return Value{text: s} }

// BoolValue returns b as a Value.
func BoolValue(b bool) Value { return Value{kind: KindBool, text: strconv.FormatBool(b)} }

// Kind returns the XML-RPC type.
func (v Value) Kind() Kind { return v.kind }

// Text returns a scalar's text as it stood on the wire, and the empty string for arrays and structs.
func (v Value) Text() string { return v.text }

// Items returns an array's elements.
func (v Value) Items() []Value { return v.items }

// Members returns a struct's members in the order of the wire.
func (v Value) Members() []Member { return v.members }

// Get returns the member of a struct with the given name.
func (v Value) Get(name string) (Value, bool) {
	for _, m := range v.members {
		if m.Name == name {
			return m.Value, true
		}
	}
	return Value{}, false
}

// Int64 reads an integer, which a XenAPI sends as a string.
func (v Value) Int64() (int64, error) {
	if v.kind != KindString && v.kind != KindInt {
		return 0, fmt.Errorf("%w: %v is not an integer", ErrUnexpectedType, v.kind)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: not an integer", ErrUnexpectedType)
	}
	return n, nil
}

// Float64 reads a number, NaN and the infinities included.
func (v Value) Float64() (float64, error) {
	if v.kind > KindDouble || v.kind == KindBool {
		return 0, fmt.Errorf("%w: %v is not a number", ErrUnexpectedType, v.kind)
	}
	return parseFloat(v.text)
}

// Bool reads a boolean.
func (v Value) Bool() (bool, error) {
	if v.kind > KindBool {
		return false, fmt.Errorf("%w: %v is not a boolean", ErrUnexpectedType, v.kind)
	}
	return parseBool(v.text)
}

// Time reads a date.
func (v Value) Time() (time.Time, error) {
	if v.kind != KindTime && v.kind != KindString {
		return time.Time{}, fmt.Errorf("%w: %v is not a date", ErrUnexpectedType, v.kind)
	}
	return parseTime(v.text)
}

// Bytes reads a base64 value.
func (v Value) Bytes() ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(v.text)
	if err != nil {
		return nil, fmt.Errorf("%w: not base64", ErrUnexpectedType)
	}
	return raw, nil
}

// Strings reads an array of scalars.
func (v Value) Strings() []string {
	out := make([]string, len(v.items))
	for i, item := range v.items {
		out[i] = item.text
	}
	return out
}

// StringMap reads a struct of scalars.
func (v Value) StringMap() map[string]string {
	out := make(map[string]string, len(v.members))
	for _, m := range v.members {
		out[m.Name] = m.Value.text
	}
	return out
}

func parseFloat(text string) (float64, error) {
	text = strings.TrimSpace(text)
	if text == "-nan" { // what OCaml's %.16g prints on some machines
		return math.NaN(), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, fmt.Errorf("%w: not a number", ErrUnexpectedType)
	}
	return f, nil
}

func parseBool(text string) (bool, error) {
	switch strings.TrimSpace(text) {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	default:
		return false, fmt.Errorf("%w: not a boolean", ErrUnexpectedType)
	}
}

// timeLayouts are the forms of dates seen on XenAPIs of various ages; the first is what all of the present ones send.
var timeLayouts = []string{
	"20060102T15:04:05Z", "20060102T15:04:05", "20060102T15:04:05.999999999Z", "20060102T15:04:05Z07:00", "20060102T15:04:05Z0700",
	time.RFC3339Nano, "2006-01-02T15:04:05",
}

func parseTime(text string) (time.Time, error) {
	if t, ok := parseCompactTime(text); ok {
		return t, nil
	}
	text = strings.TrimSpace(text)
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: not a date", ErrUnexpectedType)
}

// parseCompactTime reads the usual 20060102T15:04:05Z without trying layouts.
func parseCompactTime(text string) (time.Time, bool) {
	if len(text) != 18 || text[8] != 'T' || text[11] != ':' || text[14] != ':' || text[17] != 'Z' {
		return time.Time{}, false
	}
	ok := true
	number := func(from, to int) (n int) {
		for _, c := range []byte(text[from:to]) {
			ok = ok && c >= '0' && c <= '9'
			n = n*10 + int(c-'0')
		}
		return n
	}
	fields := [6]int{number(0, 4), number(4, 6), number(6, 8), number(9, 11), number(12, 14), number(15, 17)}
	t := time.Date(fields[0], time.Month(fields[1]), fields[2], fields[3], fields[4], fields[5], 0, time.UTC)
	// time.Date puts what is out of range into range; that is how it is found.
	return t, ok && fields == [6]int{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()}
}
