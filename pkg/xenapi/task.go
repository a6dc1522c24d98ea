package xenapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// taskWaitSlice is how long one wait for a task's event lasts; after each the task is asked for directly, so that a lost event delays and a
// task that vanished is noticed.
const taskWaitSlice = 30 * time.Second

// Done says whether the task has ended, one way or another.
func (r *Task) Done() bool {
	return r.Status == TaskStatusSuccess || r.Status == TaskStatusFailure || r.Status == TaskStatusCancelled
}

// Err returns nil for a task that succeeded or is under way, and its *Error otherwise; a cancelled task's is [ErrTaskCancelled]. A task that was
// cancelled may also end as a failure with a code of its own (recording 0493).
func (r *Task) Err() error {
	switch r.Status {
	case TaskStatusFailure:
		return newError("", append([]string(nil), r.ErrorInfo...))
	case TaskStatusCancelled:
		return &Error{Code: ErrTaskCancelled}
	default:
		return nil
	}
}

// Value decodes the task's result. A task without one has the zero Value.
func (r *Task) Value() (Value, error) {
	if r.Result == "" {
		return Value{}, nil
	}
	s := newScanner(strings.NewReader(r.Result), Limits{MaxBytes: int64(len(r.Result))})
	defer s.release()
	v, err := s.value()
	if err != nil {
		return Value{}, fmt.Errorf("result of task %s: %w", r.UUID, err)
	}
	return v, s.atEnd()
}

// TaskResult returns the reference that a task answered, such as the VMRef of a clone.
func TaskResult[R ~string](task Task) (R, error) {
	v, err := task.Value()
	if err != nil {
		return "", err
	}
	if v.Kind() != KindString || !looksLikeRef(v.Text()) {
		return "", fmt.Errorf("result of task %s: %w: no reference", task.UUID, ErrUnexpectedType)
	}
	return R(v.Text()), nil
}

// WaitTask waits until a task ends, destroys it, and returns its last record together with its error. onChange, if not nil, is told about each
// change of the record on the way (progress).
//
// A task that vanishes (the toolstack was restarted, or someone destroyed it) is an [ErrOutcomeUnknown], and so is the end of ctx: the task goes
// on, CancelTask may stop it.
func (c *Client) WaitTask(ctx context.Context, task TaskRef, onChange func(Task)) (Task, error) {
	last, err := c.followTask(ctx, task, onChange)
	if err != nil {
		return last, err
	}
	// The outcome is known; a task that stays behind is collected by the server.
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginTimeout)
	defer cancel()
	if err := c.Task.Destroy(tidy, task); err != nil && !errors.Is(err, ErrHandleInvalid) {
		c.log.V(1).Info("finished task was not destroyed", "task", last.UUID, "reason", err.Error())
	}
	return last, c.redactTask(last.Err())
}

func (c *Client) redactTask(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return c.redact.error(e)
	}
	return err
}

func (c *Client) followTask(ctx context.Context, task TaskRef, onChange func(Task)) (Task, error) {
	var last Task
	classes := []string{"task/" + string(task)}
	for token := ""; ; {
		record, next, err := c.nextTaskRecord(ctx, classes, token, task)
		switch {
		case errors.Is(err, ErrHandleInvalid):
			return last, fmt.Errorf("task has vanished: %w: %w", ErrOutcomeUnknown, err)
		case ctx.Err() != nil:
			return last, fmt.Errorf("waiting for a task: %w: %w", ErrOutcomeUnknown, ctx.Err())
		case err != nil:
			return last, fmt.Errorf("waiting for a task: %w: %w", ErrOutcomeUnknown, err)
		}
		token = next
		if onChange != nil && (record.Progress != last.Progress || record.Status != last.Status) {
			onChange(record)
		}
		last = record
		if last.Done() {
			return last, nil
		}
	}
}

// nextTaskRecord waits for the task's next event. Where none comes, or events cannot be had, it asks for the record.
func (c *Client) nextTaskRecord(ctx context.Context, classes []string, token string, task TaskRef) (Task, string, error) {
	wait := taskWaitSlice
	if token == "" { // the first answer is the task as it is, or nothing if there is none: that is not worth waiting for
		wait = 0
	}
	batch, err := c.EventFrom(ctx, classes, token, wait)
	if err == nil {
		for _, event := range slices.Backward(batch.Events) {
			if record, ok := event.Record.(Task); ok && TaskRef(event.Ref) == task {
				return record, batch.Token, nil
			}
		}
	} else if ctx.Err() == nil {
		c.log.V(1).Info("no event of a task; asking for it", "reason", err.Error())
		if !errors.Is(err, ErrEventsLost) {
			if err := c.pause(ctx, time.Second); err != nil {
				return Task{}, "", err
			}
		}
	}
	record, err := c.Task.GetRecord(ctx, task)
	return record, batch.Token, err
}

// CancelTask asks a task to stop, if it can be stopped. It may still end with success: wait for it.
func (c *Client) CancelTask(ctx context.Context, task TaskRef) error {
	record, err := c.Task.GetRecord(ctx, task)
	if err != nil {
		return err
	}
	if record.Done() || !slices.Contains(record.AllowedOperations, TaskAllowedOperationCancel) {
		return nil
	}
	return c.Task.Cancel(ctx, task)
}

// taskSlots counts the tasks that this client began and that have not ended, as far as it has seen: a slot is given back when the task is
// destroyed or seen finished in an event, and all are when the session had to be renewed, since a toolstack restart loses its tasks.
type taskSlots struct {
	limit int

	mu       sync.Mutex
	starting int
	open     map[TaskRef]struct{}
}

// begin takes a slot for an Async call, and prepares for giving one back after task.destroy. The function that it returns must be called with
// the call's result.
func (t *taskSlots) begin(method string, args []any) (func(result any, err error), error) {
	switch {
	case t.limit <= 0:
	case strings.HasPrefix(method, "Async."):
		return t.reserve(method)
	case method == "task.destroy" && len(args) == 1:
		return func(_ any, err error) {
			if task, ok := args[0].(TaskRef); ok && (err == nil || errors.Is(err, ErrHandleInvalid)) {
				t.finished(task)
			}
		}, nil
	}
	return func(any, error) {}, nil
}

func (t *taskSlots) reserve(method string) (func(result any, err error), error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open)+t.starting >= t.limit {
		return nil, fmt.Errorf("%s: %w: %d", method, ErrTooManyTasks, t.limit)
	}
	t.starting++
	return func(result any, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.starting--
		if err != nil {
			return
		}
		if t.open == nil {
			t.open = make(map[TaskRef]struct{})
		}
		switch task := result.(type) {
		case TaskRef:
			t.open[task] = struct{}{}
		case Value:
			t.open[TaskRef(task.Text())] = struct{}{}
		}
	}, nil
}

func (t *taskSlots) finished(task TaskRef) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, task)
}

func (t *taskSlots) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.open)
}
