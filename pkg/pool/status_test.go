package pool

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

func TestJudgementOfAPool(t *testing.T) {
	living := State{Usable: true, UUID: lanUUID, Coordinator: "10.0.0.1:443", AcceptedSecret: "7"}
	troubled := func(reason string, usable bool) State {
		s := living
		s.Usable, s.Problem = usable, &Problem{Reason: reason, Message: "why"}
		return s
	}
	const yes, no, unknown = metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
	for name, tc := range map[string]struct {
		spec                  v1alpha1.XenPoolSpec
		facts                 Facts
		kind                  reconcile.Kind
		reason                string
		reachable, credential metav1.ConditionStatus
	}{
		"connected": {
			facts: Facts{Connection: living, SecretVersion: "7", Inventory: &Inventory{}},
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonConnected, reachable: yes, credential: yes,
		},
		"in maintenance": {
			spec: v1alpha1.XenPoolSpec{Maintenance: true}, facts: Facts{Connection: living, SecretVersion: "7"},
			kind: reconcile.KindDone, reason: v1alpha1.ReasonMaintenance, reachable: yes, credential: yes,
		},
		"connecting": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonConnecting, false), SecretVersion: "8"},
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonConnecting, reachable: unknown, credential: unknown,
		},
		"nobody answers": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonPoolUnreachable, false), SecretVersion: "7"},
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonPoolUnreachable, reachable: no, credential: yes,
		},
		"wrong password": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonUnauthorized, false), SecretVersion: "8"},
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonUnauthorized, reachable: yes, credential: no,
		},
		"a new password is refused while the session lives": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonUnauthorized, true), SecretVersion: "8"},
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonUnauthorized, reachable: yes, credential: no,
		},
		"wrong certificate": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonTLSUntrusted, false), SecretVersion: "7"},
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonTLSUntrusted, reachable: no, credential: yes,
		},
		"no Secret": {
			facts: Facts{Secrets: missing("no Secret"), Connection: State{Problem: &Problem{Reason: v1alpha1.ReasonConnecting}}},
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonSecretNotFound, reachable: unknown, credential: no,
		},
		"the Secret went while the session lives": {
			facts: Facts{Secrets: missing("no Secret"), Connection: living},
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonSecretNotFound, reachable: yes, credential: no,
		},
		"another pool": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonIdentityChanged, false), SecretVersion: "7"},
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonIdentityChanged, reachable: yes, credential: yes,
		},
		"another's pool": {
			facts: Facts{Connection: troubled(v1alpha1.ReasonDuplicatePool, false), SecretVersion: "7"},
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonDuplicatePool, reachable: yes, credential: yes,
		},
		"another writes": {
			facts: Facts{Connection: living, SecretVersion: "7", Installation: "ours", Inventory: &Inventory{Writer: "theirs"}},
			kind:  reconcile.KindTerminal, reason: v1alpha1.ReasonAnotherWriter, reachable: yes, credential: yes,
		},
		"another wrote, we take over": {
			spec:  v1alpha1.XenPoolSpec{TakeoverFrom: "theirs"},
			facts: Facts{Connection: living, SecretVersion: "7", Installation: "ours", Inventory: &Inventory{Writer: "theirs"}},
			kind:  reconcile.KindDone, reason: v1alpha1.ReasonConnected, reachable: yes, credential: yes,
		},
		"deleted while in use": {
			facts: Facts{Connection: living, SecretVersion: "7", Deleting: true, Users: 3},
			kind:  reconcile.KindWait, reason: v1alpha1.ReasonPoolInUse, reachable: yes, credential: yes,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &v1alpha1.XenPool{ObjectMeta: metav1.ObjectMeta{Name: "lab"}, Spec: tc.spec}
			// The password of version 7 had been accepted before.
			if tc.facts.Connection.AcceptedSecret == "7" {
				p.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionCredentialsValid, Status: yes}}
			}
			if tc.credential == unknown {
				p.Status.Conditions = nil
			}
			outcome := Judge(p, tc.facts)
			Report(p, tc.facts)
			if outcome.Kind() != tc.kind || outcome.Reason() != tc.reason {
				t.Errorf("judged %v, want %v %s", outcome, tc.kind, tc.reason)
			}
			for kind, want := range map[string]metav1.ConditionStatus{v1alpha1.ConditionReachable: tc.reachable, v1alpha1.ConditionCredentialsValid: tc.credential} {
				got := meta.FindStatusCondition(p.Status.Conditions, kind)
				if got == nil || got.Status != want {
					t.Errorf("%s is %+v, want %s", kind, got, want)
				}
			}
		})
	}
}

