package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// XenFlavorSpec is a size. It is immutable: make a new flavor and name that one in the instances.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a flavor is immutable: make a new one and name it in flavorRef"
// +kubebuilder:validation:XValidation:rule="!has(self.maxVCPUs) || self.maxVCPUs >= self.vcpus",message="maxVCPUs must not be below vcpus"
// +kubebuilder:validation:XValidation:rule="!has(self.coresPerSocket) || (has(self.maxVCPUs) ? self.maxVCPUs : self.vcpus) % self.coresPerSocket == 0",message="coresPerSocket must divide maxVCPUs (vcpus where maxVCPUs is absent)"
// +kubebuilder:validation:XValidation:rule="!has(self.maxMemory) || quantity(string(self.maxMemory)).compareTo(quantity(string(self.memory))) >= 0",message="maxMemory must not be below memory"
type XenFlavorSpec struct {
	// vcpus that the VM runs with, 1 to 512.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=512
	VCPUs int32 `json:"vcpus"`

	// maxVCPUs is how many VCPUs the VM can grow to while it runs. Default: vcpus, no head-room.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=512
	MaxVCPUs *int32 `json:"maxVCPUs,omitempty"`

	// coresPerSocket shapes the topology that the guest sees; it must divide maxVCPUs. Default: the template's.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=512
	CoresPerSocket *int32 `json:"coresPerSocket,omitempty"`

	// memory that the VM runs with, 16Mi to 32Ti.
	// +required
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('32Ti')) <= 0",message="memory must be between 16Mi and 32Ti"
	Memory resource.Quantity `json:"memory"`

	// maxMemory is how far memory can grow while the VM runs. Default: memory, no head-room. At most 32Ti.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('32Ti')) <= 0",message="maxMemory must be at most 32Ti"
	MaxMemory *resource.Quantity `json:"maxMemory,omitempty"`

	// rootDisk is the least size of the root disk, 1Mi to 64Ti. A larger one is no mismatch. Default: the size of the
	// image's disk.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="rootDisk must be between 1Mi and 64Ti"
	RootDisk *resource.Quantity `json:"rootDisk,omitempty"`

	// ephemeralDisk is the size of scratch space that lives and dies with the VM, 1Mi to 64Ti; it is split into several
	// disks where one would be too large for the storage. Default: none.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="ephemeralDisk must be between 1Mi and 64Ti"
	EphemeralDisk *resource.Quantity `json:"ephemeralDisk,omitempty"`

	// swapDisk is the size of a disk for swap that lives and dies with the VM, 1Mi to 2Ti. Default: none.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('2Ti')) <= 0",message="swapDisk must be between 1Mi and 2Ti"
	SwapDisk *resource.Quantity `json:"swapDisk,omitempty"`

	// cpuWeight is the VM's share of CPU time relative to others, 1 to 65535. Default: the pool's, 256.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	CPUWeight *int32 `json:"cpuWeight,omitempty"`

	// cpuCap is the most CPU time that the VM may take, in percent of one physical CPU, 1 to 51200. Default: no cap.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=51200
	CPUCap *int32 `json:"cpuCap,omitempty"`

	// networkRateLimitKBps limits each network interface, in kilobytes per second, 1 to 104857600. An interface's own
	// limit goes before it. Default: no limit.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=104857600
	NetworkRateLimitKBps *int32 `json:"networkRateLimitKBps,omitempty"`
}

// XenFlavorStatus is what the operator says about a flavor.
type XenFlavorStatus struct {
	CommonStatus `json:",inline"`
}

// XenFlavor is a size that instances ask for by name. Its figures are copied into each instance, so deleting a flavor
// hurts no VM.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xfl,categories=xen
// +kubebuilder:printcolumn:name="VCPUs",type=integer,JSONPath=`.spec.vcpus`
// +kubebuilder:printcolumn:name="Memory",type=string,JSONPath=`.spec.memory`
// +kubebuilder:printcolumn:name="Disk",type=string,JSONPath=`.spec.rootDisk`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenFlavor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the size. Immutable.
	// +required
	Spec XenFlavorSpec `json:"spec"`

	// status is what the operator says about it.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenFlavorStatus `json:"status,omitempty"`
}

// XenFlavorList is a list of flavors.
// +kubebuilder:object:root=true
type XenFlavorList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenFlavor `json:"items"`
}
