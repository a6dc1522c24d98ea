package datamodel

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the data files
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
)

//go:embed datamodel.json.gz
var modelData []byte

//go:embed methods-24.19.txt
var methodsData string

//go:embed hidden.txt
var hiddenData string

//go:embed sync.txt
var syncData string

//go:embed defaults.txt
var defaultsData string

// Model is the data model that one version of the server speaks.
type Model struct {
	Classes []*Class // in the server's order
	Methods []string // what system.listMethods answers, in its order

	classes  map[string]*Class
	messages map[string]*Message
}

// Class is a XenAPI class.
type Class struct {
	Name   string
	Fields []*Field            // in the order of a record's members
	Enums  map[string][]string // values of the enums that the class declares

	fields map[string]int
}

// Field is a field of a class.
type Field struct {
	Name      string
	Type      *Type
	Qualifier string // RW, RO/constructor or RO/runtime
	Default   string // as the model writes it; meaningful when HasDefault
	HasDefault,
	Removed bool
	Index int
}

// Param is a parameter of a message.
type Param struct {
	Name       string
	Type       *Type
	Default    string // as in defaults.txt; meaningful when HasDefault
	HasDefault bool
}

// Message is a call of a class.
type Message struct {
	Class, Name string
	Params      []Param // without the session
	Result      *Type
	Session     bool // the first parameter on the wire is a session
	Async       bool // it may be called as Async.Class.name
	PoolOnly    bool // only another host of the pool may call it
	Removed     bool
	Implicit    bool // a getter, setter or the like that the database answers
}

// FullName is the message's name on the wire.
func (m *Message) FullName() string { return m.Class + "." + m.Name }

// Class gives the class of that name, or nil.
func (m *Model) Class(name string) *Class { return m.classes[name] }

// Message gives the message of that full name ("VM.start"), or nil.
func (m *Model) Message(full string) *Message { return m.messages[full] }

// Field gives the field of that name, or nil.
func (c *Class) Field(name string) *Field {
	if i, ok := c.fields[name]; ok {
		return c.Fields[i]
	}
	return nil
}

// Enum gives the values of an enum, wherever it is declared.
func (m *Model) Enum(class, name string) []string {
	if c := m.classes[class]; c != nil {
		if values, ok := c.Enums[name]; ok {
			return values
		}
	}
	for _, c := range m.Classes {
		if values, ok := c.Enums[name]; ok {
			return values
		}
	}
	return nil
}

type rawModel struct{ Classes map[string]rawClass }

type rawClass struct {
	Fields   map[string]rawField
	Messages map[string]rawMessage
	Enums    map[string][]string
}

type rawField struct {
	Type, Qualifier, Since, State string
	Default                       *string
}

type rawMessage struct {
	Params               [][2]string
	Result, Since, State string
}

var readRaw = sync.OnceValues(func() (*rawModel, error) {
	zipped, err := gzip.NewReader(bytes.NewReader(modelData))
	if err != nil {
		return nil, fmt.Errorf("read the data model: %w", err)
	}
	var raw rawModel
	if err := json.NewDecoder(zipped).Decode(&raw); err != nil {
		return nil, fmt.Errorf("read the data model: %w", err)
	}
	return &raw, nil
})

// Load builds the model of one server version: "24.19" (what was recorded) or "26.17" (the newest known).
func Load(profile string) (*Model, error) {
	limit, ok := map[string]version{"24.19": recordedVersion, "26.17": {26, 17, 99}}[profile]
	if !ok {
		return nil, fmt.Errorf("unknown profile %q: 24.19 or 26.17", profile)
	}
	raw, err := readRaw()
	if err != nil {
		return nil, err
	}
	b := &builder{raw: raw, limit: limit, syncOnly: lineSet(syncData),
		model: &Model{classes: map[string]*Class{}, messages: map[string]*Message{}}}
	return b.build()
}

type builder struct {
	raw      *rawModel
	limit    version
	syncOnly map[string]bool
	model    *Model
}

