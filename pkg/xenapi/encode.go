package xenapi

import (
	"encoding/xml"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kolo/xmlrpc"
)

// maxRequestBody is the largest call that a XenAPI reads (constants.ml: 300 KiB); a larger one would come back as a torn connection.
const maxRequestBody = 300 * 1024

// ErrBadArgument says that an argument cannot be sent as XML-RPC, or that a call is larger than a XenAPI reads. Nothing has been sent.
var ErrBadArgument = errors.New("argument cannot be sent")

// encodeCall makes the body of a call. kolo/xmlrpc writes it; everything that it would write wrongly is put right or refused before: it does
// not escape member names, writes a nil as no value at all, a wide integer as <int>, and replaces characters that XML cannot hold.
func encodeCall(method string, args []any) ([]byte, error) {
	wired := make([]any, len(args))
	for i, arg := range args {
		w, err := wire(arg)
		if err != nil {
			return nil, fmt.Errorf("%s: argument %d: %w", method, i, err)
		}
		wired[i] = w
	}
	body, err := xmlrpc.EncodeMethodCall(method, wired...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", method, ErrBadArgument, err)
	}
	if len(body) > maxRequestBody {
		return nil, fmt.Errorf("%s: %w: the call has %d bytes, a XenAPI reads at most %d", method, ErrBadArgument, len(body), maxRequestBody)
	}
	return body, nil
}

// wire turns an argument into what kolo encodes as a XenAPI wants it: integers as decimal strings, null references spelt out.
func wire(arg any) (any, error) {
	switch v := arg.(type) {
	case nil:
		return nil, fmt.Errorf("%w: nil", ErrBadArgument)
	case string:
		return v, checkString(v)
	case bool, float64:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case int:
		return strconv.Itoa(v), nil
	case time.Time:
		return v.UTC(), nil
	case Value:
		return wireValue(v)
	case xmlrpc.Base64:
		return v, nil
	case interface{ IsNull() bool }:
		if v.IsNull() {
			return nullRef, nil
		}
	}
	return wireReflect(reflect.ValueOf(arg))
}

func wireReflect(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.String:
		return v.String(), checkString(v.String())
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), nil
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Slice, reflect.Array:
		out := make([]any, v.Len())
		for i := range out {
			one, err := wire(v.Index(i).Interface())
			if err != nil {
				return nil, err
			}
			out[i] = one
		}
		return out, nil
	case reflect.Map:
		out := make(map[string]any, v.Len())
		for entries := v.MapRange(); entries.Next(); {
			key, err := wire(entries.Key().Interface())
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("%w: a map with keys of type %s", ErrBadArgument, v.Type().Key())
			}
			one, err := wire(entries.Value().Interface())
			if err != nil {
				return nil, err
			}
			out[escapeName(name)] = one
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%w: a %s", ErrBadArgument, v.Type())
	}
}

// wireValue sends a value back in the type in which it came.
func wireValue(v Value) (any, error) {
	switch v.kind {
	case KindArray:
		return wire(v.items)
	case KindStruct:
		out := make(map[string]any, len(v.members))
		for _, m := range v.members {
			if err := checkString(m.Name); err != nil {
				return nil, err
			}
			one, err := wireValue(m.Value)
			if err != nil {
				return nil, err
			}
			out[escapeName(m.Name)] = one
		}
		return out, nil
	case KindBool:
		return v.Bool()
	case KindDouble:
		return v.Float64()
	case KindTime:
		return v.Time()
	case KindBase64:
		return xmlrpc.Base64(v.text), nil
	case KindNil:
		return nil, fmt.Errorf("%w: nil", ErrBadArgument)
	default:
		return v.text, checkString(v.text)
	}
}

// escapeName does for a member's name what kolo does only for values.
func escapeName(name string) string {
	if !strings.ContainsAny(name, "<>&\"'\r\n\t") {
		return name
	}
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(name)); err != nil { // a strings.Builder does not fail
		return name
	}
	return b.String()
}

// checkString refuses what XML 1.0 cannot carry. Sending something else in its place would be a silent change of the user's data.
func checkString(s string) error {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, width := utf8.DecodeRuneInString(s[i:]); width == 1 {
				return fmt.Errorf("%w: a string that is not UTF-8", ErrBadArgument)
			}
		}
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return fmt.Errorf("%w: a string with the control character %U", ErrBadArgument, r)
		}
	}
	return nil
}

// withOptional drops zero arguments from the end, down to the number that every server knows.
func withOptional(required int, args ...any) []any {
	for len(args) > required && isZero(args[len(args)-1]) {
		args = args[:len(args)-1]
	}
	return args
}

// unlessTrue is a boolean that a server takes for true when it is missing.
type unlessTrue bool

func isZero(arg any) bool {
	switch v := arg.(type) {
	case unlessTrue:
		return bool(v)
	case interface{ IsNull() bool }:
		return v.IsNull()
	}
	v := reflect.ValueOf(arg)
	if v.Kind() == reflect.Map || v.Kind() == reflect.Slice {
		return v.Len() == 0
	}
	return v.IsZero()
}
