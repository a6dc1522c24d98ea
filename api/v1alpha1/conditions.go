package v1alpha1

// Condition types. Ready, Reconciling, Stalled and Paused stand on every kind, always.
const (
	// ConditionReady is True when the object is as asked, or waits for its user and not for the operator.
	ConditionReady = "Ready"
	// ConditionReconciling is True while work of the operator is in flight.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when nothing is tried again until the spec, a Secret or a dependency changes.
	ConditionStalled = "Stalled"
	// ConditionPaused is True while the annotation kubexen.io/paused holds every act.
	ConditionPaused = "Paused"

	// ConditionReachable of a XenPool is True while the pool answers.
	ConditionReachable = "Reachable"
	// ConditionCredentialsValid of a XenPool is True when the pool accepts the credentials.
	ConditionCredentialsValid = "CredentialsValid"

	// ConditionProvisioned of a XenInstance is True when its VM and root disk exist.
	ConditionProvisioned = "Provisioned"
	// ConditionFlavorApplied of a XenInstance is True when the VM has the size that flavorRef names.
	ConditionFlavorApplied = "FlavorApplied"
	// ConditionPowerStateSynced of a XenInstance is True when the VM is in the power state that is asked.
	ConditionPowerStateSynced = "PowerStateSynced"
	// ConditionRescued of a XenInstance is True while a rescue VM runs in the place of its own.
	ConditionRescued = "Rescued"
	// ConditionGuestReady of a XenInstance is True when the guest reports itself. It is no part of Ready.
	ConditionGuestReady = "GuestReady"

	// ConditionCaptured of a XenSnapshot is True once the point in time is taken. It stays True for good.
	ConditionCaptured = "Captured"
	// ConditionUploaded of a XenSnapshot is True once its copy is complete and verified. It stays True for good.
	ConditionUploaded = "Uploaded"

	// ConditionURLIssued of a XenConsole is True while it has a URL that opens.
	ConditionURLIssued = "URLIssued"
	// ConditionExpired of a XenConsole is True when it had a URL that opens no more.
	ConditionExpired = "Expired"
)

// Reasons. The same word stands in the condition, in the Event and in the metric's label.

// Reasons of every kind.
const (
	// ReasonSucceeded says the object is as asked.
	ReasonSucceeded = "Succeeded"
	// ReasonProgressing says the operator is at work.
	ReasonProgressing = "Progressing"
	// ReasonIdle says no work is in flight (Reconciling=False).
	ReasonIdle = "Idle"
	// ReasonNotStalled says work goes on or is done (Stalled=False).
	ReasonNotStalled = "NotStalled"
	// ReasonPaused says the annotation kubexen.io/paused holds every act.
	ReasonPaused = "Paused"
	// ReasonNotPaused says nothing holds the object.
	ReasonNotPaused = "NotPaused"
	// ReasonNotYetObserved says the operator has not looked yet, or cannot look now.
	ReasonNotYetObserved = "NotYetObserved"
	// ReasonDeleting says the object goes; the message says what is awaited.
	ReasonDeleting = "Deleting"
	// ReasonRetrying says an act failed and is tried again; the message holds the error.
	ReasonRetrying = "Retrying"
	// ReasonInvalidSpec says the spec asks for what cannot be.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonDependencyNotReady says something that the spec names does not exist or is not ready yet.
	ReasonDependencyNotReady = "DependencyNotReady"
	// ReasonNamespaceNotAllowed says no grant of the pool lets the namespace do what the spec asks.
	ReasonNamespaceNotAllowed = "NamespaceNotAllowed"
	// ReasonPermissionDenied says the pool refuses the act to the operator's account.
	ReasonPermissionDenied = "PermissionDenied"
	// ReasonForceDeleted says the object was let go without its pool, as its annotation asked.
	ReasonForceDeleted = "ForceDeleted"
)

