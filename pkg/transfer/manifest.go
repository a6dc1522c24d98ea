package transfer

import (
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// ManifestName is the name of the manifest beside the files of an upload. It is written last: an upload without it is not
// complete.
const ManifestName = "manifest.json"

// ManifestVersion is the version that we write.
const ManifestVersion = 1

// Manifest says what an upload is: enough to make the VM anew on another pool, and to tell whether its files are whole.
type Manifest struct {
	// Version is ManifestVersion.
	Version int `json:"version"`
	// Installation, Snapshot (namespace/name) and SnapshotUUID tell whose it is.
	Installation string `json:"installation"`
	Snapshot     string `json:"snapshot"`
	SnapshotUUID string `json:"snapshotUUID"`
	// InstanceUUID is the VM that was captured, TakenAt when.
	InstanceUUID string                       `json:"instanceUUID,omitempty"`
	TakenAt      time.Time                    `json:"takenAt"`
	Consistency  v1alpha1.SnapshotConsistency `json:"consistency"`
	// Format and Compression are those of the files.
	Format      v1alpha1.DiskFormat  `json:"format"`
	Compression v1alpha1.Compression `json:"compression,omitempty"`
	VM          ManifestVM           `json:"vm"`
	Disks       []ManifestDisk       `json:"disks"`
	NICs        []ManifestNIC        `json:"nics,omitempty"`
	// File holds all disks where the format is one archive for all.
	File *ManifestFile `json:"file,omitempty"`
	// Parent is the upload that this one is the difference to.
	Parent *ManifestParent `json:"parent,omitempty"`
}

// ManifestParent names the upload that another one is the difference to.
type ManifestParent struct {
	// Snapshot (namespace/name) and SnapshotUUID tell which one it is.
	Snapshot     string `json:"snapshot"`
	SnapshotUUID string `json:"snapshotUUID"`
	// Manifest is where its manifest is, as a path relative to this one's; SHA256 is the digest of it.
	Manifest string `json:"manifest"`
	SHA256   string `json:"sha256"`
}

// ManifestVM is the shape of the VM.
type ManifestVM struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	VCPUs       int64             `json:"vcpus"`
	MaxVCPUs    int64             `json:"maxVCPUs"`
	Memory      int64             `json:"memoryBytes"`
	MaxMemory   int64             `json:"maxMemoryBytes"`
	BootParams  map[string]string `json:"bootParams,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
	// EFIVariables are those of a UEFI guest, in base64, as the XenAPI has them in VM.NVRAM. In an image service's properties they
	// have no room.
	EFIVariables string `json:"efiVariables,omitempty"`
}

// ManifestDisk is a disk of the VM.
type ManifestDisk struct {
	Name   string `json:"name"`
	Device int32  `json:"device"`
	// VDI is the uuid of the captured disk.
	VDI string `json:"vdi"`
	// Size is as the guest sees it, in bytes.
	Size     int64 `json:"sizeBytes"`
	Bootable bool  `json:"bootable,omitempty"`
	// Base is the uuid of the captured disk of the parent to which the file is the difference, "" if it holds the whole disk.
	Base string        `json:"base,omitempty"`
	File *ManifestFile `json:"file,omitempty"`
}

// ManifestFile is a file of the upload.
type ManifestFile struct {
	Name string `json:"name"`
	Size int64  `json:"sizeBytes"`
	// SHA256 of the file as it is stored, 64 hexadecimal digits.
	SHA256 string `json:"sha256"`
}

// ManifestNIC is an interface of the VM.
type ManifestNIC struct {
	Name    string `json:"name,omitempty"`
	Device  string `json:"device"`
	MAC     string `json:"mac"`
	Network string `json:"network"`
}
