package instance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// rescueDrive is the entry name of the rescue VM's own config drive in its marks; that of its root disk is rootName.
const rescueDrive = "config-drive"

// WantRescue is the rescue that is asked for.
type WantRescue struct {
	On bool
	// Token says in short what is asked for.
	Token string
	// Image is the image's name, Template what holds it on the pool, nil if that is not known (yet).
	Image    string
	Template *Template
	// MinMemory is what the image demands, in bytes.
	MinMemory int64
	Disks     v1alpha1.RescueDisks
	Networks  v1alpha1.RescueNetworks
	Timeout   time.Duration // 0 is without an end
	// Generated says that we make the password.
	Generated bool
	// Problems keep the rescue from being begun; nothing else.
	Problems []Problem
	// storage is where the rescue VM's own disks would go, nil if that is not known.
	storage *rescueStorage
}

// RescueImage is an image that is ready on the pool.
type RescueImage struct {
	Name         string
	TemplateUUID string
	Template     xenapi.VMRef
	MinMemory    int64
}

// rescue works out the rescue that is asked for. One that was begun goes on with the image that it was begun with.
func (w *wanter) rescue(spec *v1alpha1.XenInstanceSpec, template func(xenapi.VMRef) *Template) {
	if spec.Rescue == nil {
		return
	}
	want := WantRescue{
		On: spec.WantsRescue(), Token: rescueToken(spec.Rescue), Disks: spec.Rescue.DisksToAttach(),
		Networks: spec.Rescue.DesiredNetworks(), Timeout: spec.Rescue.Timeout(),
		Generated: spec.Rescue.CredentialsSecretRef == nil, Problems: slices.Clone(w.in.RescueProblems),
	}
	if image := w.in.RescueImage; image != nil {
		want.Image, want.MinMemory, want.Template = image.Name, image.MinMemory, template(image.Template)
		if w.madeOf(&spec.Source, image) {
			want.Problems = append(want.Problems, Problem{Reason: v1alpha1.ReasonRescueImageUnsuitable, Message: fmt.Sprintf(
				"image %s is the instance's own: its file systems would be mistaken for those to be repaired; name another in rescue.imageRef", image.Name)})
		}
		if want.Template == nil || !want.Template.HasRoot() {
			want.Problems = append(want.Problems, Problem{Reason: v1alpha1.ReasonRescueImageUnsuitable, Message: fmt.Sprintf(
				"image %s brings no disk to boot from; name another in rescue.imageRef", image.Name)})
		}
	}
	w.want.Rescue = want
}

// madeOf reports whether the instance was made of the very template that holds the rescue image. Of one that was restored from
// a backup nothing tells that.
func (w *wanter) madeOf(source *v1alpha1.InstanceSource, image *RescueImage) bool {
	if source.TemplateName == "" && source.TemplateUUID == "" {
		return image.TemplateUUID != "" && image.TemplateUUID == w.in.ImageTemplate
	}
	ref, err := w.in.Resolver.Template(source.TemplateName, source.TemplateUUID)
	return err == nil && ref == image.Template
}

// rescueTemplate finds the template that a rescue under way was begun with, and whether somebody clones it. Before one is
// begun it looks for room.
func (f *Facts) rescueTemplate(v xencache.View, executor *Executor) {
	j := f.journal()
	if j == nil {
		f.observeRescueStorage(v)
		return
	}
	f.Want.Rescue.Template = nil
	if ref, record := v.VMByUUID(j.Template); record != nil {
		f.Want.Rescue.Template = observeTemplate(v, ref)
	}
	if template := f.Want.Rescue.Template; template != nil && f.Rescue == nil {
		f.UnknownRescueClone = slices.ContainsFunc(template.Cloning, func(task xenapi.TaskRef) bool { return !executor.Knows(task) })
	}
}

// isRescueVM tells the VM that takes the place of the instance's own.
func isRescueVM(vm *VM, me Me) bool {
	return vm.Name == me.rescueMarkName() || (me.Owns(vm.Marks) && vm.Marks.Role == xencache.RoleRescueVM && !vm.Marks.IsCopyOf(vm.UUID))
}

