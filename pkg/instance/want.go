package instance

import (
	"errors"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Device numbers that every VM of ours has in common. Data disks begin after the config drive.
const (
	rootDevice        = 0
	configDriveDevice = 3
	firstDataDevice   = 4
	cdDevice          = 2
)

// rootName is the entry name of the root disk in marks and in status.
const rootName = "root"

// Want is what the spec asks for, with every name resolved. What could not be resolved stands in Problems.
type Want struct {
	// Problems keep a VM from being made, and the devices of an existing one from being changed.
	Problems []Problem

	Name        string // "" leaves the name alone
	Description string // "" leaves the description alone
	Tags        []string

	Source Source
	// Observe says that nothing may be written to the pool.
	Observe bool
	// RecreateIfMissing says that a VM that vanished is made anew.
	RecreateIfMissing bool
	// HoldMismatch says that an adopted VM is not changed to fit the spec.
	HoldMismatch bool

	Flavor string
	Size   *Size // nil leaves the sizes alone

	// Disks are all disks that we make or attach, the root disk of a new VM first. DisksListed is false if the spec
	// leaves the disks of an adopted VM alone; NICsListed likewise.
	Disks       []WantDisk
	DisksListed bool
	NICs        []WantNIC
	NICsListed  bool
	Drive       *WantDrive

	Power        v1alpha1.PowerState // "" leaves the power state alone
	Drift        v1alpha1.PowerDriftPolicy
	DriftGrace   time.Duration
	Off          v1alpha1.PowerOffMode
	OffTimeout   time.Duration
	RestartToken string

	Host   xenapi.HostRef // where to be; a preference unless Pinned
	Pinned bool
	// HostProblem is why a preferred host cannot be had at all, nil if it can: it keeps nothing else from being done.
	HostProblem *Problem

	Deletion v1alpha1.DeletionPolicy

	Rescue WantRescue
	Resize WantResize
	// Refused is why the size that the spec asks for is not that of this Want, nil if it is.
	Refused *resizeRefusal
}

// Problem is why something cannot be had as it was asked for.
type Problem struct {
	Reason, Message string
	// Passing says that it is expected to pass by itself: an image still being imported, a flavor not applied yet.
	Passing bool
}

// Error makes a Problem an error, for resolvers.
func (p *Problem) Error() string { return p.Message }

// Source is where the VM comes from; exactly one of Template, Backup, ISO and ExistingUUID is set once it is resolved.
type Source struct {
	Template     *Template
	Backup       *Backup
	ISO          xenapi.VDIRef
	Firmware     v1alpha1.Firmware
	ExistingUUID string
}

// Template is a VM template to clone: the user's own, or the one that holds an image's disk.
type Template struct {
	Ref  xenapi.VMRef
	UUID string
	Name string
	// RootSize and RootSR are those of the disk that it brings along, if it brings one.
	RootSize int64
	RootSR   xenapi.SRRef
	// RootShared says that every host sees that disk.
	RootShared bool
	// Disks are those that it asks to be made.
	Disks []ProvisionDisk
	// Captured says that it is a snapshot of a VM. Brought are the further disks that a clone has, NICs the interfaces.
	Captured bool
	Brought  []BroughtDisk
	NICs     []BroughtNIC
	// Cloning are the clone and copy tasks under way on it.
	Cloning []xenapi.TaskRef
}

// HasRoot reports whether a clone brings its root disk along.
func (t *Template) HasRoot() bool { return t.RootSize > 0 }

// WantDisk is one disk of the VM.
type WantDisk struct {
	Name     string // the entry's name
	Role     xencache.Role
	Device   string
	Size     int64 // bytes; 0 leaves the size alone
	ShrinkTo int64 // bytes; a larger disk is made as small as this, 0 leaves it
	SR       xenapi.SRRef
	Bootable bool
	// Backup is the name of the disk of a backup that it is made of, "" for none.
	Backup string
	// Cloned says that the disk comes with the clone of the template, so it is found at its device, not made.
	Cloned bool
	// VDI is a disk that was there before us; it is attached, and never marked, grown or destroyed.
	VDI          xenapi.VDIRef
	DeleteOnDrop bool // its entry taken out of the spec
	DeleteOnEnd  bool // the instance deleted
}

// foreign reports whether the disk was there before us.
func (d WantDisk) foreign() bool { return !d.VDI.IsNull() }

// WantNIC is one network interface.
type WantNIC struct {
	Name      string
	Device    string
	Network   xenapi.NetworkRef
	MAC       string
	RateLimit int64 // kilobytes per second, 0 = none
}

// Resolver turns names into references, as far as the instance's namespace may use them. Its errors are *Problem.
type Resolver interface {
	// Network resolves an alias, uuid or unique name; "" is the pool's default.
	Network(name string) (xenapi.NetworkRef, error)
	// StorageRepository resolves an alias, uuid or unique name; "" is the pool's default.
	StorageRepository(name string) (xenapi.SRRef, error)
	// Template resolves a template by uuid if that is given, else by unique name.
	Template(name, uuid string) (xenapi.VMRef, error)
	ISO(name string) (xenapi.VDIRef, error)
	Disk(uuid string) (xenapi.VDIRef, error)
	Host(name string) (xenapi.HostRef, error)
}

// Inputs is what a pass knows from outside the pool.
type Inputs struct {
	Object       *v1alpha1.XenInstance
	Installation string
	// Flavor is nil if the spec names none, or one that does not exist.
	Flavor *v1alpha1.XenFlavor
	// ImageTemplate is the uuid of the template that holds the image, or of the snapshot, if that is the source and ready.
	ImageTemplate string
	Image         *v1alpha1.XenImageSpec
	// Backup is what the manifest describes that the source names; Restores are its disks that this process has begun.
	Backup   *Backup
	Restores map[string]RestoreState
	// ImageProblem is why the image, snapshot or backup cannot be used; it matters only until the VM is made.
	ImageProblem *Problem
	// RescueImage is the image of the rescue that the spec asks for, nil if it is not ready; RescueProblems say why, and
	// what else keeps a rescue from being begun.
	RescueImage    *RescueImage
	RescueProblems []Problem
	// Copy is the smaller copy of the root disk that this process makes, nil for none; CopyProblem is why none can be begun.
	Copy        *CopyState
	CopyProblem *Problem
	// Problems are those found outside the pool: namespace not allowed, user data missing, quota.
	Problems []Problem
	Resolver Resolver
	// AdoptDenied says why the namespace may not take over a VM that is not its instance's already, nil if it may.
	AdoptDenied *Problem
	// OwnerLives reports whether another object that marks name still exists.
	OwnerLives func(xencache.Key) bool
	// Held says why nothing may be started, stopped or deleted on the pool.
	HeldReason, Held string
}

// wanter builds a Want and gathers what stands in its way.
type wanter struct {
	in   *Inputs
	vm   *VM
	want Want
}

// wanted resolves the spec. vm is the present VM or nil; the device numbers that it has are kept.
func wanted(in *Inputs, vm *VM, template func(xenapi.VMRef) *Template) Want {
	spec := &in.Object.Spec
	w := &wanter{in: in, vm: vm, want: Want{
		Problems:          append([]Problem(nil), in.Problems...),
		Name:              spec.NameLabel,
		Description:       spec.Description,
		Tags:              spec.Tags,
		Observe:           spec.ManagementPolicy == v1alpha1.ManagementObserve,
		RecreateIfMissing: spec.RecreatePolicy == v1alpha1.RecreateIfMissing,
		HoldMismatch:      spec.Source.Existing != nil && spec.MismatchPolicy() == v1alpha1.MismatchHold,
		Power:             spec.DesiredPowerState(),
		Drift:             spec.PowerDriftPolicy,
		DriftGrace:        spec.PowerDriftGrace(),
		Off:               spec.PowerOffMode(),
		OffTimeout:        spec.SoftTimeout(),
		RestartToken:      spec.RestartToken,
		Deletion:          spec.DesiredDeletionPolicy(),
	}}
	if w.want.Name == "" && spec.Source.Existing == nil {
		w.want.Name = in.Object.Namespace + "/" + in.Object.Name
	}
	w.source(spec, template)
	w.size(spec)
	w.disks(spec)
	w.nics(spec)
	w.drive(spec)
	w.resize(spec)
	w.placement(spec)
	w.rescue(spec, template)
	return w.want
}

// note keeps a resolver's error as a problem; it reports whether there was one.
func (w *wanter) note(err error) bool {
	if err == nil {
		return false
	}
	var problem *Problem
	if !errors.As(err, &problem) {
		problem = &Problem{Reason: v1alpha1.ReasonDependencyNotReady, Message: err.Error(), Passing: true}
	}
	w.want.Problems = append(w.want.Problems, *problem)
	return true
}

// source resolves what the VM is made from. Once the VM is complete its source does not matter any more, so a template
// that is gone by then is no problem.
func (w *wanter) source(spec *v1alpha1.XenInstanceSpec, template func(xenapi.VMRef) *Template) {
	source := spec.Source
	if source.Existing != nil {
		w.want.Source.ExistingUUID = source.Existing.UUID
		return
	}
	if w.complete() {
		return
	}
	if source.Backup != nil {
		switch {
		case w.in.ImageProblem != nil:
			w.want.Problems = append(w.want.Problems, *w.in.ImageProblem)
		case w.in.Backup == nil:
			w.want.Problems = append(w.want.Problems, Problem{Reason: v1alpha1.ReasonRestoring, Message: "the backup is not read yet", Passing: true})
		}
		w.want.Source.Backup = w.in.Backup
		return
	}
	if source.ISO != nil {
		iso, err := w.in.Resolver.ISO(source.ISO.Name)
		if !w.note(err) {
			w.want.Source.ISO, w.want.Source.Firmware = iso, source.ISO.Firmware
		}
		return
	}
	uuid := source.TemplateUUID
	if source.ImageRef != nil || source.SnapshotRef != nil {
		if w.in.ImageProblem != nil {
			w.want.Problems = append(w.want.Problems, *w.in.ImageProblem)
			return
		}
		uuid = w.in.ImageTemplate
		w.checkImage()
	}
	ref, err := w.in.Resolver.Template(source.TemplateName, uuid)
	if !w.note(err) {
		w.want.Source.Template = template(ref)
	}
}

// checkImage holds the flavor against what the image demands.
func (w *wanter) checkImage() {
	image, flavor := w.in.Image, w.in.Flavor
	if image == nil || flavor == nil {
		return
	}
	tooSmall := func(what, minimum, have string) {
		w.want.Problems = append(w.want.Problems, Problem{Reason: v1alpha1.ReasonFlavorTooSmall, Message: fmt.Sprintf(
			"the image needs %s of %s and flavor %s has %s; choose a larger flavor", minimum, what, flavor.Name, have)})
	}
	if image.MinMemory != nil && flavor.Spec.Memory.Cmp(*image.MinMemory) < 0 {
		tooSmall("memory", image.MinMemory.String(), flavor.Spec.Memory.String())
	}
	size := flavor.Spec.RootDisk
	if root := w.in.Object.Spec.RootDisk; root != nil && root.Size != nil {
		size = root.Size
	}
	if image.MinDisk != nil && size != nil && size.Cmp(*image.MinDisk) < 0 {
		tooSmall("root disk", image.MinDisk.String(), size.String())
	}
}

// complete reports whether the VM exists and was finished.
func (w *wanter) complete() bool {
	return w.vm != nil && w.vm.Name != xencache.MarkName(w.in.Installation, keyOf(w.in.Object), xencache.RoleVM)
}

// placement resolves the host that the VM is to be on. A preference that cannot be had keeps nothing back, but it is said.
func (w *wanter) placement(spec *v1alpha1.XenInstanceSpec) {
	if spec.Placement == nil || spec.Placement.Host == "" {
		return
	}
	host, err := w.in.Resolver.Host(spec.Placement.Host)
	var problem *Problem
	if !spec.Placement.Pin && errors.As(err, &problem) {
		w.want.HostProblem = problem
		return
	}
	if !w.note(err) {
		w.want.Host, w.want.Pinned = host, spec.Placement.Pin
	}
}

// keyOf is the key of an instance.
func keyOf(object *v1alpha1.XenInstance) xencache.Key {
	return xencache.Key{Kind: "XenInstance", Namespace: object.Namespace, Name: object.Name}
}
