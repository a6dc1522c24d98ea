package xenapi

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The recorded event batches decode into typed records, each with the reference's own class.
func TestRecordedEventBatches(t *testing.T) {
	t.Parallel()
	typed, deleted := 0, 0
	for _, one := range recordedAnswers(t) {
		if !strings.Contains(one.Request.Body, "<methodName>event.from</methodName>") || strings.Contains(one.Response.Body, "Failure") {
			continue
		}
		var batch EventBatch
		if _, err := readAnswer(strings.NewReader(one.Response.Body), DefaultLimits, func(s *scanner) error { return readRecord(s, &batch) }); err != nil {
			t.Fatalf("%04d: %v", one.Number, err)
		}
		if batch.Token == "" || len(batch.ValidRefCounts) < 20 {
			t.Errorf("%04d: token %q, %d counts", one.Number, batch.Token, len(batch.ValidRefCounts))
		}
		for _, event := range batch.Events {
			switch record := event.Record.(type) {
			case nil:
				deleted++
				if event.Operation != EventOperationDel {
					t.Errorf("%04d: %s %s without a record", one.Number, event.Operation, event.Class)
				}
			case VM:
				typed++
				if record.UUID == "" || len(record.Extra) > 0 || event.Class != "vm" {
					t.Errorf("%04d: VM %q, extra %v", one.Number, record.UUID, record.Extra)
				}
			case Value:
				if newlyTyped(event.Class) {
					t.Errorf("%04d: %s is not typed", one.Number, event.Class)
				}
			}
			if event.Ref == "" || event.ID == 0 && event.Class != "message" {
				t.Errorf("%04d: event %+v", one.Number, event)
			}
		}
	}
	if typed == 0 || deleted == 0 {
		t.Errorf("%d VMs, %d deletions", typed, deleted)
	}
}

func newlyTyped(class string) bool {
	switch class {
	case "vm", "vdi", "vbd", "vif", "task", "sr", "host", "pool", "network", "message":
		return true
	}
	return false
}

// Every recorded record of a class with a type, wherever it stands, decodes into that type with every field as the independent decoder sees it.
func TestRecordedRecordsFillTheTypedRecords(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for _, one := range recordedAnswers(t) {
		class, many := recordsAskedFor(one.Request.Body)
		if class == "" || strings.Contains(one.Response.Body, "<value>Failure</value>") {
			continue
		}
		records := map[string]any{}
		read := func(s *scanner, out *any) (err error) {
			*out, err = readSnapshot(s, strings.ToLower(class))
			return err
		}
		_, err := readAnswer(strings.NewReader(one.Response.Body), DefaultLimits, func(s *scanner) error {
			if many {
				return readMap(s, &records, readKey[string], read)
			}
			var record any
			err := read(s, &record)
			records[""] = record
			return err
		})
		if err != nil {
			t.Fatalf("%04d: %v", one.Number, err)
		}
		answer, err := independent(one.Response.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := answer.members[1].value
		if !many {
			want = node{members: []namedNode{{"", want}}}
		}
		if len(want.members) != len(records) {
			t.Fatalf("%04d: %d records, want %d", one.Number, len(records), len(want.members))
		}
		for _, record := range want.members {
			if _, untyped := records[record.name].(Value); untyped {
				continue
			}
			seen[class]++
			sameRecord(t, fmt.Sprintf("%04d %s", one.Number, class), reflect.ValueOf(records[record.name]), record.value)
		}
	}
	for _, class := range []string{"VM", "VDI", "VBD", "VIF", "SR", "PBD", "host", "pool", "network", "PIF", "task", "console", "VM_metrics", "VM_guest_metrics", "SM"} {
		if seen[class] == 0 {
			t.Errorf("no %s on record: %v", class, seen)
		}
	}
}

var recordCall = regexp.MustCompile(`<methodName>(\w+)\.(get_record|get_all_records|get_all_records_where)</methodName>`)

func recordsAskedFor(call string) (class string, many bool) {
	m := recordCall.FindStringSubmatch(call)
	if m == nil || m[1] == "session" || m[1] == "event" {
		return "", false
	}
	return m[1], m[2] != "get_record"
}

func sameRecord(t *testing.T, where string, record reflect.Value, want node) {
	t.Helper()
	fields := map[string]reflect.Value{}
	for i := range record.NumField() {
		fields[record.Type().Field(i).Tag.Get("json")] = record.Field(i)
	}
	for _, m := range want.members {
		field, ok := fields[m.name]
		if !ok {
			t.Errorf("%s: the field %s has no place", where, m.name)
			continue
		}
		if got := fromGo(field); got != fromNode(m.value) {
			t.Errorf("%s.%s: %s, want %s", where, m.name, got, fromNode(m.value))
		}
	}
}

// fromGo and fromNode print a value in the same way, whichever decoder it came from.
func fromGo(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return "1"
		}
		return "0"
	case reflect.Struct:
		return v.Interface().(time.Time).Format("20060102T15:04:05Z")
	case reflect.Float64:
		return fmt.Sprint(v.Float())
	case reflect.Slice:
		var items []string
		for i := range v.Len() {
			items = append(items, fromGo(v.Index(i)))
		}
		return fmt.Sprintf("%q", items)
	case reflect.Map:
		members := map[string]string{}
		for entries := v.MapRange(); entries.Next(); {
			members[fmt.Sprint(entries.Key())] = fromGo(entries.Value())
		}
		return fmt.Sprintf("%q", members)
	default:
		return fmt.Sprint(v)
	}
}

