package xencache

import (
	"sync"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// watches are wishes to be woken by what carries no mark. They have a lock of their own: they are made by readers.
type watches struct {
	mu      *sync.Mutex
	tasks   map[xenapi.TaskRef]Key
	objects map[string]map[Key]struct{} // VMs and disks, by uuid
	byKey   map[Key]string
}

func newWatches() watches {
	return watches{
		mu:      &sync.Mutex{},
		tasks:   map[xenapi.TaskRef]Key{},
		objects: map[string]map[Key]struct{}{},
		byKey:   map[Key]string{},
	}
}

func (w watches) addTask(task xenapi.TaskRef, key Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks[task] = key
}

// takeTask returns whom the end of a task concerns, once.
func (w watches) takeTask(task xenapi.TaskRef) (Key, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key, found := w.tasks[task]
	delete(w.tasks, task)
	return key, found
}

// takeLostTasks returns whom it concerns that their tasks are not among those of the pool: after a restart of its
// toolstack all are gone.
func (w watches) takeLostTasks(exists func(xenapi.TaskRef) bool) []Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []Key
	for task, key := range w.tasks {
		if !exists(task) {
			keys = append(keys, key)
			delete(w.tasks, task)
		}
	}
	return keys
}

func (w watches) add(uuid string, key Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey[key] == uuid {
		return
	}
	w.drop(key)
	w.byKey[key] = uuid
	if w.objects[uuid] == nil {
		w.objects[uuid] = map[Key]struct{}{}
	}
	w.objects[uuid][key] = struct{}{}
}

func (w watches) forget(key Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(key)
}

func (w watches) drop(key Key) {
	uuid, found := w.byKey[key]
	if !found {
		return
	}
	delete(w.byKey, key)
	delete(w.objects[uuid], key)
	if len(w.objects[uuid]) == 0 {
		delete(w.objects, uuid)
	}
}

// of adds to keys whoever watches the VM or disk with the uuid.
func (w watches) of(uuid string, keys map[Key]struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.objects[uuid] {
		keys[key] = struct{}{}
	}
}
