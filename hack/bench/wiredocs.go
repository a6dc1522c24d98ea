package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// wireDocuments are one answer in three forms.
type wireDocuments struct {
	// xml is as a XenAPI sends it: no type tags on strings and integers, empty values.
	xml []byte
	// taggedXML has a tag on every value.
	taggedXML []byte
	// json is JSON-RPC's.
	json []byte
}

const recordings = "pkg/xensim/testdata/recordings/"

// loadWireDocuments multiplies the VMs of a recorded VM.get_all_records, which is on record over both protocols.
func loadWireDocuments(records int) (wireDocuments, error) {
	xmlBody, err := recordedBody(recordings+"0001-xmlrpc.jsonl.gz", 587)
	if err != nil {
		return wireDocuments{}, err
	}
	jsonBody, err := recordedBody(recordings+"1001-jsonrpc.jsonl.gz", 1587)
	if err != nil {
		return wireDocuments{}, err
	}
	var answer struct {
		Result map[string]json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal([]byte(jsonBody), &answer); err != nil {
		return wireDocuments{}, err
	}
	if len(answer.Result) < 10 || !strings.Contains(xmlBody, "<name>name_label</name>") {
		return wireDocuments{}, errors.New("the recording holds no VM records any more")
	}
	var raws []json.RawMessage
	for _, raw := range answer.Result {
		raws = append(raws, raw)
	}
	return multiply(raws, records)
}

func recordedBody(path string, number int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	lines := bufio.NewReader(unzipped)
	for {
		line, err := lines.ReadBytes('\n')
		var one struct {
			Number   int `json:"number"`
			Response struct {
				Body string `json:"body"`
			} `json:"response"`
		}
		if len(line) > 0 && json.Unmarshal(line, &one) == nil && one.Number == number {
			return one.Response.Body, nil
		}
		if errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%s: no recording %d", path, number)
		}
		if err != nil {
			return "", err
		}
	}
}

var uuidPattern = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// multiply makes n records of the recorded ones, each with uuids and references of its own, and writes them in the three forms.
func multiply(raws []json.RawMessage, n int) (wireDocuments, error) {
	var plain, tagged, asJSON bytes.Buffer
	const head = `<?xml version="1.0"?><methodResponse><params><param><value><struct><member><name>Status</name><value>%s</value></member><member><name>Value</name><value><struct>`
	fmt.Fprintf(&plain, head, "Success")
	fmt.Fprintf(&tagged, head, "<string>Success</string>")
	asJSON.WriteString(`{"jsonrpc":"2.0","result":{`)
	for i := range n {
		raw := uuidPattern.ReplaceAllFunc(raws[i%len(raws)], func(uuid []byte) []byte {
			return append([]byte(fmt.Sprintf("%08x", i)), uuid[8:]...)
		})
		ref := fmt.Sprintf("OpaqueRef:%08x-0000-4000-8000-000000000000", i)
		if i > 0 {
			asJSON.WriteByte(',')
		}
		fmt.Fprintf(&asJSON, "%q:%s", ref, raw)
		var record map[string]any
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		if err := decoder.Decode(&record); err != nil {
			return wireDocuments{}, err
		}
		for _, out := range []struct {
			b      *bytes.Buffer
			tagged bool
		}{{&plain, false}, {&tagged, true}} {
			fmt.Fprintf(out.b, "<member><name>%s</name>", ref)
			writeRecord(out.b, record, out.tagged)
			out.b.WriteString("</member>")
		}
	}
	const tail = `</struct></value></member></struct></value></param></params></methodResponse>`
	plain.WriteString(tail)
	tagged.WriteString(tail)
	asJSON.WriteString(`},"id":1}`)
	return wireDocuments{plain.Bytes(), tagged.Bytes(), asJSON.Bytes()}, nil
}

