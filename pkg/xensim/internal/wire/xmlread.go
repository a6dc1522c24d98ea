package wire

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// XMLCall is an XML-RPC request.
type XMLCall struct {
	Method string
	Params []any
}

// ParseXMLCall reads an XML-RPC request.
func ParseXMLCall(body []byte) (call *XMLCall, err error) {
	p := &xmlReader{text: string(body)}
	defer p.recover(&err)
	p.prolog()
	p.open("methodCall")
	p.open("methodName")
	call = &XMLCall{Method: p.data()}
	p.close("methodName")
	if p.atOpen("params") {
		p.open("params")
		for p.atOpen("param") {
			p.open("param")
			call.Params = append(call.Params, p.value())
			p.close("param")
		}
		p.close("params")
	}
	p.close("methodCall")
	return call, nil
}

// ParseXMLValue reads one <value>…</value>.
func ParseXMLValue(text string) (v any, err error) {
	p := &xmlReader{text: text}
	defer p.recover(&err)
	p.prolog()
	return p.value(), nil
}

// xmlReader is a reader of the small part of XML that XML-RPC uses. It stops by panicking with a *ParseError.
type xmlReader struct {
	text   string
	pos    int
	depth  int
	closed string // name of an empty element just opened, whose end is next
}

// maxDepth bounds the nesting of values, so that a hostile request cannot exhaust the stack.
const maxDepth = 200

func (p *xmlReader) recover(err *error) {
	if r := recover(); r != nil {
		stop, ok := r.(*ParseError)
		if !ok {
			panic(r)
		}
		*err = stop
	}
}

// fail stops with the error of the real server's XML reader at the present position.
func (p *xmlReader) fail(text string) {
	line, column := 1, 1
	for _, r := range p.text[:p.pos] {
		if r == '\n' {
			line, column = line+1, 1
			continue
		}
		column++
	}
	panic(&ParseError{fmt.Sprintf("Xmlm.Error(%d:%d, %s)", line, column, ocamlQuote(text))})
}

func (p *xmlReader) unexpected(found, wanted string) {
	panic(&ParseError{fmt.Sprintf("Xmlrpc.Parse_error(%s, %s, _)", ocamlQuote(found), ocamlQuote(wanted))})
}

func (p *xmlReader) rest() string { return p.text[p.pos:] }

func (p *xmlReader) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// skip passes white space, comments and processing instructions.
func (p *xmlReader) skip() {
	for {
		p.space()
		var end string
		switch {
		case strings.HasPrefix(p.rest(), "<?"):
			end = "?>"
		case strings.HasPrefix(p.rest(), "<!--"):
			end = "-->"
		case strings.HasPrefix(p.rest(), "<!"):
			p.fail("unexpected DTD")
		default:
			return
		}
		i := strings.Index(p.rest(), end)
		if i < 0 {
			p.pos = len(p.text)
			p.fail("unexpected end of input")
		}
		p.pos += i + len(end)
	}
}

func (p *xmlReader) prolog() {
	if p.text == "" {
		p.fail("unexpected end of input")
	}
	p.skip()
	if p.pos >= len(p.text) {
		p.fail("unexpected end of input")
	}
	if p.text[p.pos] != '<' {
		p.fail("expected root element")
	}
}

// tag reads the next tag without consuming it: its name, where it ends, whether it closes, whether it is empty.
func (p *xmlReader) tag() (name string, end int, closing, empty bool) {
	if p.closed != "" {
		return p.closed, p.pos, true, false
	}
	p.skip()
	rest := p.rest()
	if rest == "" {
		p.fail("unexpected end of input")
	}
	if rest[0] != '<' {
		p.unexpected("data", "open_tag")
	}
	stop := strings.IndexByte(rest, '>')
	if stop < 0 {
		p.pos = len(p.text)
		p.fail("unexpected end of input")
	}
	inner := rest[1:stop]
	if inner, closing = strings.CutPrefix(inner, "/"); !closing {
		inner, empty = strings.CutSuffix(inner, "/")
	}
	name, _, _ = strings.Cut(strings.TrimSpace(inner), " ")
	return name, p.pos + stop + 1, closing, empty
}

