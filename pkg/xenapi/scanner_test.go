package xenapi

import (
	"errors"
	"io"
	"math"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"
)

func inAnswer(value string) string {
	return `<?xml version="1.0"?><methodResponse><params><param>` + value + `</param></params></methodResponse>`
}

// The forms in which values come, from any XenAPI of the last fifteen years and from servers that only resemble one.
func TestForms(t *testing.T) {
	t.Parallel()
	str := func(s string) Value { return StringValue(s) }
	cases := map[string]Value{
		`<value></value>`:                           str(""),
		`<value/>`:                                  str(""),
		`<value />`:                                 str(""),
		`<value><string></string></value>`:          str(""),
		`<value><string/></value>`:                  str(""),
		`<value>  two spaces  </value>`:             str("  two spaces  "),
		"<value>\n</value>":                         str("\n"),
		"<value>\n  <string> x </string>\n</value>": str(" x "),
		"<value>a\r\nb</value>":                     str("a\r\nb"),
		`<value>&lt;&gt;&amp;&quot;&apos;&#65;&#x20AC;</value>`:            str(`<>&"'A€`),
		`<value>a<!-- not this -->b</value>`:                               str("ab"),
		`<value>a<![CDATA[<b>&amp;]]]>c</value>`:                           str("a<b>&amp;]c"),
		`<value><!-- c --><i4>1</i4><?pi?></value>`:                        {kind: KindInt, text: "1"},
		`<value><int>-7</int></value>`:                                     {kind: KindInt, text: "-7"},
		`<value><i8>9223372036854775807</i8></value>`:                      {kind: KindInt, text: "9223372036854775807"},
		`<value><double>nan</double></value>`:                              {kind: KindDouble, text: "nan"},
		`<value><nil/></value>`:                                            {kind: KindNil},
		`<value><array><data></data></array></value>`:                      {kind: KindArray},
		`<value><array><data/></array></value>`:                            {kind: KindArray},
		`<value><array/></value>`:                                          {kind: KindArray},
		`<value><struct/></value>`:                                         {kind: KindStruct},
		`<value ><struct ></struct ></value >`:                             {kind: KindStruct},
		`<value><struct><member><name/><value/></member></struct></value>`: {kind: KindStruct, members: []Member{{}}},
		"<value>\n<array>\n<data>\n<value>a</value>\n<!-- c -->\n<value/>\n</data>\n</array>\n</value>":     {kind: KindArray, items: []Value{str("a"), str("")}},
		"<value><struct>\n<member>\n<name> k&amp;y </name>\n<value>v</value>\n</member>\n</struct></value>": {kind: KindStruct, members: []Member{{" k&y ", str("v")}}},
	}
	for text, want := range cases {
		for name, body := range map[string]string{"at once": inAnswer(text), "with space after": inAnswer(text) + "\n\n"} {
			got, err := rawAnswer(strings.NewReader(body), DefaultLimits)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s: %+v, %v", text, name, got, err)
			}
		}
		got, err := rawAnswer(iotest.OneByteReader(strings.NewReader(inAnswer(text))), DefaultLimits)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s in single bytes: %+v, %v", text, got, err)
		}
	}
}

