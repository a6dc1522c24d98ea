package instance

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// TestStatus says what the user sees of each situation.
func TestStatus(t *testing.T) {
	const (
		yes = metav1.ConditionTrue
		no  = metav1.ConditionFalse
	)
	type want struct {
		status metav1.ConditionStatus
		reason string
	}
	wait := func(reason string) reconcile.Outcome { return reconcile.Wait(reason, "being done") }
	tests := map[string]struct {
		facts   *Facts
		report  Report
		conds   map[string]want
		check   func(*testing.T, v1alpha1.XenInstanceStatus)
		hidesVM bool
	}{
		"nothing there yet": {
			facts: given(), report: Report{Plan: Plan{Operation: operationCreate}, Outcome: wait(v1alpha1.ReasonCreating)},
			conds: map[string]want{
				v1alpha1.ConditionProvisioned: {no, v1alpha1.ReasonCreating}, v1alpha1.ConditionFlavorApplied: {no, v1alpha1.ReasonApplying},
				v1alpha1.ConditionPowerStateSynced: {no, v1alpha1.ReasonCreating}, v1alpha1.ConditionGuestReady: {no, v1alpha1.ReasonNotRunning},
			},
			hidesVM: true,
		},
		"refused": {
			facts: given(), report: Report{Outcome: reconcile.Terminal(v1alpha1.ReasonNetworkNotFound, "no network")},
			conds:   map[string]want{v1alpha1.ConditionProvisioned: {no, v1alpha1.ReasonNetworkNotFound}},
			hidesVM: true,
		},
		"being made": {
			facts: given(unfinishedClone), report: Report{Plan: Plan{Operation: operationCreate}, Outcome: wait(v1alpha1.ReasonCreating)},
			conds:   map[string]want{v1alpha1.ConditionProvisioned: {no, v1alpha1.ReasonCreating}},
			hidesVM: true,
		},
		"running": {
			facts: given(complete(v1alpha1.PowerStateRunning)), report: Report{},
			conds: map[string]want{
				v1alpha1.ConditionProvisioned: {yes, v1alpha1.ReasonSucceeded}, v1alpha1.ConditionFlavorApplied: {yes, v1alpha1.ReasonSucceeded},
				v1alpha1.ConditionPowerStateSynced: {yes, v1alpha1.ReasonRunning}, v1alpha1.ConditionGuestReady: {yes, v1alpha1.ReasonSucceeded},
			},
			check: func(t *testing.T, s v1alpha1.XenInstanceStatus) {
				if s.PrimaryAddress != "10.0.0.5" || s.RootDisk.VDIUUID != testRoot || s.Networks[0].MAC != "02:00:00:00:00:01" || s.Flavor.Name != "small" {
					t.Errorf("status %+v", s)
				}
				if s.Operation != nil {
					t.Errorf("operation at rest: %+v", s.Operation)
				}
			},
		},
		"running without an agent": {
			facts: given(complete(v1alpha1.PowerStateRunning), noAgent), report: Report{},
			conds: map[string]want{v1alpha1.ConditionGuestReady: {no, v1alpha1.ReasonToolsNotInstalled}},
		},
		"running without an address": {
			facts: given(complete(v1alpha1.PowerStateRunning), having(func(vm *VM) { vm.Guest.Addresses = nil })), report: Report{},
			conds: map[string]want{v1alpha1.ConditionGuestReady: {no, v1alpha1.ReasonWaitingForAddress}},
		},
		"another flavor": {
			facts: given(complete(v1alpha1.PowerStateRunning), wanting(func(w *Want) {
				w.Flavor = "large"
				w.Size = &Size{VCPUs: 4, MaxVCPUs: 4, MinMemory: gib, Memory: gib, MaxMemory: gib}
			})),
			report: Report{Outcome: reconcile.Done().Because(v1alpha1.ReasonPowerOffRequired, "")},
			conds:  map[string]want{v1alpha1.ConditionFlavorApplied: {no, v1alpha1.ReasonPowerOffRequired}},
			check: func(t *testing.T, s v1alpha1.XenInstanceStatus) {
				if s.Flavor.Name != "small" || s.Flavor.VCPUs != 2 {
					t.Errorf("flavor %+v: it must be what the VM has", s.Flavor)
				}
				if len(s.PendingChanges) != 4 || s.PendingChanges[0].Requires != v1alpha1.RequiresPowerOff {
					t.Errorf("pending changes %+v", s.PendingChanges)
				}
			},
		},
		"drifted": {
			facts: given(complete(v1alpha1.PowerStateHalted), wasRunning), report: Report{Outcome: wait(v1alpha1.ReasonDrifted)},
			conds: map[string]want{v1alpha1.ConditionPowerStateSynced: {no, v1alpha1.ReasonDrifted}},
		},
		"on the way to a state that is not asked for any more": {
			facts: given(complete(v1alpha1.PowerStateRunning), wasRunning), report: Report{Leads: v1alpha1.PowerStateHalted, Outcome: wait(v1alpha1.ReasonShuttingDown)},
			conds: map[string]want{v1alpha1.ConditionPowerStateSynced: {no, v1alpha1.ReasonProgressing}},
		},
		"on the way to the state that is asked for": {
			facts: given(complete(v1alpha1.PowerStateRunning), wasRunning), report: Report{Leads: v1alpha1.PowerStateRunning, Outcome: wait(v1alpha1.ReasonStarting)},
			conds: map[string]want{v1alpha1.ConditionPowerStateSynced: {yes, v1alpha1.ReasonRunning}},
		},
		"a snapshot with memory is being taken": {
			facts: given(complete(v1alpha1.PowerStateSuspended), wasRunning, captured), report: Report{Outcome: wait(v1alpha1.ReasonInstanceBusy)},
			conds: map[string]want{v1alpha1.ConditionPowerStateSynced: {no, v1alpha1.ReasonInstanceBusy}},
		},
		"being put back after a drift": {
			facts: given(complete(v1alpha1.PowerStateHalted), wasRunning), report: Report{Plan: Plan{Operation: operationStart}, Outcome: wait(v1alpha1.ReasonStarting)},
			conds: map[string]want{v1alpha1.ConditionPowerStateSynced: {no, v1alpha1.ReasonStarting}},
		},
		"being started for the first time": {
			facts:  given(complete(v1alpha1.PowerStateHalted), priorly(func(s *v1alpha1.XenInstanceStatus) { s.UUID = "" })),
			report: Report{Plan: Plan{Operation: operationCreate}, Outcome: wait(v1alpha1.ReasonCreating)},
			conds: map[string]want{
				v1alpha1.ConditionProvisioned: {no, v1alpha1.ReasonCreating}, v1alpha1.ConditionPowerStateSynced: {no, v1alpha1.ReasonCreating},
			},
			check: func(t *testing.T, s v1alpha1.XenInstanceStatus) {
				if s.UUID != "" {
					t.Errorf("the VM is shown before it is there: %s", s.UUID)
				}
			},
		},
		"the root disk is gone": {
			facts: given(complete(v1alpha1.PowerStateHalted), having(func(vm *VM) { vm.Disks = nil })), report: Report{Outcome: reconcile.Terminal(v1alpha1.ReasonExternallyDeleted, "gone")},
			conds: map[string]want{v1alpha1.ConditionProvisioned: {no, v1alpha1.ReasonExternallyDeleted}},
		},
		"tried twice": {
			facts: given(complete(v1alpha1.PowerStateHalted), priorly(func(s *v1alpha1.XenInstanceStatus) {
				at := metav1.NewTime(testTime.Add(-time.Minute))
				s.Operation = &v1alpha1.Operation{Type: operationStart, StartedAt: &at, Attempts: 1}
			})),
			report: Report{Plan: Plan{Operation: operationStart}, Outcome: reconcile.Retry(v1alpha1.ReasonInsufficientMemory, errText("needed 4Gi, available 3Gi on xs1"))},
			check: func(t *testing.T, s v1alpha1.XenInstanceStatus) {
				if s.Operation.Attempts != 2 || !strings.Contains(s.Operation.LastError, "3Gi") || !s.Operation.StartedAt.Time.Equal(testTime.Add(-time.Minute)) {
					t.Errorf("operation %+v", s.Operation)
				}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.report.Now = testTime
			before := test.facts.Prior.DeepCopy()
			status := Status(test.facts, test.report)
			for kind, want := range test.conds {
				found := meta.FindStatusCondition(status.Conditions, kind)
				if found == nil || found.Status != want.status || found.Reason != want.reason {
					t.Errorf("%s is %+v, want %s %s", kind, found, want.status, want.reason)
				}
			}
			if test.hidesVM && status.UUID != "" {
				t.Errorf("a VM that is being made shows as %s", status.UUID)
			}
			if len(before.Conditions) != len(test.facts.Prior.Conditions) {
				t.Error("the prior status was changed")
			}
			if test.check != nil {
				test.check(t, status)
			}
		})
	}
}

// errText is an error of that text.
type errText string

func (e errText) Error() string { return string(e) }

// TestCoarse: a percentage is written in steps.
func TestCoarse(t *testing.T) {
	p := func(n int32) *int32 { return &n }
	tests := map[string]struct{ shown, now, want *int32 }{
		"none":             {nil, nil, nil},
		"begun":            {nil, p(0), nil},
		"first":            {nil, p(12), p(10)},
		"a little further": {p(10), p(13), p(10)},
		"further":          {p(10), p(17), p(15)},
		"anew":             {p(50), p(6), p(5)},
		"done":             {p(95), p(100), p(95)},
		"done at once":     {nil, p(100), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := coarse(test.shown, test.now)
			if (got == nil) != (test.want == nil) || (got != nil && *got != *test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestMAC: an address is locally administered, unicast, and follows from the names alone.
func TestMAC(t *testing.T) {
	first := MAC("home", testKey, "lan")
	if first != MAC("home", testKey, "lan") || !strings.HasPrefix(first, "02:") || len(first) != 17 {
		t.Errorf("address %s", first)
	}
	if first == MAC("home", testKey, "dmz") || first == MAC("away", testKey, "lan") {
		t.Error("two interfaces have one address")
	}
}
