package xapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// Limits of tasks (xapi_globs.ml, db_gc_util.ml).
const (
	taskKeptFinished = 65 * time.Minute
	taskKeptPending  = 24 * time.Hour
	tasksMost        = 200
)

// task is what the database does not hold about a task.
type task struct {
	cancel  context.CancelCauseFunc
	dropped bool // task.destroy came while it was pending
}

func registerTasks(p *Pool) {
	p.Handle("task.create", func(c *Call) (any, error) {
		ref := c.newTask(c.Str("label"), c.Str("description"), nil)
		return ref, nil
	})
	p.Handle("task.destroy", taskDestroy)
	p.Handle("task.cancel", taskCancel)
	p.Handle("task.set_status", func(c *Call) (any, error) {
		c.Set("task", c.Self(), db.Fields{"status": c.Str("value")})
		return nil, nil
	})
	p.Handle("task.set_progress", func(c *Call) (any, error) {
		c.Set("task", c.Self(), db.Fields{"progress": c.Float("value")})
		return nil, nil
	})
	p.Handle("task.set_result", func(c *Call) (any, error) {
		c.Set("task", c.Self(), db.Fields{"result": c.Str("value")})
		return nil, nil
	})
	p.Handle("task.set_error_info", func(c *Call) (any, error) {
		c.Set("task", c.Self(), db.Fields{"error_info": c.Strs("value")})
		return nil, nil
	})
	p.Handle("task.set_resident_on", func(c *Call) (any, error) {
		c.Set("task", c.Self(), db.Fields{"resident_on": c.Str("value")})
		return nil, nil
	})
}

// newTask adds a pending task to the database.
func (p *Pool) newTask(label, description string, cancel context.CancelCauseFunc) string {
	p.collectTasks()
	ref := p.Create("task", db.Fields{"name_label": label, "name_description": description, "created": p.Now(),
		"finished": db.Epoch, "status": "pending", "resident_on": p.Coordinator(), "type": "<none/>",
		"allowed_operations": []string{}, "backtrace": "()"})
	p.tasks[ref] = &task{cancel: cancel}
	return ref
}

func (p *Pool) dropTask(ref string) {
	p.db.Delete("task", ref)
	delete(p.tasks, ref)
}

// startAsync begins a call in the background and gives its task. It comes back when the call is done or waits for the
// first time, so that a client finds it under way.
func (p *Pool) startAsync(c *Call, label string) string {
	ctx, cancel := p.within(context.Background())
	c.ctx = ctx
	c.Task = p.newTask(label, "", cancel)
	if p.cancellable[c.Message.FullName()] {
		c.Cancellable(true)
	}
	begun := make(chan struct{})
	c.begun = sync.OnceFunc(func() { close(begun) })
	p.busy++
	p.work.Go(func() {
		defer cancel(nil)
		p.Lock()
		defer p.Unlock()
		defer func() {
			p.busy--
			p.wake()
			c.begun()
		}()
		life := p.life
		result, err := p.guarded(c)
		if p.life != life || life.Err() != nil {
			return // the toolstack has restarted: nobody is left to tell
		}
		if countsCancelPoints[c.Message.FullName()] && err == nil {
			_ = p.AddTo("task", c.Task, "other_config", "debug_info:cancel_points_seen", cancelPoints)
		}
		p.FinishTask(c.Task, result, err)
	})
	p.Unlock()
	<-begun
	p.Lock()
	return c.Task
}

// countsCancelPoints names the calls in whose task xenopsd notes at how many points it could have been cancelled.
var countsCancelPoints = map[string]bool{"VM.start": true, "VM.start_on": true, "VM.hard_shutdown": true,
	"VM.clean_shutdown": true, "VM.shutdown": true, "VM.hard_reboot": true, "VM.clean_reboot": true, "VM.suspend": true,
	"VM.resume": true, "VM.resume_on": true}

// cancelPoints is the number for a VM with a disk and a network (recording 4027).
const cancelPoints = "12"

