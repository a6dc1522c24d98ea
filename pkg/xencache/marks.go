package xencache

import (
	"strings"
)

// Marks are keys of other_config. They are the durable memory: status may be lost, object UIDs change on a restore,
// the pool stays.
const (
	// MarkInstallation names the deployment of the operator that made the object; an id chosen once.
	MarkInstallation = "kubexen.io/installation"
	// MarkRef is the object's owner in Kubernetes: Kind/namespace/name.
	MarkRef = "kubexen.io/ref"
	// MarkUID is the incarnation of the owner; identity is installation and ref alone.
	MarkUID = "kubexen.io/uid"
	// MarkSelf is the object's own uuid: clone, copy and snapshot copy other_config, so a mark whose self is
	// another object's uuid is a copy.
	MarkSelf = "kubexen.io/self"
	// MarkRole says what the object is to its owner; see Role.
	MarkRole = "kubexen.io/role"
	// MarkDisk is the name of the entry in the owner's disks.
	MarkDisk = "kubexen.io/disk"
	// MarkNIC is the name of the entry in the owner's networks.
	MarkNIC = "kubexen.io/nic"
	// MarkJournal is what an operation under way must restore, as versioned JSON.
	MarkJournal = "kubexen.io/journal"
	// MarkFormat is the version of these marks.
	MarkFormat = "kubexen.io/format"
	// MarkTrashedAt is when a VM went to the trash, RFC 3339.
	MarkTrashedAt = "kubexen.io/trashed-at"
	// MarkWriter stands on the pool itself and names the one installation that may write to it.
	MarkWriter = "kubexen.io/writer"
)

// MarksFormat is the format that we write.
const MarksFormat = "1"

// Role is what an object on the pool is to its owner.
type Role string

// The roles.
const (
	RoleVM           Role = "vm"
	RoleRootDisk     Role = "root-disk"
	RoleDataDisk     Role = "data-disk"
	RoleRescueVM     Role = "rescue-vm"
	RoleRescueDisk   Role = "rescue-disk"
	RoleConfigDrive  Role = "config-drive"
	RoleRestorePoint Role = "restore-point"
	RoleNewRoot      Role = "new-root" // a root disk that is being written, until it is complete
	RoleSnapshot     Role = "snapshot"
	RoleImage        Role = "image"
	RoleImport       Role = "import"
	// RoleMoving is in the name of a disk while it goes to another storage repository, and so in that of its copy there.
	RoleMoving Role = "moving"
)

// Temporary reports whether an object of this role may be swept away when its owner is gone. All others hold what
// a user may want back; they are only reported.
func (r Role) Temporary() bool {
	switch r {
	case RoleRescueVM, RoleRescueDisk, RoleConfigDrive, RoleRestorePoint, RoleNewRoot, RoleImport:
		return true
	default:
		return false
	}
}

// Key is a reconcile key: an object of ours in Kubernetes. Namespace is empty for cluster-scoped kinds.
type Key struct{ Kind, Namespace, Name string }

// String is the form that marks carry.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + "/" + k.Name
	}
	return k.Kind + "/" + k.Namespace + "/" + k.Name
}

// ParseKey reads what String wrote.
func ParseKey(text string) (Key, bool) {
	parts := strings.Split(text, "/")
	for _, part := range parts {
		if part == "" {
			return Key{}, false
		}
	}
	switch len(parts) {
	case 2:
		return Key{Kind: parts[0], Name: parts[1]}, true
	case 3:
		return Key{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, true
	default:
		return Key{}, false
	}
}

// Marks are the identifying marks of one object. Journal, trash date and what else belongs to one workflow are
// read by who wrote them.
type Marks struct {
	Installation string
	Ref          Key
	UID          string
	Self         string
	Role         Role
	Disk         string
	NIC          string
}

// IsZero reports whether there are no marks of ours at all.
func (m Marks) IsZero() bool { return m == Marks{} }

// IsCopyOf reports whether the marks were copied along from another object: uuid is not the one they name.
func (m Marks) IsCopyOf(uuid string) bool { return m.Self != "" && m.Self != uuid }

// OtherConfig returns the marks as other_config entries; empty ones are left out.
func (m Marks) OtherConfig() map[string]string {
	entries := map[string]string{MarkFormat: MarksFormat}
	for key, value := range map[string]string{
		MarkInstallation: m.Installation, MarkUID: m.UID, MarkSelf: m.Self,
		MarkRole: string(m.Role), MarkDisk: m.Disk, MarkNIC: m.NIC,
	} {
		if value != "" {
			entries[key] = value
		}
	}
	if m.Ref != (Key{}) {
		entries[MarkRef] = m.Ref.String()
	}
	return entries
}

// ReadMarks reads the marks from an object's other_config. A ref that does not parse is no mark.
func ReadMarks(otherConfig map[string]string) Marks {
	installation := otherConfig[MarkInstallation]
	if installation == "" {
		return Marks{}
	}
	ref, ok := ParseKey(otherConfig[MarkRef])
	if !ok {
		return Marks{}
	}
	return Marks{
		Installation: installation,
		Ref:          ref,
		UID:          otherConfig[MarkUID],
		Self:         otherConfig[MarkSelf],
		Role:         Role(otherConfig[MarkRole]),
		Disk:         otherConfig[MarkDisk],
		NIC:          otherConfig[MarkNIC],
	}
}

// nameMark begins a name that is a mark.
const nameMark = "kubexen"

// MarkName is the name-label under which an object is made by a call that takes a name but no other_config (clone,
// copy, snapshot). It is the mark until the marks and the real name are set.
func MarkName(installation string, ref Key, role Role) string {
	return strings.Join([]string{nameMark, installation, ref.String(), string(role)}, "/")
}

// ParseMarkName reads what MarkName wrote.
func ParseMarkName(name string) (Marks, bool) {
	rest, ok := strings.CutPrefix(name, nameMark+"/")
	if !ok {
		return Marks{}, false
	}
	installation, rest, _ := strings.Cut(rest, "/")
	slash := strings.LastIndexByte(rest, '/')
	if slash < 0 || installation == "" {
		return Marks{}, false
	}
	ref, ok := ParseKey(rest[:slash])
	if !ok {
		return Marks{}, false
	}
	return Marks{Installation: installation, Ref: ref, Role: Role(rest[slash+1:])}, true
}

// IsMark reports whether a key of other_config is one of ours.
func IsMark(key string) bool { return strings.HasPrefix(key, "kubexen.io/") }
