package main

import (
	"fmt"
	"strings"
)

// generator holds the data model and what the generated code refers to.
type generator struct {
	model    *model
	classes  []string
	services map[string]bool
	refs     map[string]bool // classes with a reference type
	plain    map[string]bool // classes with a record, but without a service
}

func newGenerator(m *model, classes []string) *generator {
	g := &generator{model: m, classes: classes, services: map[string]bool{}, refs: map[string]bool{}, plain: map[string]bool{}}
	for _, class := range classes {
		g.services[class] = true
		g.refs[class] = true
	}
	return g
}

func mustParse(where, text string) typ {
	t, err := parseType(text)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", where, err))
	}
	return t
}

// classFile is one class: its record, how it is read, what create sends, and its service.
func (g *generator) classFile(class string) string {
	var b strings.Builder
	if class != "event" { // the shape of an event depends on its class: pkg/xenapi declares it by hand
		g.record(&b, class)
		g.recordReader(&b, class)
	}
	if m, ok := g.model.Classes[class].Messages["create"]; ok && len(m.Params) == 2 && m.Params[1][1] == class+" record" {
		g.createRecord(&b, class)
	}
	g.service(&b, class)
	return b.String()
}

// plainRecords are the records that results hold, but that have no service.
func (g *generator) plainRecords() string {
	var b strings.Builder
	for _, class := range sortedKeys(g.plain) {
		g.record(&b, class)
		g.recordReader(&b, class)
	}
	return b.String()
}

func (g *generator) record(b *strings.Builder, class string) {
	name := goName(class)
	writeDoc(b, recordDoc(class))
	fmt.Fprintf(b, "type %s struct {\n", name)
	fields := g.model.Classes[class].Fields
	for _, wire := range sortedKeys(fields) {
		f := fields[wire]
		writeDoc(b, fieldDoc(class, wire, f))
		fmt.Fprintf(b, "%s %s `json:%q`\n", goName(wire), g.goType(mustParse(class+"."+wire, f.Type)), wire)
	}
	writeDoc(b, "Extra holds the fields that this client does not know, as a newer server sent them; nil if there are none.")
	b.WriteString("Extra map[string]Value `json:\"-\"`\n}\n\n")
}

func (g *generator) recordReader(b *strings.Builder, class string) {
	name := goName(class)
	fmt.Fprintf(b, "func (r *%s) class() string { return %q }\n\n", name, class)
	fmt.Fprintf(b, "func read%s(s *scanner, out *%s) error { return readRecord(s, out) }\n\n", name, name)
	fmt.Fprintf(b, "func (r *%s) readField(s *scanner, name []byte) error {\nswitch string(name) {\n", name)
	fields := g.model.Classes[class].Fields
	for _, wire := range sortedKeys(fields) {
		t := mustParse(class+"."+wire, fields[wire].Type)
		fmt.Fprintf(b, "case %q:\nreturn %s\n", wire, g.read(t, "&r."+goName(wire)))
	}
	b.WriteString("default:\nreturn readExtra(s, &r.Extra, name)\n}\n}\n\n")
}

// createRecord writes what X.create sends. A field that has a default on the server and is zero here is left out.
func (g *generator) createRecord(b *strings.Builder, class string) {
	name := goName(class)
	fields := g.model.Classes[class].Fields
	var required, optional []string
	for _, wire := range sortedKeys(fields) {
		f := fields[wire]
		switch {
		case !f.settable() || f.State == "Removed":
		case f.Default == nil || alwaysSent[class+"."+wire]:
			required = append(required, wire)
		default:
			optional = append(optional, wire)
		}
	}
	fmt.Fprintf(b, "// createArgs is what %s.create takes: all fields without a default on the server, those with one only if they are set, and Extra.\n", class)
	fmt.Fprintf(b, "func (r *%s) createArgs() map[string]any {\n", name)
	fmt.Fprintf(b, "args := make(map[string]any, %d+len(r.Extra))\n", len(required)+len(optional))
	b.WriteString("for name, value := range r.Extra {\nargs[name] = value\n}\n")
	for _, wire := range required {
		fmt.Fprintf(b, "args[%q] = r.%s\n", wire, goName(wire))
	}
	for _, wire := range optional {
		t := mustParse(class+"."+wire, fields[wire].Type)
		test := zeroTest(t, "r."+goName(wire))
		if t.kind == kindBool {
			fmt.Fprintf(b, "if r.%s {\n", goName(wire))
		} else {
			fmt.Fprintf(b, "if !(%s) {\n", test)
		}
		fmt.Fprintf(b, "args[%q] = r.%s\n}\n", wire, goName(wire))
	}
	b.WriteString("return args\n}\n\n")
}

