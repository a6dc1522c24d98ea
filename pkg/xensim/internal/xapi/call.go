package xapi

import (
	"context"
	"errors"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// Call is one message being answered.
type Call struct {
	*Pool
	Message *datamodel.Message
	Session string // reference of the session
	Task    string // reference of the task, a DummyRef when it is not in the database
	Host    string // reference of the host that was addressed

	args     map[string]any
	befallen []Fault
	begun    func() // tells who started an Async call that it is under way
	//nolint:containedctx // a call is handed through everything that it does, its context with it
	ctx context.Context // ends when the task is cancelled, the client is gone or the toolstack restarts
}

// Arg gives a parameter by the name that the data model gives it.
func (c *Call) Arg(name string) any {
	v, ok := c.args[name]
	if !ok {
		panic("xapi: " + c.Message.FullName() + " has no parameter " + name)
	}
	return v
}

// Str gives a string, enum or reference parameter.
func (c *Call) Str(name string) string { return c.Arg(name).(string) }

// Int gives an integer parameter.
func (c *Call) Int(name string) int64 { return c.Arg(name).(int64) }

// Float gives a float parameter.
func (c *Call) Float(name string) float64 { return c.Arg(name).(float64) }

// Bool gives a boolean parameter.
func (c *Call) Bool(name string) bool { return c.Arg(name).(bool) }

// Strs gives a parameter that is a set of text.
func (c *Call) Strs(name string) []string { return c.Arg(name).([]string) }

// Map gives a parameter that is a map of text to text.
func (c *Call) Map(name string) map[string]string { return c.Arg(name).(map[string]string) }

// Fields gives the record of a create call: every field that a constructor takes, defaults filled in.
func (c *Call) Fields(name string) db.Fields { return c.Arg(name).(db.Fields) }

// Self gives the first parameter, the object that the message is about. The dispatcher has checked that it exists.
func (c *Call) Self() string { return c.args[c.Message.Params[0].Name].(string) }

// Record gives the record of an object, or HANDLE_INVALID.
func (p *Pool) Record(class, ref string) (db.Record, error) {
	if r := p.db.Get(class, ref); r.Exists() {
		return r, nil
	}
	return db.Record{}, HandleInvalid(class, ref)
}

// Set writes fields of an object.
func (p *Pool) Set(class, ref string, fields db.Fields) { p.db.Update(class, ref, fields) }

// Wait lets a duration of the pool's time pass, with the lock let go. It fails with TASK_CANCELLED when the task is
// cancelled meanwhile. Whatever was read before must be read again after.
func (c *Call) Wait(d time.Duration) error {
	return c.Yield(func(ctx context.Context) error { return c.Clock.Sleep(ctx, time.Duration(float64(d)*c.slowness())) })
}

// Yield runs f with the lock let go, for work that takes real time, such as moving bytes.
func (c *Call) Yield(f func(ctx context.Context) error) error {
	if c.begun != nil {
		c.begun()
	}
	c.Unlock()
	err := f(c.ctx)
	c.Lock()
	var known *Error
	switch {
	case err == nil && c.interrupted() == nil:
		return c.failsMidway()
	case err == nil:
		return c.interrupted()
	case errors.As(err, &known):
		return err
	}
	if cause := c.interrupted(); cause != nil {
		return cause
	}
	return err
}

// interrupted tells why the call should not go on, if so.
func (c *Call) interrupted() error {
	if c.ctx.Err() == nil {
		return nil
	}
	return context.Cause(c.ctx)
}

// WaitChange lets the lock go until something in the database changes, at most a duration of the pool's time.
func (c *Call) WaitChange(most time.Duration) error {
	changed := c.changed
	return c.Yield(func(ctx context.Context) error {
		timer := time.NewTimer(c.Clock.Real(most))
		defer timer.Stop()
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	})
}

// Operate runs f while the object's current_operations says that op is under way. check comes first, and while it
// answers OTHER_OPERATION_IN_PROGRESS it is asked again, as the real one does for up to two hours
// (helpers.ml, Policy.standard): a call that collides with another waits instead of failing.
func (c *Call) Operate(class, ref, op string, check, f func() error) error {
	if err := c.admitted(check); err != nil {
		return err
	}
	c.begin(class, ref, op)
	defer c.end(class, ref)
	return f()
}

func (c *Call) admitted(check func() error) error {
	deadline := c.Clock.Now().Add(2 * time.Hour)
	for {
		var busy *Error
		err := check()
		if !errors.As(err, &busy) || busy.Code != "OTHER_OPERATION_IN_PROGRESS" || c.Clock.Now().After(deadline) {
			return err
		}
		if err := c.WaitChange(time.Second); err != nil {
			return err
		}
	}
}

func (c *Call) begin(class, ref, op string) {
	r := c.db.Get(class, ref)
	if !r.Exists() {
		return
	}
	current := map[string]string{c.Task: op}
	for k, v := range r.Map("current_operations") {
		if k != c.Task {
			current[k] = v
		}
	}
	c.Set(class, ref, db.Fields{"current_operations": current})
	c.Refresh(class, ref)
}

func (c *Call) end(class, ref string) {
	r := c.db.Get(class, ref)
	if !r.Exists() {
		return
	}
	current := map[string]string{}
	for k, v := range r.Map("current_operations") {
		if k != c.Task {
			current[k] = v
		}
	}
	c.Set(class, ref, db.Fields{"current_operations": current})
	c.Refresh(class, ref)
}

// Call runs another message's implementation within this call, under the same task: arguments by name.
func (c *Call) Call(message string, args map[string]any) (any, error) {
	m := c.Model.Message(message)
	inner := *c
	inner.Message, inner.args = m, args
	return c.run(&inner)
}
