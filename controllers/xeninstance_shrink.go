package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		inputs.Copy.Failed = givenUp(copyProblem(state.Err), state.Attempt)
		inputs.Copy.RetryIn = copyPause<<(state.Attempt-1) - s.r.runtime.Clock.Since(state.EndedAt)
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

// A copy is tried so often, with pauses that double: the VM is off meanwhile, and starts again as it was when it is given up.
const (
	maxCopyAttempts = 5
	copyPause       = 2 * time.Second
)

// givenUp makes a problem that may pass one that does not, after so many attempts.
func givenUp(problem *instance.Problem, attempt int) *instance.Problem {
	if problem.Passing && attempt >= maxCopyAttempts {
		problem.Reason, problem.Passing = v1alpha1.ReasonShrinkRefused, false
		problem.Message = fmt.Sprintf("given up after %d attempts, the last of which ended so: %s", attempt, problem.Message)
	}
	return problem
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
