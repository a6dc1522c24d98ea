package instance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// remarked replaces the marks of a disk.
func remarked(vdi VDI, otherConfig map[string]string) VDI {
	vdi.OtherConfig, vdi.Marks = otherConfig, xencache.ReadMarks(otherConfig)
	return vdi
}

// mark sets a mark on the VM.
func mark(f *Facts, key, value string) {
	f.VM.OtherConfig = maps.Clone(f.VM.OtherConfig)
	f.VM.OtherConfig[key] = value
}

// resizeEffects are what the steps of a resize make of the facts.
var resizeEffects = map[string]func(*Facts){
	stepRememberSizes: func(f *Facts) {
		mark(f, xencache.MarkJournal, newResizeJournal(f, newResizeID(), testTime).String())
	},
	stepRetarget: func(f *Facts) {
		mark(f, xencache.MarkJournal, newResizeJournal(f, newResizeID(), testTime).String())
		delete(f.VM.OtherConfig, markApplied)
	},
	"AddVCPUs":  func(f *Facts) { f.VM.Size.VCPUs = f.Want.Size.VCPUs },
	"SetMemory": func(f *Facts) { f.VM.Size.MinMemory, f.VM.Size.Memory = f.Want.Size.MinMemory, f.Want.Size.Memory },
	"SizeVM": func(f *Facts) {
		have := f.VM.Size
		f.VM.Size = f.Want.Size.known()
		f.VM.Size.StaticMin = f.Want.Size.MinMemory
		if f.Want.Size.Weight == 0 {
			f.VM.Size.Weight = have.Weight
		}
		if f.Want.Size.Cap == 0 {
			f.VM.Size.Cap = have.Cap
		}
		if f.Want.Size.CoresPerSocket == 0 {
			f.VM.Size.CoresPerSocket = have.CoresPerSocket
		}
	},
	"GrowRoot": func(f *Facts) { f.VM.rootDisk().VDI.Size = f.wantRoot().Size },
	"AnnounceRestorePoint": func(f *Facts) {
		root := f.VM.rootDisk()
		root.VDI.OtherConfig = maps.Clone(root.VDI.OtherConfig)
		root.VDI.OtherConfig[markCopying] = f.resizeJournal().Point
	},
	"AnnounceCopy": func(f *Facts) {
		for i := range f.RestorePoints {
			if f.RestorePoints[i].UUID == f.point().UUID {
				f.RestorePoints[i].OtherConfig = maps.Clone(f.RestorePoints[i].OtherConfig)
				f.RestorePoints[i].OtherConfig[markCopying] = f.resizeJournal().Point
			}
		}
	},
	"RememberGoingBack": func(f *Facts) {
		j := *f.resizeJournal()
		j.Power, j.LastStart = f.VM.Power, f.lastStart()
		mark(f, xencache.MarkJournal, j.String())
		delete(f.VM.OtherConfig, markApplied)
	},
	"ReinstateRoot": func(f *Facts) {
		root := f.VM.rootDisk()
		root.VDI = remarked(root.VDI, f.diskMarks(WantDisk{Name: rootName, Role: xencache.RoleRootDisk, DeleteOnEnd: true}, root.VDI.UUID))
	},
	"TakeRestorePoint": func(f *Facts) {
		copied := f.VM.rootDisk().VDI
		copied.Ref, copied.UUID, copied.Users, copied.Attached, copied.Snapshot = "snapshot", "snapshot-of-"+copied.UUID, 0, false, true
		f.Copies = append(f.Copies, copied)
	},
	"MarkRestorePoint": func(f *Facts) {
		run := &Run{Facts: f, Now: testTime}
		for _, nameless := range namelessPoints(f) {
			if f.point() == nil {
				f.RestorePoints = append(f.RestorePoints, remarked(nameless, run.pointMarks(&nameless)))
			}
		}
		f.Copies = slices.DeleteFunc(slices.Clone(f.Copies), func(c VDI) bool { return c.Snapshot })
	},
	"WithdrawMark": func(f *Facts) { delete(f.VM.rootDisk().VDI.OtherConfig, markCopying) },
	"DropUnfinishedPoint": func(f *Facts) {
		f.Copies = slices.DeleteFunc(slices.Clone(f.Copies), func(c VDI) bool { return c.Snapshot })
	},
	"WithdrawAnnouncement": func(f *Facts) { delete(f.announced().OtherConfig, markCopying) },
	"CopyRestorePoint": func(f *Facts) {
		copied := *f.point()
		copied.Ref, copied.UUID, copied.Snapshot = "clone", "clone-of-"+copied.UUID, false
		f.Copies = append(f.Copies, copied)
	},
	"PresentRestorePoint": func(f *Facts) {
		present := func(vdi VDI) {
			marks := f.diskMarks(WantDisk{Name: rootName, Role: xencache.RoleRootDisk, DeleteOnEnd: true}, vdi.UUID)
			marks[markIncoming] = f.incomingMark(incomingRestored)
			f.Loose = append(f.Loose, remarked(vdi, marks))
		}
		if point := *f.point(); !point.Snapshot {
			present(point)
			f.RestorePoints = slices.DeleteFunc(slices.Clone(f.RestorePoints), func(p VDI) bool { return p.UUID == point.UUID })
			return
		}
		present(copiesOfPoint(f)[0])
		f.Copies = f.Copies[:0]
	},
	"DisplaceRoot": func(f *Facts) {
		root, run := f.VM.rootDisk(), &Run{Facts: f, Now: testTime.Add(time.Minute)}
		root.VDI = remarked(root.VDI, run.pointMarks(&root.VDI))
	},
	"TakeRootAway": func(f *Facts) {
		displaced := f.VM.rootDisk().VDI
		f.VM.Disks = slices.DeleteFunc(slices.Clone(f.VM.Disks), func(d Disk) bool { return d.isRoot() })
		displaced.Users = 0
		f.RestorePoints = append(f.RestorePoints, displaced)
	},
	"PutRootIn": func(f *Facts) {
		incoming := *f.incomingRoot()
		incoming.Users = 1
		f.Loose = slices.DeleteFunc(slices.Clone(f.Loose), func(v VDI) bool { return v.UUID == incoming.UUID })
		f.VM.Disks = append(f.VM.Disks, Disk{Ref: xenapi.VBDRef("vbd-" + incoming.UUID), Device: "0", Entry: rootName, VDI: incoming})
	},
	"KeepFromStarting": func(f *Facts) {
		kept(f)
		f.Copy = nil
	},
	"ReleaseStart": startable,
	"StopCopy":     func(f *Facts) { f.Copy = nil },
	"CopyRoot": func(f *Facts) {
		request, copied := f.copyRequest(), f.VM.rootDisk().VDI
		copied.UUID = fmt.Sprintf("copy-%d-of-%s", request.Size/gib, copied.UUID)
		copied.Ref, copied.Size, copied.Users, copied.Attached = xenapi.VDIRef(copied.UUID), request.Size, 0, false
		marks := maps.Clone(request.Marks)
		marks[xencache.MarkSelf] = copied.UUID
		f.Loose = append(f.Loose, remarked(copied, marks))
		f.Copy = &CopyState{CopyRequest: request, Over: true, Copy: copied.UUID}
	},
	"DropHalfCopies": func(f *Facts) {
		gone := f.halfCopies()
		f.Loose = slices.DeleteFunc(slices.Clone(f.Loose), func(v VDI) bool {
			return slices.ContainsFunc(gone, func(g VDI) bool { return g.UUID == v.UUID })
		})
	},
	"PresentCopy": func(f *Facts) {
		presented := f.copyDisk()
		marks := f.diskMarks(*f.wantRoot(), presented.UUID)
		marks[markIncoming], marks[markCopyOf] = f.incomingMark(incomingShrunk), presented.OtherConfig[markCopyOf]
		*presented = remarked(*presented, marks)
	},
	stepStart: func(f *Facts) {
		before := f.VM.StartedAt
		modelPower(v1alpha1.PowerStateRunning)(f)
		f.VM.StartedAt = before.Add(time.Minute)
	},
	stepShutDown: modelPower(v1alpha1.PowerStateHalted),
	stepPowerOff: modelPower(v1alpha1.PowerStateHalted),
	"DestroyRestorePoints": func(f *Facts) {
		gone := droppable(f)
		f.RestorePoints = slices.DeleteFunc(slices.Clone(f.RestorePoints), func(p VDI) bool {
			return slices.ContainsFunc(gone, func(g VDI) bool { return g.UUID == p.UUID })
		})
		f.Copies = nil
	},
	"EndResize": func(f *Facts) {
		if flavor := writeFlavorMark(&f.Want); flavor != "" {
			mark(f, markFlavor, flavor)
		}
		delete(f.VM.OtherConfig, xencache.MarkJournal)
		delete(f.VM.OtherConfig, markApplied)
	},
	"RememberApplied":   func(f *Facts) { mark(f, markApplied, testTime.Format(time.RFC3339)) },
	"RefuseUnconfirmed": func(f *Facts) { refuse(f) },
	"ForgetRefusal":     func(f *Facts) { delete(f.VM.OtherConfig, markResizeRefused) },
	"RecordFlavor":      func(f *Facts) { mark(f, markFlavor, writeFlavorMark(&f.Want)) },
}

