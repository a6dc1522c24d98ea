package instance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// build makes a VM. The VM has its mark-name from the first moment until the last step, so whoever comes after a crash
// finds it and goes on; what can fail for want of space comes before the name is given and long before it is started.
var build = Sequence{
	{Name: "MakeVM", Holds: vmThere, Act: makeVM, Long: true},          // a clone of the template under the mark-name
	{Name: "MarkVM", Holds: vmMarked, Act: markVM},                     // the clone has the template's other_config
	{Name: "SizeVM", Holds: sized, Act: applySize},                     // CPUs and memory, while it is off
	{Name: "LeaveTemplates", Holds: notATemplate, Act: leaveTemplates}, // the clone of a template is a template
	{Name: stepRestoreDisks, Holds: disksRestored, Act: beginRestores}, // those of a backup
	{Name: "MakeDisks", Holds: disksMade, Act: makeDisks},              // those that the template does not bring along
	{Name: "MarkDisks", Holds: disksMarked, Act: markDisks},
	{Name: "GrowDisks", Holds: disksLarge, Act: growDisks},
	{Name: "DropCopiedDrive", Holds: noCopiedDrive, Act: dropCopiedDrive}, // a snapshot with memory has the config drive
	{Name: "AttachDisks", Holds: disksAttached, Act: attachDisks},
	{Name: "InsertISO", Holds: isoInserted, Act: insertISO},
	{Name: "RemoveNICs", Holds: noUnfitNICs, Act: removeNICs}, // those of the template
	{Name: "MakeNICs", Holds: nicsMade, Act: makeNICs},
	{Name: "MakeConfigDrive", Holds: driveMade, Act: makeDrive},
	{Name: "FillConfigDrive", Holds: driveFilled, Act: fillDrive},
	{Name: "AttachConfigDrive", Holds: driveAttached, Act: attachDrive},
	{Name: "NameVM", Holds: named, Act: nameVM}, // complete
}

// whenMissing makes the VM if there is none. Nothing is touched before everything that the spec names was found.
func whenMissing(f *Facts, _ time.Time) (Plan, bool) {
	if f.VM != nil {
		return undecided()
	}
	if uuid := f.Want.Source.ExistingUUID; uuid != "" {
		return stop(reconcile.Terminal(v1alpha1.ReasonVMNotFound,
			fmt.Sprintf("there is no VM %s on the pool; source.existing must name one", uuid)).After(recheckAfter))
	}
	if f.Want.Observe {
		return stop(reconcile.Terminal(v1alpha1.ReasonVMNotFound,
			"there is no VM to be observed, and managementPolicy Observe makes none; name one in source.existing, or set Manage").After(recheckAfter))
	}
	if problems := append(slices.Clone(f.Want.Problems), unfit(f)...); len(problems) > 0 {
		return stop(blockedBy(problems))
	}
	if f.UnknownClone {
		return stop(reconcile.Wait(v1alpha1.ReasonCreating,
			"a copy of the template is under way that may be ours from before a restart; waiting until it is over").After(cloneRecheck))
	}
	return Plan{Operation: operationCreate, Steps: build.Next(f)}, true
}

// cloneRecheck is how long to wait for somebody's clone when no event comes.
const cloneRecheck = 30 * time.Second

// whenBuilding goes on with a VM that is not complete.
func whenBuilding(f *Facts, now time.Time) (Plan, bool) {
	if !f.building() {
		return undecided()
	}
	if problems := append(slices.Clone(f.Want.Problems), unfit(f)...); len(problems) > 0 {
		return stop(blockedBy(problems))
	}
	if waiting := f.restoring(now); waiting != nil && disksRestoredNext(f) {
		return Plan{Operation: operationCreate, Outcome: *waiting}, true
	}
	if steps := build.Next(f); len(steps) > 0 {
		return Plan{Operation: operationCreate, Steps: steps}, true
	}
	return undecided()
}

// disksRestoredNext reports whether the restore is what the VM waits for: what comes before it is done.
func disksRestoredNext(f *Facts) bool {
	steps := build.Next(f)
	return len(steps) > 0 && steps[0].Name == stepRestoreDisks
}