// Reasons of a XenPool, and of what lives on it.
const (
	// ReasonConnected says the pool answers and accepts the credentials.
	ReasonConnected = "Connected"
	// ReasonConnecting says the first answer is awaited.
	ReasonConnecting = "Connecting"
	// ReasonPoolNotFound says poolRef names no XenPool.
	ReasonPoolNotFound = "PoolNotFound"
	// ReasonPoolNotReady says the pool exists but cannot be used; its own conditions say why.
	ReasonPoolNotReady = "PoolNotReady"
	// ReasonPoolUnreachable says no member of the pool answers.
	ReasonPoolUnreachable = "PoolUnreachable"
	// ReasonTLSUntrusted says a member's certificate is not trusted.
	ReasonTLSUntrusted = "TLSUntrusted"
	// ReasonUnauthorized says the pool refuses the credentials.
	ReasonUnauthorized = "Unauthorized"
	// ReasonSecretNotFound says a Secret that the spec names, or a key of it, is missing.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonIdentityChanged says another pool answers behind the endpoints.
	ReasonIdentityChanged = "IdentityChanged"
	// ReasonDuplicatePool says another XenPool names the same pool.
	ReasonDuplicatePool = "DuplicatePool"
	// ReasonAnotherWriter says another installation writes to the pool; takeoverFrom replaces it.
	ReasonAnotherWriter = "AnotherWriter"
	// ReasonMaintenance says spec.maintenance of the pool holds power, move and delete acts.
	ReasonMaintenance = "Maintenance"
	// ReasonPoolPaused says the annotation kubexen.io/paused on the pool holds every act there.
	ReasonPoolPaused = "PoolPaused"
	// ReasonPoolInUse says the pool cannot be deleted while instances live on it.
	ReasonPoolInUse = "PoolInUse"
)

// Reasons of images, and of instances that wait for one.
const (
	// ReasonImageNotFound says imageRef names no image.
	ReasonImageNotFound = "ImageNotFound"
	// ReasonImageNotReady says the image exists but cannot be used on the pool yet.
	ReasonImageNotReady = "ImageNotReady"
	// ReasonTemplateNotFound says no template of the pool has the name or uuid.
	ReasonTemplateNotFound = "TemplateNotFound"
	// ReasonDiskNotFound says no disk of the pool has the uuid.
	ReasonDiskNotFound = "DiskNotFound"
	// ReasonISONotFound says no ISO of the pool has the name.
	ReasonISONotFound = "ISONotFound"
	// ReasonAmbiguousName says several things of the pool have the name; a uuid or an alias tells them apart.
	ReasonAmbiguousName = "AmbiguousName"
)

// Reasons of a XenInstance: to be made, found or lost.
const (
	// ReasonCreating says the VM is being made.
	ReasonCreating = "Creating"
	// ReasonFlavorNotFound says flavorRef names no XenFlavor.
	ReasonFlavorNotFound = "FlavorNotFound"
	// ReasonFlavorTooSmall says the flavor is below what the image demands.
	ReasonFlavorTooSmall = "FlavorTooSmall"
	// ReasonFlavorTooLarge says no host of the pool could ever run the flavor.
	ReasonFlavorTooLarge = "FlavorTooLarge"
	// ReasonNetworkNotFound says no network of the pool has the name.
	ReasonNetworkNotFound = "NetworkNotFound"
	// ReasonStorageRepositoryNotFound says no storage repository of the pool has the name.
	ReasonStorageRepositoryNotFound = "StorageRepositoryNotFound"
	// ReasonHostNotFound says no host of the pool has the name.
	ReasonHostNotFound = "HostNotFound"
	// ReasonDuplicateMAC says another VM on the network has the MAC address.
	ReasonDuplicateMAC = "DuplicateMAC"
	// ReasonUserDataNotFound says the Secret or ConfigMap with the bootstrap data, or its key, is missing.
	ReasonUserDataNotFound = "UserDataNotFound"
	// ReasonInsufficientStorage says the storage repository has too little space.
	ReasonInsufficientStorage = "InsufficientStorage"
	// ReasonQuotaExceeded says the namespace's quota on the pool is used up.
	ReasonQuotaExceeded = "QuotaExceeded"
	// ReasonVMNotFound says source.existing names no VM of the pool.
	ReasonVMNotFound = "VMNotFound"
	// ReasonAdopted says the VM existed before and is now this object's.
	ReasonAdopted = "Adopted"
	// ReasonAdoptionHeld says the adopted VM differs from the spec; adoption.onMismatch Apply, or a spec as the VM is,
	// goes on. The differences stand in status.pendingChanges.
	ReasonAdoptionHeld = "AdoptionHeld"
	// ReasonOwnedByAnother says the VM belongs to another object.
	ReasonOwnedByAnother = "OwnedByAnother"
	// ReasonDuplicateFound says several VMs carry this object's mark, and neither may be destroyed.
	ReasonDuplicateFound = "DuplicateFound"
	// ReasonExternallyDeleted says the VM or its root disk vanished; recreatePolicy IfMissing makes it anew.
	ReasonExternallyDeleted = "ExternallyDeleted"
	// ReasonInstanceBusy says another workflow holds the VM.
	ReasonInstanceBusy = "InstanceBusy"
	// ReasonObserved says managementPolicy Observe: the VM is shown and never touched.
	ReasonObserved = "Observed"
	// ReasonDeviceInUse says a device number or a disk that the spec names is taken.
	ReasonDeviceInUse = "DeviceInUse"
	// ReasonOperationBlocked says an administrator blocked the act on the VM (blocked_operations); it is tried again.
	ReasonOperationBlocked = "OperationBlocked"
	// ReasonUndeleted says the VM is taken back from the trash.
	ReasonUndeleted = "Undeleted"
	// ReasonTrashed says the VM was put into the trash.
	ReasonTrashed = "Trashed"
	// ReasonOrphaned says the VM was left on the pool without our marks.
	ReasonOrphaned = "Orphaned"
	// ReasonDestroyed says the VM was destroyed.
	ReasonDestroyed = "Destroyed"
)

