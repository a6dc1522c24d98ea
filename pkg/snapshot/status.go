package snapshot

import (
	"fmt"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// Taken writes down what was captured. It is called once the snapshot is complete, and what it wrote stays for good.
func Taken(status *v1alpha1.XenSnapshotStatus, f Facts, poolName string) {
	local := f.Local
	taken := metav1.NewTime(local.TakenAt)
	status.UUID, status.TakenAt, status.Consistency = local.UUID, &taken, consistency(local)
	status.PoolRef = &v1alpha1.PoolReference{Name: poolName}
	status.InstanceUUID = local.OtherConfig[MarkInstance]
	status.Disks, status.Size = nil, nil
	total := int64(0)
	for _, disk := range local.Captured() {
		total += disk.Size
		status.Disks = append(status.Disks, v1alpha1.SnapshotDisk{
			Name: disk.Name, Device: disk.Device, VDIUUID: disk.UUID, Size: resource.NewQuantity(disk.Size, resource.BinarySI),
		})
	}
	status.Size = resource.NewQuantity(total, resource.BinarySI)
}

// IsCaptured reports whether the point in time was taken, now or ever.
func IsCaptured(status *v1alpha1.XenSnapshotStatus) bool { return status.UUID != "" }

// IsUploaded reports whether the copy is complete.
func IsUploaded(status *v1alpha1.XenSnapshotStatus) bool {
	return meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionUploaded)
}

// Report writes the conditions and the progress of a pass.
func Report(status *v1alpha1.XenSnapshotStatus, spec *v1alpha1.XenSnapshotSpec, outcome reconcile.Outcome) {
	conditions := &status.Conditions
	if IsCaptured(status) {
		reconcile.SetCondition(conditions, v1alpha1.ConditionCaptured, metav1.ConditionTrue, v1alpha1.ReasonCaptured, "")
	} else {
		reconcile.SetCondition(conditions, v1alpha1.ConditionCaptured, metav1.ConditionFalse, reasonOf(outcome, v1alpha1.ReasonCapturing), outcome.Message())
	}
	switch upload := status.Upload; {
	case spec.Destination == nil:
		reconcile.SetCondition(conditions, v1alpha1.ConditionUploaded, metav1.ConditionFalse, v1alpha1.ReasonNotRequested, "the spec names no destination")
		status.Progress = ""
	case IsUploaded(status) || upload != nil && upload.Manifest != "":
		reconcile.SetCondition(conditions, v1alpha1.ConditionUploaded, metav1.ConditionTrue, v1alpha1.ReasonUploaded, "")
		status.Progress = "100%"
	default:
		reconcile.SetCondition(conditions, v1alpha1.ConditionUploaded, metav1.ConditionFalse, reasonOf(outcome, v1alpha1.ReasonUploading), outcome.Message())
		status.Progress = ""
		if upload != nil && upload.Attempts > 0 {
			status.Progress = fmt.Sprintf("%d%%", upload.Percent)
		}
	}
}

func reasonOf(outcome reconcile.Outcome, fallback string) string {
	if outcome.Reason() == "" {
		return fallback
	}
	return outcome.Reason()
}

// messageLimit is how long the API server lets a text of an upload be.
const messageLimit = 1024

func limited(message string) string {
	if len(message) <= messageLimit {
		return message
	}
	cut := messageLimit
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut]
}

// Recalled writes down what a store remembers of a snapshot that was taken and uploaded before the status was lost.
func Recalled(status *v1alpha1.XenSnapshotStatus, found transfer.Found) {
	manifest := &found.Manifest
	taken := metav1.NewTime(manifest.TakenAt)
	status.UUID, status.InstanceUUID, status.TakenAt, status.Consistency = manifest.SnapshotUUID, manifest.InstanceUUID, &taken, manifest.Consistency
	status.Disks = nil
	total := int64(0)
	for _, disk := range manifest.Disks {
		total += disk.Size
		status.Disks = append(status.Disks, v1alpha1.SnapshotDisk{
			Name: disk.Name, Device: disk.Device, VDIUUID: disk.VDI, Size: resource.NewQuantity(disk.Size, resource.BinarySI),
		})
	}
	status.Size = resource.NewQuantity(total, resource.BinarySI)
	status.Upload.Manifest, status.Upload.SHA256, status.Upload.Files, status.Upload.Percent = found.Location, found.SHA256, found.Files, 100
	status.Upload.LastError, status.Upload.NextRetryTime, status.Upload.BytesPerSecond = "", "", 0
	reconcile.SetCondition(&status.Conditions, v1alpha1.ConditionUploaded, metav1.ConditionTrue, v1alpha1.ReasonUploaded, "")
}
