package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// XenInstanceSpec is a VM as its user wants it.
// +kubebuilder:validation:XValidation:rule="self.poolRef == oldSelf.poolRef",message="poolRef is immutable"
// +kubebuilder:validation:XValidation:rule="self.source == oldSelf.source",message="source is immutable"
// +kubebuilder:validation:XValidation:rule="has(self.source.existing) || has(self.source.snapshotRef) || has(self.source.backup) || has(self.flavorRef)",message="flavorRef is required unless source is existing, snapshotRef or backup, which have a size of their own"
// +kubebuilder:validation:XValidation:rule="!has(self.adoption) || has(self.source.existing)",message="adoption needs source.existing"
// +kubebuilder:validation:XValidation:rule="!has(self.source.existing) || !has(self.bootstrap)",message="bootstrap is for new VMs: it cannot stand with source.existing"
// +kubebuilder:validation:XValidation:rule="!has(self.source.existing) || !has(self.recreatePolicy) || self.recreatePolicy == 'Never'",message="recreatePolicy IfMissing cannot stand with source.existing: there is nothing to make the VM from"
// +kubebuilder:validation:XValidation:rule="!has(self.rescue) || !has(self.rescue.imageRef) || !has(self.source.imageRef) || self.rescue.imageRef.kind != self.source.imageRef.kind || self.rescue.imageRef.name != self.source.imageRef.name",message="rescue.imageRef cannot be the instance's own image: the guest could not tell its file systems from those to be repaired"
type XenInstanceSpec struct {
	// poolRef names the XenPool that the VM lives on. Immutable.
	// +required
	PoolRef PoolReference `json:"poolRef"`

	// source is what the VM is made from, or which VM it is. Immutable.
	// +required
	Source InstanceSource `json:"source"`

	// recreatePolicy is what happens when the VM or its root disk vanished from the pool: Never (the object is Stalled,
	// reason ExternallyDeleted) or IfMissing (a blank one is made from source). Default: Never.
	// +optional
	// +kubebuilder:default=Never
	RecreatePolicy RecreatePolicy `json:"recreatePolicy,omitempty"`

	// flavorRef names the XenFlavor whose size the VM has. A change is a resize: what the guest allows is changed while
	// it runs, the rest at the next boot. Required unless source is existing, snapshotRef or backup: absent then means the
	// VM keeps the size that it has, or had when it was captured.
	// +optional
	FlavorRef *FlavorReference `json:"flavorRef,omitempty"`

	// rootDisk goes over what the flavor says of the root disk.
	// +optional
	RootDisk *RootDisk `json:"rootDisk,omitempty"`

	// resize is how a change of flavorRef or of the root disk's size comes about, and how it is confirmed.
	// +optional
	Resize *Resize `json:"resize,omitempty"`

	// powerState that the VM is kept in: Running, Halted, Suspended or Paused. Default: Running; with source.existing
	// absent means the power state is left alone.
	// +optional
	PowerState PowerState `json:"powerState,omitempty"`

	// powerDriftPolicy is what happens when somebody changes the power state on the pool, or the guest shuts itself
	// down: Enforce (it is put back) or Ignore (it is reported). Default: Enforce.
	// +optional
	// +kubebuilder:default=Enforce
	PowerDriftPolicy PowerDriftPolicy `json:"powerDriftPolicy,omitempty"`

	// powerDriftGraceSeconds is how long a changed power state must last before it is put back, 0 to 86400.
	// Default: 30.
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	PowerDriftGraceSeconds *int32 `json:"powerDriftGraceSeconds,omitempty"`

	// powerOff is how the VM is shut down. Default: TrySoft with 300 seconds.
	// +optional
	PowerOff *PowerOff `json:"powerOff,omitempty"`

	// restartToken restarts the VM once whenever its value changes; any value does, a date for instance. The value that
	// the object is made with restarts nothing. It is echoed in status.restartToken.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	RestartToken string `json:"restartToken,omitempty"`

	// disks are the VM's data disks, besides the root disk. Adding an entry makes and attaches a disk, raising its size
	// grows it, taking it out detaches it. With source.existing absent means the VM's disks are left alone.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(d, !has(d.device) || self.exists_one(e, has(e.device) && e.device == d.device))",message="two disks have the same device"
	Disks []Disk `json:"disks,omitempty"`

	// networks are the VM's network interfaces. Adding an entry plugs one in, taking it out unplugs it. With
	// source.existing absent means the VM's interfaces are left alone.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=7
	// +kubebuilder:validation:XValidation:rule="self.all(n, !has(n.device) || self.exists_one(m, has(m.device) && m.device == n.device))",message="two networks have the same device"
	// +kubebuilder:validation:XValidation:rule="self.all(n, !has(n.mac) || self.exists_one(m, has(m.mac) && m.mac.lowerAscii() == n.mac.lowerAscii()))",message="two networks have the same mac"
	Networks []NetworkInterface `json:"networks,omitempty"`

	// bootstrap is what the guest finds on its config drive at the first boot. It is read when the VM is made; a change
	// afterwards changes nothing.
	// +optional
	Bootstrap *Bootstrap `json:"bootstrap,omitempty"`

	// nameLabel is the VM's name on the pool. Default: <namespace>/<name>; with source.existing absent means it is left
	// alone. A change renames the VM.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('kubexen/')",message="nameLabel must not begin with kubexen/: such names tell the operator whose an unfinished VM is"
	NameLabel string `json:"nameLabel,omitempty"`

	// description is the VM's description on the pool. Default: left alone. A change is written to the VM.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`

	// tags that the VM has on the pool. Tags that others set are left.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	Tags []string `json:"tags,omitempty"`

	// rescue stops the VM and runs another one from a clean image with its disks attached, so that they can be repaired;
	// and brings everything back. While the instance is in rescue powerState, hostName, addresses, consoles and restartToken
	// mean the rescue VM, which always runs; changes of powerState, size and devices wait for the return.
	// +optional
	Rescue *Rescue `json:"rescue,omitempty"`

	// placement is where on the pool the VM is. Default: where the pool puts it.
	// +optional
	Placement *Placement `json:"placement,omitempty"`

	// managementPolicy is Manage or Observe. Observe writes nothing to the pool; status.pendingChanges then says what
	// Manage would do. Default: Manage.
	// +optional
	// +kubebuilder:default=Manage
	ManagementPolicy ManagementPolicy `json:"managementPolicy,omitempty"`

	// adoption is how a VM that existed before comes under management; it needs source.existing.
	// +optional
	Adoption *Adoption `json:"adoption,omitempty"`

	// deletionPolicy is what becomes of the VM when this object is deleted: Trash (stopped, renamed, kept for the pool's
	// retention), Delete (destroyed with its disks, those apart whose onInstanceDelete is Retain) or Orphan (left as it
	// is). Default: Trash; with source.existing Orphan.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// deletionProtection makes the API server refuse to delete this object while it is true.
	// +optional
	DeletionProtection bool `json:"deletionProtection,omitempty"`
}

