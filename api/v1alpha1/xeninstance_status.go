package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// XenInstanceStatus is a VM as the operator sees it.
type XenInstanceStatus struct {
	CommonStatus `json:",inline"`

	// uuid of the VM; while the instance is in rescue that of its own, see rescue.vmUUID for the other.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid,omitempty"`

	// powerState of the VM; while the instance is in rescue of the rescue VM, as are hostName and the addresses.
	// +optional
	PowerState PowerState `json:"powerState,omitempty"`

	// flavor is the size that the VM has.
	// +optional
	Flavor *AppliedFlavor `json:"flavor,omitempty"`

	// rootDisk of the VM.
	// +optional
	RootDisk *DiskStatus `json:"rootDisk,omitempty"`

	// pendingChanges are the differences between spec and VM and what each waits for: the plan, before it is carried
	// out. With managementPolicy Observe it is what Manage would do.
	// +optional
	// +listType=map
	// +listMapKey=field
	// +kubebuilder:validation:MaxItems=64
	PendingChanges []PendingChange `json:"pendingChanges,omitempty"`

	// hostName is the name-label of the host that the VM runs on.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	HostName string `json:"hostName,omitempty"`

	// primaryAddress is the address to reach the guest by: the first of the first interface, IPv4 before IPv6.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	PrimaryAddress string `json:"primaryAddress,omitempty"`

	// addresses that the guest reports.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Addresses []Address `json:"addresses,omitempty"`

	// disks are the data disks of the VM, by the name of their entry.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Disks []DiskStatus `json:"disks,omitempty"`

	// networks are the interfaces of the VM, by the name of their entry.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Networks []NetworkStatus `json:"networks,omitempty"`

	// unmanagedDevices are disks and interfaces of the VM that the spec does not list; they are left as they are.
	// +optional
	// +listType=map
	// +listMapKey=uuid
	// +kubebuilder:validation:MaxItems=64
	UnmanagedDevices []UnmanagedDevice `json:"unmanagedDevices,omitempty"`

	// passwordSecretRef names the Secret with the generated password.
	// +optional
	PasswordSecretRef *LocalSecretReference `json:"passwordSecretRef,omitempty"`

	// restartToken is the value of spec.restartToken that was dealt with last.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	RestartToken string `json:"restartToken,omitempty"`

	// rescue is the rescue that is under way, absent without one.
	// +optional
	Rescue *RescueStatus `json:"rescue,omitempty"`

	// resize is the resize that is under way or waits for its user, absent without one.
	// +optional
	Resize *ResizeStatus `json:"resize,omitempty"`

	// restorePoints is how many restore points of the root disk are kept on the pool.
	// +optional
	// +kubebuilder:validation:Minimum=0
	RestorePoints int32 `json:"restorePoints,omitempty"`

	// operation is what is being done to the VM.
	// +optional
	Operation *Operation `json:"operation,omitempty"`
}

// AppliedFlavor is the size that a VM has.
type AppliedFlavor struct {
	// name of the flavor that the size comes from; empty for an adopted VM that no flavor was asked for.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// vcpus that the VM runs with.
	// +optional
	VCPUs int32 `json:"vcpus,omitempty"`

	// maxVCPUs that it can grow to while it runs.
	// +optional
	MaxVCPUs int32 `json:"maxVCPUs,omitempty"`

	// coresPerSocket that the guest sees.
	// +optional
	CoresPerSocket int32 `json:"coresPerSocket,omitempty"`

	// memory that the VM runs with.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	Memory *resource.Quantity `json:"memory,omitempty"`

	// maxMemory that it can grow to while it runs.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	MaxMemory *resource.Quantity `json:"maxMemory,omitempty"`
}

// DiskStatus is a disk of a VM.
type DiskStatus struct {
	// name of the disk's entry; root for the root disk.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// device is the position that the guest sees.
	// +optional
	Device *int32 `json:"device,omitempty"`

	// vdiUUID of the disk.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VDIUUID string `json:"vdiUUID,omitempty"`

	// size of the disk.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	Size *resource.Quantity `json:"size,omitempty"`

	// storageRepository is the name-label of the storage repository that holds the disk.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`

	// attached tells whether the guest has the disk now.
	// +optional
	Attached bool `json:"attached,omitempty"`
}

// NetworkStatus is an interface of a VM.
type NetworkStatus struct {
	// name of the interface's entry.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// device is the position that the guest sees.
	// +optional
	Device *int32 `json:"device,omitempty"`

	// vifUUID of the interface.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VIFUUID string `json:"vifUUID,omitempty"`

	// network is the name-label of the network.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Network string `json:"network,omitempty"`

	// mac address.
	// +optional
	// +kubebuilder:validation:MaxLength=17
	MAC string `json:"mac,omitempty"`

	// attached tells whether the guest has the interface now.
	// +optional
	Attached bool `json:"attached,omitempty"`
}

// AddressType is the family of an address.
// +kubebuilder:validation:Enum=IPv4;IPv6
type AddressType string

const (
	// AddressIPv4 is an IPv4 address.
	AddressIPv4 AddressType = "IPv4"
	// AddressIPv6 is an IPv6 address.
	AddressIPv6 AddressType = "IPv6"
)

// Address is an address that a guest reports.
type Address struct {
	// type is IPv4 or IPv6.
	// +required
	Type AddressType `json:"type"`

	// address without a prefix length.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address"`

	// network is the name of the entry in spec.networks that has it; empty for an interface that is not listed there.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Network string `json:"network,omitempty"`
}

// DeviceType is what an unmanaged device is.
// +kubebuilder:validation:Enum=Disk;CD;Network
type DeviceType string

const (
	// DeviceDisk is a disk.
	DeviceDisk DeviceType = "Disk"
	// DeviceCD is a CD drive, empty or not.
	DeviceCD DeviceType = "CD"
	// DeviceNetwork is a network interface.
	DeviceNetwork DeviceType = "Network"
)

// UnmanagedDevice is a device of a VM that the spec does not list.
type UnmanagedDevice struct {
	// uuid of the VBD or VIF.
	// +required
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid"`

	// type is Disk, CD or Network.
	// +required
	Type DeviceType `json:"type"`

	// device is the position that the guest sees.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Device string `json:"device,omitempty"`

	// name is the name-label of the disk or network.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name,omitempty"`
}

// PendingChange is a difference between spec and VM.
type PendingChange struct {
	// field of the spec, disks[data].size for instance.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Field string `json:"field"`

	// requires is what the change waits for: Live, Restart, PowerOff, Confirmation or Hold.
	// +required
	Requires ChangeRequires `json:"requires"`

	// message says from what to what, and why it waits.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// Operation is what is being done to a VM.
type Operation struct {
	// type of the operation: Create, Start, Shutdown, Restart, GrowDisk …
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Type string `json:"type"`

	// id tells one operation from the next.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`

	// startedAt is when it was begun.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`

	// attempts is how often it was tried.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`

	// lastError is how the last attempt failed.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`

	// percent that is done, 0 to 100, where the pool tells.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *int32 `json:"percent,omitempty"`
}