// refuse writes down that the size that is asked for cannot be had.
func refuse(f *Facts) {
	mark(f, markResizeRefused, marshalled(resizeRefusal{Token: f.Want.Resize.Token, Flavor: f.Want.Flavor, Reason: v1alpha1.ReasonRolledBack, Message: "no"}))
}

// sizeSpec is what a user asks for in the property test.
type sizeSpec struct {
	flavor  string
	disk    int64
	shrink  bool // down to disk, as rootDisk.shrinkTo says
	power   v1alpha1.PowerState
	resize  WantResize
	askedAt string
}

// apply resolves the spec for the facts as they are now, as the wanter does.
func (s sizeSpec) apply(f *Facts) {
	size := sizeOfFlavor[s.flavor]
	f.Want.Flavor, f.Want.Size, f.Want.Power, f.Want.Resize, f.Want.Refused = s.flavor, &size, s.power, s.resize, nil
	f.Want.Disks[0].Size, f.Want.Disks[0].ShrinkTo = s.disk, 0
	if s.shrink {
		f.Want.Disks[0].ShrinkTo = s.disk
	}
	w := &wanter{in: &Inputs{Object: &v1alpha1.XenInstance{}}, vm: f.VM, want: f.Want}
	w.want.Resize.Token = sizeToken(f.resizeTarget(), 0, s.askedAt)
	w.openFigures()
	if refusal := readRefusal(f.VM.OtherConfig); refusal != nil && refusal.Token == w.want.Resize.Token {
		w.want.Refused = refusal
		w.takeBack()
	}
	f.Want = w.want
}