// InstanceSource is what a VM is made from, or which VM it is; exactly one of its fields is set.
// +kubebuilder:validation:XValidation:rule="[has(self.imageRef), has(self.templateName), has(self.templateUUID), has(self.snapshotRef), has(self.backup), has(self.iso), has(self.existing)].exists_one(set, set)",message="exactly one source must be set: imageRef, templateName, templateUUID, snapshotRef, backup, iso or existing"
type InstanceSource struct {
	// imageRef names an image; the VM gets a copy of it.
	// +optional
	ImageRef *ImageReference `json:"imageRef,omitempty"`

	// templateName is the unique name-label of a template of the pool; the VM is a clone of it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	TemplateName string `json:"templateName,omitempty"`

	// templateUUID is the uuid of a template of the pool; the VM is a clone of it.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	TemplateUUID string `json:"templateUUID,omitempty"`

	// snapshotRef names a XenSnapshot that is on the pool; the VM is made as it was captured, with all captured disks, and
	// boots anew, also from a snapshot with memory. A captured disk that has its name among disks is that entry; the others
	// live as long as the VM. Without networks it gets the interfaces that were captured, with MAC addresses of its own.
	// +optional
	SnapshotRef *SnapshotReference `json:"snapshotRef,omitempty"`

	// backup is an uploaded snapshot with its manifest.json; the VM is rebuilt from it on this pool: with all disks, as with
	// snapshotRef, and without networks with the interfaces and MAC addresses that were captured, on the networks of the
	// same names.
	// +optional
	Backup *BackupSource `json:"backup,omitempty"`

	// iso makes a VM with an empty root disk that boots from an ISO.
	// +optional
	ISO *ISOSource `json:"iso,omitempty"`

	// existing is a VM that is on the pool already; it is adopted (or shown, see managementPolicy).
	// +optional
	Existing *ExistingVM `json:"existing,omitempty"`
}

// ISOSource is an ISO that a VM with an empty root disk boots from.
type ISOSource struct {
	// name is the name-label of the ISO in an ISO storage repository of the pool, debian-13.iso for instance, or its
	// uuid where several have the name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name"`

	// firmware that the VM boots with: BIOS or UEFI. Default: BIOS.
	// +optional
	Firmware Firmware `json:"firmware,omitempty"`
}

// ExistingVM names a VM that is on the pool already.
type ExistingVM struct {
	// uuid of the VM.
	// +required
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	UUID string `json:"uuid"`
}

