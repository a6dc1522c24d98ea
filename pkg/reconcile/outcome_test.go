package reconcile

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestJoinKeepsWhatAsksForMost(t *testing.T) {
	boom, bang := errors.New("boom"), errors.New("bang")
	for name, tc := range map[string]struct {
		a, b, want Outcome
	}{
		"done and done":                      {Done(), Done(), Done()},
		"a wait outweighs done":              {Done(), Wait("Busy", "a task runs"), Wait("Busy", "a task runs")},
		"a failure outweighs a wait":         {Wait("Busy", "a task runs"), Retry("Failed", boom), Retry("Failed", boom)},
		"the end outweighs a failure":        {Retry("Failed", boom), Terminal("Unknown", "no such network"), Terminal("Unknown", "no such network")},
		"of equals the first speaks":         {Wait("First", "1"), Wait("Second", "2"), Wait("First", "1")},
		"a reason outweighs none":            {Done(), Done().Because("Halted", "as asked"), Done().Because("Halted", "as asked")},
		"the earliest deadline stays":        {Done().After(time.Minute), Terminal("Unknown", "").After(time.Hour), Terminal("Unknown", "").After(time.Minute)},
		"a deadline survives what outranks":  {Wait("Busy", "").After(time.Second), Retry("Failed", boom), Retry("Failed", boom).After(time.Second)},
		"what one cannot see, none can":      {Wait("Busy", "").ReadyUnknown(), Wait("Other", ""), Wait("Busy", "").ReadyUnknown()},
		"retrying no error is done":          {Retry("Failed", nil), Done(), Done()},
		"a passed deadline is due, not none": {Done().After(-time.Second), Done().After(time.Second), Done().After(time.Nanosecond)},
		"both errors are told":               {Retry("Failed", boom), Retry("Failed", bang), Retry("Failed", errors.Join(boom, bang))},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.a.Join(tc.b); got.String() != tc.want.String() || got.readyUnknown != tc.want.readyUnknown {
				t.Errorf("%v joined with %v is %v, want %v", tc.a, tc.b, got, tc.want)
			}
		})
	}
}

func TestJoinNeverLosesADeadlineOrAnError(t *testing.T) {
	outcome := rapid.Custom(func(t *rapid.T) Outcome {
		o := []Outcome{Done(), Wait("W", "w"), Retry("R", errors.New("r")), Terminal("T", "t")}[rapid.IntRange(0, 3).Draw(t, "kind")]
		if d := rapid.IntRange(0, 3).Draw(t, "deadline"); d > 0 {
			o = o.After(time.Duration(d) * time.Second)
		}
		return o
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := outcome.Draw(t, "a"), outcome.Draw(t, "b")
		got := a.Join(b)
		if got.Deadline() != earliest(a.Deadline(), b.Deadline()) {
			t.Fatalf("%v joined with %v has deadline %s", a, b, got.Deadline())
		}
		if got.Kind() != max(a.Kind(), b.Kind()) {
			t.Fatalf("%v joined with %v is %v", a, b, got)
		}
		if got.Kind() == KindRetry && got.Err() == nil {
			t.Fatalf("%v joined with %v lost the error", a, b)
		}
	})
}
