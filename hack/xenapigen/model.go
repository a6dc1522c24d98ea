package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

// model is the data model's file.
type model struct {
	Source  string               `json:"source"`
	Classes map[string]class     `json:"classes"`
	Errors  map[string]*[]string `json:"errors"`
}

type class struct {
	Fields   map[string]field    `json:"fields"`
	Messages map[string]message  `json:"messages"`
	Enums    map[string][]string `json:"enums"`
}

type field struct {
	Type      string  `json:"type"`
	Qualifier string  `json:"qualifier"`
	Since     string  `json:"since"`
	Default   *string `json:"default"`
	State     string  `json:"state"`
}

type message struct {
	Params [][2]string `json:"params"`
	Result string      `json:"result"`
	Since  string      `json:"since"`
	Role   string      `json:"role"`
	Errors []string    `json:"errors"`
	State  string      `json:"state"`
}

func loadModel(path string) (*model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var m model
	if err := json.NewDecoder(unzipped).Decode(&m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &m, nil
}

// settable says whether a field may stand in the record that X.create takes.
func (f field) settable() bool { return f.Qualifier == "RW" || f.Qualifier == "RO/constructor" }

// kind is the shape of a data-model type.
type kind int

const (
	kindVoid kind = iota
	kindString
	kindInt
	kindBool
	kindFloat
	kindTime
	kindRef
	kindEnum
	kindRecord
	kindSet
	kindMap
)

// typ is a parsed data-model type such as "(VM ref -> string set) map".
type typ struct {
	kind kind
	name string // class of a ref or record, name of an enum
	key  *typ
	elem *typ
}

func parseType(text string) (typ, error) {
	text = strings.TrimSpace(text)
	switch text {
	case "void":
		return typ{kind: kindVoid}, nil
	case "string":
		return typ{kind: kindString}, nil
	case "int":
		return typ{kind: kindInt}, nil
	case "bool":
		return typ{kind: kindBool}, nil
	case "float":
		return typ{kind: kindFloat}, nil
	case "datetime":
		return typ{kind: kindTime}, nil
	}
	switch {
	case strings.HasSuffix(text, " set"):
		elem, err := parseType(strings.TrimSuffix(text, " set"))
		return typ{kind: kindSet, elem: &elem}, err
	case strings.HasSuffix(text, " map"):
		return parseMap(text)
	case strings.HasSuffix(text, " ref"):
		return typ{kind: kindRef, name: strings.TrimSuffix(text, " ref")}, nil
	case strings.HasSuffix(text, " record"):
		return typ{kind: kindRecord, name: strings.TrimSuffix(text, " record")}, nil
	case strings.HasPrefix(text, "enum "):
		return typ{kind: kindEnum, name: strings.TrimPrefix(text, "enum ")}, nil
	default:
		return typ{}, fmt.Errorf("unknown type %q", text)
	}
}

// parseMap reads "(key -> value) map"; the value may be a map in parentheses itself.
func parseMap(text string) (typ, error) {
	inside := strings.TrimSuffix(text, " map")
	inside = strings.TrimSuffix(strings.TrimPrefix(inside, "("), ")")
	left, right, ok := strings.Cut(inside, " -> ")
	if !ok {
		return typ{}, fmt.Errorf("unknown map type %q", text)
	}
	key, err := parseType(left)
	if err != nil {
		return typ{}, err
	}
	elem, err := parseType(right)
	return typ{kind: kindMap, key: &key, elem: &elem}, err
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := strings.ToLower(keys[i]), strings.ToLower(keys[j])
		if a != b {
			return a < b
		}
		return keys[i] < keys[j]
	})
	return keys
}