// RootDisk goes over what the flavor says of the root disk.
type RootDisk struct {
	// size is the least size of the root disk, 1Mi to 64Ti; raising it grows the disk at the next boot. A larger disk is
	// no mismatch. Default: the flavor's, then the image's.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="size must be between 1Mi and 64Ti"
	Size *resource.Quantity `json:"size,omitempty"`

	// shrinkTo allows a root disk that is larger than asked for to be made smaller, 1Mi to 64Ti; nothing happens unless it
	// is the very size that is asked for, by size above or by the flavor (or alone, where neither says one). The VM is off
	// meanwhile; file systems that cannot be made smaller, or hold too much, are refused and left as they are. Default: a
	// larger disk is left.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="shrinkTo must be between 1Mi and 64Ti"
	ShrinkTo *resource.Quantity `json:"shrinkTo,omitempty"`

	// storageRepository that the disk is on: an alias of the pool or a unique name-label. Default:
	// placement.storageRepository, then the image's own, then the pool's default. A change does not move the disk; it
	// is held, see status.pendingChanges.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`
}

// PowerOff is how a VM is shut down.
type PowerOff struct {
	// mode is TrySoft (ask the guest, pull the plug when the time-out is over), Soft (ask and never pull) or Hard.
	// Default: TrySoft.
	// +optional
	Mode PowerOffMode `json:"mode,omitempty"`

	// softTimeoutSeconds is how long the guest has, 1 to 86400. Default: 300.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	SoftTimeoutSeconds *int32 `json:"softTimeoutSeconds,omitempty"`
}

// Disk is a data disk: a new one (size) or one that exists (vdiUUID).
// +kubebuilder:validation:XValidation:rule="has(self.size) != has(self.vdiUUID)",message="exactly one of size (a new disk) and vdiUUID (an existing disk) must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.vdiUUID) || !has(self.storageRepository)",message="storageRepository is for new disks: it cannot stand with vdiUUID"
// +kubebuilder:validation:XValidation:rule="!has(self.size) || !has(oldSelf.size) || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",message="a disk cannot shrink: size can only be raised"
// +kubebuilder:validation:XValidation:rule="has(self.vdiUUID) == has(oldSelf.vdiUUID) && (!has(self.vdiUUID) || self.vdiUUID == oldSelf.vdiUUID)",message="vdiUUID is immutable: take the entry out and add another name"
// +kubebuilder:validation:XValidation:rule="self.name != 'root'",message="root is the name of the root disk: give a data disk another"
type Disk struct {
	// name of the disk within the instance; root is the root disk's.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// device is the position that the guest sees, 1 to 254; 0 is the root disk and 3 the config drive. Default: the
	// first free one from 4 on; it is kept in status.disks and never reshuffled. A change is made when the VM is off.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	// +kubebuilder:validation:XValidation:rule="self != 3",message="device 3 is the config drive's"
	Device *int32 `json:"device,omitempty"`

	// size of a new disk, 1Mi to 64Ti; it can only be raised, which grows the disk.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="size must be between 1Mi and 64Ti"
	Size *resource.Quantity `json:"size,omitempty"`

	// storageRepository that a new disk is on: an alias of the pool or a unique name-label. Default:
	// placement.storageRepository, then the pool's default. A change does not move the disk; it is held, see
	// status.pendingChanges.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`

	// vdiUUID is a disk that is on the pool already; it is attached as it is. Immutable.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	VDIUUID string `json:"vdiUUID,omitempty"`

	// onRemove is what becomes of the disk when this entry is taken out: Detach (it stays on its storage repository) or
	// Delete. Default: Detach. A disk that was not made here is never deleted.
	// +optional
	OnRemove DiskRemovePolicy `json:"onRemove,omitempty"`

	// onInstanceDelete is what becomes of the disk when the instance is deleted: Retain (it stays on its storage
	// repository) or Delete. Default: Retain. A disk that was not made here is never deleted.
	// +optional
	OnInstanceDelete DiskDeletePolicy `json:"onInstanceDelete,omitempty"`
}

// NetworkInterface is a network interface of a VM.
type NetworkInterface struct {
	// name of the interface within the instance.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// device is the position that the guest sees, 0 to 15. Default: the first free one; it is kept in status.networks
	// and never reshuffled.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=15
	Device *int32 `json:"device,omitempty"`

	// network that the interface is on: an alias of the pool or a unique name-label. Default: the pool's default
	// network. A change plugs a new interface with the same MAC address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Network string `json:"network,omitempty"`

	// mac address of the interface, unicast, as 02:00:00:00:00:01. Default: one that follows from the names of
	// installation, instance and interface, so that it survives the VM.
	// +optional
	// +kubebuilder:validation:MaxLength=17
	// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$`
	MAC string `json:"mac,omitempty"`

	// rateLimitKBps limits the interface, in kilobytes per second, 1 to 104857600. Default: the flavor's limit.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=104857600
	RateLimitKBps *int32 `json:"rateLimitKBps,omitempty"`
}

