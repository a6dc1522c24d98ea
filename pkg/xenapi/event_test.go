package xenapi

import (
	"context"
	"errors"
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

// No recorded record holds a field that the typed records lose or do not know.
func TestRecordedRecordsFillTheTypedRecords(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, one := range recordedAnswers(t) {
		var m map[VMRef]VM
		if !strings.Contains(one.Request.Body, "<methodName>VM.get_all_records</methodName>") {
			continue
		}
		read := func(s *scanner) error { return readMap(s, &m, readKey[VMRef], readVM) }
		if a, err := readAnswer(strings.NewReader(one.Response.Body), DefaultLimits, read); err != nil {
			t.Fatalf("%04d: %v", one.Number, err)
		} else if a.failed {
			continue
		}
		want, err := independent(one.Response.Body)
		if err != nil {
			t.Fatal(err)
		}
		records := want.members[1].value.members
		if len(records) != len(m) {
			t.Fatalf("%d records, want %d", len(m), len(records))
		}
		for _, record := range records {
			seen++
			vm := m[VMRef(record.name)]
			for _, field := range record.value.members {
				switch field.name {
				case "uuid":
					same(t, field, vm.UUID)
				case "name_label":
					same(t, field, vm.NameLabel)
				case "power_state":
					same(t, field, string(vm.PowerState))
				case "recommendations":
					same(t, field, vm.Recommendations)
				case "memory_static_max":
					same(t, field, field.value.text)
				case "other_config":
					if len(field.value.members) != len(vm.OtherConfig) {
						t.Errorf("other_config has %d keys, want %d", len(vm.OtherConfig), len(field.value.members))
					}
				}
			}
			if len(vm.Extra) > 0 {
				t.Errorf("unknown fields %v", vm.Extra)
			}
		}
	}
	if seen == 0 {
		t.Error("no VM.get_all_records on record")
	}
}

func same(t *testing.T, field namedNode, got string) {
	t.Helper()
	if got != field.value.text {
		t.Errorf("%s: %q, want %q", field.name, got, field.value.text)
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
