package xensim

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// codeOf gives the error code of an answer, "broken" when there was none, and "" for success.
func codeOf(err error) string {
	var failed *apiError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &failed):
		return failed.Code
	}
	return "broken"
}

// TestFaultsOfCalls lets a fault befall the second of three calls that write a name, and looks at the answers and at
// what took effect.
func TestFaultsOfCalls(t *testing.T) {
	for name, c := range map[string]struct {
		fault  Fault
		codes  []string
		effect string // the name after the second call
	}{
		"error instead of the effect":  {Fault{Error: "INTERNAL_ERROR", Params: []string{"x"}}, []string{"", "INTERNAL_ERROR", ""}, "first"},
		"error after the effect":       {Fault{Error: "INTERNAL_ERROR", AfterEffect: true}, []string{"", "INTERNAL_ERROR", ""}, "second"},
		"connection lost before":       {Fault{Drop: "before"}, []string{"", "broken", ""}, "first"},
		"connection lost after":        {Fault{Drop: "after"}, []string{"", "broken", ""}, "second"},
		"answer cut short":             {Fault{TruncateBody: 10}, []string{"", "broken", ""}, "second"},
		"session lost":                 {Fault{LoseSession: true}, []string{"", "SESSION_INVALID", "SESSION_INVALID"}, "first"},
		"toolstack restarts meanwhile": {Fault{Restart: true}, []string{"", "broken", "SESSION_INVALID"}, "first"},
	} {
		t.Run(name, func(t *testing.T) {
			p, client := newTestPool(t, Options{})
			network := client.one("network", "vlan-less internal")
			fault := c.fault
			fault.Call, fault.Object, fault.Skip, fault.Count = "network.set_name_description", network, 1, 1
			p.SetFaults([]Fault{fault})
			for i, value := range []string{"first", "second", "third"} {
				_, err := client.call("network.set_name_description", network, value)
				if code := codeOf(err); code != c.codes[i] {
					t.Errorf("call %d: %q (%v), want %q", i+1, code, err, c.codes[i])
				}
				if now := p.Records("network")[network]["name_description"]; i == 1 && now != c.effect {
					t.Errorf("the description is %q, want %q", now, c.effect)
				}
			}
		})
	}
}

func TestFaultOnlyOfOneObject(t *testing.T) {
	p, client := newTestPool(t, Options{})
	befallen, other := client.one("network", "vlan-less internal"), client.one("network", "Pool-wide network associated with eth0")
	p.SetFaults([]Fault{{Call: "network.*", Object: "vlan-less internal", Error: "INTERNAL_ERROR"}})
	if code := client.failure("network.get_record", befallen); code != "INTERNAL_ERROR" {
		t.Errorf("code %s", code)
	}
	client.must("network.get_record", other)
}

func TestFaultLatency(t *testing.T) {
	p, client := newTestPool(t, Options{})
	p.SetFaults([]Fault{{Call: "pool.get_all", Latency: 200_000_000, Count: 1}})
	for i, slow := range []bool{true, false} {
		begin := time.Now()
		client.must("pool.get_all")
		if took := time.Since(begin); took > 200*time.Millisecond != slow {
			t.Errorf("call %d took %s", i+1, took)
		}
	}
}

func TestFaultLostEvents(t *testing.T) {
	p, client := newTestPool(t, Options{})
	network := client.one("network", "vlan-less internal")
	token := client.must("event.from", []string{"network"}, "", 0.0).(map[string]any)["token"]
	p.SetFaults([]Fault{{Call: "event.from", LoseEvents: true, Count: 1}})
	client.must("network.set_name_description", network, "unheard of")
	lost := client.must("event.from", []string{"network"}, token, 0.0).(map[string]any)
	if n := len(lost["events"].([]any)); n != 0 || lost["token"] == token {
		t.Errorf("%d events, token %v after %v", n, lost["token"], token)
	}
	client.must("network.set_name_description", network, "heard of")
	p.SetFaults([]Fault{{Call: "event.from", LoseEvents: true, Count: 1}})
	if all := client.must("event.from", []string{"network"}, "", 0.0).(map[string]any); len(all["events"].([]any)) == 0 {
		t.Error("who asks for all there is hears of nothing")
	}
	p.SetFaults(nil)
	heard := client.must("event.from", []string{"network"}, lost["token"], 0.0).(map[string]any)
	if n := len(heard["events"].([]any)); n != 1 {
		t.Errorf("%d events after the loss", n)
	}
}

func TestFaultFullSR(t *testing.T) {
	p, client := newTestPool(t, Options{})
	p.SetFaults([]Fault{{Object: "Local storage", FullSR: true}})
	create := func(sr string) (any, error) {
		return client.call("VDI.create", map[string]any{"name_label": "d", "name_description": "", "SR": client.one("SR", sr),
			"virtual_size": 1 << 20, "type": "user", "sharable": false, "read_only": false, "other_config": map[string]string{}})
	}
	if _, err := create("Local storage"); codeOf(err) != "SR_BACKEND_FAILURE_44" {
		t.Errorf("on the full SR: %v", err)
	}
	if _, err := create("Local storage on xs2"); err != nil {
		t.Errorf("on the other SR: %v", err)
	}
}

