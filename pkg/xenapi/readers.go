package xenapi

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// The read functions below put one value of the wire into a Go variable; generated code is made of calls to them.

func readString[T ~string](s *scanner, out *T) error {
	_, text, err := s.scalar()
	if err != nil {
		return err
	}
	*out = T(s.intern(text))
	return nil
}

func readInt(s *scanner, out *int64) error {
	kind, text, err := s.scalar()
	if err != nil {
		return err
	}
	if kind != KindString && kind != KindInt {
		return s.fail(ErrUnexpectedType, "%v where an integer is expected", kind)
	}
	n, ok := parseDecimal(text)
	if !ok {
		wide, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return s.fail(ErrUnexpectedType, "no integer where one is expected")
		}
		n = wide
	}
	*out = n
	return nil
}

// parseDecimal reads up to 18 digits with an optional minus.
func parseDecimal(text []byte) (int64, bool) {
	digits := text
	if len(text) > 0 && text[0] == '-' {
		digits = text[1:]
	}
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if len(digits) != len(text) {
		n = -n
	}
	return n, true
}

func readBool(s *scanner, out *bool) error {
	if s.literal("<value><boolean>1</boolean></value>") {
		*out = true
		return nil
	}
	if s.literal("<value><boolean>0</boolean></value>") {
		*out = false
		return nil
	}
	_, text, err := s.scalar()
	if err != nil {
		return err
	}
	b, err := parseBool(string(text))
	if err != nil {
		return s.fail(ErrUnexpectedType, "no boolean where one is expected")
	}
	*out = b
	return nil
}

func readFloat(s *scanner, out *float64) error {
	_, text, err := s.scalar()
	if err != nil {
		return err
	}
	f, err := parseFloat(string(text))
	if err != nil {
		return s.fail(ErrUnexpectedType, "no number where one is expected")
	}
	*out = f
	return nil
}

func readTime(s *scanner, out *time.Time) error {
	_, text, err := s.scalar()
	if err != nil {
		return err
	}
	t, err := parseTime(string(text))
	if err != nil {
		return s.fail(ErrUnexpectedType, "no date where one is expected")
	}
	*out = t
	return nil
}

// readVoid passes over the result of a call that has none.
func readVoid(s *scanner, _ *struct{}) error {
	_, err := s.value()
	return err
}

func readStrings[T ~string](s *scanner, out *[]T) error { return readList(s, out, readString[T]) }

func readList[T any](s *scanner, out *[]T, read func(*scanner, *T) error) error {
	kind, _, empty, err := s.open()
	if err != nil {
		return err
	}
	*out = nil
	if kind != KindArray {
		return s.fail(ErrUnexpectedType, "%v where a set is expected", kind)
	}
	if empty {
		return nil
	}
	more, err := s.beginItems()
	for more && err == nil {
		if more, err = s.item(); err != nil || !more {
			break
		}
		var one T
		if err = read(s, &one); err == nil {
			*out = append(*out, one)
		}
	}
	return err
}

func readStringMap[K, V ~string](s *scanner, out *map[K]V) error {
	return readMap(s, out, readKey[K], readString[V])
}

func readKey[K ~string](s *scanner, name []byte) (K, error) { //nolint:unparam // readIntKey can fail
	return K(s.intern(name)), nil
}

func readIntKey(s *scanner, name []byte) (int64, error) {
	n, ok := parseDecimal(name)
	if !ok {
		return 0, s.fail(ErrUnexpectedType, "no integer as a key")
	}
	return n, nil
}

func readMap[K comparable, V any](s *scanner, out *map[K]V, key func(*scanner, []byte) (K, error), read func(*scanner, *V) error) error {
	kind, _, empty, err := s.open()
	if err != nil {
		return err
	}
	*out = nil
	if kind != KindStruct {
		return s.fail(ErrUnexpectedType, "%v where a map is expected", kind)
	}
	if empty {
		return nil
	}
	for {
		name, ok, err := s.member()
		if err != nil || !ok {
			return err
		}
		k, err := key(s, name)
		if err != nil {
			return err
		}
		if *out == nil {
			*out = make(map[K]V)
		}
		var v V
		if err := read(s, &v); err != nil {
			return err
		}
		(*out)[k] = v
		if err := s.endMember(); err != nil {
			return err
		}
	}
}

// record is a typed record that reads its own fields. readField is called with the scanner before the field's value.
type record interface {
	class() string
	readField(s *scanner, name []byte) error
}

func readRecord(s *scanner, r record) error {
	kind, _, empty, err := s.open()
	if err != nil {
		return err
	}
	if kind != KindStruct {
		return s.fail(ErrUnexpectedType, "%v where a %s record is expected", kind, r.class())
	}
	if empty {
		return nil
	}
	field := make([]byte, 0, 48)
	for {
		name, ok, err := s.member()
		if err != nil || !ok {
			return err
		}
		field = append(field[:0], name...)
		if err := r.readField(s, field); err != nil {
			return inField(err, r.class(), field)
		}
		if err := s.endMember(); err != nil {
			return err
		}
	}
}

// inField notes in a DecodeError which field was being read.
func inField(err error, class string, field []byte) error {
	var decode *DecodeError
	if errors.As(err, &decode) && decode.Field == "" {
		decode.Field = class + "." + strconv.QuoteToASCII(string(field[:min(len(field), 64)]))
	}
	return err
}

// readExtra keeps a field that the data model does not know.
func readExtra(s *scanner, out *map[string]Value, name []byte) error {
	key := string(name)
	v, err := s.value()
	if err != nil {
		return err
	}
	if *out == nil {
		*out = make(map[string]Value)
	}
	(*out)[key] = v
	return nil
}

func readValue(s *scanner, out *Value) error {
	v, err := s.value()
	*out = v
	return err
}

// value reads any value.
func (s *scanner) value() (Value, error) {
	kind, text, empty, err := s.open()
	if err != nil {
		return Value{}, err
	}
	switch kind {
	case KindArray:
		return s.array(empty)
	case KindStruct:
		return s.structure(empty)
	default:
		return Value{kind: kind, text: s.intern(text)}, nil
	}
}

func (s *scanner) array(empty bool) (Value, error) {
	v := Value{kind: KindArray}
	if empty {
		return v, nil
	}
	more, err := s.beginItems()
	for more && err == nil {
		if more, err = s.item(); err != nil || !more {
			break
		}
		var one Value
		if one, err = s.value(); err == nil {
			v.items = append(v.items, one)
		}
	}
	return v, err
}

func (s *scanner) structure(empty bool) (Value, error) {
	v := Value{kind: KindStruct}
	if empty {
		return v, nil
	}
	for {
		name, ok, err := s.member()
		if err != nil || !ok {
			return v, err
		}
		key := s.intern(name)
		one, err := s.value()
		if err != nil {
			return v, err
		}
		v.members = append(v.members, Member{Name: key, Value: one})
		if err := s.endMember(); err != nil {
			return v, err
		}
	}
}
