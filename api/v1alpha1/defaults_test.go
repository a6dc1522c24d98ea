package v1alpha1_test

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// TestDefaultsOfNewVM and the tests below hold the defaults that stand in code to what the fields' documentation says.
func TestDefaultsOfNewVM(t *testing.T) {
	spec := v1alpha1.XenInstanceSpec{Source: v1alpha1.InstanceSource{TemplateName: "Debian"}}
	check(t, "power state", spec.DesiredPowerState(), v1alpha1.PowerStateRunning)
	check(t, "deletion policy", spec.DesiredDeletionPolicy(), v1alpha1.DeletionTrash)
	check(t, "power-off mode", spec.PowerOffMode(), v1alpha1.PowerOffTrySoft)
	check(t, "soft time-out", spec.SoftTimeout(), 300*time.Second)
	check(t, "drift grace", spec.PowerDriftGrace(), 30*time.Second)
	check(t, "mismatch", spec.MismatchPolicy(), v1alpha1.MismatchHold)
	disk := v1alpha1.Disk{}
	check(t, "disk removed", disk.RemovePolicy(), v1alpha1.DiskRemoveDetach)
	check(t, "disk's instance deleted", disk.DeletePolicy(), v1alpha1.DiskRetain)
	bootstrap := v1alpha1.Bootstrap{}
	check(t, "drive format", bootstrap.DesiredFormat(), v1alpha1.BootstrapNoCloud)
	check(t, "drive removal", bootstrap.DriveRemoval(), v1alpha1.RemoveDriveGuestReady)
}

func TestDefaultsOfAdoptedVM(t *testing.T) {
	spec := v1alpha1.XenInstanceSpec{Source: v1alpha1.InstanceSource{Existing: &v1alpha1.ExistingVM{}}}
	check(t, "power state is left alone", spec.DesiredPowerState(), "")
	check(t, "deletion policy", spec.DesiredDeletionPolicy(), v1alpha1.DeletionOrphan)
}

func TestWhatIsSetGoesBeforeDefaults(t *testing.T) {
	spec := v1alpha1.XenInstanceSpec{
		Source:                 v1alpha1.InstanceSource{Existing: &v1alpha1.ExistingVM{}},
		PowerState:             v1alpha1.PowerStateHalted,
		DeletionPolicy:         v1alpha1.DeletionDelete,
		PowerOff:               &v1alpha1.PowerOff{Mode: v1alpha1.PowerOffHard, SoftTimeoutSeconds: ptr.To[int32](5)},
		PowerDriftGraceSeconds: ptr.To[int32](0),
		Adoption:               &v1alpha1.Adoption{OnMismatch: v1alpha1.MismatchApply},
	}
	check(t, "power state", spec.DesiredPowerState(), v1alpha1.PowerStateHalted)
	check(t, "deletion policy", spec.DesiredDeletionPolicy(), v1alpha1.DeletionDelete)
	check(t, "power-off mode", spec.PowerOffMode(), v1alpha1.PowerOffHard)
	check(t, "soft time-out", spec.SoftTimeout(), 5*time.Second)
	check(t, "drift grace", spec.PowerDriftGrace(), 0)
	check(t, "mismatch", spec.MismatchPolicy(), v1alpha1.MismatchApply)
	pool := v1alpha1.XenPoolSpec{
		Limits: &v1alpha1.PoolLimits{MaxConcurrentTasks: ptr.To[int32](3), MaxTransfersPerHost: ptr.To[int32](1)},
		Trash:  &v1alpha1.PoolTrash{RetentionSeconds: ptr.To[int64](0)},
	}
	check(t, "tasks", pool.TaskLimit(), 3)
	check(t, "transfers", pool.TransferLimit(), 1)
	check(t, "trash", pool.TrashRetention(), 0)
}

func TestDefaultsOfPoolAndFlavor(t *testing.T) {
	pool := v1alpha1.XenPoolSpec{}
	check(t, "tasks", pool.TaskLimit(), 20)
	check(t, "transfers", pool.TransferLimit(), 2)
	check(t, "trash", pool.TrashRetention(), 24*time.Hour)
	flavor := v1alpha1.XenFlavorSpec{VCPUs: 2, Memory: resource.MustParse("1Gi")}
	check(t, "most VCPUs", flavor.VCPUsMax(), 2)
	check(t, "most memory", flavor.MaxMemoryBytes(), 1<<30)
	flavor.MaxVCPUs, flavor.MaxMemory = ptr.To[int32](4), ptr.To(resource.MustParse("2Gi"))
	check(t, "most VCPUs", flavor.VCPUsMax(), 4)
	check(t, "memory", flavor.MemoryBytes(), 1<<30)
	check(t, "most memory", flavor.MaxMemoryBytes(), 2<<30)
}

func TestDefaultsOfSnapshots(t *testing.T) {
	destination := v1alpha1.SnapshotDestination{}
	check(t, "format", destination.DesiredFormat(), v1alpha1.DiskFormatVHD)
	check(t, "compression", destination.DesiredCompression(), v1alpha1.CompressionNone)
	destination = v1alpha1.SnapshotDestination{Format: v1alpha1.DiskFormatRaw, Compression: v1alpha1.CompressionZstd}
	check(t, "format", destination.DesiredFormat(), v1alpha1.DiskFormatRaw)
	check(t, "compression", destination.DesiredCompression(), v1alpha1.CompressionZstd)
}

func TestGates(t *testing.T) {
	annotations := map[string]string{
		v1alpha1.GatePowerOnPrefix + "backup":  "",
		v1alpha1.GatePowerOnPrefix + "network": "true",
		v1alpha1.GatePowerOnPrefix:             "a gate needs a name",
		v1alpha1.GateDeletePrefix + "audit":    "",
	}
	got := v1alpha1.Gates(annotations, v1alpha1.GatePowerOnPrefix)
	slices.Sort(got)
	if !slices.Equal(got, []string{"backup", "network"}) {
		t.Errorf("gates of power-on: %q", got)
	}
	check(t, "paused", v1alpha1.IsPaused(annotations), false)
	check(t, "paused", v1alpha1.IsPaused(map[string]string{v1alpha1.AnnotationPaused: ""}), true)
}

func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}