// Reasons of a XenInstance: size, power and guest.
const (
	// ReasonApplying says the size is being changed.
	ReasonApplying = "Applying"
	// ReasonNotRequested says the spec asks for nothing here (no flavorRef, no powerState), so nothing is compared.
	ReasonNotRequested = "NotRequested"
	// ReasonRestartRequired says changes wait for the next boot; a new restartToken makes one.
	ReasonRestartRequired = "RestartRequired"
	// ReasonPowerOffRequired says changes wait until the VM is off.
	ReasonPowerOffRequired = "PowerOffRequired"
	// ReasonRunning says the VM runs.
	ReasonRunning = "Running"
	// ReasonHalted says the VM is off, as asked.
	ReasonHalted = "Halted"
	// ReasonSuspended says the VM is suspended to disk, as asked.
	ReasonSuspended = "Suspended"
	// ReasonVMPaused says the VM is paused in memory, as asked.
	ReasonVMPaused = "VMPaused"
	// ReasonStarting says the VM is being started.
	ReasonStarting = "Starting"
	// ReasonShuttingDown says the VM is being shut down.
	ReasonShuttingDown = "ShuttingDown"
	// ReasonSuspending says the VM is being suspended.
	ReasonSuspending = "Suspending"
	// ReasonResuming says the VM is being resumed.
	ReasonResuming = "Resuming"
	// ReasonPausing says the VM is being paused.
	ReasonPausing = "Pausing"
	// ReasonRestarting says the VM is being restarted.
	ReasonRestarting = "Restarting"
	// ReasonGated says annotations gate.kubexen.io/… hold the act; the message names them.
	ReasonGated = "Gated"
	// ReasonMigrating says the VM is moving to another host.
	ReasonMigrating = "Migrating"
	// ReasonMigrationRefused says the VM cannot be moved to another host; the message says what keeps it where it is.
	ReasonMigrationRefused = "MigrationRefused"
	// ReasonNoHostAvailable says no host can run the VM now; it is tried again.
	ReasonNoHostAvailable = "NoHostAvailable"
	// ReasonInsufficientMemory says no host has the memory now; it is tried again.
	ReasonInsufficientMemory = "InsufficientMemory"
	// ReasonGuestNotResponding says the guest did not shut down in time, and the mode allows no force.
	ReasonGuestNotResponding = "GuestNotResponding"
	// ReasonDrifted says the power state was changed on the pool; see powerDriftPolicy.
	ReasonDrifted = "Drifted"
	// ReasonIllegalTransition says the VM cannot go from its power state to the one that is asked.
	ReasonIllegalTransition = "IllegalTransition"
	// ReasonToolsNotInstalled says the guest agent does not report.
	ReasonToolsNotInstalled = "ToolsNotInstalled"
	// ReasonWaitingForAddress says the guest agent reports, but no address yet.
	ReasonWaitingForAddress = "WaitingForAddress"
	// ReasonNotRunning says the VM does not run, so its guest says nothing.
	ReasonNotRunning = "NotRunning"
)

