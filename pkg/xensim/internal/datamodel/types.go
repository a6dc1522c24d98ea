package datamodel

import (
	"fmt"
	"strings"
)

// Kind is the shape of a XenAPI type.
type Kind int

// The shapes of XenAPI types.
const (
	Void Kind = iota
	String
	Int
	Float
	Bool
	DateTime
	Enum
	Ref
	Set
	Map
	Record
	Option
	Other // event batches and the like, which one message each returns
)

// Type is a XenAPI type.
type Type struct {
	Kind  Kind
	Class string // of a Ref or a Record
	Name  string // of an Enum
	Elem  *Type  // of a Set, an Option, or the values of a Map
	Key   *Type  // of a Map
}

// ParseType reads a type as datamodel.json writes it: "VM ref set", "(string -> int) map", "enum vm_power_state".
func ParseType(text string) (*Type, error) {
	text = strings.TrimSpace(text)
	switch text {
	case "void", "":
		return &Type{Kind: Void}, nil
	case "string":
		return &Type{Kind: String}, nil
	case "int":
		return &Type{Kind: Int}, nil
	case "float":
		return &Type{Kind: Float}, nil
	case "bool":
		return &Type{Kind: Bool}, nil
	case "datetime":
		return &Type{Kind: DateTime}, nil
	case "an event batch", "<class> record":
		return &Type{Kind: Other, Name: text}, nil
	}
	if inner, ok := strings.CutSuffix(text, " set"); ok {
		return wrap(Set, inner)
	}
	if inner, ok := strings.CutSuffix(text, " option"); ok {
		return wrap(Option, inner)
	}
	if inner, ok := strings.CutSuffix(text, " map"); ok {
		return parseMap(inner)
	}
	if class, ok := strings.CutSuffix(text, " ref"); ok {
		return &Type{Kind: Ref, Class: class}, nil
	}
	if class, ok := strings.CutSuffix(text, " record"); ok {
		return &Type{Kind: Record, Class: class}, nil
	}
	if name, ok := strings.CutPrefix(text, "enum "); ok {
		return &Type{Kind: Enum, Name: name}, nil
	}
	return nil, fmt.Errorf("unknown XenAPI type %q", text)
}

func wrap(kind Kind, inner string) (*Type, error) {
	elem, err := ParseType(inner)
	if err != nil {
		return nil, err
	}
	return &Type{Kind: kind, Elem: elem}, nil
}

func parseMap(text string) (*Type, error) {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "("), ")")
	key, value, ok := strings.Cut(text, " -> ")
	if !ok {
		return nil, fmt.Errorf("unknown XenAPI map %q", text)
	}
	keyType, err := ParseType(key)
	if err != nil {
		return nil, err
	}
	valueType, err := ParseType(value)
	if err != nil {
		return nil, err
	}
	return &Type{Kind: Map, Key: keyType, Elem: valueType}, nil
}

// Textual says whether values of the type travel as plain text: strings, enums and references.
func (t *Type) Textual() bool {
	return t.Kind == String || t.Kind == Enum || t.Kind == Ref
}
