package main

import "fmt"

// goType is the Go type of a data-model type.
func (g *generator) goType(t typ) string {
	switch t.kind {
	case kindVoid:
		return "struct{}"
	case kindString:
		return "string"
	case kindInt:
		return "int64"
	case kindBool:
		return "bool"
	case kindFloat:
		return "float64"
	case kindTime:
		return "time.Time"
	case kindRef:
		g.refs[t.name] = true
		return goName(t.name) + "Ref"
	case kindEnum:
		return enumName(t.name)
	case kindRecord:
		if !g.services[t.name] {
			g.plain[t.name] = true
		}
		return goName(t.name)
	case kindSet:
		return "[]" + g.goType(*t.elem)
	case kindMap:
		return fmt.Sprintf("map[%s]%s", g.goType(*t.key), g.goType(*t.elem))
	}
	panic("unreachable kind")
}

func (t typ) stringLike() bool {
	return t.kind == kindString || t.kind == kindRef || t.kind == kindEnum
}

// reader is the expression of a function func(*scanner, *T) error for t.
func (g *generator) reader(t typ) string {
	switch t.kind {
	case kindVoid:
		return "readVoid"
	case kindString, kindRef, kindEnum:
		return fmt.Sprintf("readString[%s]", g.goType(t))
	case kindInt:
		return "readInt"
	case kindBool:
		return "readBool"
	case kindFloat:
		return "readFloat"
	case kindTime:
		return "readTime"
	case kindRecord:
		return "read" + g.goType(t)
	default:
		return fmt.Sprintf("func(s *scanner, out *%s) error { return %s }", g.goType(t), g.read(t, "out"))
	}
}

// read is the expression that reads t from s into the pointer out.
func (g *generator) read(t typ, out string) string {
	switch {
	case t.stringLike():
		return fmt.Sprintf("readString(s, %s)", out)
	case t.kind == kindSet && t.elem.stringLike():
		return fmt.Sprintf("readStrings(s, %s)", out)
	case t.kind == kindSet:
		return fmt.Sprintf("readList(s, %s, %s)", out, g.reader(*t.elem))
	case t.kind == kindMap && t.key.stringLike() && t.elem.stringLike():
		return fmt.Sprintf("readStringMap(s, %s)", out)
	case t.kind == kindMap && t.key.kind == kindInt:
		return fmt.Sprintf("readMap(s, %s, readIntKey, %s)", out, g.reader(*t.elem))
	case t.kind == kindMap:
		return fmt.Sprintf("readMap(s, %s, readKey[%s], %s)", out, g.goType(*t.key), g.reader(*t.elem))
	default:
		return fmt.Sprintf("%s(s, %s)", g.reader(t), out)
	}
}

// zeroTest is the expression that says whether v holds t's zero value.
func zeroTest(t typ, v string) string {
	switch t.kind {
	case kindBool:
		return "!" + v
	case kindInt, kindFloat:
		return v + " == 0"
	case kindTime:
		return v + ".IsZero()"
	case kindSet, kindMap:
		return "len(" + v + ") == 0"
	case kindRef:
		return v + ".IsNull()"
	default:
		return v + ` == ""`
	}
}
