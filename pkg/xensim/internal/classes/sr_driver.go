package classes

import "fmt"

// What sets the kinds of SR apart: how sizes are rounded, which sizes they take, how much of a disk they put aside, and how
// long a chain of copies may become. The numbers and texts are those of the storage drivers (sm).

const (
	vhdGranularity = 2 * mib
	vhdSmallest    = mib
	vhdLargest     = 2093050 * mib // 2044 GiB less the room for a VHD's own tables
	vhdLongest     = 30            // copies of copies, after which a snapshot is refused until they are coalesced
)

// srDriver is one kind of SR. All kinds that take disks keep them as VHDs here.
type srDriver struct {
	readOnly bool // discs to read, no room for new ones
	thick    bool // the whole size of a disk is put aside when it is made
}

// srDrivers are the kinds that differ from the usual one, which is thin (ext, nfs, smb, …).
var srDrivers = map[string]srDriver{
	"lvm":       {thick: true},
	"lvmoiscsi": {thick: true},
	"lvmohba":   {thick: true},
	"lvmofcoe":  {thick: true},
	"iso":       {readOnly: true},
	"udev":      {readOnly: true},
}

// backendFailure is an error of a storage driver: the code's number and a text as the second of three parameters.
func backendFailure(number int, text string) refusal {
	return refuse(fmt.Sprintf("SR_BACKEND_FAILURE_%d", number), "", text, "")
}

// sizeOf is the size that a disk gets that was asked for with size, or why it cannot have it.
func (d srDriver) sizeOf(size int64) (int64, refusal) {
	switch {
	case d.readOnly:
		return 0, backendFailure(200, "SR is read-only")
	case size < 0 || size > vhdLargest:
		return 0, backendFailure(79, fmt.Sprintf("VDI Invalid size [opterr=VDI size must be between %d MB and %d MB]",
			vhdSmallest/mib, vhdLargest/mib))
	}
	return max(ceilDiv(size, vhdGranularity)*vhdGranularity, vhdGranularity), refusal{}
}

// grownSize is the size that a disk has after a resize, or why it cannot be resized.
func (d srDriver) grownSize(from, to int64) (int64, refusal) {
	if to < from {
		return 0, backendFailure(79, fmt.Sprintf("VDI Invalid size [opterr=shrinking not allowed: from %d to %d]", from, to))
	}
	return d.sizeOf(to)
}

// The other errors of storage drivers that xapi passes on.
var (
	srFull       = backendFailure(44, "There is insufficient space")
	chainTooLong = backendFailure(109, "The snapshot chain is too long")
)