// drawSpec makes up what a user asks for next.
func drawSpec(t *rapid.T, before sizeSpec, f *Facts) sizeSpec {
	s := before
	switch rapid.SampledFrom([]string{"flavor", "flavor", "disk", "power", "how", "confirm", "discard", "anew"}).Draw(t, "edit") {
	case "flavor":
		s.flavor = rapid.SampledFrom([]string{"small", "large", "huge", "roomy", "roomie"}).Draw(t, "flavor")
	case "disk":
		s.disk = rapid.Int64Range(1, 4).Draw(t, "disk") * 5 * gib
		s.shrink = rapid.Bool().Draw(t, "shrink")
	case "power":
		s.power = rapid.SampledFrom([]v1alpha1.PowerState{v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted}).Draw(t, "power")
	case "how":
		s.resize.Manual = rapid.Bool().Draw(t, "manual")
		s.resize.Strategy = rapid.SampledFrom([]v1alpha1.ResizeStrategy{v1alpha1.ResizeRestart, v1alpha1.ResizeOnNextBoot}).Draw(t, "strategy")
	case "confirm":
		if j := f.resizeJournal(); j != nil {
			s.resize.Confirm = j.ID
		}
	case "discard":
		if point := f.point(); point != nil {
			s.resize.DiscardTo = point.UUID
		}
	case "anew":
		s.askedAt += "x"
	}
	return s
}

