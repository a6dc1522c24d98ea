package main

import (
	"fmt"
	"strings"
)

// service writes a class's calls.
func (g *generator) service(b *strings.Builder, class string) {
	name := goName(class) + "Service"
	fmt.Fprintf(b, "// %s calls the messages of class %s.\ntype %s struct{ c *Client }\n\n", name, class, name)
	messages := g.model.Classes[class].Messages
	for _, wire := range sortedKeys(messages) {
		m := messages[wire]
		if !g.wanted(class, wire, m) {
			continue
		}
		c := newCall(class, wire, m)
		g.method(b, c, false)
		if g.hasAsync(class, wire) {
			g.method(b, c, true)
		}
	}
}

// wanted leaves out what no client may or should call: removed messages, emergency measures, and what the client does itself.
func (g *generator) wanted(class, wire string, m message) bool {
	if m.State == "Removed" || strings.Contains(wire, "emergency") {
		return false
	}
	if len(m.Params) == 0 || m.Params[0][0] != "session_id" {
		return false
	}
	if handwritten[class+"."+wire] {
		return false
	}
	if field, ok := strings.CutPrefix(wire, "get_"); ok {
		if f, known := g.model.Classes[class].Fields[field]; known && f.State == "Removed" {
			return false
		}
	}
	return true
}

// hasAsync says whether Async.class.wire exists: not for accessors of fields, nor for messages that are tied to their session.
func (g *generator) hasAsync(class, wire string) bool {
	for _, prefix := range []string{"get_", "add_to_", "remove_from_", "add_tags", "remove_tags"} {
		if strings.HasPrefix(wire, prefix) {
			return false
		}
	}
	if field, ok := strings.CutPrefix(wire, "set_"); ok {
		if _, isField := g.model.Classes[class].Fields[field]; isField {
			return false
		}
	}
	return !withoutAsync[class] && !withoutAsync[class+"."+wire]
}

// call is one message on its way to a Go method.
type call struct {
	class, wire string
	m           message
	params      []param
	result      typ
}

type param struct {
	name     string
	wire     string
	t        typ
	optional bool
}

func newCall(class, wire string, m message) call {
	c := call{class: class, wire: wire, m: m, result: mustParse(class+"."+wire, m.Result)}
	for _, p := range m.Params[1:] {
		key := class + "." + wire + "." + p[0]
		next := param{name: paramName(p[0]), wire: p[0], t: mustParse(key, p[1]), optional: optionalParams[key]}
		if next.t.kind == kindRecord {
			next.name = "record"
		}
		c.params = append(c.params, next)
	}
	return c
}

func (g *generator) method(b *strings.Builder, c call, async bool) {
	service, name := goName(c.class)+"Service", goName(c.wire)
	result, wire := c.result, c.class+"."+c.wire
	if async {
		writeDoc(b, fmt.Sprintf("%sAsync begins %s and returns the task that carries it out; see [Client.WaitTask].", name, name))
		name, wire, result = name+"Async", "Async."+wire, typ{kind: kindRef, name: "task"}
	} else {
		writeDoc(b, methodDoc(c))
	}
	fmt.Fprintf(b, "func (s %s) %s(ctx context.Context%s) ", service, name, g.signature(c.params))
	args, prelude := g.arguments(c)
	if result.kind == kindVoid {
		fmt.Fprintf(b, "error {\n%s_, err := invoke(ctx, s.c, %q, readVoid%s)\nreturn err\n}\n\n", prelude, wire, args)
		return
	}
	fmt.Fprintf(b, "(%s, error) {\n%sreturn invoke(ctx, s.c, %q, %s%s)\n}\n\n", g.goType(result), prelude, wire, g.reader(result), args)
}

func (g *generator) signature(params []param) string {
	var b strings.Builder
	for i, p := range params {
		t := g.goType(p.t)
		if i+1 < len(params) && g.goType(params[i+1].t) == t {
			fmt.Fprintf(&b, ", %s", p.name)
			continue
		}
		fmt.Fprintf(&b, ", %s %s", p.name, t)
	}
	return b.String()
}

// arguments is what is passed on. Optional parameters are newer than their message: they are sent only if set, so that an older server
// does not refuse their count.
func (g *generator) arguments(c call) (args, prelude string) {
	required := 0
	var list []string
	for _, p := range c.params {
		expr := p.name
		switch {
		case p.t.kind == kindRecord:
			expr = p.name + ".createArgs()"
		case p.optional && trueByDefault[c.class+"."+c.wire+"."+p.wire]:
			expr = "unlessTrue(" + p.name + ")"
		}
		if !p.optional {
			required++
		}
		list = append(list, expr)
	}
	if len(list) == 0 {
		return "", ""
	}
	joined := strings.Join(list, ", ")
	if required == len(list) {
		return ", " + joined, ""
	}
	return ", args...", fmt.Sprintf("args := withOptional(%d, %s)\n", required, joined)
}