// writeRecord writes a record as XML-RPC. JSON does not tell dates from strings; the typed record does.
func writeRecord(b *bytes.Buffer, record map[string]any, tagged bool) {
	b.WriteString("<value><struct>")
	for _, f := range vmFields {
		value, ok := record[f.wire]
		if !ok {
			continue
		}
		fmt.Fprintf(b, "<member><name>%s</name>", f.wire)
		if f.t == timeType {
			fmt.Fprintf(b, "<value><dateTime.iso8601>%s</dateTime.iso8601></value>", value)
		} else {
			writeXML(b, value, tagged)
		}
		b.WriteString("</member>")
	}
	b.WriteString("</struct></value>")
}

func writeXML(b *bytes.Buffer, value any, tagged bool) {
	scalar := func(tag, text string) {
		if !tagged && (tag == "string" || tag == "int") {
			b.WriteString("<value>")
			_ = xml.EscapeText(b, []byte(text)) // to memory
			b.WriteString("</value>")
			return
		}
		b.WriteString("<value><" + tag + ">")
		_ = xml.EscapeText(b, []byte(text))
		b.WriteString("</" + tag + "></value>")
	}
	switch v := value.(type) {
	case string:
		scalar("string", v)
	case bool:
		scalar("boolean", map[bool]string{true: "1", false: "0"}[v])
	case json.Number:
		if strings.ContainsAny(v.String(), ".e") {
			scalar("double", v.String())
		} else {
			scalar("int", v.String())
		}
	case []any:
		b.WriteString("<value><array><data>")
		for _, item := range v {
			writeXML(b, item, tagged)
		}
		b.WriteString("</data></array></value>")
	case map[string]any:
		b.WriteString("<value><struct>")
		for key, item := range v {
			b.WriteString("<member><name>")
			_ = xml.EscapeText(b, []byte(key))
			b.WriteString("</name>")
			writeXML(b, item, tagged)
			b.WriteString("</member>")
		}
		b.WriteString("</struct></value>")
	}
}

// vmField is a field of xenapi.VM.
type vmField struct {
	name, wire string
	t          reflect.Type
}

var (
	timeType = reflect.TypeFor[time.Time]()
	vmFields = fieldsOfVM()
)

func fieldsOfVM() []vmField {
	var out []vmField
	for _, f := range reflect.VisibleFields(reflect.TypeFor[xenapi.VM]()) {
		if wire := f.Tag.Get("json"); wire != "-" {
			out = append(out, vmField{f.Name, wire, f.Type})
		}
	}
	return out
}

// plainRecord is a struct with all of xenapi.VM's fields, in types that decoders by reflection take: no named strings, and dates as text where the
// decoder knows no others.
func plainRecord(tag string, datesAsText bool) reflect.Type {
	var fields []reflect.StructField
	for _, f := range vmFields {
		t := plainType(f.t)
		if datesAsText && f.t == timeType {
			t = reflect.TypeFor[string]()
		}
		fields = append(fields, reflect.StructField{Name: f.name, Type: t, Tag: reflect.StructTag(tag + ":" + strconv.Quote(f.wire))})
	}
	return reflect.StructOf(fields)
}

func plainType(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.String:
		return reflect.TypeFor[string]()
	case reflect.Slice:
		return reflect.SliceOf(plainType(t.Elem()))
	case reflect.Map:
		return reflect.MapOf(plainType(t.Key()), plainType(t.Elem()))
	default:
		return t
	}
}

// envelopeOf is the whole answer: XML-RPC's Status and Value, JSON-RPC's result.
func envelopeOf(tag string, record reflect.Type) reflect.Type {
	value := "Value"
	if tag == "json" {
		value = "result"
	}
	return reflect.StructOf([]reflect.StructField{
		{Name: "Status", Type: reflect.TypeFor[string](), Tag: reflect.StructTag(tag + `:"Status"`)},
		{Name: "Value", Type: reflect.MapOf(reflect.TypeFor[string](), record), Tag: reflect.StructTag(tag + ":" + strconv.Quote(value))},
	})
}