// rescueMarkName is the name under which the rescue VM is made; it carries it until it is complete.
func (m Me) rescueMarkName() string {
	return xencache.MarkName(m.Installation, m.Key, xencache.RoleRescueVM)
}

// findRescue looks for the rescue VM; of several it keeps the one whose marks are complete.
func (f *Facts) findRescue(v xencache.View) {
	var found []*VM
	for _, ref := range v.VMsByMark(f.Me.Installation, f.Me.Key) {
		if record := v.VM(ref); record == nil || record.IsASnapshot {
			continue
		}
		if vm := observeVM(v, f.Me.Installation, f.Me.Key, ref); vm != nil && isRescueVM(vm, f.Me) {
			found = append(found, vm)
		}
	}
	slices.SortFunc(found, bestFirst)
	if len(found) == 0 {
		return
	}
	f.Rescue = found[0]
	for _, twin := range found[1:] {
		f.RescueTwins = append(f.RescueTwins, *twin)
	}
}

// rescueComplete reports whether the rescue VM was finished: its mark-name goes last.
func (f *Facts) rescueComplete() bool {
	return f.Rescue != nil && f.Rescue.Name != f.Me.rescueMarkName()
}

// once is a predicate about a rescue VM that is still being made; one that was finished is left as it is.
func once(holds func(*Facts) bool) func(*Facts) bool {
	return func(f *Facts) bool { return f.Rescue == nil || f.rescueComplete() || holds(f) }
}

func rescueVMThere(f *Facts) bool    { return f.Rescue != nil }
func rescueVMComplete(f *Facts) bool { return f.rescueComplete() }
func noRescueTwins(f *Facts) bool    { return len(f.RescueTwins) == 0 }
func rescueHalted(f *Facts) bool     { return f.Rescue.Power == v1alpha1.PowerStateHalted }

func rescueVMMarked(f *Facts) bool {
	marks := f.Rescue.Marks
	return f.Me.Owns(marks) && marks.Role == xencache.RoleRescueVM && marks.Self == f.Rescue.UUID
}

// makeRescueVM clones the image, or copies it to where the disks to be repaired are.
func makeRescueVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	template, name := r.Want.Rescue.Template, r.Me.rescueMarkName()
	if sr, copied := r.rescueSR(template); copied {
		task, err := r.Client.VM.CopyAsync(ctx, template.Ref, name, sr)
		return task, r.doing(err, "copy the rescue image %s", template.Name)
	}
	task, err := r.Client.VM.CloneAsync(ctx, template.Ref, name)
	return task, r.doing(err, "clone the rescue image %s", template.Name)
}

func markRescueVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	otherConfig := withoutMarks(r.Rescue.OtherConfig)
	delete(otherConfig, provisionKey)
	maps.Copy(otherConfig, r.Me.Marks(xencache.RoleRescueVM, r.Rescue.UUID).OtherConfig())
	return "", r.doing(r.Client.VM.SetOtherConfig(ctx, r.Rescue.Ref, otherConfig), "mark the rescue VM")
}

func nameRescueVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.SetNameLabel(ctx, r.Rescue.Ref, r.rescueName()), "name the rescue VM")
}

// freshDisks are the disks that the rescue VM has as a clone of the image: nobody else holds them, no mark says that they
// are anybody's, and it never ran. Those on loan come only when it is complete.
func (f *Facts) freshDisks(vm *VM) []*Disk {
	if vm.Name != f.Me.rescueMarkName() || !vm.neverRan() {
		return nil
	}
	var fresh []*Disk
	for i := range vm.Disks {
		disk := &vm.Disks[i]
		owned := !disk.VDI.Marks.IsZero() && disk.VDI.Marks.Self == disk.VDI.UUID
		onLoan := f.marks(disk.OtherConfig)
		if disk.CD || disk.VDI.Ref.IsNull() || onLoan || disk.VDI.Users > 1 || owned || f.ofOriginal(disk.VDI.Ref) {
			continue
		}
		fresh = append(fresh, disk)
	}
	return fresh
}

