package controllers

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/shrink"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// partShrink names the transfer that makes the smaller copy of an instance's root disk.
const partShrink = "shrink"

// copySettled is how long after its end a complete copy must have been seen among the pool's objects.
const copySettled = 30 * time.Second

// rootCopier lets the runner of transfers make the smaller copy of an instance's root disk.
type rootCopier struct {
	runner transfer.Runner
	pool   *pool.Handle
	id     transfer.ID
}

func (s *instanceScope) copier() rootCopier {
	return rootCopier{runner: s.r.runner, pool: s.pool, id: shrinkID(s.key())}
}

func shrinkID(key xencache.Key) transfer.ID { return transfer.ID{Owner: key, Part: partShrink} }

// Start implements instance.Copier.
func (c rootCopier) Start(r instance.CopyRequest) {
	c.runner.Start(c.id, transfer.Request{Shrink: &transfer.Shrink{
		Pool: c.pool.Name, VDI: r.VDI, Size: r.Size, Name: r.Name, Marks: r.Marks,
	}})
}

// Stop implements instance.Copier.
func (c rootCopier) Stop() bool { return c.runner.Stop(c.id) }

// EndTasks implements instance.Copier.
func (c rootCopier) EndTasks(ctx context.Context) error { return transfer.EndTasks(ctx, c.pool, c.id) }

// gatherCopy finds how far a smaller copy of the root disk is. An instance that is to go needs none.
func (s *instanceScope) gatherCopy(inputs *instance.Inputs) {
	if s.Deleting() {
		s.r.runner.Stop(shrinkID(s.key()))
		return
	}
	if root := s.Object.Spec.RootDisk; root != nil && root.ShrinkTo != nil {
		inputs.CopyProblem = scratchProblem(s.r.scratch.Space.Check(root.ShrinkTo.Value()))
	}
	state, known := s.r.runner.State(shrinkID(s.key()))
	if !known || state.Shrink == nil {
		return
	}
	inputs.Copy = &instance.CopyState{
		CopyRequest: instance.CopyRequest{VDI: state.Shrink.VDI, Size: state.Shrink.Size, Name: state.Shrink.Name, Marks: state.Shrink.Marks},
		Percent:     state.Percent(),
		Over:        state.Phase == transfer.Succeeded || state.Phase == transfer.Failed,
	}
	switch state.Phase {
	case transfer.Succeeded:
		inputs.Copy.Copy, inputs.Copy.Settled = state.VDI, s.r.runtime.Clock.Since(state.EndedAt) > copySettled
	case transfer.Failed:
		inputs.Copy.Failed = copyProblem(state.Err)
		inputs.Copy.Attempt, inputs.Copy.Ago = state.Attempt, s.r.runtime.Clock.Since(state.EndedAt)
	case transfer.Waiting, transfer.Running:
	}
}

// scratchProblem says that there is too little room to begin a copy.
func scratchProblem(err error) *instance.Problem {
	var space *shrink.SpaceError
	switch {
	case errors.As(err, &space):
		return &instance.Problem{Reason: v1alpha1.ReasonInsufficientStorage, Message: space.Error(), Passing: true}
	case err != nil:
		return &instance.Problem{Reason: v1alpha1.ReasonShrinkRefused, Message: err.Error(), Passing: true}
	}
	return nil
}

// copyProblem is why there is no copy, and whether trying again may help.
func copyProblem(err error) *instance.Problem {
	problem := &instance.Problem{Reason: v1alpha1.ReasonRetrying, Message: err.Error(), Passing: true}
	var failure *transfer.Failure
	if errors.As(err, &failure) {
		problem.Reason, problem.Passing = failure.Reason, !failure.Permanent
	}
	return problem
}

// copyTurns are the instances whose root disk is copied, or whose guest is turned off for it: a guest runs on until it is its
// turn.
type copyTurns struct {
	most  int
	clock clock.PassiveClock

	mu   sync.Mutex
	held map[xencache.Key]time.Time
}

// turnLapses is how long a turn is kept for an instance of which nothing is heard, because its pool cannot be reached for
// instance.
const turnLapses = 5 * time.Minute

func newCopyTurns(most int, passive clock.PassiveClock) *copyTurns {
	return &copyTurns{most: most, clock: passive, held: map[xencache.Key]time.Time{}}
}

// take reports whether it is the instance's turn. One that is off already gets it whatever the others do.
func (t *copyTurns) take(key xencache.Key, off bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	others := 0
	for other, at := range t.held {
		if other != key && now.Sub(at) < turnLapses {
			others++
		}
	}
	if _, has := t.held[key]; !has && !off && others >= t.most {
		return false
	}
	t.held[key] = now
	return true
}

func (t *copyTurns) giveBack(key xencache.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, key)
}

// takeTurn lets a guest run on whose disk is to be copied while those of others are.
func (s *instanceScope) takeTurn(plan instance.Plan) instance.Plan {
	switch {
	case s.Deleting() || !s.facts.WantsCopy():
		s.r.turns.giveBack(s.key())
	case s.facts.StopsForCopy(plan) && !s.r.turns.take(s.key(), false):
		return instance.AwaitCopier(s.r.turns.most)
	case s.facts.VM.Power == v1alpha1.PowerStateHalted:
		s.r.turns.take(s.key(), true)
	}
	return plan
}