// data follows what guests write: each disk holds what had been written to it, and what to the disk that it was copied from,
// until then.
type data struct {
	writes int
	upTo   map[string]int // by the disk's uuid
	// lost says that a guest went on without something that had been written before.
	lost bool
	// shrunkFor is what was asked for, to be confirmed, when the root disk became smaller last; nil if nobody was to be asked.
	shrunkFor *sizeSpec
}

// mayGo reports whether the restore points may be destroyed: the disk from before a smaller one that was to be confirmed goes
// when it was, or when the user has asked to go back since. Who asks for another smaller disk does not go back.
func (d *data) mayGo(f *Facts, spec sizeSpec) bool {
	asked, j := d.shrunkFor, f.resizeJournal()
	switch {
	case asked == nil, !spec.resize.Manual, f.Want.Refused != nil, spec.resize.Confirm == j.ID:
		return true
	case spec.flavor == asked.flavor && spec.disk == asked.disk && spec.shrink == asked.shrink:
		return false
	}
	another := j.From.Flavor == j.To.Flavor && spec.disk < j.From.Disk
	return !spec.shrink || (f.rootSize() <= spec.disk && !another)
}

// misses reports whether a disk has not all that was written.
func (d *data) misses(root *Disk) bool { return d.upTo[root.VDI.UUID] < d.writes }

// see takes what a step has done.
func (d *data) see(step string, before, after *Facts) {
	if root := before.VM.rootDisk(); root != nil {
		switch step {
		case "TakeRestorePoint":
			d.upTo["snapshot-of-"+root.VDI.UUID] = d.upTo[root.VDI.UUID]
		case "CopyRoot":
			d.upTo[after.Copy.Copy] = d.upTo[root.VDI.UUID]
		}
	}
	switch step {
	case "CopyRestorePoint":
		d.upTo["clone-of-"+before.point().UUID] = d.upTo[before.point().UUID]
	case stepStart:
		d.lost = d.lost || d.misses(after.VM.rootDisk())
		d.writes++
		d.upTo[after.VM.rootDisk().VDI.UUID] = d.writes
	}
}

// TestResizesEnd: whatever sizes are asked for one after the other, with a step or a start failing in between, the plans
// come to an end: the VM has the last size, or waits for its user, or a boot, or says why not. It is never started that
// should be off, its disk is never smaller than it was but when the user says so, no restore point is left behind, and what
// its guest has written is lost only when the user says so.
func TestResizesEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := given(complete(v1alpha1.PowerStateRunning), capable, wanting(func(w *Want) { w.DriftGrace = 0 }))
		f.Hosts[0].MemoryFree, f.Hosts[0].MemoryTotal = 64*gib, 64*gib
		spec := sizeSpec{flavor: "small", disk: 10 * gib, power: v1alpha1.PowerStateRunning}
		written := &data{upTo: map[string]int{f.VM.rootDisk().VDI.UUID: 0}}
		discards := false
		var taken []string
		for range rapid.IntRange(1, 6).Draw(t, "edits") {
			spec = drawSpec(t, spec, f)
			smallest := f.rootSize()
			steps := rapid.IntRange(0, 40).Draw(t, "steps before the next edit")
			fails := rapid.IntRange(0, 60).Draw(t, "the start fails at")
			taken = append(taken, fmt.Sprintf("| %s %d %t", spec.flavor, spec.disk/gib, spec.shrink))
			discards = discards || spec.resize.DiscardTo != ""
			taken = append(taken, run(t, f, spec, steps, fails, written)...)
			asked := discards || slices.Contains(taken, "PresentCopy")
			if f.VM.rootDisk() != nil && f.rootSize() < smallest && !asked {
				t.Fatalf("the root disk shrank from %d to %d after %v", smallest, f.rootSize(), taken)
			}
		}
		taken = append(taken, "| end")
		taken = append(taken, run(t, f, spec, 200, -1, written)...)
		settledSize(t, f, spec, taken)
		if (written.lost || written.misses(f.VM.rootDisk())) && !discards {
			t.Fatalf("what was written is lost, after %v", taken)
		}
	})
}