// Bootstrap is what a guest finds on its config drive.
// +kubebuilder:validation:XValidation:rule="has(self.userData) || has(self.networkData) || has(self.metaData) || (has(self.generatePassword) && self.generatePassword)",message="at least one of userData, networkData, metaData and generatePassword: true must be set"
type Bootstrap struct {
	// format is NoCloud or ConfigDrive. Default: NoCloud.
	// +optional
	Format BootstrapFormat `json:"format,omitempty"`

	// userData is handed to the guest as it is: a cloud-config or a script.
	// +optional
	UserData *DataSource `json:"userData,omitempty"`

	// networkData is handed to the guest as it is: network-config for NoCloud, network_data.json for ConfigDrive.
	// Default: none, the guest asks by DHCP.
	// +optional
	NetworkData *DataSource `json:"networkData,omitempty"`

	// metaData are additional keys of the guest's meta data, at most 32. Nothing secret belongs here.
	// +optional
	// +mapType=granular
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 253)",message="a metaData key has at most 253 characters"
	MetaData map[string]MetaDataValue `json:"metaData,omitempty"`

	// generatePassword makes a password for the guest's default user. It is kept in the Secret <name>-password, which
	// goes with the instance.
	// +optional
	GeneratePassword bool `json:"generatePassword,omitempty"`

	// removeDriveAfter is when the config drive is removed: GuestReady (once the guest reports itself) or Never.
	// Default: GuestReady.
	// +optional
	RemoveDriveAfter RemoveDrivePolicy `json:"removeDriveAfter,omitempty"`
}

// MetaDataValue is a value of the guest's meta data.
// +kubebuilder:validation:MaxLength=1024
type MetaDataValue string

// DataSource is a key of a Secret or of a ConfigMap in the instance's namespace; exactly one of its fields is set.
// +kubebuilder:validation:XValidation:rule="has(self.secretKeyRef) != has(self.configMapKeyRef)",message="exactly one of secretKeyRef and configMapKeyRef must be set"
type DataSource struct {
	// secretKeyRef names a key of a Secret.
	// +optional
	SecretKeyRef *KeySelector `json:"secretKeyRef,omitempty"`

	// configMapKeyRef names a key of a ConfigMap.
	// +optional
	ConfigMapKeyRef *KeySelector `json:"configMapKeyRef,omitempty"`
}

// Placement is where on a pool a VM is.
// +kubebuilder:validation:XValidation:rule="!has(self.pin) || !self.pin || has(self.host)",message="pin needs host"
type Placement struct {
	// host is the name-label or uuid of the host that the VM should be on; a preference unless pin is true. A change moves
	// the VM, live if it runs, with the disks that the host does not see. A preference counts once: a VM that somebody moves
	// away afterwards stays there. Taken out, the VM stays where it is.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Host string `json:"host,omitempty"`

	// pin makes host a must: the VM starts there or not at all, and is brought back when it is moved away.
	// +optional
	Pin bool `json:"pin,omitempty"`

	// storageRepository for the disks that name none: an alias of the pool or a unique name-label. A change counts for
	// disks that are made afterwards.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`
}

// Adoption is how a VM that existed before comes under management.
type Adoption struct {
	// onMismatch is what happens when the VM differs from the spec when it is adopted: Hold (nothing is changed, the
	// differences stand in status.pendingChanges) or Apply. Default: Hold.
	// +optional
	OnMismatch MismatchPolicy `json:"onMismatch,omitempty"`
}

// XenInstance is a virtual machine.
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a XenInstance has at most 63 characters: it is the guest's host name"
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=xi,categories=xen
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Power",type=string,JSONPath=`.status.powerState`
// +kubebuilder:printcolumn:name="Flavor",type=string,JSONPath=`.status.flavor.name`
// +kubebuilder:printcolumn:name="IP",type=string,JSONPath=`.status.primaryAddress`
// +kubebuilder:printcolumn:name="Rescue",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Rescued")].reason`
// +kubebuilder:printcolumn:name="Host",type=string,priority=1,JSONPath=`.status.hostName`
// +kubebuilder:printcolumn:name="UUID",type=string,priority=1,JSONPath=`.status.uuid`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the VM as its user wants it.
	// +required
	Spec XenInstanceSpec `json:"spec"`

	// status is the VM as the operator sees it.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenInstanceStatus `json:"status,omitempty"`
}

// XenInstanceList is a list of instances.
// +kubebuilder:object:root=true
type XenInstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenInstance `json:"items"`
}