func (b *builder) build() (*Model, error) {
	listed := strings.Fields(methodsData)
	perClass := map[string][]string{}
	var order []string
	for _, full := range listed {
		class, name, _ := strings.Cut(full, ".")
		if _, seen := perClass[class]; !seen {
			order = append(order, class)
		}
		perClass[class] = append(perClass[class], name)
	}
	order = append(order, missing(order, b.raw)...)
	for _, name := range order {
		if err := b.addClass(name, perClass[name]); err != nil {
			return nil, fmt.Errorf("class %s: %w", name, err)
		}
	}
	if err := b.addHidden(); err != nil {
		return nil, err
	}
	b.addDefaults()
	b.listMethods(listed)
	return b.model, nil
}

// missing names the classes that the list of methods does not mention, sorted.
func missing(order []string, raw *rawModel) []string {
	seen := map[string]bool{}
	for _, name := range order {
		seen[name] = true
	}
	var rest []string
	for name := range raw.Classes {
		if !seen[name] {
			rest = append(rest, name)
		}
	}
	sort.Strings(rest)
	return rest
}

// addClass adds a class with its fields and messages; methods are those that the recorded server lists, in its order.
func (b *builder) addClass(name string, methods []string) error {
	raw, known := b.raw.Classes[name]
	position := map[string]int{}
	for i, method := range methods {
		position[method] = i + 1
	}
	class, err := b.fields(name, raw, position)
	if err != nil {
		return err
	}
	if known && (len(methods) > 0 || len(class.Fields) > 0) {
		b.model.Classes = append(b.model.Classes, class)
		b.model.classes[name] = class
	}
	for message, m := range raw.Messages {
		if position[message] == 0 && (!b.limit.includes(m.Since) || b.limit == recordedVersion && len(methods) > 0) {
			continue // of another version; the recorded server's own list is exact
		}
		removed := m.State == "Removed" || b.limit == recordedVersion && removedThen[name+"."+message]
		if err := b.addMessage(class, message, m.Params, m.Result, removed); err != nil {
			return fmt.Errorf("message %s: %w", message, err)
		}
	}
	if position["get_all_records_where"] != 0 && b.model.Message(name+".get_all_records_where") == nil {
		return b.addMessage(class, "get_all_records_where",
			[][2]string{{"session_id", "session ref"}, {"expr", "string"}}, "("+name+" ref -> "+name+" record) map", false)
	}
	return nil
}

// fields makes a class with the fields that the version has, in the order of the recorded server's getters.
func (b *builder) fields(name string, raw rawClass, position map[string]int) (*Class, error) {
	class := &Class{Name: name, Enums: raw.Enums, fields: map[string]int{}}
	for field, f := range raw.Fields {
		if !b.limit.includes(f.Since) {
			continue
		}
		t, err := ParseType(f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", field, err)
		}
		entry := &Field{Name: field, Type: t, Qualifier: f.Qualifier, Removed: f.State == "Removed"}
		if f.Default != nil {
			entry.Default, entry.HasDefault = *f.Default, true
		}
		class.Fields = append(class.Fields, entry)
	}
	sort.Slice(class.Fields, func(i, j int) bool {
		a, c := class.Fields[i].Name, class.Fields[j].Name
		pa, pc := position["get_"+a], position["get_"+c]
		switch {
		case pa != 0 && pc != 0:
			return pa < pc
		case pa != pc:
			return pa != 0
		}
		return a < c
	})
	for i, f := range class.Fields {
		f.Index, class.fields[f.Name] = i, i
	}
	return class, nil
}

func (b *builder) addMessage(class *Class, name string, params [][2]string, result string, removed bool) error {
	m := &Message{Class: class.Name, Name: name, Removed: removed}
	for i, p := range params {
		if i == 0 && p[0] == "session_id" {
			m.Session = true
			continue
		}
		t, err := ParseType(p[1])
		if err != nil {
			return err
		}
		m.Params = append(m.Params, Param{Name: p[0], Type: t})
	}
	var err error
	if m.Result, err = ParseType(result); err != nil {
		return err
	}
	m.Implicit = class.implicit(name)
	m.Async = m.Session && !b.syncOnly[m.FullName()] && (!m.Implicit || name == "create" || name == "destroy")
	b.model.messages[m.FullName()] = m
	return nil
}