// run takes the steps of the plans until there is none, or so many.
func run(t *rapid.T, f *Facts, spec sizeSpec, most, fails int, written *data) (taken []string) {
	for n := range most {
		spec.apply(f)
		plan := Decide(f, testTime)
		if len(plan.Steps) == 0 {
			return taken
		}
		step := plan.Steps[0]
		taken = append(taken, step.Name)
		if step.Name == stepStart {
			if spec.power != v1alpha1.PowerStateRunning {
				t.Fatalf("a VM is started that is to be off, after %v", taken)
			}
			if n == fails && f.resizeJournal() != nil && f.Want.Refused == nil && !f.resizeReverting() {
				refuse(f)
				continue
			}
		}
		effect, known := resizeEffects[step.Name]
		if !known {
			effect, known = effects[step.Name]
		}
		if !known {
			t.Fatalf("the model does not know step %s", step.Name)
		}
		if step.Name == "DestroyRestorePoints" && f.VM.rootDisk() == nil {
			t.Fatalf("a restore point is destroyed while there is no root disk, after %v", taken)
		}
		if step.Name == "DestroyRestorePoints" && !written.mayGo(f, spec) {
			t.Fatalf("the disk from before goes, and nobody has confirmed the smaller one, after %v", taken)
		}
		before := *f
		before.VM = ptr.To(*f.VM)
		effect(f)
		written.see(step.Name, &before, f)
		switch {
		case step.Name == "EndResize":
			written.shrunkFor = nil
		case step.Name == "PresentCopy" && spec.resize.Manual:
			written.shrunkFor = ptr.To(spec)
		}
		if spec.apply(f); !step.Holds(f) {
			t.Fatalf("%s was taken and does not hold, after %v", step.Name, taken)
		}
	}
	if most == 200 {
		t.Fatalf("no end after %s", strings.Join(taken, " "))
	}
	return taken
}

// settledSize checks what the last plan leaves.
func settledSize(t *rapid.T, f *Facts, spec sizeSpec, taken []string) {
	plan := Decide(f, testTime)
	if f.VM.Power != spec.power {
		t.Fatalf("the VM is %s and should be %s, %s after %v", f.VM.Power, spec.power, plan.Outcome, taken)
	}
	if f.VM.rootDisk() == nil {
		t.Fatalf("the VM has no root disk after %v", taken)
	}
	if f.resizeJournal() == nil && len(f.RestorePoints)+len(f.Copies) > 0 {
		t.Fatalf("restore points are left after %v", taken)
	}
	size := sizeOfFlavor[spec.flavor]
	asAskedFor := f.VM.Size.covers(size) && f.rootSize() >= spec.disk && (!spec.shrink || f.rootSize() <= spec.disk+sizeRounding)
	refused := plan.Outcome.Kind() == reconcile.KindTerminal && plan.Outcome.Reason() == v1alpha1.ReasonRolledBack
	if !asAskedFor && !refused && plan.Outcome.Reason() != v1alpha1.ReasonPowerOffRequired {
		t.Fatalf("the VM has %s, root %d, and should be %s with %d: %s after %v", f.VM.Size.text(), f.rootSize(), spec.flavor, spec.disk, plan.Outcome, taken)
	}
	if plan.Outcome.Reason() == v1alpha1.ReasonPowerOffRequired && (spec.resize.Strategy == v1alpha1.ResizeRestart || f.halted()) {
		t.Fatalf("it waits for a boot although it need not, after %v", taken)
	}
}
