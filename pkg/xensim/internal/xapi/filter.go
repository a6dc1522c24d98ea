package xapi

import (
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// A filter is the argument of get_all_records_where (database/db_filter_lex.mll, db_filter_parse.mly):
//
//	expr  = "true" | "false" | "not" expr | expr "and" expr | expr "or" expr | "(" expr ")" | term "=" term | term "!=" term
//	term  = 'field "name"' | "literal"
//
// Field names are those of the database, in which a space of names is marked by two underscores ("name__label").
type filter func(db.Record) bool

type filterParser struct {
	class  *datamodel.Class
	expr   string
	tokens []string
}

func parseFilter(class *datamodel.Class, expr string) (filter, error) {
	tokens, ok := lexFilter(expr)
	if !ok {
		return nil, Fail("INVALID_VALUE", expr, `Failure("lexing: empty token")`)
	}
	p := &filterParser{class: class, expr: expr, tokens: tokens}
	f, ok := p.or()
	if !ok || len(p.tokens) != 0 {
		return nil, Fail("INVALID_VALUE", expr, "Stdlib.Parsing.Parse_error")
	}
	return f, nil
}

// lexFilter splits an expression into words, signs and literals; a literal keeps its opening quote as a mark.
func lexFilter(expr string) ([]string, bool) {
	var tokens []string
	for rest := expr; ; {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			return tokens, true
		}
		if rest[0] == '"' || rest[0] == '\'' {
			end := strings.IndexByte(rest[1:], rest[0])
			if end < 0 {
				return nil, false
			}
			tokens = append(tokens, `"`+rest[1:1+end])
			rest = rest[end+2:]
			continue
		}
		token := ""
		for _, word := range []string{"field", "true", "false", "not", "and", "or", "!=", "<>", "=", "(", ")"} {
			if strings.HasPrefix(rest, word) {
				token = word
				break
			}
		}
		if token == "" {
			return nil, false
		}
		tokens = append(tokens, token)
		rest = rest[len(token):]
	}
}

func (p *filterParser) take(token string) bool {
	if len(p.tokens) > 0 && p.tokens[0] == token {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

func (p *filterParser) or() (filter, bool) {
	left, ok := p.and()
	for ok && p.take("or") {
		var right filter
		l := left
		right, ok = p.and()
		left = func(r db.Record) bool { return l(r) || right(r) }
	}
	return left, ok
}

func (p *filterParser) and() (filter, bool) {
	left, ok := p.unary()
	for ok && p.take("and") {
		var right filter
		l := left
		right, ok = p.unary()
		left = func(r db.Record) bool { return l(r) && right(r) }
	}
	return left, ok
}

func (p *filterParser) unary() (filter, bool) {
	switch {
	case p.take("true"):
		return func(db.Record) bool { return true }, true
	case p.take("false"):
		return func(db.Record) bool { return false }, true
	case p.take("not"):
		inner, ok := p.unary()
		return func(r db.Record) bool { return !inner(r) }, ok
	case p.take("("):
		inner, ok := p.or()
		return inner, ok && p.take(")")
	}
	return p.comparison()
}

func (p *filterParser) comparison() (filter, bool) {
	left, ok := p.term()
	if !ok {
		return nil, false
	}
	negated := false
	switch {
	case p.take("="):
	case p.take("!="), p.take("<>"):
		negated = true
	default:
		return nil, false
	}
	right, ok := p.term()
	return func(r db.Record) bool { return (left(r) == right(r)) != negated }, ok
}

func (p *filterParser) term() (func(db.Record) string, bool) {
	isField := p.take("field")
	if len(p.tokens) == 0 || !strings.HasPrefix(p.tokens[0], `"`) {
		return nil, false
	}
	text := p.tokens[0][1:]
	p.tokens = p.tokens[1:]
	if !isField {
		return func(db.Record) string { return text }, true
	}
	f := p.field(text)
	if f == nil {
		return nil, false
	}
	return func(r db.Record) string { return textOf(r.Get(f.Name)) }, true
}

// field finds a field by its name in the database.
func (p *filterParser) field(name string) *datamodel.Field {
	if f := p.class.Field(name); f != nil {
		return f
	}
	return p.class.Field(strings.ReplaceAll(name, "__", "_"))
}