// unfit are the reasons for which no host of the pool could ever run the VM.
func unfit(f *Facts) []Problem {
	if f.Want.Size == nil || len(f.Hosts) == 0 {
		return nil
	}
	largest, most := f.Hosts[0], f.Hosts[0]
	for _, host := range f.Hosts {
		if host.MemoryTotal > largest.MemoryTotal {
			largest = host
		}
		if host.CPUs > most.CPUs {
			most = host
		}
	}
	if largest.MemoryTotal > 0 && f.Want.Size.Memory > largest.MemoryTotal {
		return []Problem{{Reason: v1alpha1.ReasonFlavorTooLarge, Message: fmt.Sprintf(
			"flavor %s wants %s of memory; the largest host, %s, has %s: choose a smaller flavor",
			f.Want.Flavor, bytesText(f.Want.Size.Memory), largest.Name, bytesText(largest.MemoryTotal))}}
	}
	if most.CPUs > 0 && f.Want.Size.VCPUs > most.CPUs {
		return []Problem{{Reason: v1alpha1.ReasonFlavorTooLarge, Message: fmt.Sprintf(
			"flavor %s wants %d VCPUs; the largest host, %s, has %d CPUs: choose a smaller flavor",
			f.Want.Flavor, f.Want.Size.VCPUs, most.Name, most.CPUs)}}
	}
	return nil
}

func vmThere(f *Facts) bool      { return f.VM != nil }
func notATemplate(f *Facts) bool { return !f.VM.Template }
func named(f *Facts) bool        { return f.Want.Name == "" || f.VM.Name == f.Want.Name }

// vmMarked reports whether the VM carries all its marks, its own uuid and this incarnation among them.
func vmMarked(f *Facts) bool {
	marks := f.VM.Marks
	return f.Me.Owns(marks) && marks.UID == f.Me.UID && marks.Self == f.VM.UUID && marks.Role == xencache.RoleVM
}

// Bound reports whether the VM carries this instance's marks, so that its uuid may be written into the annotation.
func (f *Facts) Bound() bool { return f.VM != nil && vmMarked(f) && !f.Want.Observe && !f.Me.Deleting }

// makeVM clones the template, or copies it if its disk is to be on another storage repository; without a template it
// makes an empty VM.
func makeVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	name := r.Me.MarkName()
	template := r.Want.Source.Template
	if template == nil {
		return r.makeEmptyVM(ctx, name)
	}
	if root := r.wantRoot(); root != nil && root.Cloned && root.SR != template.RootSR {
		task, err := r.Client.VM.CopyAsync(ctx, template.Ref, name, root.SR)
		return task, r.doing(err, "copy template %s", template.Name)
	}
	task, err := r.Client.VM.CloneAsync(ctx, template.Ref, name)
	return task, r.doing(err, "clone template %s", template.Name)
}

// wantRoot is the root disk that is asked for, nil if the spec leaves it alone.
func (f *Facts) wantRoot() *WantDisk {
	i := slices.IndexFunc(f.Want.Disks, func(d WantDisk) bool { return d.Role == xencache.RoleRootDisk })
	if i < 0 {
		return nil
	}
	return &f.Want.Disks[i]
}

// makeEmptyVM makes a VM for an operating system that is installed from an ISO: HVM, first from the disk, then, while
// that is empty, from the ISO. The record carries the marks, so one call makes it findable.
func (r *Run) makeEmptyVM(ctx context.Context, name string) (xenapi.TaskRef, error) {
	size := r.Want.Size
	if size == nil && r.Want.Source.Backup != nil {
		size = &r.Want.Source.Backup.Size
	}
	if size == nil {
		size = &Size{VCPUs: 1, MaxVCPUs: 1, MinMemory: 1 << 30, Memory: 1 << 30, MaxMemory: 1 << 30}
	}
	otherConfig := r.vmMarks("")
	boot := map[string]string{"order": "cdn", "firmware": "bios"}
	platform := map[string]string{
		"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "hpet": "true", "viridian": "false", "stdvga": "0", "videoram": "8",
	}
	if r.Want.Source.Firmware == v1alpha1.FirmwareUEFI {
		boot["firmware"] = "uefi"
	}
	var nvram map[string]string
	if backup := r.Want.Source.Backup; backup != nil {
		maps.Copy(boot, backup.BootParams)
		maps.Copy(platform, backup.Platform)
		nvram = backup.NVRAM
	}
	if size.CoresPerSocket > 0 {
		platform[platformCores] = strconv.FormatInt(size.CoresPerSocket, 10)
	}
	_, err := r.Client.VM.Create(ctx, xenapi.VM{
		NameLabel: name, NameDescription: r.Want.Description, Tags: r.Want.Tags,
		VCPUsMax: size.MaxVCPUs, VCPUsAtStartup: size.VCPUs,
		MemoryStaticMin: size.MinMemory, MemoryDynamicMin: size.MinMemory, MemoryDynamicMax: size.Memory, MemoryStaticMax: size.MaxMemory,
		ActionsAfterShutdown: xenapi.OnNormalExitDestroy, ActionsAfterReboot: xenapi.OnNormalExitRestart, ActionsAfterCrash: xenapi.OnCrashRestart,
		HVMBootPolicy: "BIOS order", HVMBootParams: boot, HVMShadowMultiplier: 1, Platform: platform, NVRAM: nvram, OtherConfig: otherConfig,
	})
	return "", r.doing(err, "make the VM")
}