// ofOriginal reports whether a disk hangs on the instance's own VM.
func (f *Facts) ofOriginal(vdi xenapi.VDIRef) bool {
	return f.VM != nil && slices.ContainsFunc(f.VM.Disks, func(d Disk) bool { return d.VDI.Ref == vdi })
}

func rescueDisksMarked(f *Facts) bool { return len(f.freshDisks(f.Rescue)) == 0 }

// markRescueDisks marks the disks that came with the clone as the rescue VM's own, which are destroyed with it.
func markRescueDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, disk := range r.freshDisks(r.Rescue) {
		otherConfig := withoutMarks(disk.VDI.OtherConfig)
		maps.Copy(otherConfig, r.rescueDiskMarks(rootName, disk.VDI.UUID))
		if err := r.Client.VDI.SetNameLabel(ctx, disk.VDI.Ref, r.rescueName()+" "+rootName); err != nil {
			return "", r.doing(err, "name the disk at %s of the rescue VM", disk.Device)
		}
		if err := r.Client.VDI.SetOtherConfig(ctx, disk.VDI.Ref, otherConfig); err != nil { // last: it says that the disk is done
			return "", r.doing(err, "mark the disk at %s of the rescue VM", disk.Device)
		}
	}
	return "", nil
}

func (f *Facts) rescueDiskMarks(entry, self string) map[string]string {
	marks := f.Me.Marks(xencache.RoleRescueDisk, self)
	marks.Disk = entry
	return marks.OtherConfig()
}

// ownRescueDisk reports whether a disk is the rescue VM's own.
func (f *Facts) ownRescueDisk(vdi *VDI) bool {
	return f.Me.Owns(vdi.Marks) && vdi.Marks.Role == xencache.RoleRescueDisk && !vdi.Marks.IsCopyOf(vdi.UUID)
}

// discardRescueTwin destroys a second rescue VM, which a crash has left: with its disks if it is a fresh clone.
func discardRescueTwin(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	twin := &r.RescueTwins[0]
	for _, disk := range r.freshDisks(twin) {
		if err := r.Client.VDI.Destroy(ctx, disk.VDI.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "destroy the disk at %s of a second rescue VM", disk.Device)
		}
	}
	if twin.Power != v1alpha1.PowerStateHalted {
		if err := r.Client.VM.HardShutdown(ctx, twin.Ref); err != nil {
			return "", r.doing(err, "turn a second rescue VM off")
		}
	}
	return "", r.doing(r.Client.VM.Destroy(ctx, twin.Ref), "destroy a second rescue VM")
}

// marks reports whether a device carries marks of this instance; those of a fresh clone are copies of the image's.
func (f *Facts) marks(otherConfig map[string]string) bool {
	return f.Me.Owns(xencache.ReadMarks(otherConfig))
}

// strangeRescueNICs are the interfaces that came with the image.
func strangeRescueNICs(f *Facts) []*NIC {
	var strange []*NIC
	for i := range f.Rescue.NICs {
		if nic := &f.Rescue.NICs[i]; !f.marks(nic.OtherConfig) {
			strange = append(strange, nic)
		}
	}
	return strange
}

func noStrangeRescueNICs(f *Facts) bool { return len(strangeRescueNICs(f)) == 0 }

func removeRescueNICs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, nic := range strangeRescueNICs(r.Facts) {
		if err := r.Client.VIF.Destroy(ctx, nic.Ref); err != nil && !isGone(err) {
			return "", r.doing(err, "remove the interface at %s that came with the rescue image", nic.Device)
		}
	}
	return "", nil
}

// missingRescueNICs are the interfaces of the instance's own VM that the rescue VM does not have yet.
func missingRescueNICs(f *Facts) []*NIC {
	if j := f.journal(); j == nil || j.Networks == v1alpha1.RescueNetworksNone {
		return nil
	}
	var missing []*NIC
	for i := range f.VM.NICs {
		nic := &f.VM.NICs[i]
		if !slices.ContainsFunc(f.Rescue.NICs, func(n NIC) bool { return n.Device == nic.Device && f.marks(n.OtherConfig) }) {
			missing = append(missing, nic)
		}
	}
	return missing
}