func TestAPoolThatWasSilentIsLookedAtAgain(t *testing.T) {
	outcome := Judge(&v1alpha1.XenPool{}, Facts{Connection: State{Problem: &Problem{Reason: v1alpha1.ReasonPoolUnreachable}}})
	if outcome.Deadline() == 0 {
		t.Error("nothing would ever show that it answers again")
	}
}

func TestTheStatusKeepsWhatWasLastKnown(t *testing.T) {
	p := &v1alpha1.XenPool{Spec: v1alpha1.XenPoolSpec{Endpoints: []string{"https://10.0.0.1"}}}
	host := v1alpha1.PoolHost{Name: "xs1", UUID: "u1", Enabled: true}
	full := &Inventory{Version: "XCP-ng 8.3.0", Hosts: []v1alpha1.PoolHost{host, {Name: "xs2", UUID: "u2"}}, Instances: 2, Unmanaged: 5}
	Report(p, Facts{Connection: State{Usable: true, UUID: lanUUID, Coordinator: "10.0.0.1:443"}, Inventory: full})
	Report(p, Facts{Connection: State{UUID: dmzUUID, Problem: &Problem{Reason: v1alpha1.ReasonIdentityChanged}}, Inventory: &Inventory{}})
	s := p.Status
	if s.UUID != lanUUID || s.Version != "XCP-ng 8.3.0" || s.HostSummary != "1/2" || s.Instances != 2 || s.UnmanagedInstances != 5 || len(s.Hosts) != 2 {
		t.Errorf("status is %+v", s)
	}
	if !strings.HasPrefix(s.Coordinator, "https://10.0.0.1") {
		t.Errorf("coordinator is %s", s.Coordinator)
	}
}

func TestListsInTheStatusAreCapped(t *testing.T) {
	var i Inventory
	for range 1000 {
		i.Hosts = append(i.Hosts, v1alpha1.PoolHost{})
		i.StorageRepositories = append(i.StorageRepositories, v1alpha1.PoolStorageRepository{})
		i.Networks = append(i.Networks, v1alpha1.PoolNetwork{})
		i.Trash = append(i.Trash, Trashed{})
		i.Marked = append(i.Marked, Marked{})
	}
	p := &v1alpha1.XenPool{}
	Report(p, Facts{Connection: State{Usable: true}, Inventory: &i, Orphans: i.Marked})
	s := p.Status
	if len(s.Hosts) != v1alpha1.MaxReportedHosts || len(s.StorageRepositories) != v1alpha1.MaxReportedStorageRepositories ||
		len(s.Networks) != v1alpha1.MaxReportedNetworks || len(s.Trash) != v1alpha1.MaxReportedTrash || len(s.Orphans) != v1alpha1.MaxReportedOrphans {
		t.Errorf("lists of %d, %d, %d, %d, %d", len(s.Hosts), len(s.StorageRepositories), len(s.Networks), len(s.Trash), len(s.Orphans))
	}
	if s.TrashCount != 1000 || s.OrphanCount != 1000 || s.HostSummary != "0/1000" {
		t.Errorf("counts %d, %d, %s", s.TrashCount, s.OrphanCount, s.HostSummary)
	}
}