func (p *xmlReader) atOpen(name string) bool {
	found, _, closing, _ := p.tag()
	return !closing && found == name
}

// open consumes an opening tag.
func (p *xmlReader) open(name string) {
	found, end, closing, empty := p.tag()
	if closing {
		p.unexpected("close_tag", "open_tag("+name+")")
	}
	if found != name {
		p.unexpected("open_tag("+found+")", "open_tag("+name+")")
	}
	p.pos = end
	if empty {
		p.closed = name
	}
}

func (p *xmlReader) close(name string) {
	found, end, closing, _ := p.tag()
	if !closing || found != name {
		p.unexpected("open_tag("+found+")", "close_tag("+name+")")
	}
	p.pos, p.closed = end, ""
}

// data reads text up to the next tag.
func (p *xmlReader) data() string {
	if p.closed != "" {
		return ""
	}
	var out strings.Builder
	for {
		rest := p.rest()
		i := strings.IndexByte(rest, '<')
		if i < 0 {
			p.pos = len(p.text)
			p.fail("unexpected end of input")
		}
		out.WriteString(p.unescape(rest[:i]))
		p.pos += i
		if !strings.HasPrefix(p.rest(), "<![CDATA[") {
			return out.String()
		}
		end := strings.Index(p.rest(), "]]>")
		if end < 0 {
			p.pos = len(p.text)
			p.fail("unexpected end of input")
		}
		out.WriteString(p.rest()[len("<![CDATA["):end])
		p.pos += end + len("]]>")
	}
}

var entities = map[string]string{"lt": "<", "gt": ">", "amp": "&", "quot": `"`, "apos": "'"}

func (p *xmlReader) unescape(text string) string {
	if strings.IndexByte(text, '&') < 0 {
		return text
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "&")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, rest, ok := strings.Cut(after, ";")
		if !ok {
			p.fail("character reference not terminated")
		}
		if plain, known := entities[name]; known {
			out.WriteString(plain)
		} else {
			out.WriteRune(p.character(name))
		}
		text = rest
	}
}

func (p *xmlReader) character(name string) rune {
	digits, base := strings.TrimPrefix(name, "#"), 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	code, err := strconv.ParseUint(digits, base, 32)
	if err != nil || !strings.HasPrefix(name, "#") || !utf8.ValidRune(rune(code)) {
		p.fail("unknown entity reference (" + name + ")")
	}
	return rune(code)
}

// value reads a <value>. Text without a type is a string.
func (p *xmlReader) value() any {
	if p.depth++; p.depth > maxDepth {
		p.fail("value nested too deep")
	}
	defer func() { p.depth-- }()
	p.open("value")
	text := p.data()
	name, _, closing, _ := p.tag()
	if closing {
		p.close("value")
		return text
	}
	v := p.typed(name)
	p.close("value")
	return v
}

func (p *xmlReader) typed(name string) any {
	p.open(name)
	var v any
	switch name {
	case "string", "base64":
		v = p.data()
	case "int", "i4", "i8":
		v = p.integer(p.data())
	case "boolean":
		text := strings.TrimSpace(p.data())
		v = text == "1" || text == "true"
	case "double":
		v = p.float(p.data())
	case "dateTime.iso8601":
		v = DateTime(strings.TrimSpace(p.data()))
	case "array":
		v = p.array()
	case "struct":
		v = p.structure()
	case "nil":
		v = nil
	default:
		p.unexpected("open_tag("+name+")", "value")
	}
	p.close(name)
	return v
}

func (p *xmlReader) integer(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		panic(&ParseError{`Failure("Int64.of_string")`})
	}
	return n
}

func (p *xmlReader) float(text string) float64 {
	text = strings.TrimSpace(text)
	if text == "nan" {
		return math.NaN()
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(&ParseError{`Failure("float_of_string")`})
	}
	return v
}

func (p *xmlReader) array() any {
	array := []any{}
	p.open("data")
	for p.atOpen("value") {
		array = append(array, p.value())
	}
	p.close("data")
	return array
}

func (p *xmlReader) structure() any {
	members := Struct{}
	for p.atOpen("member") {
		p.open("member")
		p.open("name")
		name := p.data()
		p.close("name")
		members = append(members, Member{name, p.value()})
		p.close("member")
	}
	return members
}