func (g *generator) enumFile() string {
	seen := map[string][]string{}
	for _, class := range append(g.classes, sortedKeys(g.plain)...) {
		for enum, values := range g.model.Classes[class].Enums {
			seen[enum] = values
		}
	}
	var b strings.Builder
	for _, enum := range sortedKeys(seen) {
		name := enumName(enum)
		fmt.Fprintf(&b, "// %s is the enumeration %s. A value that is not listed here came from a newer server and is kept as it is.\n", name, enum)
		fmt.Fprintf(&b, "type %s string\n\n", name)
		fmt.Fprintf(&b, "// The values of %s.\nconst (\n", name)
		for _, value := range seen[enum] {
			fmt.Fprintf(&b, "%s%s %s = %q\n", name, goName(value), name, value)
		}
		b.WriteString(")\n\n")
	}
	return b.String()
}

func (g *generator) refFile() string {
	var b strings.Builder
	for _, class := range sortedKeys(g.refs) {
		name := goName(class) + "Ref"
		fmt.Fprintf(&b, "// %s refers to a %s for the life of the object in the pool's database. It is opaque and is not the uuid.\n", name, class)
		fmt.Fprintf(&b, "type %s string\n\n", name)
		b.WriteString("// IsNull says whether r refers to nothing.\n")
		fmt.Fprintf(&b, "func (r %s) IsNull() bool { return isNull(string(r)) }\n\n", name)
	}
	return b.String()
}

// servicesFile lists the services, so that the client's declaration stays short.
func (g *generator) servicesFile() string {
	var b strings.Builder
	b.WriteString("// Services are the classes' calls; a [Client] embeds them.\ntype Services struct {\n")
	for _, class := range g.classes {
		fmt.Fprintf(&b, "%s %sService\n", goName(class), goName(class))
	}
	b.WriteString("}\n\nfunc newServices(c *Client) Services {\nreturn Services{\n")
	for _, class := range g.classes {
		fmt.Fprintf(&b, "%s: %sService{c},\n", goName(class), goName(class))
	}
	b.WriteString("}\n}\n\n")
	b.WriteString("// readSnapshot reads the record of a class as events name it, or a Value if there is no type for it.\n")
	b.WriteString("func readSnapshot(s *scanner, class string) (any, error) {\nswitch class {\n")
	for _, class := range g.classes {
		if class == "event" || class == "session" {
			continue // never sent
		}
		name := goName(class)
		fmt.Fprintf(&b, "case %q:\nvar r %s\nerr := read%s(s, &r)\nreturn r, err\n", strings.ToLower(class), name, name)
	}
	b.WriteString("default:\nreturn s.value()\n}\n}\n")
	return b.String()
}

// errorFile names the error codes.
func (g *generator) errorFile() string {
	var b strings.Builder
	b.WriteString("// The error codes that the data model declares.\nconst (\n")
	for _, code := range sortedKeys(g.model.Errors) {
		if strings.HasPrefix(code, "_") {
			continue // endings of other codes: reasons of an external authentication plug-in
		}
		name := "Err" + errorName(code)
		if params := g.model.Errors[code]; params != nil && len(*params) > 0 {
			fmt.Fprintf(&b, "// %s comes with: %s.\n", name, strings.Join(*params, ", "))
		}
		fmt.Fprintf(&b, "%s ErrorCode = %q\n", name, code)
	}
	b.WriteString(")\n")
	return b.String()
}

// errorName turns HANDLE_INVALID into HandleInvalid.
func errorName(code string) string {
	return goName(strings.ToLower(code))
}
