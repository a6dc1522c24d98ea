package datamodel

import "testing"

func TestProfiles(t *testing.T) {
	old, err := Load("24.19")
	if err != nil {
		t.Fatal(err)
	}
	newest, err := Load("26.17")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		method   string
		was, is  bool
		async    bool
		required int
	}{
		"lasting":           {"VM.start", true, true, true, 3},
		"newer":             {"Caller.create", false, true, true, 1},
		"with defaults":     {"VDI.copy", true, true, true, 1},
		"getter":            {"VM.get_record", true, true, false, 1},
		"without an Async":  {"event.from", true, true, false, 3},
		"for the pool only": {"host.commit_new_master", true, true, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := old.Message(c.method) != nil; got != c.was {
				t.Errorf("24.19 has it: %v", got)
			}
			m := newest.Message(c.method)
			if (m != nil) != c.is {
				t.Fatalf("26.17 has it: %v", m != nil)
			}
			if m.Async != c.async || m.Required() != c.required {
				t.Errorf("async %v, %d parameters required", m.Async, m.Required())
			}
		})
	}
	if !old.Message("VDI.resize_online").Removed || newest.Message("VDI.resize_online").Removed {
		t.Error("VDI.resize_online was removed then and has come back")
	}
	for i, name := range []string{"uuid", "name_label", "name_description"} {
		if got := old.Class("host").Fields[i].Name; got != name {
			t.Errorf("field %d of a host is %s, want %s", i, got, name)
		}
	}
	if _, err := Load("7.0"); err == nil {
		t.Error("an unknown profile loads")
	}
}
