package wire

import (
	"math"
	"strconv"
	"strings"
	"time"
)

const xmlHead = `<?xml version="1.0"?><methodResponse><params><param>`
const xmlTail = `</param></params></methodResponse>`

// XMLSuccess writes the answer of a call that succeeded.
func XMLSuccess(value any) []byte {
	out := append(make([]byte, 0, 512), xmlHead+`<value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>`...)
	out = AppendXML(out, value)
	return append(out, `</member></struct></value>`+xmlTail...)
}

// XMLFailure writes the answer of a call that failed: an ordinary answer, never a fault.
func XMLFailure(code string, params []string) []byte {
	out := append(make([]byte, 0, 512), xmlHead+`<value><struct><member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription</name>`...)
	out = AppendXML(out, append([]string{code}, params...))
	return append(out, `</member></struct></value>`+xmlTail...)
}

// XMLBare writes an answer without Status: system.listMethods is the one that does.
func XMLBare(value any) []byte {
	return append(AppendXML([]byte(xmlHead), value), xmlTail...)
}

// AppendXML appends one <value>…</value>.
func AppendXML(out []byte, v any) []byte {
	out = append(out, "<value>"...)
	switch v := v.(type) {
	case nil:
	case string:
		out = appendXMLText(out, v)
	case int64:
		out = strconv.AppendInt(out, v, 10)
	case int:
		out = strconv.AppendInt(out, int64(v), 10)
	case Int32:
		out = appendXMLTag(out, "i4", strconv.Itoa(int(v)))
	case bool:
		bit := "0"
		if v {
			bit = "1"
		}
		out = appendXMLTag(out, "boolean", bit)
	case float64:
		out = appendXMLTag(out, "double", xmlFloat(v))
	case DateTime:
		out = appendXMLTag(out, "dateTime.iso8601", string(v))
	case time.Time:
		out = appendXMLTag(out, "dateTime.iso8601", FormatDate(v))
	case []any:
		out = appendXMLArray(out, v)
	case []string:
		out = appendXMLArray(out, v)
	default:
		out = append(out, "<struct>"...)
		eachMember(v, func(name string, value any) bool {
			out = appendXMLMember(out, name, value)
			return true
		})
		out = append(out, "</struct>"...)
	}
	return append(out, "</value>"...)
}

func appendXMLTag(out []byte, tag, text string) []byte {
	return append(append(append(append(append(append(append(out, '<'), tag...), '>'), text...), "</"...), tag...), '>')
}

func appendXMLArray[E any](out []byte, elements []E) []byte {
	out = append(out, "<array><data>"...)
	for _, e := range elements {
		out = AppendXML(out, e)
	}
	return append(out, "</data></array>"...)
}

func appendXMLMember(out []byte, name string, value any) []byte {
	out = appendXMLText(append(out, "<member><name>"...), name)
	out = AppendXML(append(out, "</name>"...), value)
	return append(out, "</member>"...)
}

func appendXMLText(out []byte, text string) []byte {
	start := 0
	for i := range len(text) {
		var entity string
		switch text[i] {
		case '<':
			entity = "&lt;"
		case '>':
			entity = "&gt;"
		case '&':
			entity = "&amp;"
		case '"':
			entity = "&quot;"
		default:
			continue
		}
		out = append(append(out, text[start:i]...), entity...)
		start = i + 1
	}
	return append(out, text[start:]...)
}

func xmlFloat(v float64) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	text := strconv.FormatFloat(v, 'g', 16, 64)
	if mantissa, exponent, ok := strings.Cut(text, "e"); ok {
		if strings.Contains(mantissa, ".") {
			mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		}
		return mantissa + "e" + exponent
	}
	return text
}
