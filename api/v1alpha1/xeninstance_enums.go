package v1alpha1

// PowerState is a state of a VM, as the XenAPI names it.
// +kubebuilder:validation:Enum=Running;Halted;Suspended;Paused
type PowerState string

const (
	// PowerStateRunning means the guest runs.
	PowerStateRunning PowerState = "Running"
	// PowerStateHalted means the VM is off.
	PowerStateHalted PowerState = "Halted"
	// PowerStateSuspended means the memory is on disk.
	PowerStateSuspended PowerState = "Suspended"
	// PowerStatePaused means the VM is in memory and gets no CPU time.
	PowerStatePaused PowerState = "Paused"
)

// PowerDriftPolicy is what happens when the power state is changed on the pool.
// +kubebuilder:validation:Enum=Enforce;Ignore
type PowerDriftPolicy string

const (
	// PowerDriftEnforce puts the VM back into the state of the spec.
	PowerDriftEnforce PowerDriftPolicy = "Enforce"
	// PowerDriftIgnore reports the difference and leaves the VM.
	PowerDriftIgnore PowerDriftPolicy = "Ignore"
)

// PowerOffMode is how a VM is shut down.
// +kubebuilder:validation:Enum=TrySoft;Soft;Hard
type PowerOffMode string

const (
	// PowerOffTrySoft asks the guest and pulls the plug when the time-out is over.
	PowerOffTrySoft PowerOffMode = "TrySoft"
	// PowerOffSoft asks the guest and never pulls the plug.
	PowerOffSoft PowerOffMode = "Soft"
	// PowerOffHard pulls the plug.
	PowerOffHard PowerOffMode = "Hard"
)

// RecreatePolicy is what happens when the VM vanished from the pool.
// +kubebuilder:validation:Enum=Never;IfMissing
type RecreatePolicy string

const (
	// RecreateNever says so in a condition and makes nothing.
	RecreateNever RecreatePolicy = "Never"
	// RecreateIfMissing makes the VM anew from its source: a blank one, what was on its disks is lost.
	RecreateIfMissing RecreatePolicy = "IfMissing"
)

// ManagementPolicy is whether the operator acts.
// +kubebuilder:validation:Enum=Manage;Observe
type ManagementPolicy string

const (
	// ManagementManage converges the VM to the spec.
	ManagementManage ManagementPolicy = "Manage"
	// ManagementObserve shows the VM, says what Manage would do, and writes nothing to the pool.
	ManagementObserve ManagementPolicy = "Observe"
)

// DeletionPolicy is what becomes of the VM when the XenInstance is deleted.
// +kubebuilder:validation:Enum=Trash;Delete;Orphan
type DeletionPolicy string

const (
	// DeletionTrash stops and renames the VM and keeps it for the pool's retention.
	DeletionTrash DeletionPolicy = "Trash"
	// DeletionDelete destroys the VM and the disks that go with it at once.
	DeletionDelete DeletionPolicy = "Delete"
	// DeletionOrphan takes our marks off the VM and leaves it as it is.
	DeletionOrphan DeletionPolicy = "Orphan"
)

// MismatchPolicy is what happens when an adopted VM differs from the spec.
// +kubebuilder:validation:Enum=Hold;Apply
type MismatchPolicy string

const (
	// MismatchHold changes nothing until VM and spec agree once.
	MismatchHold MismatchPolicy = "Hold"
	// MismatchApply changes the VM.
	MismatchApply MismatchPolicy = "Apply"
)

// BootstrapFormat is how the config drive is laid out.
// +kubebuilder:validation:Enum=NoCloud;ConfigDrive
type BootstrapFormat string

const (
	// BootstrapNoCloud is cloud-init's NoCloud layout, label cidata.
	BootstrapNoCloud BootstrapFormat = "NoCloud"
	// BootstrapConfigDrive is OpenStack's config drive, version 2, label config-2.
	BootstrapConfigDrive BootstrapFormat = "ConfigDrive"
)

// RemoveDrivePolicy is when the config drive is removed.
// +kubebuilder:validation:Enum=GuestReady;Never
type RemoveDrivePolicy string

const (
	// RemoveDriveGuestReady removes the drive once the guest reports itself.
	RemoveDriveGuestReady RemoveDrivePolicy = "GuestReady"
	// RemoveDriveNever leaves the drive.
	RemoveDriveNever RemoveDrivePolicy = "Never"
)

// DiskRemovePolicy is what becomes of a disk whose entry is taken out of the spec.
// +kubebuilder:validation:Enum=Detach;Delete
type DiskRemovePolicy string

const (
	// DiskRemoveDetach leaves the disk on its storage repository.
	DiskRemoveDetach DiskRemovePolicy = "Detach"
	// DiskRemoveDelete destroys the disk.
	DiskRemoveDelete DiskRemovePolicy = "Delete"
)

// DiskDeletePolicy is what becomes of a disk when its instance is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type DiskDeletePolicy string

const (
	// DiskRetain leaves the disk on its storage repository.
	DiskRetain DiskDeletePolicy = "Retain"
	// DiskDelete destroys the disk with the VM.
	DiskDelete DiskDeletePolicy = "Delete"
)

// ChangeRequires is what a pending change waits for.
// +kubebuilder:validation:Enum=Live;Restart;PowerOff;Confirmation;Hold
type ChangeRequires string

const (
	// RequiresLive means nothing is awaited: the change is made while the VM runs.
	RequiresLive ChangeRequires = "Live"
	// RequiresRestart means the change is made at the next boot.
	RequiresRestart ChangeRequires = "Restart"
	// RequiresPowerOff means the change is made when the VM is off.
	RequiresPowerOff ChangeRequires = "PowerOff"
	// RequiresConfirmation means the user is asked.
	RequiresConfirmation ChangeRequires = "Confirmation"
	// RequiresHold means the change is not made; the message says why and what would let it.
	RequiresHold ChangeRequires = "Hold"
)
