package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SnapshotType is what of the VM is captured.
// +kubebuilder:validation:Enum=Disk;Memory
type SnapshotType string

const (
	// SnapshotTypeDisk captures the disks, as a power failure would leave them.
	SnapshotTypeDisk SnapshotType = "Disk"
	// SnapshotTypeMemory captures the memory of the running guest as well.
	SnapshotTypeMemory SnapshotType = "Memory"
)

// SnapshotDisks is which disks are captured.
// +kubebuilder:validation:Enum=Root;All
type SnapshotDisks string

const (
	// SnapshotDisksRoot captures the root disk alone.
	SnapshotDisksRoot SnapshotDisks = "Root"
	// SnapshotDisksAll captures every disk of the VM.
	SnapshotDisksAll SnapshotDisks = "All"
)

// KeepLocal is how long the snapshot stays in the pool when it is uploaded.
// +kubebuilder:validation:Enum=UntilUploaded;Always
type KeepLocal string

const (
	// KeepUntilUploaded removes it from the pool once the upload is verified.
	KeepUntilUploaded KeepLocal = "UntilUploaded"
	// KeepAlways keeps it in the pool until the XenSnapshot is deleted.
	KeepAlways KeepLocal = "Always"
)

// SnapshotDeletionPolicy is what becomes of the uploaded copy.
// +kubebuilder:validation:Enum=Retain;Delete
type SnapshotDeletionPolicy string

const (
	// SnapshotRetain leaves the uploaded copy where it is.
	SnapshotRetain SnapshotDeletionPolicy = "Retain"
	// SnapshotDelete deletes the uploaded copy.
	SnapshotDelete SnapshotDeletionPolicy = "Delete"
)

// XenSnapshotSpec asks for a point in time of an instance, and for a copy of it elsewhere.
// +kubebuilder:validation:XValidation:rule="self.instanceRef == oldSelf.instanceRef && self.type == oldSelf.type && self.disks == oldSelf.disks",message="instanceRef, type and disks are immutable: make another XenSnapshot"
// +kubebuilder:validation:XValidation:rule="has(self.destination) == has(oldSelf.destination) && (!has(self.destination) || self.destination == oldSelf.destination)",message="destination is immutable: make another XenSnapshot"
// +kubebuilder:validation:XValidation:rule="self.type != 'Memory' || self.disks == 'All'",message="type Memory captures all disks: memory and disks of different moments do not fit together"
// +kubebuilder:validation:XValidation:rule="self.type != 'Memory' || !has(self.destination) || (has(self.destination.format) && self.destination.format == 'XVA')",message="a Memory snapshot is uploaded in format XVA: the other formats hold disks alone"
type XenSnapshotSpec struct {
	// instanceRef names the XenInstance to capture; it may be deleted afterwards. Immutable.
	// +required
	InstanceRef InstanceReference `json:"instanceRef"`

	// type is Disk (the disks, as a power failure would leave them) or Memory (the memory of the running guest as well).
	// Default: Disk. Immutable.
	// +optional
	// +kubebuilder:default=Disk
	Type SnapshotType `json:"type,omitempty"`

	// disks is which disks are captured: Root or All. The config drive never is. Default: All. Immutable.
	// +optional
	// +kubebuilder:default=All
	Disks SnapshotDisks `json:"disks,omitempty"`

	// destination is where the snapshot is uploaded to. Default: nowhere, it stays in the pool. Immutable.
	// +optional
	Destination *SnapshotDestination `json:"destination,omitempty"`

	// keepLocal is how long the snapshot stays in the pool when it has a destination: UntilUploaded or Always (an incremental
	// upload needs its base there). Default: UntilUploaded.
	// +optional
	// +kubebuilder:default=UntilUploaded
	KeepLocal KeepLocal `json:"keepLocal,omitempty"`

	// deadlineSeconds is how long capture and upload may take together, from the object's creation, 60 to 2592000 (30 days).
	// Default: no limit.
	// +optional
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=2592000
	DeadlineSeconds *int64 `json:"deadlineSeconds,omitempty"`

	// backoffLimit is how often a failed upload is tried again, 0 to 100. Default: 6.
	// +optional
	// +kubebuilder:default=6
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`

	// ttlSecondsAfterFinished deletes the object that long after it succeeded or failed, 0 to 31536000 (a year). Not for objects
	// kept in Git. Default: it stays.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	TTLSecondsAfterFinished *int64 `json:"ttlSecondsAfterFinished,omitempty"`

	// deletionPolicy is what becomes of the uploaded copy when this object is deleted: Retain or Delete. The snapshot in the pool
	// is removed either way. Default: Retain.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy SnapshotDeletionPolicy `json:"deletionPolicy,omitempty"`
}

// SnapshotDestination is where a snapshot is uploaded to, and how; exactly one of s3, glance and http is set.
// +kubebuilder:validation:XValidation:rule="[has(self.s3), has(self.glance), has(self.http)].exists_one(set, set)",message="exactly one destination must be set: s3, glance or http"
// +kubebuilder:validation:XValidation:rule="!has(self.incrementalFrom) || !has(self.format) || self.format == 'VHD'",message="incrementalFrom needs format VHD: the other formats hold whole disks"
// +kubebuilder:validation:XValidation:rule="!has(self.incrementalFrom) || !has(self.glance)",message="incrementalFrom is not for glance: an image there is a whole disk"
// +kubebuilder:validation:XValidation:rule="!has(self.compression) || self.compression == 'None' || !has(self.format) || !(self.format in ['NovaTarball', 'QCOW2'])",message="compression must be None with format NovaTarball, which is compressed in itself, and with QCOW2, which is read in place"
// +kubebuilder:validation:XValidation:rule="!has(self.compression) || self.compression == 'None' || !has(self.glance)",message="compression must be None with glance: images there are booted as they are"
type SnapshotDestination struct {
	// s3 puts the files into a bucket.
	// +optional
	S3 *S3Destination `json:"s3,omitempty"`

	// glance makes an image of each disk.
	// +optional
	Glance *GlanceDestination `json:"glance,omitempty"`

	// http puts the files onto a web server that takes PUT.
	// +optional
	HTTP *HTTPDestination `json:"http,omitempty"`

	// format of the files: VHD, Raw, QCOW2 (where the pool can write it), XVA (one archive with all disks) or NovaTarball.
	// Default: VHD.
	// +optional
	// +kubebuilder:validation:Enum=VHD;QCOW2;Raw;XVA;NovaTarball
	Format DiskFormat `json:"format,omitempty"`

	// compression of the files: None, Zstd or Gzip. Default: None.
	// +optional
	Compression Compression `json:"compression,omitempty"`

	// incrementalFrom uploads what changed since an earlier snapshot of the same instance. That one must still be in the pool
	// (keepLocal: Always) and uploaded to the same store; it is guarded from deletion while this one needs it. To restore,
	// both are needed: source.backup reads them by itself.
	// +optional
	IncrementalFrom *IncrementalBase `json:"incrementalFrom,omitempty"`
}

// IncrementalBase is what an incremental upload starts from.
type IncrementalBase struct {
	// snapshotRef names the earlier XenSnapshot.
	// +required
	SnapshotRef SnapshotReference `json:"snapshotRef"`
}

// S3Destination is where in an S3-compatible store the files go.
type S3Destination struct {
	S3Bucket `json:",inline"`

	// prefix of the objects' keys; below it the files of a snapshot are at <namespace>/<name>/. Default: none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[-_.=A-Za-z0-9][-_.=/A-Za-z0-9]*$`
	Prefix string `json:"prefix,omitempty"`
}