func fromNode(n node) string {
	switch n.kind {
	case "array":
		var items []string
		for _, item := range n.items {
			items = append(items, fromNode(item))
		}
		return fmt.Sprintf("%q", items)
	case "struct":
		members := map[string]string{}
		for _, m := range n.members {
			members[m.name] = fromNode(m.value)
		}
		return fmt.Sprintf("%q", members)
	case "double":
		f, _ := parseFloat(n.text)
		return fmt.Sprint(f)
	default:
		return n.text
	}
}

func TestUnknownFieldsAndValuesAreKept(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("VM.get_record", func([]node) string {
		return success(`<value><struct><member><name>power_state</name><value>Dreaming</value></member><member><name>uuid</name><value>u</value></member>` +
			`<member><name>new_map</name><value><struct><member><name>a&amp;b</name><value><i4>7</i4></value></member></struct></value></member></struct></value>`)
	})
	c := s.connect(nil)
	vm, err := c.VM.GetRecord(context.Background(), "OpaqueRef:vm")
	if err != nil {
		t.Fatal(err)
	}
	if vm.PowerState != "Dreaming" || vm.UUID != "u" || vm.MemoryStaticMax != 0 {
		t.Errorf("%+v", vm)
	}
	inner, ok := vm.Extra["new_map"].Get("a&b")
	if n, err := inner.Int64(); !ok || err != nil || n != 7 || inner.Kind() != KindInt {
		t.Errorf("extra %+v", vm.Extra)
	}
}

func TestAWaitForEventsDoesNotOutliveItsSession(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("event.from", func(p []node) string {
		if p[0].text == "OpaqueRef:session-1" {
			return failure("SESSION_INVALID", p[0].text)
		}
		return taskEvents("token in another session")
	})
	c := s.connect(nil)
	if _, err := c.EventFrom(context.Background(), []string{"vm"}, "00042,00001", time.Minute); !errors.Is(err, ErrEventsLost) {
		t.Errorf("err %v", err)
	}
	c.dropSession(c.session)
	if batch, err := c.EventFrom(context.Background(), []string{"vm"}, "", time.Minute); err != nil || batch.Serial != c.SessionSerial() {
		t.Errorf("batch %+v, err %v", batch, err)
	}
}