// guarded names the fields that newer servers write through a message of its own, and older ones like any other.
var guarded = map[string]bool{"VM.other_config": true, "VM.platform": true, "VM.blocked_operations": true,
	"task.other_config": true}

// implicit says whether the server derives the message from the class's fields.
func (c *Class) implicit(name string) bool {
	switch name {
	case "get_record", "get_all", "get_all_records", "get_all_records_where", "get_by_uuid", "get_by_name_label", "create", "destroy":
		return true
	}
	for _, prefix := range []string{"get_", "set_", "add_to_", "remove_from_", "add_", "remove_"} {
		if field, ok := strings.CutPrefix(name, prefix); ok {
			if f := c.Field(field); f != nil && (prefix == "get_" || f.Qualifier == "RW" || guarded[c.Name+"."+field]) {
				return true
			}
		}
	}
	return false
}

// addHidden adds the messages that the server answers without documenting them.
func (b *builder) addHidden() error {
	for line := range strings.Lines(hiddenData) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, "|")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		className, name, _ := strings.Cut(parts[0], ".")
		class := b.model.Class(className)
		if class == nil {
			class = &Class{Name: className, fields: map[string]int{}}
			b.model.Classes = append(b.model.Classes, class)
			b.model.classes[className] = class
		}
		params := [][2]string{{"session_id", "session ref"}}
		for _, p := range parts[min(2, len(parts)):] {
			param, t, _ := strings.Cut(p, ": ")
			params = append(params, [2]string{param, t})
		}
		if err := b.addMessage(class, name, params, "void", false); err != nil {
			return fmt.Errorf("%s: %w", parts[0], err)
		}
		m := b.model.messages[parts[0]]
		m.PoolOnly = strings.Contains(parts[1], "pool")
		m.Async = !strings.Contains(parts[1], "sync")
		m.Implicit = false
	}
	return nil
}

// addDefaults marks the parameters that may be left out.
func (b *builder) addDefaults() {
	for line := range lineSet(defaultsData) {
		words := strings.Fields(line)
		m := b.model.messages[words[0]]
		if m == nil {
			continue // of another version
		}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, "=")
			for i := range m.Params {
				if m.Params[i].Name == name {
					m.Params[i].Default, m.Params[i].HasDefault = value, true
				}
			}
		}
	}
}

// Required is the number of parameters that may not be left out, without the session.
func (m *Message) Required() int {
	n := 0
	for _, p := range m.Params {
		if !p.HasDefault {
			n++
		}
	}
	return n
}

// listMethods keeps the recorded order and appends what newer profiles add.
func (b *builder) listMethods(listed []string) {
	known := map[string]bool{}
	for _, full := range listed {
		known[full] = true
	}
	var newer []string
	for full := range b.model.messages {
		if !known[full] {
			newer = append(newer, full)
		}
	}
	sort.Strings(newer)
	b.model.Methods = append(append([]string{}, listed...), newer...)
}

func lineSet(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			set[line] = true
		}
	}
	return set
}

// removedThen names what the recorded version had removed and a newer one has taken back.
var removedThen = map[string]bool{"VDI.resize_online": true}

type version [3]int

// recordedVersion is the version of the server whose methods are in methods-24.19.txt.
var recordedVersion = version{24, 19, 2}

// includes says whether a member that appeared in the given release exists in this version. Releases with code names
// are all older than the versions that can be loaded.
func (v version) includes(since string) bool {
	var at version
	for i, part := range strings.SplitN(since, ".", 3) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return true
		}
		at[i] = n
	}
	for i := range at {
		if at[i] != v[i] {
			return at[i] < v[i]
		}
	}
	return true
}
