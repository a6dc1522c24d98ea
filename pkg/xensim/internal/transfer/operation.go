package transfer

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// operation is one transfer under a task.
type operation struct {
	*service
	x    *xapi.Exchange
	ctx  context.Context //nolint:containedctx // an operation is its context: cancelled with its task, or by a restart
	task string
	// told is the progress that the task was last told, from 0 to 1.
	told float64
	// result is what the task will hold; nil leaves it empty.
	result any
}

// lastWords is how long a client has to take the page that says that its transfer failed.
const lastWords = 5 * time.Second

// errAnswered is the failure of an operation that has answered the client itself.
type errAnswered struct{ error }

func (e errAnswered) Unwrap() error { return e.error }

// underTask runs f under the task that the client gave, or under a new one, and completes it. What f returns in error
// becomes the task's, and a 500 page for the client, which stands inside the body when f had said 200 before.
func (s *service) underTask(x *xapi.Exchange, label string, f func(o *operation) error) error {
	x.Close = true
	ctx, cancel := context.WithCancelCause(x.Context)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = x.Conn.SetDeadline(time.Unix(1, 0)) }) // wakes whoever reads or writes
	defer stop()
	s.Lock()
	o := &operation{service: s, x: x, ctx: ctx, task: s.BeginTask(x.Param("task_id"), label, x.Session, cancel)}
	s.Unlock()

	err := f(o)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	o.finish(err)
	stop()
	_ = x.Conn.SetDeadline(time.Now().Add(lastWords)) // a client that does not read is not waited for
	if answered := (errAnswered{}); errors.As(err, &answered) {
		return nil
	}
	return shown(err)
}

func (o *operation) finish(err error) {
	o.Lock()
	defer o.Unlock()
	o.FinishTask(o.task, o.result, err)
	if task := o.DB().Get("task", o.task); o.result == nil && task.Exists() && task.Str("status") == "success" {
		o.Set("task", o.task, db.Fields{"result": ""}) // these end without any result, not with a void one
	}
}

// pageError is an error in the form in which a 500 page shows it (ExnHelper.string_of_exn).
type pageError struct{ cause *xapi.Error }

func (e pageError) Error() string {
	return e.cause.Code + ": [ " + strings.Join(e.cause.Params, "; ") + " ]"
}

func (e pageError) Unwrap() error { return e.cause }

// shown gives a XenAPI error the form of a page; other errors stay as they are.
func shown(err error) error {
	var known *xapi.Error
	if errors.As(err, &known) {
		return pageError{cause: known}
	}
	return err
}

// accept says 200. From here on only the task and the body can tell of a failure.
func (o *operation) accept(more ...httpd.Header) error {
	headers := append([]httpd.Header{
		{Name: "Connection", Value: "close"},
		{Name: "Cache-Control", Value: "no-cache, no-store"},
		{Name: "task-id", Value: o.task},
	}, more...)
	return o.x.WriteHead(200, "OK", headers...)
}

var octetStream = httpd.Header{Name: "content-type", Value: "application/octet-stream"}

// progress tells the task how far the transfer is, a hundred times at most.
func (o *operation) progress(done, total int64) {
	part := float64(done) / float64(max(total, 1))
	if part-o.told < 0.01 {
		return
	}
	o.told = part
	o.Lock()
	defer o.Unlock()
	if task := o.DB().Get("task", o.task); task.Exists() && task.Str("status") == "pending" {
		o.Set("task", o.task, db.Fields{"progress": part})
	}
}

// attached runs f while a VDI is plugged into the control domain, as it is during every transfer of its bytes: for that
// long the disk is in use for everyone else.
func (o *operation) attached(vdi, mode string, f func(disk *blockstore.Disk) error) error {
	o.Lock()
	disk, err := o.disk(vdi)
	if err != nil {
		o.Unlock()
		return err
	}
	detach, err := o.Attach(vdi, mode)
	o.Unlock()
	if err != nil {
		return err
	}
	defer func() {
		o.Lock()
		defer o.Unlock()
		detach()
	}()
	return f(disk)
}

// disk opens the bytes of a VDI, which nobody may have touched since its record was loaded. The pool is locked.
func (s *service) disk(vdi string) (*blockstore.Disk, error) {
	r, err := s.Record("VDI", vdi)
	if err != nil {
		return nil, err
	}
	s.Disks.Ensure(r.Str("uuid"), r.Int("virtual_size"))
	return s.Disks.Disk(r.Str("uuid"))
}

// ioError is what every failure of moving bytes looks like from outside (vhd_tool_wrapper.ml).
func ioError(err error) error {
	var known *xapi.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return xapi.Fail("VDI_IO_ERROR", "Device I/O errors")
}

// call runs a message as the client whose request this is.
func (o *operation) call(message string, params ...any) (any, error) {
	return o.callIn(o.ctx, message, params...)
}

// callIn is call for what must be done though the task was cancelled.
func (o *operation) callIn(ctx context.Context, message string, params ...any) (any, error) {
	return o.Dispatch(ctx, xapi.Request{Method: message, Params: append([]any{o.x.Session}, params...), Host: o.coordinator()})
}

func (o *operation) coordinator() string {
	o.Lock()
	defer o.Unlock()
	return o.Coordinator()
}