func rescueNICsMade(f *Facts) bool { return len(missingRescueNICs(f)) == 0 }

// makeRescueNICs gives the rescue VM the interfaces of the instance's own: what the network knows of them, and what it
// lets them do, is the same.
func makeRescueNICs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	for _, nic := range missingRescueNICs(r.Facts) {
		marks := r.Me.Marks("", "")
		marks.NIC = nic.Entry
		like := nic.Record
		_, err := r.Client.VIF.Create(ctx, xenapi.VIF{
			VM: r.Rescue.Ref, Network: like.Network, Device: like.Device, MAC: like.MAC, MTU: like.MTU,
			QoSAlgorithmType: like.QoSAlgorithmType, QoSAlgorithmParams: like.QoSAlgorithmParams,
			LockingMode: like.LockingMode, IPv4Allowed: like.IPv4Allowed, IPv6Allowed: like.IPv6Allowed, OtherConfig: marks.OtherConfig(),
		})
		if err != nil {
			return "", r.doing(err, "make the interface at %s of the rescue VM", nic.Device)
		}
	}
	return "", nil
}

// rescueDriveDisk finds the rescue VM's config drive, attached or loose.
func (f *Facts) rescueDriveDisk() *VDI {
	is := func(v *VDI) bool { return f.ownRescueDisk(v) && v.Marks.Disk == rescueDrive }
	for i := range f.Rescue.Disks {
		if vdi := &f.Rescue.Disks[i].VDI; is(vdi) {
			return vdi
		}
	}
	if i := slices.IndexFunc(f.Loose, func(v VDI) bool { return is(&v) }); i >= 0 {
		return &f.Loose[i]
	}
	return nil
}

func rescueDriveMade(f *Facts) bool   { return f.rescueDriveDisk() != nil }
func rescueDriveFilled(f *Facts) bool { return f.rescueDriveDisk().mine() }

func rescueDriveAttached(f *Facts) bool {
	return slices.ContainsFunc(f.Rescue.Disks, func(d Disk) bool { return d.VDI.Ref == f.rescueDriveDisk().Ref })
}

func makeRescueDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	root := r.Rescue.rootDisk()
	if root == nil {
		return "", r.doing(&Problem{Reason: v1alpha1.ReasonRescueImageUnsuitable, Passing: true,
			Message: "the clone of the rescue image has no root disk"}, "make the config drive of the rescue VM")
	}
	_, err := r.Client.VDI.Create(ctx, xenapi.VDI{
		NameLabel: r.rescueName() + " config drive", SR: root.VDI.SR, VirtualSize: driveSize, Type: xenapi.VDITypeUser,
		OtherConfig: r.rescueDiskMarks(rescueDrive, ""),
	})
	return "", r.doing(err, "make the config drive of the rescue VM")
}

// fillRescueDrive writes the drive's files; a password only as its hash.
func fillRescueDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	seed, err := r.RescueSeed(ctx)
	if err != nil {
		return "", r.doing(err, "gather the credentials for the rescue VM")
	}
	return "", r.fillDriveWith(ctx, r.rescueDriveDisk(), &seed)
}

func attachRescueDrive(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	_, err := r.Client.VBD.Create(ctx, xenapi.VBD{
		VM: r.Rescue.Ref, VDI: r.rescueDriveDisk().Ref, UserDevice: r.Rescue.freeDevice(configDriveDevice, nil), Mode: xenapi.VBDModeRO,
		Type: xenapi.VBDTypeDisk, Unpluggable: true, OtherConfig: r.rescueDiskMarks(rescueDrive, ""),
	})
	return "", r.doing(err, "attach the config drive to the rescue VM")
}

// freeDevice is a device number if it is free on the VM, else the first free one for data.
func (vm *VM) freeDevice(first int, taken map[string]bool) string {
	device := strconv.Itoa(first)
	for next := firstDataDevice; vm.diskAt(device) != nil || taken[device]; next++ {
		device = strconv.Itoa(next)
	}
	return device
}