// Reasons of a XenInstance that is in rescue, on its way there or back.
const (
	// ReasonEnteringRescue says the rescue VM is being made, or the instance's own is being stopped; the message holds the step.
	ReasonEnteringRescue = "Entering"
	// ReasonRescueActive says the rescue VM runs with the instance's disks.
	ReasonRescueActive = "Active"
	// ReasonLeavingRescue says the rescue VM is being removed and the instance's own brought back; the message holds the step.
	ReasonLeavingRescue = "Leaving"
	// ReasonInRescue says the instance is in rescue, as asked (Ready=True).
	ReasonInRescue = "InRescue"
	// ReasonReturned says the rescue is over and everything as it was before.
	ReasonReturned = "Returned"
	// ReasonRescueTimedOut says timeoutSeconds of the rescue is over and the instance has returned; it is not entered
	// again until spec.rescue changes.
	ReasonRescueTimedOut = "RescueTimedOut"
	// ReasonRescueDegraded says the instance is in rescue, but somebody changed the rescue VM or started the instance's own.
	ReasonRescueDegraded = "RescueDegraded"
	// ReasonRescueImageUnsuitable says the image cannot rescue this instance: it is the instance's own, or needs more memory.
	ReasonRescueImageUnsuitable = "RescueImageUnsuitable"
)

// Reasons of a XenInstance whose size is being changed.
const (
	// ReasonResizing says the VM is on its way to its new size; status.resize holds the details.
	ReasonResizing = "Resizing"
	// ReasonAwaitingConfirmation says the VM has its new size and waits for resize.confirm, or for the old flavorRef
	// (Ready=True).
	ReasonAwaitingConfirmation = "AwaitingConfirmation"
	// ReasonReverting says the VM is on its way back to its old size.
	ReasonReverting = "Reverting"
	// ReasonConfirmed says a resize was confirmed, by its user or by the time-out, and its restore point is gone.
	ReasonConfirmed = "Confirmed"
	// ReasonReverted says a resize was reverted.
	ReasonReverted = "Reverted"
	// ReasonRolledBack says the VM has its old size again: it did not start with the new one, or nobody confirmed it in
	// time. It is not tried again until the size that is asked for changes.
	ReasonRolledBack = "RolledBack"
	// ReasonSizeUnsupported says the VM cannot have the size, whatever the pool has free: memory that grows while the guest
	// runs cannot stand with nested virtualisation, for instance.
	ReasonSizeUnsupported = "SizeUnsupported"
	// ReasonShrinkRefused says the root disk cannot be made as small as rootDisk.shrinkTo says; the message holds what was
	// found on it. The disk is as it was.
	ReasonShrinkRefused = "ShrinkRefused"
)

// Reasons of transfers between a pool and a store.
const (
	// ReasonImporting says the image is on its way to the pool.
	ReasonImporting = "Importing"
	// ReasonWaitingForTransfer says the pool has as many transfers as spec.limits.maxTransfersPerHost of the XenPool allows.
	ReasonWaitingForTransfer = "WaitingForTransfer"
	// ReasonStoreUnavailable says the store does not answer as it should; it is tried again.
	ReasonStoreUnavailable = "StoreUnavailable"
	// ReasonStoreRefused says the store refuses the request; the message holds its words.
	ReasonStoreRefused = "StoreRefused"
	// ReasonObjectNotFound says the store has no such object.
	ReasonObjectNotFound = "ObjectNotFound"
	// ReasonEndpointForbidden says the endpoint is no public address, and the administrator did not open it.
	ReasonEndpointForbidden = "EndpointForbidden"
	// ReasonInvalidCredentials says the Secret for the store lacks a key, or holds what cannot be read.
	ReasonInvalidCredentials = "InvalidCredentials"
	// ReasonChecksumMismatch says the bytes are not those that the checksum is of.
	ReasonChecksumMismatch = "ChecksumMismatch"
	// ReasonInvalidImage says the file is no image, or not of the format that the spec names.
	ReasonInvalidImage = "InvalidImage"
	// ReasonBackoffLimitExceeded says every attempt failed; the message holds the last error.
	ReasonBackoffLimitExceeded = "BackoffLimitExceeded"
	// ReasonDeadlineExceeded says deadlineSeconds is over.
	ReasonDeadlineExceeded = "DeadlineExceeded"
)

