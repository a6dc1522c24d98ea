package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// roleTransfer stands where a mark-name has the role of an object.
const roleTransfer xencache.Role = "transfer"

// TaskName is the name of the tasks of a transfer. It is the mark by which one is found again whose manager has died: a task
// takes no other_config when it is made.
func TaskName(installation string, id ID) string {
	name := xencache.MarkName(installation, id.Owner, roleTransfer)
	if id.Part == "" {
		return name
	}
	return strings.Join([]string{name, id.Part}, "/")
}

// EndTasks ends the tasks that a transfer of this id left on the pool, of which none runs here. The pool would keep a pending
// one for a day.
func EndTasks(ctx context.Context, h *pool.Handle, id ID) error {
	name := TaskName(h.Installation, id)
	return endTasks(ctx, h, func(label string) bool { return label == name })
}

// EndTasksBelow ends those of all transfers whose part begins with that of id.
func EndTasksBelow(ctx context.Context, h *pool.Handle, id ID) error {
	name := TaskName(h.Installation, id)
	return endTasks(ctx, h, func(label string) bool { return strings.HasPrefix(label, name) })
}

func endTasks(ctx context.Context, h *pool.Handle, ours func(label string) bool) error {
	var left []xenapi.TaskRef
	h.Cache.View(func(v xencache.View) {
		for ref, task := range v.Tasks() {
			if ours(task.NameLabel) {
				left = append(left, ref)
			}
		}
	})
	slices.Sort(left)
	for _, task := range left {
		// Nobody completes it any more, and only what is over can be destroyed.
		err := errors.Join(h.Client.Task.SetStatus(ctx, task, xenapi.TaskStatusFailure), h.Client.Task.Destroy(ctx, task))
		if err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
			return fmt.Errorf("end the task of an earlier attempt: %w", err)
		}
	}
	return nil
}