func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	small := Limits{MaxBytes: 4 << 20, MaxText: 256 << 10, MaxDepth: 8}
	cases := map[string]struct {
		body string
		is   error
	}{
		"empty":                  {"", ErrTruncated},
		"entity of its own":      {inAnswer(`<value>&xxe;</value>`), ErrMalformed},
		"bare ampersand":         {inAnswer(`<value>a & b</value>`), ErrMalformed},
		"long entity":            {inAnswer(`<value>&` + strings.Repeat("a", 1000) + `;</value>`), ErrMalformed},
		"surrogate":              {inAnswer(`<value>&#xD800;</value>`), ErrMalformed},
		"beyond Unicode":         {inAnswer(`<value>&#x110000;</value>`), ErrMalformed},
		"document type":          {`<!DOCTYPE a [<!ENTITY b "c">]>` + inAnswer(`<value/>`), ErrMalformed},
		"attribute":              {inAnswer(`<value a="b>c"/>`), ErrMalformed},
		"depth":                  {inAnswer(strings.Repeat("<value><array><data>", 9)), ErrTooLarge},
		"depth by structs":       {inAnswer(strings.Repeat("<value><struct><member><name>a</name>", 9)), ErrTooLarge},
		"one long text":          {inAnswer(`<value>` + strings.Repeat("x", 600<<10) + `</value>`), ErrTooLarge},
		"one long text, escaped": {inAnswer(`<value>&lt;` + strings.Repeat("x", 600<<10) + `</value>`), ErrTooLarge},
		"one long CDATA":         {inAnswer(`<value><![CDATA[` + strings.Repeat("]x", 300<<10) + `]]></value>`), ErrTooLarge},
		"one long tag":           {inAnswer(`<` + strings.Repeat("x", 600<<10)), ErrTooLarge},
		"size":                   {inAnswer(`<value><array><data>` + strings.Repeat("<value/>", 1<<20) + `</data></array></value>`), ErrTooLarge},
		"fault":                  {`<methodResponse><fault><value/></fault></methodResponse>`, ErrMalformed},
		"two values":             {inAnswer(`<value/><value/>`), ErrMalformed},
		"text among members":     {inAnswer(`<value><struct>x</struct></value>`), ErrMalformed},
		"text among items":       {inAnswer(`<value><array><data>x</data></array></value>`), ErrMalformed},
		"text before a type":     {inAnswer(`<value>x<i4>1</i4></value>`), ErrMalformed},
		"crossed tags":           {inAnswer(`<value><array><data></array></data></value>`), ErrMalformed},
		"unknown element":        {inAnswer(`<value><script/></value>`), ErrMalformed},
		"something after it":     {inAnswer(`<value/>`) + "x", ErrMalformed},
		"member without a name":  {inAnswer(`<value><struct><member><value/></member></struct></value>`), ErrMalformed},
		"comment without an end": {inAnswer(`<value><!-- `), ErrTruncated},
		"end in a tag":           {`<methodResp`, ErrTruncated},
	}
	for name, test := range cases {
		v, err := rawAnswer(strings.NewReader(test.body), small)
		var decode *DecodeError
		if !errors.Is(err, test.is) || !errors.As(err, &decode) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if decode.Offset < 0 || decode.Offset > int64(len(test.body)) {
			t.Errorf("%s: offset %d of %d", name, decode.Offset, len(test.body))
		}
		if reflect.DeepEqual(v, Value{kind: KindString, text: "x"}) {
			t.Errorf("%s: a part of the answer came out", name)
		}
	}
}

