package xenapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func taskRecord(status TaskStatus, progress float64, result string, errorInfo ...string) string {
	var info strings.Builder
	for _, text := range errorInfo {
		info.WriteString("<value>" + text + "</value>")
	}
	return fmt.Sprintf(`<value><struct><member><name>uuid</name><value>t-1</value></member><member><name>status</name><value>%s</value></member>`+
		`<member><name>allowed_operations</name><value><array><data><value>cancel</value></data></array></value></member>`+
		`<member><name>progress</name><value><double>%g</double></value></member><member><name>result</name><value>%s</value></member>`+
		`<member><name>error_info</name><value><array><data>%s</data></array></value></member></struct></value>`,
		status, progress, result, info.String())
}

// unattended is a task that no handler of the pool has taken over.
func unattended() string {
	return strings.Replace(taskRecord(TaskStatusPending, 0, ""), "<value>cancel</value>", "", 1)
}

func taskEvents(token string, records ...string) string {
	var events strings.Builder
	for i, record := range records {
		fmt.Fprintf(&events, `<value><struct><member><name>id</name><value>%d</value></member><member><name>class</name><value>task</value></member>`+
			`<member><name>operation</name><value>mod</value></member><member><name>ref</name><value>OpaqueRef:t</value></member>`+
			`<member><name>snapshot</name>%s</member></struct></value>`, i, record)
	}
	return success(`<value><struct><member><name>events</name><value><array><data>` + events.String() + `</data></array></value></member>` +
		`<member><name>valid_ref_counts</name><value><struct><member><name>task</name><value><i4>1</i4></value></member></struct></value></member>` +
		`<member><name>token</name><value>` + token + `</value></member></struct></value>`)
}

const cloneResult = "&lt;value&gt;OpaqueRef:clone&lt;/value&gt;"

func TestWaitTaskFollowsEvents(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	var tokens []string
	answers := []string{
		taskEvents("1", taskRecord(TaskStatusPending, 0, "")),
		taskEvents("2", taskRecord(TaskStatusPending, 0.5, "")),
		taskEvents("3", taskRecord(TaskStatusSuccess, 1, cloneResult)),
	}
	s.on("event.from", func(p []node) string {
		tokens = append(tokens, p[2].text)
		if len(p[1].items) != 1 || p[1].items[0].text != "task/OpaqueRef:t" {
			t.Errorf("classes %v", p[1])
		}
		return answers[len(tokens)-1]
	})
	s.on("Async.VM.clone", func([]node) string { return success("<value>OpaqueRef:t</value>") })
	s.on("task.destroy", func([]node) string { return success("<value></value>") })
	c, ctx := s.connect(func(cfg *Config) { cfg.MaxTasks = 1 }), context.Background()
	task, err := c.VM.CloneAsync(ctx, "OpaqueRef:vm", "copy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.VM.CloneAsync(ctx, "OpaqueRef:vm", "copy"); !errors.Is(err, ErrTooManyTasks) || !RetrySafe(err) {
		t.Errorf("beyond the limit of tasks: %v", err)
	}
	var progress []float64
	record, err := c.WaitTask(ctx, task, func(r Task) { progress = append(progress, r.Progress) })
	if err != nil {
		t.Fatal(err)
	}
	if clone, err := TaskResult[VMRef](record); err != nil || clone != "OpaqueRef:clone" {
		t.Errorf("result %q, %v", clone, err)
	}
	if fmt.Sprint(progress) != "[0 0.5 1]" || fmt.Sprint(tokens) != "[ 1 2]" {
		t.Errorf("progress %v, tokens %q", progress, tokens)
	}
	if s.count("task.destroy") != 1 || s.count("task.get_record") != 0 {
		t.Error("not destroyed once, or asked for although events told")
	}
	if _, err := c.VM.CloneAsync(ctx, "OpaqueRef:vm", "copy"); err != nil {
		t.Errorf("the slot was not given back: %v", err)
	}
}