// GlanceDestination is how images of a snapshot are made in an OpenStack image service.
type GlanceDestination struct {
	GlanceService `json:",inline"`

	// imageName of the image of the root disk; those of further disks have -<disk> appended. Default: the XenSnapshot's name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=190
	ImageName string `json:"imageName,omitempty"`

	// properties that the images get besides those that OpenStack's XenServer driver sets, such as os_type.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.size() <= 255)",message="the name of a property has at most 255 characters"
	Properties map[string]PropertyValue `json:"properties,omitempty"`

	// tags that the images get.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	Tags []string `json:"tags,omitempty"`
}

// PropertyValue is the value of an image's property.
// +kubebuilder:validation:MaxLength=1024
type PropertyValue string

// HTTPDestination is where on a web server the files go.
type HTTPDestination struct {
	// urlTemplate is the URL that each file is PUT to. {file} and {snapshot} stand for the names of the file and of the
	// XenSnapshot and must be in its path, {file} at the end; {instance} and {namespace} stand for those of the other objects, and {namespace} belongs
	// into a URL that several namespaces use.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != '' && !self.matches('^[^/]*//[^/?#]*@')",message="urlTemplate must be an http or https URL without a user: credentials belong in a Secret"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^?#]*[{]file[}]([?#].*)?$')",message="the path of urlTemplate must end with {file}: a snapshot has several files, and a restore finds them beside the manifest"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^?#]*[{]snapshot[}]')",message="the path of urlTemplate must contain {snapshot}: one snapshot's files must not replace another's"
	URLTemplate string `json:"urlTemplate"`

	// credentialsSecretRef names the Secret with the keys username and password (Basic), or token (Bearer), and ca.crt (PEM) where
	// the server's certificate is not signed by a public authority. Default: none.
	// +optional
	CredentialsSecretRef *LocalSecretReference `json:"credentialsSecretRef,omitempty"`
}

// SnapshotConsistency is what a captured disk looks like to the guest.
// +kubebuilder:validation:Enum=CrashConsistent;WithMemory
type SnapshotConsistency string

const (
	// ConsistencyCrash is as a power failure would leave each disk.
	ConsistencyCrash SnapshotConsistency = "CrashConsistent"
	// ConsistencyMemory is with the memory of the guest.
	ConsistencyMemory SnapshotConsistency = "WithMemory"
)

