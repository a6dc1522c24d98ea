package snapshot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
)

// The first and the longest pause between two attempts of an upload.
const (
	retryFirst = 5 * time.Second
	retryMost  = 10 * time.Minute
)

// defaultBackoffLimit is how often a failed upload is tried again.
const defaultBackoffLimit = 6

// pause is how long to wait after so many attempts.
func pause(attempts int32) time.Duration {
	if attempts > 8 {
		return retryMost
	}
	return min(retryFirst<<max(0, attempts-1), retryMost)
}

// Advance is what to do about an upload next.
type Advance struct {
	// Start says that an attempt begins now.
	Start bool
	// Outcome is what the pass ends in.
	Outcome reconcile.Outcome
	// Over says that it failed for good.
	Over bool
}

// NextUpload decides about an upload from where it stands: what the runner says, and what the status remembers, which it
// brings up to date.
func NextUpload(spec *v1alpha1.XenSnapshotSpec, upload *v1alpha1.SnapshotUpload, state transfer.State, known bool, now time.Time) Advance {
	if known {
		upload.TransferredBytes, upload.TotalBytes = state.Transferred, state.Total
		upload.Percent, upload.BytesPerSecond, upload.Files = state.Percent(), state.BytesPerSecond, state.Files
	}
	retryAt, err := time.Parse(time.RFC3339, upload.NextRetryTime)
	waiting := err == nil && now.Before(retryAt)
	switch {
	case known && state.Phase == transfer.Waiting:
		return Advance{Outcome: reconcile.Wait(v1alpha1.ReasonWaitingForTransfer, "as many transfers as the pool's limits allow are under way; this one is next in line")}
	case known && state.Phase == transfer.Running:
		return Advance{Outcome: uploading(upload)}
	case known && state.Phase == transfer.Succeeded:
		upload.Manifest, upload.SHA256 = state.Manifest, state.SHA256
		upload.LastError, upload.NextRetryTime, upload.BytesPerSecond = "", "", 0
		return Advance{Outcome: reconcile.Done()}
	case known && upload.NextRetryTime == "":
		return failedUpload(spec, upload, state.Err, now)
	case waiting:
		return Advance{Outcome: retrying(upload, state.Err).After(retryAt.Sub(now))}
	}
	if upload.Attempts == 0 || upload.NextRetryTime != "" { // else the manager was restarted in the middle of one, which did not fail
		upload.Attempts++
	}
	upload.NextRetryTime, upload.TransferredBytes, upload.Percent, upload.BytesPerSecond = "", 0, 0, 0
	return Advance{Start: true, Outcome: uploading(upload)}
}

func uploading(upload *v1alpha1.SnapshotUpload) reconcile.Outcome {
	return reconcile.Wait(v1alpha1.ReasonUploading, "the copy is on its way to "+upload.Location)
}

// failedUpload plans the next attempt, if there is to be one.
func failedUpload(spec *v1alpha1.XenSnapshotSpec, upload *v1alpha1.SnapshotUpload, err error, now time.Time) Advance {
	upload.LastError, upload.BytesPerSecond = limited(err.Error()), 0
	var failure *transfer.Failure
	if errors.As(err, &failure) && failure.Permanent {
		return Advance{Over: true, Outcome: reconcile.Terminal(failure.Reason, err.Error())}
	}
	limit := int32(defaultBackoffLimit)
	if spec.BackoffLimit != nil {
		limit = *spec.BackoffLimit
	}
	if upload.Attempts > limit {
		return Advance{Over: true, Outcome: reconcile.Terminal(v1alpha1.ReasonBackoffLimitExceeded,
			fmt.Sprintf("%d attempts failed, the last one with: %v; a new value of the annotation %s tries again",
				upload.Attempts, err, v1alpha1.AnnotationReconcileRequestedAt))}
	}
	wait := pause(upload.Attempts)
	upload.NextRetryTime = now.Add(wait).UTC().Format(time.RFC3339)
	return Advance{Outcome: retrying(upload, err).After(wait)}
}

func retrying(upload *v1alpha1.SnapshotUpload, err error) reconcile.Outcome {
	reason := v1alpha1.ReasonRetrying
	var failure *transfer.Failure
	if errors.As(err, &failure) {
		reason = failure.Reason
	}
	return reconcile.Wait(reason, fmt.Sprintf("attempt %d failed: %s; the next one begins at %s", upload.Attempts, upload.LastError, upload.NextRetryTime))
}

// Deadline is when capture and upload must be over, zero without one.
func Deadline(spec *v1alpha1.XenSnapshotSpec, created metav1.Time) time.Time {
	if spec.DeadlineSeconds == nil {
		return time.Time{}
	}
	return created.Add(time.Duration(*spec.DeadlineSeconds) * time.Second)
}

// Location is where the files go, for people: a place that can be opened, where there is one.
func Location(d *v1alpha1.SnapshotDestination, namespace, instance, name string) string {
	switch {
	case d == nil:
	case d.S3 != nil:
		prefix := d.S3.Prefix
		if prefix != "" && prefix[len(prefix)-1] != '/' {
			prefix += "/"
		}
		return fmt.Sprintf("s3://%s/%s%s/%s", d.S3.Bucket, prefix, namespace, name)
	case d.Glance != nil && d.Glance.Endpoint != "":
		return d.Glance.Endpoint
	case d.Glance != nil:
		return "the image service that Secret " + d.Glance.AuthSecretRef.Name + " names"
	case d.HTTP != nil:
		url, _, _ := strings.Cut(d.HTTP.URLTemplate, "?") // what follows may be a signature
		return strings.NewReplacer("{namespace}", namespace, "{instance}", instance, "{snapshot}", name, "{file}", transfer.ManifestName).Replace(url)
	}
	return ""
}

// ManifestOf describes a snapshot; the upload adds the files.
func ManifestOf(s Snapshot, local *Local, installation, instanceUUID string) transfer.Manifest {
	vm := local.VM
	m := transfer.Manifest{
		Version: transfer.ManifestVersion, Installation: installation, Snapshot: s.Key.Namespace + "/" + s.Key.Name,
		SnapshotUUID: local.UUID, InstanceUUID: instanceUUID, TakenAt: local.TakenAt.UTC(), Consistency: consistency(local),
		VM: transfer.ManifestVM{
			Name: s.Spec.InstanceRef.Name, Description: vm.NameDescription, VCPUs: vm.VCPUsAtStartup, MaxVCPUs: vm.VCPUsMax,
			Memory: vm.MemoryDynamicMax, MaxMemory: vm.MemoryStaticMax, BootParams: vm.HVMBootParams, Platform: vm.Platform,
		},
	}
	for _, disk := range local.Captured() {
		m.Disks = append(m.Disks, transfer.ManifestDisk{
			Name: disk.Name, Device: disk.Device, VDI: disk.UUID, Size: disk.Size, Bootable: disk.Bootable,
		})
	}
	for _, nic := range local.NICs {
		m.NICs = append(m.NICs, transfer.ManifestNIC{Name: nic.Name, Device: nic.Device, MAC: nic.MAC, Network: nic.Network})
	}
	return m
}

func consistency(local *Local) v1alpha1.SnapshotConsistency {
	if local.Memory.IsNull() {
		return v1alpha1.ConsistencyCrash
	}
	return v1alpha1.ConsistencyMemory
}