func TestTypedReadersRefuseOtherTypes(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ field, value string }{
		"integer": {"memory_static_max", "<value>many</value>"}, "boolean as an integer": {"memory_static_max", "<value><boolean>1</boolean></value>"},
		"boolean": {"is_a_template", "<value>maybe</value>"}, "map": {"other_config", "<value>x</value>"}, "set": {"tags", "<value><struct/></value>"},
		"string": {"uuid", "<value><array><data/></array></value>"}, "date": {"snapshot_time", "<value>yesterday</value>"},
		"number": {"HVM_shadow_multiplier", "<value>x</value>"},
	}
	for name, test := range cases {
		var vm VM
		body := success("<value><struct><member><name>" + test.field + "</name>" + test.value + "</member></struct></value>")
		_, err := readAnswer(strings.NewReader(body), DefaultLimits, func(s *scanner) error { return readVM(s, &vm) })
		var decode *DecodeError
		if !errors.Is(err, ErrUnexpectedType) || !errors.As(err, &decode) || !strings.Contains(decode.Field, test.field) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAccessorsOfValues(t *testing.T) {
	t.Parallel()
	v, err := rawAnswer(strings.NewReader(inAnswer("<value><struct><member><name>a</name><value>1</value></member><member><name>b</name><value><base64>aGk=</base64></value>"+
		"</member><member><name>c</name><value><dateTime.iso8601>20261122T08:23:31Z</dateTime.iso8601></value></member></struct></value>")), DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if m := v.StringMap(); len(m) != 3 || m["a"] != "1" {
		t.Errorf("map %v", m)
	}
	b, _ := v.Get("b")
	if raw, err := b.Bytes(); err != nil || string(raw) != "hi" {
		t.Errorf("%q, %v", raw, err)
	}
	if _, ok := v.Get("d"); ok {
		t.Error("a member that is not there")
	}
	a, _ := v.Get("a")
	c, _ := v.Get("c")
	if _, err := c.Time(); err != nil {
		t.Error(err)
	}
	for name, read := range map[string]func() error{
		"a struct as an integer": func() error { _, err := v.Int64(); return err }, "a date as a number": func() error { _, err := c.Float64(); return err },
		"an integer as a date": func() error { _, err := a.Time(); return err }, "a struct as a boolean": func() error { _, err := v.Bool(); return err },
		"a date as an integer": func() error { _, err := c.Int64(); return err }, "a struct as a date": func() error { _, err := v.Time(); return err },
		"not base64": func() error { _, err := c.Bytes(); return err },
	} {
		if err := read(); !errors.Is(err, ErrUnexpectedType) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnvelopes(t *testing.T) {
	t.Parallel()
	read := func(body string) (answer, Value, error) {
		var v Value
		a, err := readAnswer(strings.NewReader(body), DefaultLimits, func(s *scanner) error { return readValue(s, &v) })
		return a, v, err
	}
	if _, v, err := read(inAnswer("<value><array><data><value>system.listMethods</value></data></array></value>")); err != nil || len(v.Items()) != 1 {
		t.Errorf("an answer that is not wrapped: %v, %v", v, err)
	}
	if a, _, err := read(failure("A", "b")); err != nil || !a.failed || strings.Join(a.description, " ") != "A b" {
		t.Errorf("%+v, %v", a, err)
	}
	if e := newError("m", nil); e.Code != ErrInternalError {
		t.Errorf("a failure without a description: %v", e)
	}
	for _, bad := range []string{
		inEnvelope("<member><name>Status</name><value>Success</value></member>"), inEnvelope("<member><name>Value</name><value/></member>"),
		inEnvelope("<member><name>Status</name><value>Perhaps</value></member><member><name>Value</name><value/></member>"), inEnvelope(""),
	} {
		if _, _, err := read(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"1": 1, "0.25": 0.25, "inf": math.Inf(1), "-inf": math.Inf(-1), "1e-05": 1e-5, "-0": math.Copysign(0, -1)} {
		if f, err := (Value{kind: KindDouble, text: text}).Float64(); err != nil || f != want {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
	for _, text := range []string{"nan", "-nan", "NaN"} {
		if f, err := (Value{kind: KindDouble, text: text}).Float64(); err != nil || !math.IsNaN(f) {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
	want := time.Date(2026, 11, 22, 8, 23, 31, 0, time.UTC)
	for _, text := range []string{"20261122T08:23:31Z", "20261122T08:23:31", "2026-11-22T08:23:31Z", "20261122T10:23:31+02:00", "20261122T08:23:31.000Z"} {
		if got, err := parseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "20261322T08:23:31Z", "20260231T08:23:31Z", "20261122T25:23:31Z", "2026112208:23:31ZZ"} {
		if got, err := parseTime(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
	for text, want := range map[string]int64{"0": 0, "-1": -1, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64, " 5 ": 5} {
		var n int64
		s := newScanner(strings.NewReader("<value>"+text+"</value>"), Limits{})
		if err := readInt(s, &n); err != nil || n != want {
			t.Errorf("%q: %d, %v", text, n, err)
		}
		s.release()
	}
}

// A large answer is read through a window: what stays is the values, not the text.
func TestALargeAnswerIsNotHeldTwice(t *testing.T) {
	const records, size = 2000, 20 << 10
	src := &generatedAnswer{records: records, payload: strings.Repeat("p", size)}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	total := 0
	_, err := readAnswer(src, DefaultLimits, func(s *scanner) error {
		return readMap(s, &map[VMRef]VM{}, readKey[VMRef], func(s *scanner, vm *VM) error {
			err := readVM(s, vm)
			total += len(vm.Recommendations)
			vm.Recommendations = "" // let go, as a cache does with what it does not keep
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if total != records*size {
		t.Errorf("%d bytes of recommendations, want %d", total, records*size)
	}
	text := uint64(records * size)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > text+text/2 {
		t.Errorf("allocated %d MiB for a text of %d MiB", allocated>>20, text>>20)
	}
}

// generatedAnswer is a VM.get_all_records of any size, made without memory of its own to speak of.
type generatedAnswer struct {
	records int
	payload string
	at      int
	pending []string
}

func (g *generatedAnswer) Read(p []byte) (int, error) {
	if len(g.pending) == 0 {
		switch {
		case g.at == 0:
			head := success("")
			g.pending = []string{head[:strings.Index(head, "</member></struct></value></param>")], "<value><struct>"}
		case g.at <= g.records:
			g.pending = append(g.pending, "<member><name>", strconv.Itoa(g.at), "</name><value><struct><member><name>recommendations</name><value>",
				g.payload, "</value></member></struct></value></member>")
		case g.at == g.records+1:
			g.pending = []string{"</struct></value></member></struct></value></param></params></methodResponse>"}
		default:
			return 0, io.EOF
		}
		g.at++
	}
	n := copy(p, g.pending[0])
	if g.pending[0] = g.pending[0][n:]; g.pending[0] == "" {
		g.pending = g.pending[1:]
	}
	return n, nil
}

// FuzzAnswer looks for panics, for hangs, and for answers that encoding/xml reads and the scanner reads otherwise.
func FuzzAnswer(f *testing.F) {
	for i, one := range recordedAnswers(f) {
		if len(one.Response.Body) < 4000 && i%7 == 0 {
			f.Add(one.Response.Body)
		}
	}
	for _, text := range []string{`<value/>`, `<value>&#x20AC;<![CDATA[x]]></value>`, `<value><array><data><value><i4>1</i4></value></data></array></value>`} {
		f.Add(inAnswer(text))
	}
	limits := Limits{MaxBytes: 1 << 20, MaxText: 1 << 18, MaxDepth: 32}
	f.Fuzz(func(t *testing.T, body string) {
		got, err := rawAnswer(strings.NewReader(body), limits)
		pieces, pieceErr := rawAnswer(iotest.OneByteReader(strings.NewReader(body)), limits)
		if (err == nil) != (pieceErr == nil) || err == nil && !reflect.DeepEqual(got, pieces) {
			t.Fatalf("where reads end matters: %v and %v", err, pieceErr)
		}
		if err != nil {
			var decode *DecodeError
			if !errors.As(err, &decode) {
				t.Fatalf("not a DecodeError: %v", err)
			}
			return
		}
		if strings.Contains(body, "\r") || !utf8.ValidString(body) {
			return // XML's normalisation of line ends, which no XenAPI expects, is not done
		}
		want, err := independent(body)
		if err != nil {
			return // stricter than we are
		}
		if d := difference("answer", got, want); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzTyped looks for panics in the typed readers and in what a task's result may be.
func FuzzTyped(f *testing.F) {
	for i, one := range recordedAnswers(f) {
		if len(one.Response.Body) < 12000 && i%11 == 0 {
			f.Add(one.Response.Body)
		}
	}
	f.Fuzz(func(t *testing.T, body string) {
		limits := Limits{MaxBytes: 1 << 20, MaxText: 1 << 18, MaxDepth: 32}
		var batch EventBatch
		var vm VM
		for _, read := range []func(*scanner) error{
			func(s *scanner) error { return readRecord(s, &batch) },
			func(s *scanner) error { return readVM(s, &vm) },
		} {
			var decode *DecodeError
			if _, err := readAnswer(strings.NewReader(body), limits, read); err != nil && !errors.As(err, &decode) {
				t.Fatalf("not a DecodeError: %v", err)
			}
		}
		r := Task{Result: body}
		_, _ = r.Value()
	})
}

// FuzzArguments looks for arguments that do not arrive as they were.
func FuzzArguments(f *testing.F) {
	f.Add("key", "value")
	f.Add("<&>\"'", "a]]>b\r\n\t")
	f.Add("", "\x00")
	f.Fuzz(func(t *testing.T, key, value string) {
		body, err := encodeCall("m", []any{map[string]string{key: value}})
		if err != nil {
			if !errors.Is(err, ErrBadArgument) {
				t.Fatal(err)
			}
			return
		}
		_, params := parseCall(t, string(body))
		if len(params) != 1 || len(params[0].members) != 1 || params[0].members[0].name != key || params[0].members[0].value.text != value {
			t.Fatalf("%q: %q arrived as %v", key, value, params)
		}
	})
}