func TestWaitTaskAsksWhereEventsFail(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("event.from", func([]node) string { return failure("EVENT_SUBSCRIPTION_PARSE_FAILURE") })
	asked := 0
	s.on("task.get_record", func([]node) string {
		if asked++; asked < 3 {
			return success(taskRecord(TaskStatusPending, 0, ""))
		}
		return success(taskRecord(TaskStatusFailure, 1, "", "SR_BACKEND_FAILURE_44", "", "no space", ""))
	})
	s.on("task.destroy", func([]node) string { return success("<value></value>") })
	c := s.connect(nil)
	_, err := c.WaitTask(context.Background(), "OpaqueRef:t", nil)
	if !errors.Is(err, ErrSRBackendNoSpace) || OutcomeUnknown(err) {
		t.Errorf("err %v", err)
	}
}

func TestATaskThatVanishesHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("event.from", func([]node) string { return taskEvents("1") })
	s.on("task.get_record", func([]node) string { return failure("HANDLE_INVALID", "task", "OpaqueRef:t") })
	c := s.connect(nil)
	_, err := c.WaitTask(context.Background(), "OpaqueRef:t", nil)
	if !errors.Is(err, ErrOutcomeUnknown) || RetrySafe(err) {
		t.Errorf("err %v", err)
	}
	if s.count("task.destroy") != 0 {
		t.Error("destroyed what is not there")
	}
}

func TestWaitingForATaskEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	s.on("event.from", func([]node) string { <-hold; return "drop" })
	c := s.connect(nil)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err := c.WaitTask(ctx, "OpaqueRef:t", nil)
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err %v", err)
	}
}

func TestCancelTaskAsksOnlyWhatCanBeCancelled(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	record := taskRecord(TaskStatusPending, 0, "")
	s.on("task.get_record", func([]node) string { return success(record) })
	s.on("task.cancel", func([]node) string { return success("<value></value>") })
	c := s.connect(nil)
	for _, status := range []TaskStatus{TaskStatusPending, TaskStatusSuccess} {
		record = taskRecord(status, 0, "")
		if err := c.CancelTask(context.Background(), "OpaqueRef:t"); err != nil {
			t.Error(err)
		}
	}
	if s.count("task.cancel") != 1 {
		t.Errorf("cancelled %d times", s.count("task.cancel"))
	}
}

func TestTaskSlotsComeBackWithEventsAndWithANewSession(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.on("Async.VM.start", func([]node) string { return success("<value>OpaqueRef:t</value>") })
	s.on("event.from", func([]node) string { return taskEvents("1", taskRecord(TaskStatusSuccess, 1, "")) })
	c, ctx := s.connect(func(cfg *Config) { cfg.MaxTasks = 1 }), context.Background()
	start := func() error { _, err := c.Call(ctx, "Async.VM.start", VMRef("OpaqueRef:vm"), false, false); return err }
	if err := start(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EventFrom(ctx, []string{"task"}, "", 0); err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Errorf("after its event: %v", err)
	}
	if err := start(); !errors.Is(err, ErrTooManyTasks) {
		t.Errorf("err %v", err)
	}
	c.dropSession(c.session)
	if _, err := c.currentSession(ctx); err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Errorf("in a new session: %v", err)
	}
}

func TestTaskErr(t *testing.T) {
	t.Parallel()
	for status, want := range map[TaskStatus]error{TaskStatusPending: nil, TaskStatusSuccess: nil, TaskStatusCancelled: ErrTaskCancelled, TaskStatusFailure: ErrVMIsTemplate} {
		r := Task{Status: status, ErrorInfo: []string{"VM_IS_TEMPLATE", "OpaqueRef:vm", "start"}}
		if err := r.Err(); !errors.Is(err, want) {
			t.Errorf("%s: %v", status, err)
		}
	}
	for _, bad := range []string{"<value>", "plain", "<value>a</value><value>b</value>"} {
		r := Task{Result: bad}
		if _, err := r.Value(); err == nil {
			t.Errorf("result %q was read", bad)
		}
	}
	if _, err := TaskResult[VMRef](Task{Result: "<value></value>"}); err == nil {
		t.Error("a void result was read as a reference")
	}
}
