package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// JSONCall is a JSON-RPC request.
type JSONCall struct {
	Version int    // 1 or 2
	ID      []byte // as it stood
	Method  string
	Params  []any
}

// ParseError is a request that the server cannot read; it answers HTTP 500 with the text.
type ParseError struct{ Text string }

func (e *ParseError) Error() string { return e.Text }

func malformed(what string) error {
	return &ParseError{fmt.Sprintf("Jsonrpc.Malformed_method_request(%q)", what)}
}

// ParseJSONCall reads a JSON-RPC request.
func ParseJSONCall(body []byte) (*JSONCall, error) {
	value, err := parseJSON(body)
	if err != nil {
		return nil, err
	}
	request, ok := value.(Struct)
	if !ok {
		return nil, malformed("Invalid request body")
	}
	call := &JSONCall{Version: 1}
	if v, ok := request.Get("jsonrpc"); ok {
		if v != "2.0" {
			return nil, malformed("Invalid field 'jsonrpc' in request body")
		}
		call.Version = 2
	}
	id, _ := request.Get("id")
	switch id := id.(type) {
	case string:
		call.ID = appendJSONText(nil, id)
	case int64:
		call.ID = strconv.AppendInt(nil, id, 10)
	default:
		return nil, malformed("Invalid field 'id' in request body")
	}
	method, _ := request.Get("method")
	if call.Method, ok = method.(string); !ok {
		return nil, malformed("Invalid field 'method' in request body")
	}
	params, given := request.Get("params")
	switch params := params.(type) {
	case []any:
		call.Params = params
	case Struct:
		call.Params = []any{params} // named parameters count as one
	default:
		if given && call.Version == 1 || given && params != nil {
			return nil, malformed("Invalid field 'params' in request body")
		}
	}
	return call, nil
}

// Success writes the answer of a call that succeeded.
func (c *JSONCall) Success(value any) []byte {
	if c.Version == 1 {
		out := AppendJSON([]byte(`{"result":`), value)
		return append(append(append(out, `,"error":null,"id":`...), c.ID...), '}')
	}
	out := AppendJSON([]byte(`{"jsonrpc":"2.0","result":`), value)
	return append(append(append(out, `,"id":`...), c.ID...), '}')
}

// Failure writes the answer of a call that failed.
func (c *JSONCall) Failure(code string, params []string) []byte {
	if c.Version == 1 {
		out := AppendJSON([]byte(`{"result":null,"error":`), append([]string{code}, params...))
		return append(append(append(out, `,"id":`...), c.ID...), '}')
	}
	out := appendJSONText([]byte(`{"jsonrpc":"2.0","error":{"code":1,"message":`), code)
	out = AppendJSON(append(out, `,"data":`...), append([]string{}, params...))
	return append(append(append(out, `},"id":`...), c.ID...), '}')
}

// AppendJSON appends one value.
func AppendJSON(out []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(out, `""`...)
	case string:
		return appendJSONText(out, v)
	case int64:
		return strconv.AppendInt(out, v, 10)
	case int:
		return strconv.AppendInt(out, int64(v), 10)
	case Int32:
		return strconv.AppendInt(out, int64(v), 10)
	case bool:
		return strconv.AppendBool(out, v)
	case float64:
		return append(out, jsonFloat(v)...)
	case DateTime:
		return appendJSONText(out, string(v))
	case time.Time:
		return appendJSONText(out, FormatDate(v))
	case []any:
		return appendJSONArray(out, v)
	case []string:
		return appendJSONArray(out, v)
	}
	out = append(out, '{')
	first := true
	eachMember(v, func(name string, value any) bool {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(appendJSONText(out, name), ':')
		out = AppendJSON(out, value)
		return true
	})
	return append(out, '}')
}

func eachMember(v any, yield func(string, any) bool) {
	switch v := v.(type) {
	case map[string]string:
		for _, key := range sortedKeys(v) {
			yield(key, v[key])
		}
	case map[string]any:
		for _, key := range sortedKeys(v) {
			yield(key, v[key])
		}
	case Struct:
		for _, m := range v {
			yield(m.Name, m.Value)
		}
	case Marshaler:
		v.Members(yield)
	default:
		panic(fmt.Sprintf("wire: cannot write a %T", v))
	}
}

func appendJSONArray[E any](out []byte, elements []E) []byte {
	out = append(out, '[')
	for i, e := range elements {
		if i > 0 {
			out = append(out, ',')
		}
		out = AppendJSON(out, e)
	}
	return append(out, ']')
}

// appendJSONText escapes as ocaml-rpc does: only what JSON demands.
func appendJSONText(out []byte, text string) []byte {
	out = append(out, '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"':
			out = append(out, `\"`...)
		case c == '\\':
			out = append(out, `\\`...)
		case c == '\n':
			out = append(out, `\n`...)
		case c == '\r':
			out = append(out, `\r`...)
		case c == '\t':
			out = append(out, `\t`...)
		case c == '\b':
			out = append(out, `\b`...)
		case c == '\f':
			out = append(out, `\f`...)
		case c < 0x20:
			out = append(out, fmt.Sprintf(`\u%04x`, c)...)
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}

// jsonFloat always shows a point, so that a float stays one; NaN and the infinities are written bare, as xapi does.
func jsonFloat(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	text := strconv.FormatFloat(v, 'g', 17, 64)
	if short := strconv.FormatFloat(v, 'g', 16, 64); mustParse(short) == v {
		text = short
	}
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text
}

func mustParse(text string) float64 {
	v, _ := strconv.ParseFloat(text, 64)
	return v
}

func parseJSON(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, &ParseError{`Yojson.Json_error("Blank input data")`}
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	value, err := jsonValue(decoder)
	if err != nil {
		return nil, yojsonError(body, err)
	}
	return value, nil
}

// yojsonError tells where reading stopped in the words of the real server as far as its callers can depend on them.
func yojsonError(body []byte, _ error) error {
	if body[0] == '<' {
		end := len(body)
		if i := bytes.Index(body, []byte("<methodCall>")); i >= 0 {
			end = i + len("<methodCall>")
		}
		return &ParseError{fmt.Sprintf("Yojson.Json_error(%s)", ocamlQuote(fmt.Sprintf(
			"Line 1, bytes 1-%d:\nExpected string or identifier but found '%s'", end, body[1:end])))}
	}
	if utf8.Valid(body) {
		return &ParseError{fmt.Sprintf("Yojson.Json_error(%s)", ocamlQuote(fmt.Sprintf(
			"Line 1, bytes %d-%d:\nUnexpected end of input", len(body)-1, len(body))))}
	}
	return &ParseError{`Yojson.Json_error("Invalid UTF-8")`}
}

func ocamlQuote(text string) string {
	return `"` + strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`).Replace(text) + `"`
}

func jsonValue(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '[' {
			return jsonArray(decoder)
		}
		return jsonObject(decoder)
	case json.Number:
		if i, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return i, nil
		}
		return t.Float64()
	default:
		return t, nil
	}
}

func jsonArray(decoder *json.Decoder) (any, error) {
	array := []any{}
	for decoder.More() {
		v, err := jsonValue(decoder)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
	}
	_, err := decoder.Token()
	return array, err
}

func jsonObject(decoder *json.Decoder) (any, error) {
	object := Struct{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("member name is %v", key)
		}
		v, err := jsonValue(decoder)
		if err != nil {
			return nil, err
		}
		object = append(object, Member{name, v})
	}
	_, err := decoder.Token()
	return object, err
}
