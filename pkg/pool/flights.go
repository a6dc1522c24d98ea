package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// flightEcho is how long a task may take to be seen among those of the pool before it is asked for.
const flightEcho = 10 * time.Second

// Flights are the tasks that keys of one kind have begun, one a key. They live in the process only: after a restart the
// objects tell.
type Flights struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	tasks map[xencache.Key]flight
}

type flight struct {
	work  Work
	task  xenapi.TaskRef // "" while it is being begun
	since time.Time
}

// Work is what a task works on.
type Work struct {
	// On names the object, "" for one that nobody else works on.
	On string
	// Alone says that no other task of these may work on it meanwhile.
	Alone bool
}

func (w Work) excludes(other Work) bool {
	return w.On != "" && w.On == other.On && (w.Alone || other.Alone)
}

// NewFlights returns an empty set.
func NewFlights(passive clock.PassiveClock) *Flights {
	return &Flights{clock: passive, tasks: map[xencache.Key]flight{}}
}

// Begin begins a task for key, if the pool has a slot for one and nobody's work excludes it; key is woken when it ends, or when there
// is a slot.
func (f *Flights) Begin(h *Handle, key xencache.Key, work Work, begin func() (xenapi.TaskRef, error)) (begun bool, err error) {
	if !h.ReserveTask(key) {
		return false, nil
	}
	if !f.reserve(key, work) {
		h.ReleaseTask(key)
		return false, nil
	}
	task, err := begin()
	if err != nil {
		f.forget(key)
		h.ReleaseTask(key)
		return false, err
	}
	f.mu.Lock()
	f.tasks[key] = flight{work, task, f.clock.Now()}
	f.mu.Unlock()
	h.FollowTask(task, key)
	return true, nil
}

// reserve notes what is about to be begun, unless another's work excludes it.
func (f *Flights) reserve(key xencache.Key, work Work) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, current := range f.tasks {
		if work.excludes(current.work) {
			return false
		}
	}
	f.tasks[key] = flight{work: work, since: f.clock.Now()}
	return true
}

// Knows reports whether the task is one of these.
func (f *Flights) Knows(task xenapi.TaskRef) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, current := range f.tasks {
		if current.task == task {
			return true
		}
	}
	return false
}

// Land sees to key's task. It reports whether one is still under way, and how far it is; a task that ended is tidied up, and
// its error returned.
func (f *Flights) Land(ctx context.Context, h *Handle, key xencache.Key) (busy bool, percent int32, err error) {
	f.mu.Lock()
	current, found := f.tasks[key]
	f.mu.Unlock()
	if !found {
		return false, 0, nil
	}
	var task *xenapi.Task
	h.Cache.View(func(v xencache.View) { task = v.Task(current.task) })
	switch {
	case task == nil && f.clock.Since(current.since) < flightEcho:
		return true, 0, nil
	case task == nil: // the pool has forgotten it; what it did is to be seen
		if err := h.CatchUp(ctx, flightEcho); err != nil {
			return true, 0, fmt.Errorf("look again after a task: %w", err)
		}
		f.forget(key)
		return false, 0, nil
	case !task.Done():
		return true, int32(task.Progress * 100), nil
	}
	f.forget(key)
	if err := h.Client.Task.Destroy(ctx, current.task); err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
		return false, 0, fmt.Errorf("tidy up after a task: %w", err)
	}
	return false, 100, task.Err()
}

func (f *Flights) forget(key xencache.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tasks, key)
}