func TestFaultDeadHost(t *testing.T) {
	p, client := newTestPool(t, Options{ClockScale: 1000})
	plan, err := ReadFaults(strings.NewReader(`[{"call": "network.create", "count": 1, "killHost": "xs2"}]`))
	if err != nil {
		t.Fatal(err)
	}
	p.SetFaults(plan)
	client.must("network.create", map[string]any{"name_label": "n", "name_description": "", "MTU": 1500,
		"other_config": map[string]string{}, "tags": []string{}})
	metrics := client.must("host.get_metrics", client.one("host", "xs2"))
	deadline := time.After(10 * time.Second)
	for client.must("host_metrics.get_live", metrics) == true {
		p.Lock()
		changed := p.Changed()
		p.Unlock()
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the host that died is still live")
		}
	}
}

func TestFaultsOfTasks(t *testing.T) {
	for name, c := range map[string]struct {
		fault  Fault
		status string
		slower bool
	}{
		"failed": {Fault{Error: "INTERNAL_ERROR", FailTask: true}, "failure", false},
		"slow":   {Fault{SlowTask: 40}, "success", true},
		"lost":   {Fault{Restart: true}, "gone", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, client := newTestPool(t, Options{ClockScale: 10})
			p.Handle("VM.assert_agile", waitASecond) // an operation that takes a second of the pool's time
			c.fault.Call = "VM.assert_agile"
			p.SetFaults([]Fault{c.fault})
			begin := time.Now()
			status := outcomeOf(client, client.must("Async.VM.assert_agile", client.one("VM", "Debian Bookworm 12")).(string))
			if status != c.status {
				t.Errorf("the task's status is %q, want %q", status, c.status)
			}
			if took := time.Since(begin); c.slower && took < 3*time.Second {
				t.Errorf("it took only %s", took)
			}
		})
	}
}

// outcomeOf waits for a task; a restart of the toolstack takes session and task.
func outcomeOf(client *testClient, task string) string {
	token := ""
	for {
		record, err := client.call("task.get_record", task)
		switch codeOf(err) {
		case "SESSION_INVALID":
			client.login()
			continue
		case "HANDLE_INVALID":
			return "gone"
		case "":
		default:
			continue // the connection broke
		}
		if status := record.(map[string]any)["status"].(string); status != "pending" {
			return status
		}
		if batch, err := client.call("event.from", []string{"task"}, token, 5.0); err == nil {
			token = batch.(map[string]any)["token"].(string)
		}
	}
}

func TestDeadHostAndCoordinatorChange(t *testing.T) {
	p, client := newTestPool(t, Options{ClockScale: 1000})
	member := strings.Replace(client.url, "127.0.0.1", "127.0.0.2", 1)
	_, err := newTestClient(t, member).raw("session.login_with_password", "root", "secret")
	var failed *apiError
	if !errors.As(err, &failed) || failed.Code != "HOST_IS_SLAVE" || failed.Params[0] != "127.0.0.1" {
		t.Fatalf("a member answers %v", err)
	}
	second := client.one("host", "xs2")
	if err := p.SetCoordinator("xs2"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.call("pool.get_all"); codeOf(err) != "HOST_IS_SLAVE" {
		t.Errorf("the old coordinator answers %v", err)
	}
	client.url = member
	client.login()
	pools := client.must("pool.get_all_records").(map[string]any)
	for _, record := range pools {
		if master := record.(map[string]any)["master"]; master != second {
			t.Errorf("the coordinator is %v, want %v", master, second)
		}
	}
	if err := p.KillHost("xs3"); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(strings.Replace(member, "127.0.0.2", "127.0.0.3", 1), "http://")); err == nil {
		conn.Close()
		t.Error("the dead host listens")
	}
	metrics := client.must("host.get_metrics", client.one("host", "xs3")).(string)
	for token := ""; client.must("host_metrics.get_live", metrics).(bool); {
		token = client.must("event.from", []string{"host_metrics"}, token, 5.0).(map[string]any)["token"].(string)
	}
}

func TestToolstackRestartRewindsTokens(t *testing.T) {
	p, client := newTestPool(t, Options{})
	token := client.must("event.from", []string{"network"}, "", 0.0).(map[string]any)["token"].(string)
	p.RestartToolstack(100)
	if code := client.failure("pool.get_all"); code != "SESSION_INVALID" {
		t.Errorf("an old session gets %s", code)
	}
	client.login()
	client.must("network.set_name_description", client.one("network", "vlan-less internal"), "changed")
	later := client.must("event.from", []string{"network"}, token, 0.0).(map[string]any)
	if n := len(later["events"].([]any)); n != 0 {
		t.Errorf("a token from the future gives %d events", n)
	}
	if later["token"].(string) != token {
		t.Errorf("a token from the future becomes %v", later["token"])
	}
}

// TestFaultPlanOverHTTP sets a plan as a program in another language would.
func TestFaultPlanOverHTTP(t *testing.T) {
	_, client := newTestPool(t, Options{})
	put := func(plan string) int {
		request, err := http.NewRequest(http.MethodPut, client.url+"/xensim/faults", strings.NewReader(plan))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		return answer.StatusCode
	}
	if status := put(`[{"call": "pool.get_all", "error": "HOST_STILL_BOOTING", "latency": "1ms"}]`); status != 200 {
		t.Fatalf("status %d", status)
	}
	if code := client.failure("pool.get_all"); code != "HOST_STILL_BOOTING" {
		t.Errorf("code %s", code)
	}
	if status := put(`[{"cal": "pool.get_all"}]`); status != 500 {
		t.Errorf("a plan with a misspelt member is answered with %d", status)
	}
}
