package pool

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func TestWhoMayWrite(t *testing.T) {
	for name, tc := range map[string]struct {
		mark, takeoverFrom string
		want               writer
	}{
		"nobody wrote yet":             {"", "", writerFree},
		"we did":                       {"ours", "", writerOurs},
		"another did":                  {"theirs", "", writerForeign},
		"another that we replace":      {"theirs", "theirs", writerYielding},
		"another than the one we may":  {"third", "theirs", writerForeign},
		"we did, the rest is left":     {"ours", "theirs", writerOurs},
		"free, the rest is left":       {"", "theirs", writerFree},
		"we may replace ourselves, so": {"ours", "ours", writerOurs},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readWriter(tc.mark, "ours", tc.takeoverFrom); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestWhatAnErrorMeansForThePool(t *testing.T) {
	for name, tc := range map[string]struct {
		err     error
		reason  string
		stalled bool
	}{
		"refused password":   {&xenapi.Error{Code: xenapi.ErrSessionAuthenticationFailed}, v1alpha1.ReasonUnauthorized, true},
		"too small a role":   {&xenapi.Error{Code: xenapi.ErrRBACPermissionDenied}, v1alpha1.ReasonPermissionDenied, true},
		"wrong certificate":  {fmt.Errorf("log in: %w", xenapi.ErrTLSVerification), v1alpha1.ReasonTLSUntrusted, true},
		"bad configuration":  {fmt.Errorf("%w: no endpoint", xenapi.ErrConfig), v1alpha1.ReasonInvalidSpec, true},
		"nobody answers":     {&xenapi.TransportError{Op: "login", Err: errors.New("connection refused")}, v1alpha1.ReasonPoolUnreachable, false},
		"a code we know not": {&xenapi.Error{Code: "HOST_STILL_BOOTING"}, v1alpha1.ReasonPoolUnreachable, false},
	} {
		t.Run(name, func(t *testing.T) {
			problem := classify(tc.err)
			if problem.Reason != tc.reason || problem.stalled() != tc.stalled {
				t.Errorf("got %+v, stalled %t", problem, problem.stalled())
			}
		})
	}
}

func TestPausesBetweenAttempts(t *testing.T) {
	for reason, want := range map[string][]time.Duration{
		v1alpha1.ReasonUnauthorized:    {time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute},
		v1alpha1.ReasonPoolUnreachable: {time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second},
	} {
		t.Run(reason, func(t *testing.T) {
			var pause backoff
			for i, d := range want {
				pause.failed(Problem{Reason: reason}, noon)
				if got := pause.remaining(noon); got != d {
					t.Errorf("after failure %d: %s, want %s", i+1, got, d)
				}
				if pause.due(noon.Add(d-time.Nanosecond)) || !pause.due(noon.Add(d)) {
					t.Errorf("after failure %d it is not due after %s", i+1, d)
				}
			}
			pause.failed(Problem{Reason: v1alpha1.ReasonTLSUntrusted}, noon)
			if got := pause.remaining(noon); got != 30*time.Second {
				t.Errorf("another failure does not begin anew: %s", got)
			}
		})
	}
}

func TestTaskSlots(t *testing.T) {
	key := func(name string) xencache.Key { return xencache.Key{Kind: "XenInstance", Namespace: "a", Name: name} }
	s := newSlots()
	s.setLimit(2)
	for _, name := range []string{"1", "2", "1"} {
		if !s.reserve(key(name)) {
			t.Fatalf("no slot for %s", name)
		}
	}
	for _, name := range []string{"3", "4", "3"} {
		if s.reserve(key(name)) {
			t.Fatalf("a slot too many, for %s", name)
		}
	}
	if woken := s.release(key("9")); woken != nil {
		t.Errorf("who had no slot woke %v", woken)
	}
	if woken := s.release(key("1")); !slices.Equal(woken, []xencache.Key{key("3")}) {
		t.Errorf("one slot woke %v", woken)
	}
	s.setLimit(4)
	if woken := s.release(key("2")); !slices.Equal(woken, []xencache.Key{key("4")}) {
		t.Errorf("the last in the queue: woke %v", woken)
	}
}

func TestWhoHasTheBetterClaim(t *testing.T) {
	pool := func(name, latched string, created time.Time) *v1alpha1.XenPool {
		p := &v1alpha1.XenPool{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(created)}}
		p.Status.UUID = latched
		return p
	}
	for name, tc := range map[string]struct{ better, worse *v1alpha1.XenPool }{
		"who had it before":       {pool("b", "u", noon.Add(time.Hour)), pool("a", "", noon)},
		"of two fresh, the older": {pool("b", "", noon), pool("a", "", noon.Add(time.Second))},
		"of two twins, by name":   {pool("a", "u", noon), pool("b", "u", noon)},
	} {
		t.Run(name, func(t *testing.T) {
			better, worse := newClaim("u", tc.better), newClaim("u", tc.worse)
			if !better.before(worse) || worse.before(better) {
				t.Errorf("%+v does not come before %+v", better, worse)
			}
		})
	}
}

func TestTrashGoesWhenItsRetentionIsOver(t *testing.T) {
	trash := []Trashed{{UUID: "old", DeletedAt: noon.Add(-2 * time.Hour)}, {UUID: "due", DeletedAt: noon.Add(-time.Hour)}, {UUID: "new", DeletedAt: noon.Add(-time.Minute)}}
	expired, next := Expired(trash, time.Hour, noon)
	if len(expired) != 2 || expired[0].UUID != "old" || expired[1].UUID != "due" {
		t.Errorf("expired: %+v", expired)
	}
	if want := noon.Add(59 * time.Minute); !next.Equal(want) {
		t.Errorf("the next goes at %s, want %s", next, want)
	}
	if expired, next := Expired(nil, time.Hour, noon); expired != nil || !next.IsZero() {
		t.Errorf("of an empty trash: %v, %s", expired, next)
	}
}

func TestOnlyTemporaryOrphansAreSweptAndLate(t *testing.T) {
	orphan := func(uuid string, role xencache.Role, change func(*Marked)) Marked {
		m := Marked{Class: "VDI", UUID: uuid, Marks: xencache.Marks{Role: role, Self: uuid}}
		if change != nil {
			change(&m)
		}
		return m
	}
	orphans := []Marked{
		orphan("drive", xencache.RoleConfigDrive, nil),
		orphan("disk", xencache.RoleDataDisk, nil),
		orphan("root", xencache.RoleRootDisk, nil),
		orphan("vm", xencache.RoleVM, nil),
		orphan("image", xencache.RoleImage, nil),
		orphan("snapshot", xencache.RoleSnapshot, nil),
		orphan("in use", xencache.RoleConfigDrive, func(m *Marked) { m.InUse = true }),
		orphan("a copy", xencache.RoleConfigDrive, func(m *Marked) { m.Marks.Self = "drive" }),
		orphan("unfinished", xencache.RoleConfigDrive, func(m *Marked) { m.Marks.Self = "" }),
	}
	var ages Ages
	if due, next := ages.due("lab", orphans, noon); due != nil || !next.Equal(noon.Add(orphanAge)) {
		t.Errorf("at first sight: due %v, next %s", due, next)
	}
	if due, _ := ages.due("lab", orphans, noon.Add(orphanAge-time.Second)); due != nil {
		t.Errorf("too early: due %v", due)
	}
	if due, _ := ages.due("lab", orphans, noon.Add(orphanAge)); len(due) != 1 || due[0].UUID != "drive" {
		t.Errorf("due: %v, want the drive alone", due)
	}
	ages.due("lab", nil, noon.Add(orphanAge))
	if due, _ := ages.due("lab", orphans, noon.Add(orphanAge)); due != nil {
		t.Errorf("an orphan that had an owner meanwhile is due: %v", due)
	}
}

func TestSettingsComeFromTheSecrets(t *testing.T) {
	secret := func(data map[string]string) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}, Data: map[string][]byte{}}
		for key, value := range data {
			s.Data[key] = []byte(value)
		}
		return s
	}
	login := secret(map[string]string{"username": "root", "password": "p"})
	trusting := &v1alpha1.PoolTLS{CABundleSecretRef: &v1alpha1.SecretReference{Namespace: "xen", Name: "ca"}}
	for name, tc := range map[string]struct {
		tls             *v1alpha1.PoolTLS
		credentials, ca *corev1.Secret
		problem         string
	}{
		"user and password":  {credentials: login},
		"no Secret":          {problem: "Secret xen/login (spec.credentialsSecretRef) does not exist"},
		"no password":        {credentials: secret(map[string]string{"username": "root"}), problem: "must have the keys username and password"},
		"an empty user":      {credentials: secret(map[string]string{"username": "", "password": "p"}), problem: "must have the keys"},
		"a CA":               {tls: trusting, credentials: login, ca: secret(map[string]string{"ca.crt": "PEM"})},
		"no CA Secret":       {tls: trusting, credentials: login, problem: "Secret xen/ca (spec.tls.caBundleSecretRef) does not exist"},
		"a CA without a key": {tls: trusting, credentials: login, ca: secret(map[string]string{"tls.crt": "PEM"}), problem: "has no key ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &v1alpha1.XenPool{Spec: v1alpha1.XenPoolSpec{
				Endpoints: []string{"https://xs1"}, CredentialsSecretRef: v1alpha1.SecretReference{Namespace: "xen", Name: "login"}, TLS: tc.tls,
			}}
			settings, problem := SettingsFrom(p, tc.credentials, tc.ca)
			if tc.problem != "" {
				if problem == nil {
					t.Fatalf("no problem, but settings %+v", settings)
				}
				checkDenial(t, deny(problem.Reason, "%s", problem.Message), tc.problem, v1alpha1.ReasonSecretNotFound)
				return
			}
			if problem != nil || settings.Username != "root" || settings.Password != "p" || settings.SecretVersion != "7" {
				t.Errorf("settings %+v, problem %v", settings, problem)
			}
		})
	}
}
