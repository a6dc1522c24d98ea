package v1alpha1

import "time"

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
	if s.PowerOff == nil || s.PowerOff.Mode == "" {
		return PowerOffTrySoft
	}

	return s.PowerOff.Mode
}

// SoftTimeout is how long the guest has to shut down.
func (s *XenInstanceSpec) SoftTimeout() time.Duration {
	if s.PowerOff == nil || s.PowerOff.SoftTimeoutSeconds == nil {
		return DefaultSoftTimeout
	}

	return time.Duration(*s.PowerOff.SoftTimeoutSeconds) * time.Second
}

// PowerDriftGrace is how long a changed power state must last before it is put back.
func (s *XenInstanceSpec) PowerDriftGrace() time.Duration {
	if s.PowerDriftGraceSeconds == nil {
		return DefaultPowerDriftGrace
	}

	return time.Duration(*s.PowerDriftGraceSeconds) * time.Second
}

// MismatchPolicy is what happens when the VM differs from the spec when it is adopted.
func (s *XenInstanceSpec) MismatchPolicy() MismatchPolicy {
	if s.Adoption == nil || s.Adoption.OnMismatch == "" {
		return MismatchHold
	}

	return s.Adoption.OnMismatch
}

// RemovePolicy is what becomes of the disk when its entry is taken out of the spec.
func (d *Disk) RemovePolicy() DiskRemovePolicy {
	if d.OnRemove == "" {
		return DiskRemoveDetach
	}

	return d.OnRemove
}

// DeletePolicy is what becomes of the disk when its instance is deleted.
func (d *Disk) DeletePolicy() DiskDeletePolicy {
	if d.OnInstanceDelete == "" {
		return DiskRetain
	}

	return d.OnInstanceDelete
}

// DesiredFormat is how the config drive is laid out.
func (b *Bootstrap) DesiredFormat() BootstrapFormat {
	if b.Format == "" {
		return BootstrapNoCloud
	}

	return b.Format
}

// DriveRemoval is when the config drive is removed.
func (b *Bootstrap) DriveRemoval() RemoveDrivePolicy {
	if b.RemoveDriveAfter == "" {
		return RemoveDriveGuestReady
	}

	return b.RemoveDriveAfter
}

// VCPUsMax is how many VCPUs the VM can grow to while it runs.
func (s *XenFlavorSpec) VCPUsMax() int32 {
	if s.MaxVCPUs == nil {
		return s.VCPUs
	}

	return *s.MaxVCPUs
}

// MemoryBytes is the memory that the VM runs with, in bytes.
func (s *XenFlavorSpec) MemoryBytes() int64 { return s.Memory.Value() }

// MaxMemoryBytes is how far memory can grow while the VM runs, in bytes.
func (s *XenFlavorSpec) MaxMemoryBytes() int64 {
	if s.MaxMemory == nil {
		return s.Memory.Value()
	}

	return s.MaxMemory.Value()
}

// TaskLimit is how many XenAPI tasks the operator may have in flight on the pool.
func (s *XenPoolSpec) TaskLimit() int {
	if s.Limits == nil || s.Limits.MaxConcurrentTasks == nil {
		return DefaultMaxConcurrentTasks
	}

	return int(*s.Limits.MaxConcurrentTasks)
}

// TransferLimit is how many disks may be imported or exported at the same time through one host.
func (s *XenPoolSpec) TransferLimit() int {
	if s.Limits == nil || s.Limits.MaxTransfersPerHost == nil {
		return DefaultMaxTransfersPerHost
	}

	return int(*s.Limits.MaxTransfersPerHost)
}

// DesiredFormat is the format that an upload has.
func (d *SnapshotDestination) DesiredFormat() DiskFormat {
	if d.Format == "" {
		return DiskFormatVHD
	}

	return d.Format
}

// DesiredCompression is how an upload is compressed.
func (d *SnapshotDestination) DesiredCompression() Compression {
	if d.Compression == "" {
		return CompressionNone
	}

	return d.Compression
}

// TrashRetention is how long a VM stays in the trash.
func (s *XenPoolSpec) TrashRetention() time.Duration {
	if s.Trash == nil || s.Trash.RetentionSeconds == nil {
		return DefaultTrashRetention
	}

	return time.Duration(*s.Trash.RetentionSeconds) * time.Second
}