// XenSnapshotStatus is what was captured, and where its copy is.
type XenSnapshotStatus struct {
	CommonStatus `json:",inline"`

	// uuid of the snapshot in the pool; it stays when the snapshot was removed from there.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	UUID string `json:"uuid,omitempty"`

	// instanceUUID is the uuid of the VM that was captured.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	InstanceUUID string `json:"instanceUUID,omitempty"`

	// poolRef names the XenPool that it was captured on.
	// +optional
	PoolRef *PoolReference `json:"poolRef,omitempty"`

	// takenAt is the point in time, by the pool's clock.
	// +optional
	TakenAt *metav1.Time `json:"takenAt,omitempty"`

	// consistency is CrashConsistent or WithMemory.
	// +optional
	Consistency SnapshotConsistency `json:"consistency,omitempty"`

	// size is the sum of the disks' sizes as the guest sees them.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	Size *resource.Quantity `json:"size,omitempty"`

	// progress of the upload, for kubectl get: 42% for instance; empty when there is none.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Progress string `json:"progress,omitempty"`

	// local tells whether the snapshot is in the pool.
	// +optional
	Local bool `json:"local,omitempty"`

	// disks that were captured.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Disks []SnapshotDisk `json:"disks,omitempty"`

	// upload is the copy elsewhere.
	// +optional
	Upload *SnapshotUpload `json:"upload,omitempty"`

	// finishedAt is when the snapshot succeeded or failed for good; ttlSecondsAfterFinished counts from it.
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
}

// SnapshotDisk is a captured disk.
type SnapshotDisk struct {
	// name of the disk within the instance; root is the root disk.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// device that the disk has in the instance.
	// +optional
	Device int32 `json:"device,omitempty"`

	// vdiUUID is the captured disk in the pool.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VDIUUID string `json:"vdiUUID,omitempty"`

	// size of the disk as the guest sees it.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	Size *resource.Quantity `json:"size,omitempty"`
}

// SnapshotUpload is the copy of a snapshot elsewhere.
type SnapshotUpload struct {
	// location of the files: s3://bucket/prefix, the URL of an image service or of a web server.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Location string `json:"location,omitempty"`

	// manifest is the location of manifest.json, which describes the VM and the files; it is written last.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Manifest string `json:"manifest,omitempty"`

	// format of the files.
	// +optional
	// +kubebuilder:validation:Enum=VHD;QCOW2;Raw;XVA;NovaTarball
	Format DiskFormat `json:"format,omitempty"`

	// files that were uploaded and verified.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Files []UploadedFile `json:"files,omitempty"`

	// transferredBytes were sent in this attempt.
	// +optional
	TransferredBytes int64 `json:"transferredBytes,omitempty"`

	// totalBytes is how many there are to send; for compressed files an estimate.
	// +optional
	TotalBytes int64 `json:"totalBytes,omitempty"`

	// percent of the upload that is done.
	// +optional
	Percent int32 `json:"percent,omitempty"`

	// bytesPerSecond lately.
	// +optional
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`

	// sha256 of manifest.json, 64 hexadecimal digits; the manifest holds the digests of the files.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SHA256 string `json:"sha256,omitempty"`

	// attempts that were begun. One that a restart of the operator interrupted goes on as the same.
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

// UploadedFile is one file of an upload.
type UploadedFile struct {
	// name of the file, root.vhd for instance.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Name string `json:"name"`

	// disk that it holds; empty for one that holds all.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Disk string `json:"disk,omitempty"`

	// location of the file: s3://bucket/key, a URL, or for glance the id of the image.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Location string `json:"location,omitempty"`

	// sizeBytes of the file as it was stored.
	// +optional
	SizeBytes int64 `json:"sizeBytes,omitempty"`

	// sha256 of the file as it was stored, 64 hexadecimal digits.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SHA256 string `json:"sha256,omitempty"`
}

// GetCommonStatus returns the part of the status that every kind has.
func (s *XenSnapshot) GetCommonStatus() *CommonStatus { return &s.Status.CommonStatus }

// ConditionTypes are the conditions that a XenSnapshot always has.
func (*XenSnapshot) ConditionTypes() []string {
	return []string{
		ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused,
		ConditionCaptured, ConditionUploaded,
	}
}

// XenSnapshot is a point in time of an instance, and its copy elsewhere. It outlives the instance.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=xsnap,categories=xen
// +kubebuilder:validation:XValidation:rule="!has(self.spec.destination) || !has(self.spec.destination.incrementalFrom) || self.spec.destination.incrementalFrom.snapshotRef.name != self.metadata.name",message="incrementalFrom must name an earlier XenSnapshot, not this one"
// +kubebuilder:printcolumn:name="Instance",type=string,JSONPath=`.spec.instanceRef.name`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.status.size`
// +kubebuilder:printcolumn:name="Location",type=string,priority=1,JSONPath=`.status.upload.location`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenSnapshot struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec asks for a point in time, and for a copy of it elsewhere.
	// +required
	Spec XenSnapshotSpec `json:"spec"`

	// status is what was captured, and where its copy is.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenSnapshotStatus `json:"status,omitempty"`
}

// XenSnapshotList is a list of snapshots.
// +kubebuilder:object:root=true
type XenSnapshotList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenSnapshot `json:"items"`
}
