package transfer

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// leastPause is how long after a report nothing is reported again but the end: a fast transfer passes many percent a second.
const leastPause = time.Second

// meter counts what a transfer moves, and reports it now and then.
type meter struct {
	clock  clock.PassiveClock
	report func()

	mu    sync.Mutex
	now   State
	shown State
	// shownAt is when the last report was.
	shownAt time.Time
}

func newMeter(passive clock.PassiveClock, report func()) *meter {
	return &meter{clock: passive, report: report, shownAt: passive.Now()}
}

// begin says that bytes begin to move, and how many there are in all (0: not known).
func (m *meter) begin(total int64) {
	m.change(true, func(s *State) { s.Phase, s.Total = Running, total })
}

// add counts bytes.
func (m *meter) add(n int) { m.change(false, func(s *State) { s.Transferred += int64(n) }) }

// set changes what else there is to say.
func (m *meter) set(change func(*State)) { m.change(false, change) }

// end says how the transfer ended.
func (m *meter) end(err error) {
	m.change(true, func(s *State) {
		s.Phase, s.Err, s.EndedAt = Succeeded, err, m.clock.Now()
		if err != nil {
			s.Phase = Failed
		}
	})
}

func (m *meter) change(tell bool, change func(*State)) {
	m.mu.Lock()
	change(&m.now)
	passed := m.clock.Since(m.shownAt)
	stepped := m.now.Percent()-m.shown.Percent() >= reportStep && passed >= leastPause
	if tell = tell || stepped || passed >= reportEvery; tell {
		if passed >= leastPause {
			m.now.BytesPerSecond = max(0, m.now.Transferred-m.shown.Transferred) * int64(time.Second) / int64(passed)
		}
		m.shown, m.shownAt = m.now, m.clock.Now()
	}
	m.mu.Unlock()
	if tell {
		m.report()
	}
}

// reported is what was reported last: who looks more often sees no more.
func (m *meter) reported() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shown
}

// Write counts what passes; it makes a meter the end of a tee.
func (m *meter) Write(p []byte) (int, error) {
	m.add(len(p))
	return len(p), nil
}