// FinishTask completes a task with a result or an error. A task that is finished stays as it is.
func (p *Pool) FinishTask(ref string, result any, err error) {
	t := p.db.Get("task", ref)
	if !t.Exists() || !pending(t) {
		return
	}
	fields := db.Fields{"finished": p.Now(), "progress": 1.0, "allowed_operations": []string{}}
	switch failed := failureOf(err); {
	case failed == nil:
		fields["status"] = "success"
		fields["result"] = string(wire.AppendXML(nil, result))
	case failed.Code == "TASK_CANCELLED":
		fields["status"] = "cancelled"
		fields["error_info"] = append([]string{failed.Code}, failed.Params...)
	default:
		fields["status"] = "failure"
		fields["error_info"] = append([]string{failed.Code}, failed.Params...)
		fields["backtrace"] = fmt.Sprintf("(((process xapi)(filename ocaml/xapi/%s.ml)(line 1)))", "message_forwarding")
	}
	p.Set("task", ref, fields)
	if state := p.tasks[ref]; state != nil && state.dropped {
		p.dropTask(ref)
	}
}

func failureOf(err error) *Error {
	if err == nil {
		return nil
	}
	return errorOf(err)
}

// BeginTask takes over a task that a client made for an HTTP transfer, or makes one that goes when the transfer ends.
func (p *Pool) BeginTask(ref, label, _ string, cancel context.CancelCauseFunc) string {
	if p.db.Get("task", ref).Exists() {
		if p.tasks[ref] == nil {
			p.tasks[ref] = &task{}
		}
		p.tasks[ref].cancel = cancel
		p.Set("task", ref, db.Fields{"allowed_operations": []string{"cancel"}})
		return ref
	}
	own := p.newTask(label, "", cancel)
	p.tasks[own].dropped = true
	return own
}

// Progress sets how far the call's task is, from 0 to 1.
func (c *Call) Progress(part float64) {
	if c.db.Get("task", c.Task).Exists() {
		c.Set("task", c.Task, db.Fields{"progress": part})
	}
}

// CancellableFromTheStart names messages whose tasks may be cancelled before they have begun.
func (p *Pool) CancellableFromTheStart(messages ...string) {
	for _, message := range messages {
		p.cancellable[message] = true
	}
}

// Cancellable says that the call's task may be cancelled from now on, or no longer.
func (c *Call) Cancellable(yes bool) {
	if !c.db.Get("task", c.Task).Exists() {
		return
	}
	allowed := []string{}
	if yes {
		allowed = append(allowed, "cancel")
	}
	c.Set("task", c.Task, db.Fields{"allowed_operations": allowed})
}

func pending(t db.Record) bool {
	return t.Str("status") == "pending" || t.Str("status") == "cancelling"
}

// taskDestroy removes a finished task; one that is pending is only marked, also when nobody is there who will complete it.
func taskDestroy(c *Call) (any, error) {
	ref := c.Self()
	if state := c.tasks[ref]; pending(c.db.Get("task", ref)) && state != nil {
		state.dropped = true
		return nil, nil
	}
	c.dropTask(ref)
	return nil, nil
}

func taskCancel(c *Call) (any, error) {
	ref := c.Self()
	t := c.db.Get("task", ref)
	if !pending(t) {
		return nil, nil
	}
	if !slices.Contains(t.Strs("allowed_operations"), "cancel") {
		return nil, Fail("OPERATION_NOT_ALLOWED", "Task cannot be cancelled")
	}
	current := map[string]string{c.Task: "cancel"}
	c.Set("task", ref, db.Fields{"current_operations": current, "status": "cancelling"})
	if state := c.tasks[ref]; state != nil && state.cancel != nil {
		state.cancel(Fail("TASK_CANCELLED", ref))
	}
	return nil, nil
}

// collectTasks forgets old tasks, and finished ones above the limit, the oldest first.
func (p *Pool) collectTasks() {
	now := p.Clock.Now()
	var finished []string
	for _, ref := range slices.Clone(p.db.Refs("task")) {
		t := p.db.Get("task", ref)
		switch {
		case p.tasks[ref] == nil:
			continue // loaded with the state, which may be of any age
		case pending(t):
			if now.Sub(t.Time("created")) > taskKeptPending {
				p.dropTask(ref)
			}
		case now.Sub(t.Time("finished")) > taskKeptFinished:
			p.dropTask(ref)
		default:
			finished = append(finished, ref)
		}
	}
	if len(finished) <= tasksMost {
		return
	}
	slices.SortFunc(finished, func(a, b string) int {
		x, y := p.db.Get("task", a), p.db.Get("task", b)
		if c := x.Time("finished").Compare(y.Time("finished")); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, ref := range finished[:len(finished)-tasksMost] {
		p.dropTask(ref)
	}
}
