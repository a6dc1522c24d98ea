package xapi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// Request is a call as it came over the wire.
type Request struct {
	Method    string
	Params    []any
	Host      string // reference of the host that was addressed; empty for the coordinator
	UserAgent string
}

// Dispatch answers a call. The order of the checks is the real one's: method, number of parameters, their types,
// session, Async form; only then the object.
func (p *Pool) Dispatch(ctx context.Context, r Request) (any, error) {
	name, async := strings.CutPrefix(r.Method, "Async.")
	if !async {
		name, async = strings.CutPrefix(r.Method, "InternalAsync.")
	}
	p.Lock()
	defer p.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if name == "system.listMethods" {
		return p.Model.Methods, nil
	}
	m := p.message(name)
	if m == nil {
		return p.unknown(r, name)
	}
	session, args, err := p.arguments(m, r.Params)
	if err != nil {
		return nil, err
	}
	if m.Session {
		if err := p.checkSession(session, m, r.Host); err != nil {
			return nil, err
		}
	}
	if m.Removed {
		return nil, Fail("MESSAGE_REMOVED")
	}
	if async && !m.Async {
		return nil, Fail("Fault", "No async mode for this operation (rpc: "+name+")")
	}
	c := &Call{Pool: p, Message: m, Session: session, Host: r.Host, args: args}
	if c.Host == "" {
		c.Host = p.Coordinator()
	}
	c.befallen = p.faults.take(name, c.names)
	c.ctx = ctx
	if err := c.faultsAtDoor(); err != nil {
		return nil, err
	}
	if async {
		return c.faultsOnWayOut(p.startAsync(c, r.Method), nil)
	}
	return c.faultsOnWayOut(p.runSync(ctx, c))
}

// message finds a message by its name on the wire, "VM.start" or, as old clients write it, "VM_start".
func (p *Pool) message(name string) *datamodel.Message {
	if m := p.Model.Message(name); m != nil {
		return m
	}
	for i := range len(name) {
		if name[i] == '_' {
			if m := p.Model.Message(name[:i] + "." + name[i+1:]); m != nil {
				return m
			}
		}
	}
	return nil
}

// unknown answers a method that the data model does not have. The real one first takes it for an extension, so a
// first parameter is checked as a session (recordings 0020–0024).
func (p *Pool) unknown(r Request, name string) (any, error) {
	if strings.HasPrefix(name, "system.isAlive:") && len(r.Params) > 0 {
		return r.Params[0], nil
	}
	if len(r.Params) > 0 && !strings.HasPrefix(name, "unknown-message-") {
		session, err := toString(r.Params[0])
		if err != nil {
			return nil, err
		}
		if err := p.checkSession(session, &datamodel.Message{Class: "host", Name: "call_extension"}, r.Host); err != nil {
			return nil, err
		}
	}
	return nil, Fail("MESSAGE_METHOD_UNKNOWN", name)
}

// arguments checks the number and the types of the parameters.
func (p *Pool) arguments(m *datamodel.Message, params []any) (session string, args map[string]any, err error) {
	given, required := len(params), m.Required()
	if m.Session {
		given--
	}
	if given < required || given > len(m.Params) && required == len(m.Params) {
		return "", nil, Fail("MESSAGE_PARAMETER_COUNT_MISMATCH", m.FullName(), strconv.Itoa(required), strconv.Itoa(given))
	}
	if m.Session {
		if session, err = toString(params[0]); err != nil {
			return "", nil, err
		}
		params = params[1:]
	}
	args = make(map[string]any, len(m.Params))
	for i, param := range m.Params {
		if i >= len(params) {
			args[param.Name] = db.ParseDefault(param.Type, param.Default)
			continue
		}
		if args[param.Name], err = p.typed(m.Class, param.Type, params[i]); err != nil {
			return "", nil, err
		}
	}
	return session, args, nil
}

// run executes the message of a call: by its handler, else from the data model.
func (p *Pool) run(c *Call) (result any, err error) {
	if err := p.checkSelf(c); err != nil {
		return nil, err
	}
	if h := p.handlers[c.Message.FullName()]; h != nil {
		return h(c)
	}
	if c.Message.Implicit {
		return p.implicit(c)
	}
	if c.Message.PoolOnly {
		return nil, internal("Internal API %q call attempted with non-pool (external) session", c.Message.FullName())
	}
	return nil, Fail("NOT_IMPLEMENTED", c.Message.FullName())
}

// checkSelf checks that the object that the message is about exists: the first parameter, when it is a reference of
// the message's own class.
func (p *Pool) checkSelf(c *Call) error {
	m := c.Message
	if len(m.Params) == 0 || m.Params[0].Type.Kind != datamodel.Ref || m.Params[0].Type.Class != m.Class {
		return nil
	}
	if m.Class == "message" {
		return nil // not in the database
	}
	if ref := c.Self(); !p.db.Get(m.Class, ref).Exists() {
		return HandleInvalid(m.Class, ref)
	}
	return nil
}

// runSync runs a call for a client that waits. Calls that could be Async have a task of their own meanwhile.
func (p *Pool) runSync(ctx context.Context, c *Call) (any, error) {
	ctx, cancel := p.within(ctx)
	defer cancel(nil)
	c.ctx = ctx
	if !c.Message.Async || untracked[c.Message.Class] || p.handlers[c.Message.FullName()] == nil {
		c.Task = "DummyRef:|" + NewUUID() + "|" + c.Message.FullName()
		return p.guarded(c)
	}
	c.Task = p.newTask(c.Message.FullName(), "", cancel)
	result, err := p.guarded(c)
	p.dropTask(c.Task)
	return result, err
}

// untracked names the classes whose calls get no task of their own (datamodel, no_task_id_for).
var untracked = map[string]bool{"session": true, "task": true, "user": true, "role": true, "event": true, "message": true}

// within makes a context that also ends when the toolstack restarts.
func (p *Pool) within(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	inner, cancel := context.WithCancelCause(ctx)
	life := p.life // of this call; after a restart the pool has another
	stop := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	return inner, func(cause error) {
		stop()
		cancel(cause)
	}
}

// errorOf gives the XenAPI error that a client sees for whatever went wrong.
func errorOf(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, context.Canceled) {
		return Fail("TASK_CANCELLED", db.NullRef)
	}
	return Fail("INTERNAL_ERROR", fmt.Sprint(err))
}
