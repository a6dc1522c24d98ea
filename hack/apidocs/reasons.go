package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// reasonGroup is one const block: a heading and the words with their meanings.
type reasonGroup struct {
	title string
	words []word
}

// word is a condition type or a reason.
type word struct {
	value, meaning string
}

// readReasons reads the documented string constants of a Go file, one group a const block, whose first sentence
// is the heading. A constant without a comment is an error: users meet the word in conditions and Events.
func readReasons(path string) ([]reasonGroup, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var groups []reasonGroup
	for _, declaration := range file.Decls {
		block, isBlock := declaration.(*ast.GenDecl)
		if !isBlock || block.Tok != token.CONST {
			continue
		}
		heading, _, _ := strings.Cut(joinLines(block.Doc.Text()), ".")
		group := reasonGroup{title: heading}
		for _, spec := range block.Specs {
			w, err := readWord(spec.(*ast.ValueSpec))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			group.words = append(group.words, w)
		}
		groups = append(groups, group)
	}

	return groups, nil
}

// readWord takes "ConditionReady is True when …" apart: the value of the constant, and the rest of the sentence.
func readWord(constant *ast.ValueSpec) (word, error) {
	name := constant.Names[0].Name
	literal, isLiteral := constant.Values[0].(*ast.BasicLit)
	if !isLiteral {
		return word{}, fmt.Errorf("%s is no string literal", name)
	}
	value, err := strconv.Unquote(literal.Value)
	if err != nil {
		return word{}, err
	}
	meaning, documented := strings.CutPrefix(joinLines(constant.Doc.Text()), name+" ")
	if !documented {
		return word{}, fmt.Errorf("the comment of %s must begin with its name", name)
	}

	return word{value: value, meaning: meaning}, nil
}
