package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The most entries that the lists of a XenPool's status hold; what is beyond is counted only.
const (
	MaxReportedHosts               = 64
	MaxReportedStorageRepositories = 256
	MaxReportedNetworks            = 512
	MaxReportedTrash               = 128
	MaxReportedOrphans             = 128
)

// XenPoolStatus is what the operator sees of a pool.
type XenPoolStatus struct {
	CommonStatus `json:",inline"`

	// uuid of the pool, kept from the first connection on: another pool behind the endpoints is refused.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid,omitempty"`

	// coordinator is the URL of the member that answers for the pool.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Coordinator string `json:"coordinator,omitempty"`

	// version of the product that the coordinator runs.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`

	// hostSummary is how many of the members are enabled, as enabled/all.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	HostSummary string `json:"hostSummary,omitempty"`

	// hosts are the members of the pool; the first 64 by name.
	// +optional
	// +listType=map
	// +listMapKey=uuid
	// +kubebuilder:validation:MaxItems=64
	Hosts []PoolHost `json:"hosts,omitempty"`

	// storageRepositories of the pool; the first 256 by name.
	// +optional
	// +listType=map
	// +listMapKey=uuid
	// +kubebuilder:validation:MaxItems=256
	StorageRepositories []PoolStorageRepository `json:"storageRepositories,omitempty"`

	// networks of the pool; the first 512 by name.
	// +optional
	// +listType=map
	// +listMapKey=uuid
	// +kubebuilder:validation:MaxItems=512
	Networks []PoolNetwork `json:"networks,omitempty"`

	// instances is how many XenInstances have their VM on the pool.
	// +optional
	Instances int32 `json:"instances,omitempty"`

	// unmanagedInstances is how many VMs of the pool belong to no XenInstance.
	// +optional
	UnmanagedInstances int32 `json:"unmanagedInstances,omitempty"`

	// trashCount is how many VMs are in the trash.
	// +optional
	TrashCount int32 `json:"trashCount,omitempty"`

	// trash are the VMs that were deleted and are kept for a while; the first 128 to go.
	// +optional
	// +listType=map
	// +listMapKey=uuid
	// +kubebuilder:validation:MaxItems=128
	Trash []TrashedInstance `json:"trash,omitempty"`

	// orphanCount is how many objects on the pool carry our marks but belong to no object here.
	// +optional
	OrphanCount int32 `json:"orphanCount,omitempty"`

	// orphans are objects on the pool that carry our marks but belong to no object here; the first 128 by name.
	// +optional
	// +listType=map
	// +listMapKey=uuid
	// +kubebuilder:validation:MaxItems=128
	Orphans []Orphan `json:"orphans,omitempty"`

	// credentials tell which Secret the pool accepted last.
	// +optional
	Credentials *PoolCredentialsStatus `json:"credentials,omitempty"`
}

// PoolHost is a member of a pool.
type PoolHost struct {
	// name is the host's name-label.
	// +required
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name"`

	// uuid of the host.
	// +required
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid"`

	// address of the host's management interface.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Address string `json:"address,omitempty"`

	// enabled tells whether VMs may start there.
	// +optional
	Enabled bool `json:"enabled"`
}

// PoolStorageRepository is a storage repository of a pool.
type PoolStorageRepository struct {
	// name is the name-label.
	// +required
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name"`

	// uuid of the storage repository.
	// +required
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid"`

	// type of the storage repository, as the XenAPI names it: lvm, ext, nfs, iso …
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Type string `json:"type,omitempty"`

	// shared tells whether every host reaches it.
	// +optional
	Shared bool `json:"shared"`
}

// PoolNetwork is a network of a pool.
type PoolNetwork struct {
	// name is the name-label.
	// +required
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name"`

	// uuid of the network.
	// +required
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid"`
}

// TrashedInstance is a VM in the trash.
type TrashedInstance struct {
	// uuid of the VM.
	// +required
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid"`

	// namespace of the XenInstance that was deleted.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name of the XenInstance that was deleted.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// deletedAt is when it was deleted.
	// +optional
	DeletedAt *metav1.Time `json:"deletedAt,omitempty"`

	// expiresAt is when the VM and its disks are destroyed.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
}

// Orphan is an object on a pool that carries our marks but belongs to no object here.
type Orphan struct {
	// uuid of the object.
	// +required
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid"`

	// class of the object in the XenAPI: VM or VDI.
	// +required
	// +kubebuilder:validation:MaxLength=32
	Class string `json:"class"`

	// name is its name-label.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name,omitempty"`

	// role that its mark gives it: vm, root-disk, data-disk, config-drive …
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Role string `json:"role,omitempty"`

	// owner that its mark names, as kind/namespace/name.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Owner string `json:"owner,omitempty"`
}

// PoolCredentialsStatus tells which Secret a pool accepted last. It holds nothing of the Secret's data.
type PoolCredentialsStatus struct {
	// secretResourceVersion is the resourceVersion of the Secret that was tried last.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SecretResourceVersion string `json:"secretResourceVersion,omitempty"`

	// lastAcceptedAt is when the pool last accepted a new Secret.
	// +optional
	LastAcceptedAt *metav1.Time `json:"lastAcceptedAt,omitempty"`
}
