package xensim

import (
	"fmt"
	"testing"
	"time"
)

// TestSessionsEnd shows what ends a session that nobody logged out: too many of the same originator, and idleness.
func TestSessionsEnd(t *testing.T) {
	p, client := newTestPool(t, Options{})
	login := func(originator string) string {
		v, err := client.raw("session.login_with_password", "root", "secret", "1.0", originator)
		if err != nil {
			t.Fatal(err)
		}
		return v.(string)
	}
	alive := func(session string) bool {
		_, err := client.raw("pool.get_all", session)
		return err == nil
	}
	first, other := login("many"), login("other")
	for range 499 {
		login("many")
	}
	if !alive(first) {
		t.Error("the first of 500 sessions is gone")
	}
	second := login("many") // the session used least recently makes room
	if !alive(first) || !alive(second) || !alive(other) {
		t.Error("a session in use was dropped")
	}
	p.Clock.Advance(25 * time.Hour)
	if alive(first) || alive(other) {
		t.Error("a session outlives 25 idle hours")
	}
}

// TestTasksAreCollected shows that finished tasks go, by number and by age.
func TestTasksAreCollected(t *testing.T) {
	p, client := newTestPool(t, Options{})
	network := client.one("network", "vlan-less internal")
	make1 := func(i int) string {
		ref := client.must("task.create", fmt.Sprint(i), "").(string)
		client.must("task.set_status", ref, "success")
		if err := p.Update("task", ref, map[string]any{"finished": p.Now()}); err != nil {
			t.Fatal(err)
		}
		return ref
	}
	for i := range 210 {
		make1(i)
	}
	if n := len(client.must("task.get_all").([]any)); n > 201 {
		t.Errorf("%d tasks are kept", n)
	}
	last := make1(1000)
	p.Clock.Advance(66 * time.Minute)
	make1(1001)
	if code := client.failure("task.get_record", last); code != "HANDLE_INVALID" {
		t.Errorf("a task that finished 66 minutes ago gives %s", code)
	}
	client.must("network.get_record", network)
}

// TestNewerProfile serves the newest data model.
func TestNewerProfile(t *testing.T) {
	_, client := newTestPool(t, Options{Profile: "26.17"})
	if all := client.must("Caller.get_all").([]any); len(all) != 0 {
		t.Errorf("callers %v", all)
	}
	pools := client.must("pool.get_all_records").(map[string]any)
	for _, record := range pools {
		if _, ok := record.(map[string]any)["limit_console_sessions"]; !ok {
			t.Error("a pool of 26.17 has no limit_console_sessions")
		}
	}
	for _, host := range client.must("host.get_all_records").(map[string]any) {
		if version := host.(map[string]any)["API_version_minor"]; fmt.Sprint(version) != "23" {
			t.Errorf("a host of 26.17 speaks API 2.%v", version)
		}
	}
}

// TestTaskMarks writes what clients keep with their tasks.
func TestTaskMarks(t *testing.T) {
	for _, profile := range []string{"24.19", "26.17"} {
		t.Run(profile, func(t *testing.T) {
			_, client := newTestPool(t, Options{Profile: profile})
			task := client.must("task.create", "import", "")
			client.must("task.add_to_other_config", task, "kubexen.io/ref", "default/web")
			if got := client.must("task.get_other_config", task).(map[string]any); got["kubexen.io/ref"] != "default/web" {
				t.Errorf("other_config is %v", got)
			}
			client.must("task.remove_from_other_config", task, "kubexen.io/ref")
			client.must("task.set_other_config", task, map[string]string{"a": "b"})
			if got := client.must("task.get_other_config", task).(map[string]any); len(got) != 1 || got["a"] != "b" {
				t.Errorf("other_config is %v", got)
			}
		})
	}
}
