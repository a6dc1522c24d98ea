package instance

import (
	"context"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Names of the steps of a restart.
const (
	stepMarkRestart = "MarkRestart"
	stepReboot      = "Reboot"
	stepReset       = "Reset"
)

// markRestart remembers on the VM which restart was asked for and when the VM had started before: the restart is done
// when it has started anew, whoever saw to it and whatever was lost in between.
const markRestart = "kubexen.io/restart"

// restartMark is what markRestart holds, as token,time.
type restartMark struct {
	token  string
	before time.Time
}

func (m restartMark) String() string { return m.token + "," + m.before.UTC().Format(time.RFC3339) }

// readRestartMark reads the mark; the token may hold commas.
func readRestartMark(otherConfig map[string]string) (restartMark, bool) {
	text := otherConfig[markRestart]
	comma := strings.LastIndexByte(text, ',')
	if comma < 0 {
		return restartMark{}, false
	}
	before, err := time.Parse(time.RFC3339, text[comma+1:])
	return restartMark{token: text[:comma], before: before}, err == nil
}

var (
	markRestartStep = Step{Name: stepMarkRestart, Holds: restartMarked, Act: rememberRestart}
	rebootStep      = Step{Name: stepReboot, Holds: restarted, Act: reboot, Long: true}
	resetStep       = Step{Name: stepReset, Holds: restarted, Act: reset, Long: true, Overtakes: stepReboot}
)

// restartMarked reports whether the VM remembers the restart that is asked for.
func restartMarked(f *Facts) bool {
	mark, ok := readRestartMark(f.VM.OtherConfig)
	return ok && mark.token == f.Want.RestartToken
}

// restarted reports whether the VM has started since the restart was asked for.
func restarted(f *Facts) bool {
	mark, ok := readRestartMark(f.VM.OtherConfig)
	return ok && mark.token == f.Want.RestartToken && !mark.before.Equal(f.VM.StartedAt.Truncate(time.Second))
}

// restartWanted reports whether a restart is asked for. The token that the object came with, and a status that was lost,
// ask for none.
func restartWanted(f *Facts) bool {
	return f.Want.RestartToken != "" && f.Want.RestartToken != f.Prior.RestartToken && f.Prior.UUID != "" &&
		f.Want.Power == v1alpha1.PowerStateRunning
}

// restarting reports whether a restart was begun and is not over.
func restarting(f *Facts) bool { return restartWanted(f) && restartMarked(f) && !restarted(f) }

// restartToken is the token to echo.
func restartToken(f *Facts) string {
	if !restartWanted(f) || f.VM == nil || restarted(f) {
		return f.Want.RestartToken
	}
	return f.Prior.RestartToken
}

// whenRestarting restarts the VM once for each new token. While changes wait for the VM to be off, it is turned off and
// on: a reboot from inside could not change VCPUs_max or static memory.
func whenRestarting(f *Facts, now time.Time) (Plan, bool) {
	switch {
	case !restartWanted(f) || restarted(f):
		return undecided()
	case f.Me.Held != "":
		return stop(reconcile.Done().Because(f.Me.HeldReason, f.Me.Held))
	case !restartMarked(f):
		return f.restartPlan(Plan{Steps: []Step{markRestartStep}})
	case f.VM.Power != v1alpha1.PowerStateRunning:
		return undecided() // it is being started: that is the restart
	case requirement(Pending(f)) != "":
		return f.restartPlan(shutdownPlan(f, operationRestart, f.Want.Off, now))
	case f.Want.Off == v1alpha1.PowerOffHard:
		return f.restartPlan(steps(f, operationRestart, resetStep))
	}
	return f.restartPlan(softRestart(f, now))
}

// softRestart asks the guest to reboot until the time is over.
func softRestart(f *Facts, now time.Time) Plan {
	left := f.operationBegan(operationRestart, now).Add(f.Want.OffTimeout).Sub(now)
	switch {
	case left <= 0 && f.Want.Off == v1alpha1.PowerOffTrySoft:
		return steps(f, operationRestart, resetStep)
	case left <= 0:
		return Plan{Outcome: reconcile.Terminal(v1alpha1.ReasonGuestNotResponding,
			"the guest did not reboot in time; powerOff.mode TrySoft or Hard would reset it")}
	case !f.VM.Guest.CanShutDown:
		return Plan{Outcome: reconcile.Wait(v1alpha1.ReasonRestarting,
			"the guest cannot be asked to reboot: its agent does not report; waiting for it until the time-out").After(left)}
	}
	plan := steps(f, operationRestart, rebootStep)
	plan.Outcome = plan.Outcome.After(left)
	return plan
}

// restartPlan makes a plan part of the restart.
func (f *Facts) restartPlan(plan Plan) (Plan, bool) {
	plan.Operation, plan.ID = operationRestart, f.Want.RestartToken
	return plan, true
}

func rememberRestart(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	mark := restartMark{token: r.Want.RestartToken, before: r.VM.StartedAt.Truncate(time.Second)}
	return "", r.setMark(ctx, markRestart, mark.String())
}

func reboot(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.CleanRebootAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "reboot the guest")
}

func reset(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.HardRebootAsync(ctx, r.VM.Ref)
	return task, r.doing(err, "reset the VM")
}