// Reasons of a XenSnapshot, and of what is made from one.
const (
	// ReasonCapturing says the point in time is being taken.
	ReasonCapturing = "Capturing"
	// ReasonCaptured says the point in time is taken.
	ReasonCaptured = "Captured"
	// ReasonUploading says the copy is on its way.
	ReasonUploading = "Uploading"
	// ReasonUploaded says the copy is complete and verified.
	ReasonUploaded = "Uploaded"
	// ReasonChainTooLong says the disk already has as many snapshots behind it as the pool can bear.
	ReasonChainTooLong = "ChainTooLong"
	// ReasonFormatUnsupported says the pool cannot write the format, or no image is imported from it.
	ReasonFormatUnsupported = "FormatUnsupported"
	// ReasonDefect says KubeXen itself failed at what it read, which it should not, whatever that is; it is not tried again by itself.
	ReasonDefect = "Defect"
	// ReasonInvalidManifest says the manifest of an upload cannot be read, or describes no VM that could be made.
	ReasonInvalidManifest = "InvalidManifest"
	// ReasonSnapshotNotFound says the spec names no XenSnapshot.
	ReasonSnapshotNotFound = "SnapshotNotFound"
	// ReasonSnapshotNotReady says the XenSnapshot exists but cannot be used for this yet, or no more.
	ReasonSnapshotNotReady = "SnapshotNotReady"
	// ReasonRestoring says the disks of a VM are being restored from a backup.
	ReasonRestoring = "Restoring"
	// ReasonSnapshotInUse says something is still being made of the XenSnapshot, which stays until that is done.
	ReasonSnapshotInUse = "SnapshotInUse"
)

// Reasons of a XenConsole.
const (
	// ReasonIssued says there is a URL.
	ReasonIssued = "Issued"
	// ReasonNotIssued says there was no URL yet.
	ReasonNotIssued = "NotIssued"
	// ReasonValid says the URL opens.
	ReasonValid = "Valid"
	// ReasonExpired says the time to connect, or notAfter, is over; a new renewToken issues a new URL.
	ReasonExpired = "Expired"
	// ReasonRevoked says the guest was stopped, or another VM took its place (rescue), while the URL was valid; a new renewToken issues a new one.
	ReasonRevoked = "Revoked"
	// ReasonRestoredWithoutRecord says the object was restored from a backup and had its URL before; a new renewToken issues a new one.
	ReasonRestoredWithoutRecord = "RestoredWithoutRecord"
	// ReasonInstanceNotFound says instanceRef names no XenInstance.
	ReasonInstanceNotFound = "InstanceNotFound"
	// ReasonInstanceNotRunning says only a running guest has a console.
	ReasonInstanceNotRunning = "InstanceNotRunning"
	// ReasonAccessForbidden says the pool does not allow this access; see spec.console.allowedAccess of the XenPool.
	ReasonAccessForbidden = "AccessForbidden"
	// ReasonInvalidPublicKey says spec.publicKey is no RSA key that can be used.
	ReasonInvalidPublicKey = "InvalidPublicKey"
	// ReasonGatewayNotConfigured says the manager was not told where the console gateway is reached (--console-url).
	ReasonGatewayNotConfigured = "GatewayNotConfigured"
	// ReasonConsoleBusy says the pool lets one session at a time look at a VM, and somebody else does.
	ReasonConsoleBusy = "ConsoleBusy"
	// ReasonConsoleOpened says somebody connected.
	ReasonConsoleOpened = "ConsoleOpened"
	// ReasonConsoleClosed says a session ended; the message says whose, how long and why.
	ReasonConsoleClosed = "ConsoleClosed"
)
