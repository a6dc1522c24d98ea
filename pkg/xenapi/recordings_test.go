package xenapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// exchange is one line of the recordings of a real XenAPI (pkg/xensim/testdata/README.md).
type recordedExchange struct {
	Number   int    `json:"number"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Request  struct {
		Body string `json:"body"`
	} `json:"request"`
	Response struct {
		Status   int    `json:"status"`
		Body     string `json:"body"`
		Withheld bool   `json:"withheld"`
	} `json:"response"`
}

// recordedAnswers yields each XML-RPC answer on record.
func recordedAnswers(t testing.TB) []recordedExchange {
	t.Helper()
	files, err := filepath.Glob("../xensim/testdata/recordings/*.jsonl.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	var all []recordedExchange
	for _, path := range files {
		for _, one := range readRecording(t, path) {
			if one.Response.Status == 200 && strings.Contains(one.Response.Body, "<methodResponse>") {
				all = append(all, one)
			}
		}
	}
	return all
}

func readRecording(t testing.TB, path string) []recordedExchange {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []recordedExchange
	lines := bufio.NewReader(unzipped)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var one recordedExchange
			if err := json.Unmarshal(line, &one); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			out = append(out, one)
		}
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// node is a value as the independent decoder sees it.
type node struct {
	kind    string
	text    string
	items   []node
	members []namedNode
}

type namedNode struct {
	name  string
	value node
}

// independent decodes a methodResponse with encoding/xml, by the book and without regard to speed: what the scanner is held against.
func independent(text string) (node, error) {
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = true
	for {
		token, err := d.Token()
		if err != nil {
			return node{}, err
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "value" {
			return independentValue(d)
		}
	}
}

// independentValue is called behind <value>.
func independentValue(d *xml.Decoder) (node, error) {
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return node{}, err
		}
		switch token := token.(type) {
		case xml.CharData:
			text.Write(token)
		case xml.EndElement:
			return node{kind: "string", text: text.String()}, nil
		case xml.StartElement:
			n, err := independentTyped(d, token.Name.Local)
			if err != nil {
				return node{}, err
			}
			return n, d.Skip() // to </value>
		}
	}
}

func independentTyped(d *xml.Decoder, name string) (node, error) {
	switch name {
	case "array":
		return independentArray(d)
	case "struct":
		return independentStruct(d)
	}
	kinds := map[string]string{
		"string": "string", "int": "int", "i4": "int", "i8": "int", "boolean": "boolean", "double": "double", "dateTime.iso8601": "dateTime",
		"base64": "base64", "nil": "nil",
	}
	kind, ok := kinds[name]
	if !ok {
		return node{}, fmt.Errorf("unknown type %s", name)
	}
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return node{}, err
		}
		switch token := token.(type) {
		case xml.CharData:
			text.Write(token)
		case xml.EndElement:
			return node{kind: kind, text: text.String()}, nil
		case xml.StartElement:
			return node{}, fmt.Errorf("%s in a %s", token.Name.Local, name)
		}
	}
}

func independentArray(d *xml.Decoder) (node, error) {
	n := node{kind: "array"}
	for depth := 1; depth > 0; {
		token, err := d.Token()
		if err != nil {
			return n, err
		}
		switch token := token.(type) {
		case xml.EndElement:
			depth--
		case xml.StartElement:
			if token.Name.Local == "data" {
				depth++
				continue
			}
			one, err := independentValue(d)
			if err != nil {
				return n, err
			}
			n.items = append(n.items, one)
		}
	}
	return n, nil
}

func independentStruct(d *xml.Decoder) (node, error) {
	n := node{kind: "struct"}
	var name string
	for depth := 1; depth > 0; {
		token, err := d.Token()
		if err != nil {
			return n, err
		}
		switch token := token.(type) {
		case xml.EndElement:
			depth--
		case xml.StartElement:
			switch token.Name.Local {
			case "member":
				depth++
			case "name":
				if err := d.DecodeElement(&name, &token); err != nil {
					return n, err
				}
			default:
				one, err := independentValue(d)
				if err != nil {
					return n, err
				}
				n.members = append(n.members, namedNode{name, one})
			}
		}
	}
	return n, nil
}

// difference tells where got is not want, or nothing.
func difference(path string, got Value, want node) string {
	if got.Kind().String() != want.kind {
		return fmt.Sprintf("%s: kind %v, want %s", path, got.Kind(), want.kind)
	}
	if got.Text() != want.text {
		return fmt.Sprintf("%s: %q, want %q", path, got.Text(), want.text)
	}
	if len(got.Items()) != len(want.items) || len(got.Members()) != len(want.members) {
		return fmt.Sprintf("%s: %d items and %d members, want %d and %d", path, len(got.Items()), len(got.Members()), len(want.items), len(want.members))
	}
	for i, item := range got.Items() {
		if d := difference(fmt.Sprintf("%s[%d]", path, i), item, want.items[i]); d != "" {
			return d
		}
	}
	for i, m := range got.Members() {
		if m.Name != want.members[i].name {
			return fmt.Sprintf("%s: member %q, want %q", path, m.Name, want.members[i].name)
		}
		if d := difference(path+"."+m.Name, m.Value, want.members[i].value); d != "" {
			return d
		}
	}
	return ""
}

// rawAnswer decodes a whole answer as one Value, envelope included.
func rawAnswer(src io.Reader, limits Limits) (Value, error) {
	s := newScanner(src, limits)
	defer s.release()
	for _, el := range []element{elMethodResponse, elParams, elParam} {
		if empty, err := s.start(el); err != nil || empty {
			return Value{}, orMalformed(s, err, "empty")
		}
	}
	v, err := s.value()
	if err != nil {
		return Value{}, err
	}
	for _, el := range []element{elParam, elParams, elMethodResponse} {
		if err := s.finish(el); err != nil {
			return Value{}, err
		}
	}
	return v, s.atEnd()
}
