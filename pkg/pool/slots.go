package pool

import (
	"sync"

	"github.com/kubexen/kubexen/pkg/xencache"
)

// slots bound how many tasks of ours run on a pool at a time. A slot belongs to a reconcile key, which has at most
// one task in flight.
type slots struct {
	mu      sync.Mutex
	limit   int
	held    map[xencache.Key]struct{}
	waiting []xencache.Key
}

func newSlots() *slots { return &slots{held: map[xencache.Key]struct{}{}} }

func (s *slots) setLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

// reserve takes a slot for key, or puts key into the queue for one. A key that holds a slot keeps it.
func (s *slots) reserve(key xencache.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, holds := s.held[key]; holds {
		return true
	}
	if len(s.held) < s.limit {
		s.held[key] = struct{}{}
		return true
	}
	for _, queued := range s.waiting {
		if queued == key {
			return false
		}
	}
	s.waiting = append(s.waiting, key)
	return false
}

// release gives the slot of key back and returns whom to wake: as many of the queue as there are free slots. Those
// that no longer want one cost nothing but a pass.
func (s *slots) release(key xencache.Key) []xencache.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, holds := s.held[key]; !holds {
		return nil
	}
	delete(s.held, key)
	n := min(len(s.waiting), max(0, s.limit-len(s.held)))
	woken := append([]xencache.Key(nil), s.waiting[:n]...)
	s.waiting = append([]xencache.Key(nil), s.waiting[n:]...)
	return woken
}
