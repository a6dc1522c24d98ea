package v1alpha1

import (
	"cmp"
	"time"

	"k8s.io/utils/ptr"
)

// Defaults that stand in code because they depend on the source or sit below the top level of a spec.
const (
	DefaultSoftTimeout         = 300 * time.Second
	DefaultPowerDriftGrace     = 30 * time.Second
	DefaultTrashRetention      = 24 * time.Hour
	DefaultMaxConcurrentTasks  = 20
	DefaultMaxTransfersPerHost = 2
)

// DesiredPowerState is the power state to keep the VM in; empty means it is left alone.
func (s *XenInstanceSpec) DesiredPowerState() PowerState {
	if s.PowerState == "" && s.Source.Existing == nil {
		return PowerStateRunning
	}

	return s.PowerState
}

// DesiredDeletionPolicy is what becomes of the VM when the instance is deleted.
func (s *XenInstanceSpec) DesiredDeletionPolicy() DeletionPolicy {
	switch {
	case s.DeletionPolicy != "":
		return s.DeletionPolicy
	case s.Source.Existing != nil:
		return DeletionOrphan
	default:
		return DeletionTrash
	}
}

// PowerOffMode is how the VM is shut down.
func (s *XenInstanceSpec) PowerOffMode() PowerOffMode {
	return cmp.Or(ptr.Deref(s.PowerOff, PowerOff{}).Mode, PowerOffTrySoft)
}

// SoftTimeout is how long the guest has to shut down.
func (s *XenInstanceSpec) SoftTimeout() time.Duration {
	return seconds(ptr.Deref(s.PowerOff, PowerOff{}).SoftTimeoutSeconds, DefaultSoftTimeout)
}

// PowerDriftGrace is how long a changed power state must last before it is put back.
func (s *XenInstanceSpec) PowerDriftGrace() time.Duration {
	return seconds(s.PowerDriftGraceSeconds, DefaultPowerDriftGrace)
}

// MismatchPolicy is what happens when the VM differs from the spec when it is adopted.
func (s *XenInstanceSpec) MismatchPolicy() MismatchPolicy {
	return cmp.Or(ptr.Deref(s.Adoption, Adoption{}).OnMismatch, MismatchHold)
}

// RemovePolicy is what becomes of the disk when its entry is taken out of the spec.
func (d *Disk) RemovePolicy() DiskRemovePolicy {
	return cmp.Or(d.OnRemove, DiskRemoveDetach)
}

// DeletePolicy is what becomes of the disk when its instance is deleted.
func (d *Disk) DeletePolicy() DiskDeletePolicy {
	return cmp.Or(d.OnInstanceDelete, DiskRetain)
}

// DesiredFormat is how the config drive is laid out.
func (b *Bootstrap) DesiredFormat() BootstrapFormat {
	return cmp.Or(b.Format, BootstrapNoCloud)
}

// DriveRemoval is when the config drive is removed.
func (b *Bootstrap) DriveRemoval() RemoveDrivePolicy {
	return cmp.Or(b.RemoveDriveAfter, RemoveDriveGuestReady)
}

// VCPUsMax is how many VCPUs the VM can grow to while it runs.
func (s *XenFlavorSpec) VCPUsMax() int32 {
	return ptr.Deref(s.MaxVCPUs, s.VCPUs)
}

// MemoryBytes is the memory that the VM runs with, in bytes.
func (s *XenFlavorSpec) MemoryBytes() int64 { return s.Memory.Value() }

// MaxMemoryBytes is how far memory can grow while the VM runs, in bytes.
func (s *XenFlavorSpec) MaxMemoryBytes() int64 {
	most := ptr.Deref(s.MaxMemory, s.Memory)

	return most.Value()
}

// TaskLimit is how many XenAPI tasks the operator may have in flight on the pool.
func (s *XenPoolSpec) TaskLimit() int {
	return int(ptr.Deref(ptr.Deref(s.Limits, PoolLimits{}).MaxConcurrentTasks, DefaultMaxConcurrentTasks))
}

// TransferLimit is how many disks may be imported or exported at the same time through one host.
func (s *XenPoolSpec) TransferLimit() int {
	return int(ptr.Deref(ptr.Deref(s.Limits, PoolLimits{}).MaxTransfersPerHost, DefaultMaxTransfersPerHost))
}

// DesiredFormat is the format that an upload has.
func (d *SnapshotDestination) DesiredFormat() DiskFormat {
	return cmp.Or(d.Format, DiskFormatVHD)
}

// DesiredCompression is how an upload is compressed.
func (d *SnapshotDestination) DesiredCompression() Compression {
	return cmp.Or(d.Compression, CompressionNone)
}

// TrashRetention is how long a VM stays in the trash.
func (s *XenPoolSpec) TrashRetention() time.Duration {
	return seconds(ptr.Deref(s.Trash, PoolTrash{}).RetentionSeconds, DefaultTrashRetention)
}

// seconds is a number of seconds, or what holds without one.
func seconds[T int32 | int64](asked *T, otherwise time.Duration) time.Duration {
	if asked == nil {
		return otherwise
	}

	return time.Duration(*asked) * time.Second
}