// vmMarks are the entries of other_config that the VM carries.
func (f *Facts) vmMarks(self string) map[string]string {
	entries := f.Me.Marks(xencache.RoleVM, self).OtherConfig()
	if flavor := writeFlavorMark(&f.Want); flavor != "" {
		entries[markFlavor] = flavor
	}
	return entries
}

// markVM writes the marks that are missing. A VM that is being built is ours alone, so its whole map is written at once;
// the marks that came with the clone go, and so does what the template asked to be provisioned (we make those disks).
// On a complete VM key by key, so that nobody else's change is lost.
func markVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if !r.building() {
		return "", r.setMarks(ctx, r.Me.Marks(xencache.RoleVM, r.VM.UUID).OtherConfig())
	}
	otherConfig := withoutMarks(r.VM.OtherConfig)
	delete(otherConfig, provisionKey)
	delete(otherConfig, hiddenKey)
	maps.Copy(otherConfig, r.vmMarks(r.VM.UUID))
	return "", r.doing(r.Client.VM.SetOtherConfig(ctx, r.VM.Ref, otherConfig), "mark the VM")
}

// setMarks writes those of the entries that differ, one by one.
func (r *Run) setMarks(ctx context.Context, entries map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if err := r.setMark(ctx, key, entries[key]); err != nil {
			return err
		}
	}
	return nil
}

// setMark writes one entry of the VM's other_config. An entry that exists must be removed first: adding it again is
// MAP_DUPLICATE_KEY even with the same value.
func (r *Run) setMark(ctx context.Context, key, value string) error {
	have, exists := r.VM.OtherConfig[key]
	if exists && have == value {
		return nil
	}
	if exists {
		if err := r.Client.VM.RemoveFromOtherConfig(ctx, r.VM.Ref, key); err != nil {
			return r.doing(err, "replace the mark %s", key)
		}
	}
	return r.doing(r.Client.VM.AddToOtherConfig(ctx, r.VM.Ref, key, value), "set the mark %s", key)
}

func leaveTemplates(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.SetIsATemplate(ctx, r.VM.Ref, false), "make the clone a VM")
}

func nameVM(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.SetNameLabel(ctx, r.VM.Ref, r.Want.Name), "name the VM %q", r.Want.Name)
}

// described reports whether description and tags are as asked. Tags of others stay.
func described(f *Facts) bool {
	return (f.Want.Description == "" || f.VM.Description == f.Want.Description) && len(missingTags(f)) == 0
}

func missingTags(f *Facts) []string {
	var missing []string
	for _, tag := range f.Want.Tags {
		if !slices.Contains(f.VM.Tags, tag) {
			missing = append(missing, tag)
		}
	}
	return missing
}

func describe(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	if want := r.Want.Description; want != "" && r.VM.Description != want {
		if err := r.Client.VM.SetNameDescription(ctx, r.VM.Ref, want); err != nil {
			return "", r.doing(err, "describe the VM")
		}
	}
	for _, tag := range missingTags(r.Facts) {
		if err := r.Client.VM.AddTags(ctx, r.VM.Ref, tag); err != nil {
			return "", r.doing(err, "tag the VM")
		}
	}
	return "", nil
}

// isoInserted reports whether the VM has the ISO in a drive; a guest that has ejected it since is left so.
func isoInserted(f *Facts) bool {
	return f.Want.Source.ISO.IsNull() || slices.ContainsFunc(f.VM.Disks, func(d Disk) bool { return d.CD })
}

func insertISO(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	_, err := r.Client.VBD.Create(ctx, xenapi.VBD{
		VM: r.VM.Ref, VDI: r.Want.Source.ISO, UserDevice: strconv.Itoa(cdDevice), Mode: xenapi.VBDModeRO, Type: xenapi.VBDTypeCD,
		Unpluggable: true,
	})
	return "", r.doing(err, "insert the ISO")
}

// hiddenKey keeps a VM out of the lists of graphical clients: the template of an image has it, and so has its clone.
const hiddenKey = "HideFromXenCenter"

// isMark reports whether a key of other_config is ours.
func isMark(key string) bool { return strings.HasPrefix(key, "kubexen.io/") }
