package snapshot

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// TestWhatASnapshotSaysOfItself: captured and uploaded are facts that a later trouble does not take back.
func TestWhatASnapshotSaysOfItself(t *testing.T) {
	waiting := reconcile.Wait(v1alpha1.ReasonPoolNotReady, "the pool is away")
	toStore := v1alpha1.XenSnapshotSpec{Destination: &v1alpha1.SnapshotDestination{}}
	for name, tc := range map[string]struct {
		spec               v1alpha1.XenSnapshotSpec
		status             v1alpha1.XenSnapshotStatus
		outcome            reconcile.Outcome
		captured, uploaded string // the reason; a + before it where the condition is true
		progress           string
	}{
		"nothing yet":              {outcome: waiting, captured: v1alpha1.ReasonPoolNotReady, uploaded: v1alpha1.ReasonNotRequested},
		"captured":                 {status: v1alpha1.XenSnapshotStatus{UUID: "u"}, outcome: reconcile.Done(), captured: "+" + v1alpha1.ReasonCaptured, uploaded: v1alpha1.ReasonNotRequested},
		"captured, pool away":      {status: v1alpha1.XenSnapshotStatus{UUID: "u"}, outcome: waiting, captured: "+" + v1alpha1.ReasonCaptured, uploaded: v1alpha1.ReasonNotRequested},
		"to be uploaded":           {spec: toStore, status: v1alpha1.XenSnapshotStatus{UUID: "u"}, outcome: waiting, captured: "+" + v1alpha1.ReasonCaptured, uploaded: v1alpha1.ReasonPoolNotReady},
		"half of it":               {spec: toStore, status: v1alpha1.XenSnapshotStatus{UUID: "u", Upload: &v1alpha1.SnapshotUpload{Attempts: 1, Percent: 50}}, outcome: reconcile.Wait(v1alpha1.ReasonUploading, "on its way"), captured: "+" + v1alpha1.ReasonCaptured, uploaded: v1alpha1.ReasonUploading, progress: "50%"},
		"the manifest is written":  {spec: toStore, status: v1alpha1.XenSnapshotStatus{UUID: "u", Upload: &v1alpha1.SnapshotUpload{Attempts: 1, Manifest: "s3://b/manifest.json"}}, outcome: reconcile.Done(), captured: "+" + v1alpha1.ReasonCaptured, uploaded: "+" + v1alpha1.ReasonUploaded, progress: "100%"},
		"all of it, and pool away": {spec: toStore, status: v1alpha1.XenSnapshotStatus{UUID: "u", Upload: &v1alpha1.SnapshotUpload{Attempts: 1, Manifest: "s3://b/manifest.json"}}, outcome: waiting, captured: "+" + v1alpha1.ReasonCaptured, uploaded: "+" + v1alpha1.ReasonUploaded, progress: "100%"},
	} {
		t.Run(name, func(t *testing.T) {
			Report(&tc.status, &tc.spec, tc.outcome)
			said := func(condition string) string {
				c := meta.FindStatusCondition(tc.status.Conditions, condition)
				if c != nil && c.Status == metav1.ConditionTrue {
					return "+" + c.Reason
				}
				return c.Reason
			}
			if c, u := said(v1alpha1.ConditionCaptured), said(v1alpha1.ConditionUploaded); c != tc.captured || u != tc.uploaded || tc.status.Progress != tc.progress {
				t.Errorf("Captured %s, Uploaded %s, %q; want %s, %s, %q", c, u, tc.status.Progress, tc.captured, tc.uploaded, tc.progress)
			}
		})
	}
}

// TestWhatIsTakenOverFromAStore: an object that was restored has what its upload's manifest says, and is complete.
func TestWhatIsTakenOverFromAStore(t *testing.T) {
	taken := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := v1alpha1.XenSnapshotStatus{Upload: &v1alpha1.SnapshotUpload{LastError: "no route", NextRetryTime: "later"}}
	Recalled(&status, transfer.Found{Complete: true, Location: "s3://b/manifest.json", SHA256: "sum", Files: []v1alpha1.UploadedFile{{Name: "root.vhd"}}, Manifest: transfer.Manifest{
		SnapshotUUID: "u", InstanceUUID: "i", TakenAt: taken, Consistency: v1alpha1.ConsistencyMemory,
		Disks: []transfer.ManifestDisk{{Name: "root", VDI: "v", Size: 1 << 30}, {Name: "data", Device: 4, VDI: "w", Size: 1 << 20}},
	}})
	if !IsCaptured(&status) || !IsUploaded(&status) || !status.TakenAt.Time.Equal(taken) || status.Size.Value() != 1<<30+1<<20 {
		t.Errorf("the status is %+v", status)
	}
	if len(status.Disks) != 2 || status.Disks[1].Device != 4 || status.Disks[1].VDIUUID != "w" {
		t.Errorf("the disks are %+v", status.Disks)
	}
	if u := status.Upload; u.Manifest == "" || u.SHA256 != "sum" || u.Percent != 100 || u.LastError != "" || u.NextRetryTime != "" || len(u.Files) != 1 {
		t.Errorf("the upload is %+v", u)
	}
}

func TestDeadline(t *testing.T) {
	created := metav1.NewTime(time.Unix(1000, 0))
	if at := Deadline(&v1alpha1.XenSnapshotSpec{}, created); !at.IsZero() {
		t.Errorf("without one it is %s", at)
	}
	if at := Deadline(&v1alpha1.XenSnapshotSpec{DeadlineSeconds: ptr.To[int64](60)}, created); at.Unix() != 1060 {
		t.Errorf("after a minute it is %s", at)
	}
}
