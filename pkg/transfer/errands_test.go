package transfer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// TestErrandsOfAPass: a quick answer is there at once; a slow one wakes its owner, and is there the next time, once.
func TestErrandsOfAPass(t *testing.T) {
	clock, woken, logged := clocktesting.NewFakePassiveClock(time.Unix(0, 0)), make(chan xencache.Key, 10), &log{}
	errands := transfer.NewErrands[string](func(key xencache.Key) { woken <- key }, clock, logged.logger())
	ask := func(name string, do func(context.Context) (string, error)) (string, bool, error) {
		return errands.Ask(t.Context(), named(name), do)
	}
	quick := func(context.Context) (string, error) { return "quick", nil }
	if answer, answered, err := ask("quick", quick); answer != "quick" || !answered || err != nil {
		t.Errorf("a quick one: %q, %t, %v", answer, answered, err)
	}
	let, asked := make(chan struct{}), 0
	slow := func(context.Context) (string, error) {
		asked++
		<-let
		return "slow", errors.New("but not well")
	}
	for range 2 {
		if _, answered, err := ask("slow", slow); answered || err != nil {
			t.Fatalf("a slow one is answered: %v", err)
		}
	}
	close(let)
	if key := <-woken; key != named("slow").Owner {
		t.Errorf("woken is %v", key)
	}
	if answer, answered, err := ask("slow", quick); answer != "slow" || !answered || err == nil || asked != 1 {
		t.Errorf("it was asked %d times: %q, %t, %v", asked, answer, answered, err)
	}
	if answer, _, _ := ask("slow", quick); answer != "quick" {
		t.Errorf("an answer is given twice: %q", answer)
	}
	_, answered, err := ask("panics", func(context.Context) (string, error) { panic("a manifest of no kind") })
	if f := failure(t, err); !answered || f.Reason != v1alpha1.ReasonDefect || !logged.has("errands") {
		t.Errorf("a panic: %t, %v", answered, err)
	}
	if len(woken) > 0 {
		t.Errorf("%v was woken, and had its answer", <-woken)
	}
}

// TestAnswersNobodyCameFor are forgotten: by the next question the store may say something else.
func TestAnswersNobodyCameFor(t *testing.T) {
	clock, woken := clocktesting.NewFakePassiveClock(time.Unix(0, 0)), make(chan xencache.Key, 1)
	errands := transfer.NewErrands[string](func(key xencache.Key) { woken <- key }, clock, (&log{}).logger())
	let := make(chan struct{})
	_, _, _ = errands.Ask(t.Context(), named("one"), func(context.Context) (string, error) { <-let; return "old", nil }) // it is not answered
	close(let)
	<-woken
	clock.SetTime(clock.Now().Add(time.Hour))
	if answer, _, _ := errands.Ask(t.Context(), named("one"), func(context.Context) (string, error) { return "new", nil }); answer != "new" {
		t.Errorf("the answer is %q", answer)
	}
}
