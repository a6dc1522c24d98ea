package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Firmware is what the VM boots with.
// +kubebuilder:validation:Enum=BIOS;UEFI
type Firmware string

const (
	// FirmwareBIOS boots a boot sector.
	FirmwareBIOS Firmware = "BIOS"
	// FirmwareUEFI boots from an EFI system partition and keeps NVRAM.
	FirmwareUEFI Firmware = "UEFI"
)

// XenImageSpec is what VMs boot from. It is immutable: make a new image.
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="an image is immutable: make a new one"
// +kubebuilder:validation:XValidation:rule="!has(self.source.existing) || self.pools.size() == 1",message="source.existing names an object of one pool: pools must have exactly one entry"
// +kubebuilder:validation:XValidation:rule="!has(self.source.existing) || !has(self.source.existing.templateUUID) || !(has(self.templateName) || has(self.firmware) || has(self.secureBoot))",message="templateName, firmware and secureBoot are the template's own when source.existing.templateUUID is set"
// +kubebuilder:validation:XValidation:rule="!has(self.secureBoot) || !self.secureBoot || (has(self.firmware) && self.firmware == 'UEFI')",message="secureBoot needs firmware UEFI"
// +kubebuilder:validation:XValidation:rule="!has(self.source.http) || has(self.checksum)",message="source.http needs checksum: nothing else tells whether the file is the one that is meant"
// +kubebuilder:validation:XValidation:rule="!(has(self.checksum) || has(self.format)) || has(self.source.http) || has(self.source.s3) || has(self.source.glance)",message="checksum and format are of files: they need source.http, s3 or glance"
// +kubebuilder:validation:XValidation:rule="!has(self.source.existing) || self.pools.all(p, !has(p.storageRepositories))",message="storageRepositories are for images that are imported: source.existing stays where it is"
type XenImageSpec struct {
	// source is where the bytes are.
	// +required
	Source ImageSource `json:"source"`

	// pools that offer the image.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Pools []ImagePool `json:"pools"`

	// checksum of the file that source names, before anything is unpacked. The image is not used before it was compared.
	// Required for source.http. Default: the one that the store itself keeps, where it keeps one.
	// +optional
	Checksum *Checksum `json:"checksum,omitempty"`

	// format of the file: VHD, QCOW2, Raw, NovaTarball or XVA, of which the disk is taken that the VM boots from; all but
	// QCOW2 may be compressed with gzip or zstd. Default: detected. A file of another format is refused.
	// +optional
	// +kubebuilder:validation:Enum=VHD;QCOW2;Raw;XVA;NovaTarball
	Format DiskFormat `json:"format,omitempty"`

	// templateName is the name-label of the template whose platform settings VMs of this image take. Default: those of the
	// snapshot where that is cloned, otherwise the pool's "Other install media".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	TemplateName string `json:"templateName,omitempty"`

	// firmware that VMs of this image boot with: BIOS or UEFI. Default: what the image service says, otherwise the
	// template's.
	// +optional
	Firmware Firmware `json:"firmware,omitempty"`

	// secureBoot makes the firmware refuse what is not signed; it needs firmware UEFI. Default: what the image service says,
	// otherwise the template's.
	// +optional
	SecureBoot *bool `json:"secureBoot,omitempty"`

	// minDisk is the least root disk that a VM of this image may have. Default: what the image service says, otherwise no
	// minimum; the disk is never smaller than the image's.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="minDisk must be between 1Mi and 64Ti"
	MinDisk *resource.Quantity `json:"minDisk,omitempty"`

	// minMemory is the least memory that a VM of this image may have. Default: what the image service says, otherwise no
	// minimum.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('32Ti')) <= 0",message="minMemory must be between 16Mi and 32Ti"
	MinMemory *resource.Quantity `json:"minMemory,omitempty"`
}

// ImageSource is where an image's bytes are; exactly one of its fields is set.
// +kubebuilder:validation:XValidation:rule="[has(self.existing), has(self.http), has(self.s3), has(self.glance), has(self.snapshot)].exists_one(set, set)",message="exactly one source must be set: existing, http, s3, glance or snapshot"
type ImageSource struct {
	// existing is a template or disk that is on the pool already.
	// +optional
	Existing *ExistingImage `json:"existing,omitempty"`

	// http is a file on a web server.
	// +optional
	HTTP *HTTPObject `json:"http,omitempty"`

	// s3 is an object in an S3-compatible store.
	// +optional
	S3 *S3Object `json:"s3,omitempty"`

	// glance is an image in an OpenStack image service.
	// +optional
	Glance *GlanceImage `json:"glance,omitempty"`

	// snapshot is a XenSnapshot of the same namespace (for a XenClusterImage of the operator's own): the image is its root disk. Where the snapshot is on the pool it is
	// cloned (copied to another storage repository); to another pool its upload is imported. The XenSnapshot stays until the
	// image is ready, and may be deleted then.
	// +optional
	Snapshot *SnapshotReference `json:"snapshot,omitempty"`
}

