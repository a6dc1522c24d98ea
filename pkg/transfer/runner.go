package transfer

import (
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// ID names a transfer: an owner has one for each part of it.
type ID struct {
	Owner xencache.Key
	// Part is the pool and storage repository of an import, "" for an upload.
	Part string
}

// Request is what is to be done; exactly one of its fields is set.
type Request struct {
	Upload *Upload
	Import *Import
	Shrink *Shrink
}

// Upload takes the disks of a snapshot to a store.
type Upload struct {
	// Pool names the XenPool that has the snapshot.
	Pool string
	// Place is where the files go.
	Place Place
	// Format and Compression are those of the files.
	Format      v1alpha1.DiskFormat
	Compression v1alpha1.Compression
	// Manifest describes the VM and its disks; the upload fills in the files.
	Manifest Manifest
	// Have are files that an earlier attempt uploaded and verified.
	Have []v1alpha1.UploadedFile
}

// Import makes a disk of a file.
type Import struct {
	// Pool names the XenPool, SR is the uuid of the storage repository that takes the disk.
	Pool, SR string
	// Name is the disk's, Marks are its other_config until it is verified; Done are those that change then.
	Name  string
	Marks map[string]string
	Done  map[string]string
	// Place is where the file is.
	Place Place
	// Format is what the file is said to be, "" if nobody says.
	Format v1alpha1.DiskFormat
	// Checksum is what the file must have, nil if nobody knows.
	Checksum *v1alpha1.Checksum
	// Below are the files that the file lies upon, the full one first: it holds the difference to them.
	Below []Layer
	// Size is the size of the disk in bytes, which no file may go over; 0 if the file alone decides.
	Size int64
	// Device is the position of the wanted disk where the file is the archive of a VM, "" for the disk that it boots from.
	Device string
}

// Layer is a file that a difference lies upon.
type Layer struct {
	Place    Place
	Format   v1alpha1.DiskFormat
	Checksum *v1alpha1.Checksum
}

// Place is a place in a store, and where the Secrets for it are; exactly one of Destination and Source is set.
type Place struct {
	Namespace   string
	Destination *v1alpha1.SnapshotDestination
	Source      *v1alpha1.ImageSource
	// Instance and Snapshot are names that the place may be made of.
	Instance, Snapshot string
}

// Phase is how far a transfer is.
type Phase int

// The phases.
const (
	// Waiting for one of the pool's transfers to end.
	Waiting Phase = iota
	// Running is under way.
	Running
	// Succeeded is complete and verified.
	Succeeded
	// Failed has stopped.
	Failed
)

// State is how far a transfer is.
type State struct {
	Phase Phase
	// Transferred bytes of Total, which is 0 as long as it is not known.
	Transferred, Total int64
	// BytesPerSecond lately.
	BytesPerSecond int64
	// Files that were uploaded and verified; also of an upload that failed later on.
	Files []v1alpha1.UploadedFile
	// Manifest is where an upload's manifest is, SHA256 its digest.
	Manifest, SHA256 string
	// Checksum and Format are those of the file that was imported, VDI is the uuid of its disk.
	Checksum *v1alpha1.Checksum
	Format   v1alpha1.DiskFormat
	VDI      string
	// Shrink is what was asked for, if it is a disk that is made smaller; VDI is the uuid of the copy then.
	Shrink *Shrink
	// Attempt counts how often it has been tried in a row, this time included.
	Attempt int
	// Err is why it failed, EndedAt when it ended, well or not.
	Err     error
	EndedAt time.Time
}

// Percent is how much is done, of 100.
func (s State) Percent() int32 {
	switch {
	case s.Phase == Succeeded:
		return 100
	case s.Total <= 0, s.Phase == Failed: // the next attempt begins anew
		return 0
	}
	return int32(min(99, s.Transferred*100/s.Total))
}

// Runner runs transfers.
type Runner interface {
	// Start begins a transfer, in place of an earlier one of that id that has ended. The owner is woken when it ends, and on
	// the way at most each reportEvery or with each reportStep percent.
	Start(id ID, request Request)
	// State tells how far it is; false if this runner knows of none.
	State(id ID) (State, bool)
	// Stop ends and forgets it, and reports whether nothing of it runs any more. The owner is woken when that is so.
	Stop(id ID) (stopped bool)
}

const (
	// reportEvery and reportStep bound how often progress wakes the owner, whose pass writes it down.
	reportEvery = 10 * time.Second
	reportStep  = 5
)
