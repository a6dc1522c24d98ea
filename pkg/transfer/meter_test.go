package transfer

import (
	"errors"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// metered is a meter with what it reported.
type metered struct {
	*meter
	clock   *clocktesting.FakePassiveClock
	reports int
}

func newMetered() *metered {
	m := &metered{clock: clocktesting.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	m.meter = newMeter(m.clock, func() { m.reports++ })
	return m
}

// after counts bytes that took a time.
func (m *metered) after(took time.Duration, bytes int) {
	m.clock.SetTime(m.clock.Now().Add(took))
	m.add(bytes)
}

// expect complains unless so many reports were made, the last one with what is expected.
func (m *metered) expect(t *testing.T, what string, reports int, percent int32, bytesPerSecond int64) {
	t.Helper()
	if state := m.reported(); m.reports != reports || state.Percent() != percent || state.BytesPerSecond != bytesPerSecond {
		t.Errorf("%s: %d reports, the last one with %d%% at %d bytes a second, want %d with %d%% at %d", what,
			m.reports, state.Percent(), state.BytesPerSecond, reports, percent, bytesPerSecond)
	}
}

// TestProgressIsReportedNowAndThen: with each step of five percent and each ten seconds, whichever is sooner, and a fast transfer
// no more than once a second. What moved since the report before makes the rate.
func TestProgressIsReportedNowAndThen(t *testing.T) {
	t.Parallel()
	m := newMetered()
	m.begin(1000)
	m.expect(t, "the beginning", 1, 0, 0)

	m.after(2*time.Second, 49)
	m.expect(t, "less than a step", 1, 0, 0)
	m.after(2*time.Second, 11)
	m.expect(t, "a step", 2, 6, 60/4)

	m.after(9*time.Second, 10)
	m.expect(t, "less than a step, and of ten seconds", 2, 6, 15)
	m.after(time.Second, 10)
	m.expect(t, "ten seconds", 3, 8, 20/10)
	m.after(10*time.Second, 0)
	m.expect(t, "ten seconds in which nothing moved", 4, 8, 0)

	for range 9 {
		m.after(100*time.Millisecond, 50)
	}
	m.expect(t, "many steps in less than a second", 4, 8, 0)
	m.after(100*time.Millisecond, 50)
	m.expect(t, "the second is over", 5, 58, 500)
}

// TestTheEndIsAlwaysReported: at once, however soon it comes after another report, with the rate of before if there is no time to
// measure one; and who looks meanwhile sees what was reported.
func TestTheEndIsAlwaysReported(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		err     error
		phase   Phase
		percent int32
	}{"well": {nil, Succeeded, 100}, "not well": {boom, Failed, 0}} {
		t.Run(name, func(t *testing.T) {
			m := newMetered()
			m.begin(1000)
			m.after(2*time.Second, 600)
			m.after(time.Millisecond, 300)
			if state := m.reported(); state.Transferred != 600 || state.Phase != Running {
				t.Errorf("what is seen is %+v", state)
			}
			m.end(c.err)
			m.expect(t, "the end", 3, c.percent, 300)
			if state := m.reported(); state.Phase != c.phase || !errors.Is(state.Err, c.err) || !state.EndedAt.Equal(m.clock.Now()) || state.Transferred != 900 {
				t.Errorf("what is seen is %+v", state)
			}
		})
	}
}

// TestAnotherAttemptIsNoNegativeRate: what is counted anew has moved nothing yet.
func TestAnotherAttemptIsNoNegativeRate(t *testing.T) {
	t.Parallel()
	m := newMetered()
	m.begin(1000)
	m.after(2*time.Second, 600)
	m.clock.SetTime(m.clock.Now().Add(10 * time.Second))
	m.set(func(s *State) { s.Transferred = 0 })
	m.expect(t, "from the beginning", 3, 0, 0)
}