// ExistingImage names a template or a disk on a pool; exactly one of its fields is set.
// +kubebuilder:validation:XValidation:rule="has(self.templateUUID) != has(self.vdiUUID)",message="exactly one of templateUUID and vdiUUID must be set"
type ExistingImage struct {
	// templateUUID is a template VM with its disks; VMs are clones of it.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	TemplateUUID string `json:"templateUUID,omitempty"`

	// vdiUUID is a disk; VMs get a copy of it as their root disk. The disk itself is never attached or changed.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	VDIUUID string `json:"vdiUUID,omitempty"`
}

// ImagePool is a pool that offers an image.
type ImagePool struct {
	// name of the XenPool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// storageRepositories that the image is imported to, by alias of the pool or unique name-label. Instances on one of them are
	// copy-on-write clones, on another one full copies. Default: the pool's default.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	StorageRepositories []string `json:"storageRepositories,omitempty"`
}

// XenImageStatus is what the operator says about an image.
type XenImageStatus struct {
	CommonStatus `json:",inline"`

	// virtualSize is the size of the disk as a VM sees it.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	VirtualSize *resource.Quantity `json:"virtualSize,omitempty"`

	// minDisk is the least root disk that VMs of the image may have: the spec's, or what the image service says.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	MinDisk *resource.Quantity `json:"minDisk,omitempty"`

	// minMemory is the least memory that VMs of the image may have: the spec's, or what the image service says.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	MinMemory *resource.Quantity `json:"minMemory,omitempty"`

	// firmware that VMs of the image boot with, where the spec or the image service says so.
	// +optional
	Firmware Firmware `json:"firmware,omitempty"`

	// source tells for kubectl get where the image comes from: a URL, s3://bucket/key, the id of an image, the name of a
	// snapshot or a uuid on the pool.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Source string `json:"source,omitempty"`

	// progress of the imports over all pools, for kubectl get: 42% for instance; empty when there is nothing to import.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Progress string `json:"progress,omitempty"`

	// checksum of the file as it was read; it was computed on the way.
	// +optional
	Checksum *Checksum `json:"checksum,omitempty"`

	// format of the file as it was found.
	// +optional
	// +kubebuilder:validation:Enum=VHD;QCOW2;Raw;XVA;NovaTarball
	Format DiskFormat `json:"format,omitempty"`

	// pools tells for each pool where the image is.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Pools []ImagePoolStatus `json:"pools,omitempty"`
}

// ImagePoolStatus tells where an image is on one pool.
type ImagePoolStatus struct {
	// name of the XenPool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// templateUUID is the template that instances clone.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	TemplateUUID string `json:"templateUUID,omitempty"`

	// vdiUUID is the disk of the image.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VDIUUID string `json:"vdiUUID,omitempty"`

	// storageRepository is the name-label of the storage repository that holds the disk.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`

	// ready tells whether instances can be made from the image on this pool.
	// +optional
	Ready bool `json:"ready,omitempty"`

	// message says what is missing while ready is false.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// copies of an imported image, one for each storage repository. The fields above are those of the first.
	// +optional
	// +listType=map
	// +listMapKey=storageRepository
	// +kubebuilder:validation:MaxItems=8
	Copies []ImageCopy `json:"copies,omitempty"`
}

// ImageCopy is an imported image on one storage repository.
type ImageCopy struct {
	// storageRepository as spec.pools names it; default where it names none.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository"`

	// templateUUID is the hidden template that instances clone.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	TemplateUUID string `json:"templateUUID,omitempty"`

	// vdiUUID is the root disk of the template.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VDIUUID string `json:"vdiUUID,omitempty"`

	// ready tells whether instances can be made from this copy.
	// +optional
	Ready bool `json:"ready,omitempty"`

	// transferredBytes of the file were read in this attempt.
	// +optional
	TransferredBytes int64 `json:"transferredBytes,omitempty"`

	// totalBytes is the size of the file, where the store tells it.
	// +optional
	TotalBytes int64 `json:"totalBytes,omitempty"`

	// percent of the import that is done.
	// +optional
	Percent int32 `json:"percent,omitempty"`

	// bytesPerSecond lately.
	// +optional
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`

	// attempts that were begun.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`

	// lastError is why the last attempt failed.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`

	// nextRetryTime is when the next attempt begins, in RFC 3339. It is text, not a time, because kubectl shows a time of the
	// future as invalid.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	NextRetryTime string `json:"nextRetryTime,omitempty"`
}

// XenImage is what VMs of its own namespace boot from.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=ximg,categories=xen
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.status.virtualSize`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`
// +kubebuilder:printcolumn:name="Source",type=string,priority=1,JSONPath=`.status.source`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenImage struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the image. Immutable.
	// +required
	Spec XenImageSpec `json:"spec"`

	// status is what the operator says about it.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenImageStatus `json:"status,omitempty"`
}

// XenImageList is a list of images.
// +kubebuilder:object:root=true
type XenImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenImage `json:"items"`
}

// XenClusterImage is what VMs of every namespace may boot from; administrators offer it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xcimg,categories=xen
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.status.virtualSize`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`
// +kubebuilder:printcolumn:name="Source",type=string,priority=1,JSONPath=`.status.source`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenClusterImage struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the image. Immutable.
	// +required
	Spec XenImageSpec `json:"spec"`

	// status is what the operator says about it.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenImageStatus `json:"status,omitempty"`
}

// XenClusterImageList is a list of images.
// +kubebuilder:object:root=true
type XenClusterImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenClusterImage `json:"items"`
}
