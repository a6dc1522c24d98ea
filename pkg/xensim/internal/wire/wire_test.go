package wire

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

// TestFormsOfValues holds both encodings against the forms that recordings show.
func TestFormsOfValues(t *testing.T) {
	for name, c := range map[string]struct {
		value     any
		xml, json string
	}{
		"string":        {"a<b>&\"'", `<value>a&lt;b&gt;&amp;&quot;'</value>`, `"a<b>&\"'"`},
		"empty":         {"", `<value></value>`, `""`},
		"integer":       {int64(1 << 40), `<value>1099511627776</value>`, `1099511627776`},
		"small integer": {Int32(7), `<value><i4>7</i4></value>`, `7`},
		"boolean":       {true, `<value><boolean>1</boolean></value>`, `true`},
		"float":         {1.0, `<value><double>1</double></value>`, `1.0`},
		"not a number":  {math.NaN(), `<value><double>nan</double></value>`, `NaN`},
		"date":          {DateTime("19700101T00:00:00Z"), `<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>`, `"19700101T00:00:00Z"`},
		"set":           {[]string{"a", "b"}, `<value><array><data><value>a</value><value>b</value></data></array></value>`, `["a","b"]`},
		"map":           {map[string]string{"k": "v"}, `<value><struct><member><name>k</name><value>v</value></member></struct></value>`, `{"k":"v"}`},
		"empty map":     {map[string]string{}, `<value><struct></struct></value>`, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(AppendXML(nil, c.value)); got != c.xml {
				t.Errorf("XML %s, want %s", got, c.xml)
			}
			if got := string(AppendJSON(nil, c.value)); got != c.json {
				t.Errorf("JSON %s, want %s", got, c.json)
			}
		})
	}
}

func TestReadsWhatClientsSend(t *testing.T) {
	call, err := ParseXMLCall([]byte(`<?xml version="1.0"?><!-- c --><methodCall><methodName>VM.x</methodName><params>
		<param><value>untyped</value></param><param><value><string>a &lt; b &#228;</string></value></param>
		<param><value><i8>7</i8></value></param><param><value/></param><param><value><string/></value></param>
		<param><value><struct><member><name>k</name><value><array><data/></array></value></member></struct></value></param>
		<param><value><nil/></value></param><param><value><![CDATA[<raw>]]></value></param></params></methodCall>`))
	if err != nil {
		t.Fatal(err)
	}
	want := []any{"untyped", "a < b ä", int64(7), "", "", Struct{{"k", []any{}}}, nil, "<raw>"}
	if call.Method != "VM.x" || !reflect.DeepEqual(call.Params, want) {
		t.Errorf("%s %#v", call.Method, call.Params)
	}
}

func TestRefusesHostileXML(t *testing.T) {
	for name, body := range map[string]string{
		"entities": `<!DOCTYPE a [<!ENTITY b "x">]><methodCall><methodName>&b;</methodName></methodCall>`,
		"depth":    `<methodCall><methodName>a</methodName><params><param>` + strings.Repeat("<value><array><data>", 10_000),
		"cut":      `<methodCall><methodName>a</methodName><params><param><value><string>x`,
	} {
		t.Run(name, func(t *testing.T) {
			if call, err := ParseXMLCall([]byte(body)); err == nil {
				t.Errorf("read as %v", call)
			}
		})
	}
}

func FuzzParseXMLCall(f *testing.F) {
	f.Add([]byte(`<methodCall><methodName>a</methodName><params><param><value><int>1</int></value></param></params></methodCall>`))
	f.Add([]byte(`<methodCall><methodName/><params/></methodCall>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		call, err := ParseXMLCall(body)
		if err != nil {
			return
		}
		for _, v := range call.Params {
			if _, err := ParseXMLValue(string(AppendXML(nil, v))); err != nil {
				t.Errorf("%#v cannot be read back: %v", v, err)
			}
		}
	})
}

func FuzzParseJSONCall(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"VM.get_all","params":["a",1,2.5,true,{"k":[]}]}`))
	f.Add([]byte(`{"id":"x","method":"a","params":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		call, err := ParseJSONCall(body)
		if err == nil && len(call.Success(call.Params)) == 0 {
			t.Error("no answer")
		}
	})
}
