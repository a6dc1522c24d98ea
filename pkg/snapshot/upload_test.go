package snapshot

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
)

func TestWhatIsNextForAnUpload(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	passing := &transfer.Failure{Reason: v1alpha1.ReasonStoreUnavailable, Err: errors.New("out of order")}
	final := &transfer.Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: errors.New("too large")}
	failed := func(err error) transfer.State {
		return transfer.State{Phase: transfer.Failed, Err: err, Total: 100, Transferred: 99}
	}
	for name, tc := range map[string]struct {
		spec   v1alpha1.XenSnapshotSpec
		upload v1alpha1.SnapshotUpload
		state  transfer.State
		known  bool
		start  bool
		over   bool
		kind   reconcile.Kind
		reason string
		// what status says then
		attempts int32
		percent  int32
		retryAt  string
	}{
		"nothing begun":                {start: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonUploading, attempts: 1},
		"waiting for its turn":         {upload: v1alpha1.SnapshotUpload{Attempts: 1}, state: transfer.State{Phase: transfer.Waiting}, known: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonWaitingForTransfer, attempts: 1},
		"under way":                    {upload: v1alpha1.SnapshotUpload{Attempts: 1}, state: transfer.State{Phase: transfer.Running, Total: 200, Transferred: 100}, known: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonUploading, attempts: 1, percent: 50},
		"complete":                     {upload: v1alpha1.SnapshotUpload{Attempts: 2, LastError: "x"}, state: transfer.State{Phase: transfer.Succeeded}, known: true, attempts: 2, percent: 100},
		"failed for now":               {upload: v1alpha1.SnapshotUpload{Attempts: 1}, state: failed(passing), known: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonStoreUnavailable, attempts: 1, retryAt: at(5 * time.Second)},
		"failed for the third time":    {upload: v1alpha1.SnapshotUpload{Attempts: 3}, state: failed(passing), known: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonStoreUnavailable, attempts: 3, retryAt: at(20 * time.Second)},
		"failed for good":              {upload: v1alpha1.SnapshotUpload{Attempts: 1}, state: failed(final), known: true, over: true, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonFormatUnsupported, attempts: 1},
		"failed too often":             {upload: v1alpha1.SnapshotUpload{Attempts: 7}, state: failed(passing), known: true, over: true, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonBackoffLimitExceeded, attempts: 7},
		"failed, and no other try":     {spec: v1alpha1.XenSnapshotSpec{BackoffLimit: ptr.To(int32(0))}, upload: v1alpha1.SnapshotUpload{Attempts: 1}, state: failed(passing), known: true, over: true, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonBackoffLimitExceeded, attempts: 1},
		"the pause is not over":        {upload: v1alpha1.SnapshotUpload{Attempts: 1, NextRetryTime: at(time.Second)}, state: failed(passing), known: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonStoreUnavailable, attempts: 1, retryAt: at(time.Second)},
		"the pause is over":            {upload: v1alpha1.SnapshotUpload{Attempts: 1, NextRetryTime: at(0)}, state: failed(passing), known: true, start: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonUploading, attempts: 2},
		"begun by a manager that died": {upload: v1alpha1.SnapshotUpload{Attempts: 1, Percent: 40}, start: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonUploading, attempts: 1},
		"not begun yet":                {start: true, kind: reconcile.KindWait, reason: v1alpha1.ReasonUploading, attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			next := NextUpload(&tc.spec, &tc.upload, tc.state, tc.known, now)
			if next.Start != tc.start || next.Over != tc.over || next.Outcome.Kind() != tc.kind || next.Outcome.Reason() != tc.reason {
				t.Errorf("next is start=%t over=%t %v, want start=%t over=%t %v %s", next.Start, next.Over, next.Outcome, tc.start, tc.over, tc.kind, tc.reason)
			}
			if u := tc.upload; u.Attempts != tc.attempts || u.Percent != tc.percent || u.NextRetryTime != tc.retryAt {
				t.Errorf("status says attempts %d, percent %d, next %q; want %d, %d, %q", u.Attempts, u.Percent, u.NextRetryTime, tc.attempts, tc.percent, tc.retryAt)
			}
		})
	}
}

func TestWhereAnUploadIs(t *testing.T) {
	for want, d := range map[string]*v1alpha1.SnapshotDestination{
		"":                                 nil,
		"s3://backups/nightly/team-a/once": {S3: &v1alpha1.S3Destination{S3Bucket: v1alpha1.S3Bucket{Bucket: "backups"}, Prefix: "nightly"}},
		"s3://backups/team-a/once":         {S3: &v1alpha1.S3Destination{S3Bucket: v1alpha1.S3Bucket{Bucket: "backups"}}},
		"https://images.example.org":       {Glance: &v1alpha1.GlanceDestination{GlanceService: v1alpha1.GlanceService{Endpoint: "https://images.example.org"}}},
		"https://a.example.org/team-a-web/once/manifest.json": {HTTP: &v1alpha1.HTTPDestination{URLTemplate: "https://a.example.org/{namespace}-{instance}/{snapshot}/{file}?signature=secret"}},
	} {
		if got := Location(d, "team-a", "web", "once"); got != want {
			t.Errorf("the location is %q, want %q", got, want)
		}
	}
}

func TestLongErrorsAreCut(t *testing.T) {
	long := strings.Repeat("ä", messageLimit)
	if got := limited(long); len(got) > messageLimit || !strings.HasPrefix(long, got) || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d bytes are left", len(got))
	}
}
