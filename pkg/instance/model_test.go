package instance

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// effects are a model of the pool: what each step, once taken, makes of the facts.
var effects = map[string]func(*Facts){
	"MakeVM": func(f *Facts) {
		template := f.Want.Source.Template
		unfinishedClone(f)
		f.Want.Source.Template = template
	},
	"MarkVM": func(f *Facts) {
		f.VM.OtherConfig = withoutMarks(f.VM.OtherConfig)
		delete(f.VM.OtherConfig, provisionKey)
		maps.Copy(f.VM.OtherConfig, f.vmMarks(f.VM.UUID))
		f.VM.Marks = xencache.ReadMarks(f.VM.OtherConfig)
	},
	"SizeVM":         func(f *Facts) { f.VM.Size = *f.Want.Size },
	"RecordFlavor":   func(f *Facts) { f.VM.OtherConfig[markFlavor] = writeFlavorMark(&f.Want) },
	"LeaveTemplates": func(f *Facts) { f.VM.Template = false },
	"MakeDisks": func(f *Facts) {
		for _, want := range missingDisks(f) {
			marks := f.diskMarks(want, "")
			f.Loose = append(f.Loose, VDI{
				Ref: xenapi.VDIRef(want.Name + "-vdi"), UUID: want.Name + "-uuid", Size: want.Size, OtherConfig: marks, Marks: xencache.ReadMarks(marks),
			})
		}
	},
	"MarkDisks": func(f *Facts) {
		for _, want := range unmarkedDisks(f) {
			vdi := f.diskFor(want)
			vdi.OtherConfig = f.diskMarks(want, vdi.UUID)
			vdi.Marks = xencache.ReadMarks(vdi.OtherConfig)
			if disk := f.attachedDisk(want); disk != nil {
				disk.Entry = want.Name
			}
		}
	},
	"GrowDisks": func(f *Facts) {
		for _, want := range smallDisks(f) {
			if vdi := f.diskFor(want); !vdi.Attached {
				vdi.Size = want.Size
			}
		}
	},
	"AttachDisks": func(f *Facts) {
		for _, want := range detachedDisks(f) {
			if f.placeTaken(want) {
				continue
			}
			vdi := *f.diskFor(want)
			f.Loose = slices.DeleteFunc(f.Loose, func(v VDI) bool { return v.UUID == vdi.UUID })
			f.VM.Disks = append(f.VM.Disks, Disk{Ref: xenapi.VBDRef(want.Name + "-vbd"), Device: want.Device, Entry: want.Name, VDI: vdi})
		}
	},
	"PlugDisks": func(f *Facts) {
		for i := range f.VM.Disks {
			f.VM.Disks[i].Attached, f.VM.Disks[i].VDI.Attached = true, true
		}
	},
	"DetachDisks": func(f *Facts) {
		for _, disk := range droppedDisks(f) {
			vdi := disk.VDI
			vdi.Attached = false
			f.Loose = append(f.Loose, vdi)
		}
		gone := droppedDisks(f)
		f.VM.Disks = slices.DeleteFunc(slices.Clone(f.VM.Disks), func(d Disk) bool {
			return slices.ContainsFunc(gone, func(g *Disk) bool { return g.Ref == d.Ref })
		})
	},
	"DiscardDisks": func(f *Facts) {
		gone := discardedDisks(f)
		f.Loose = slices.DeleteFunc(slices.Clone(f.Loose), func(v VDI) bool {
			return slices.ContainsFunc(gone, func(g *VDI) bool { return g.UUID == v.UUID })
		})
	},
	"RemoveNICs": func(f *Facts) {
		gone := unfitNICs(f)
		f.VM.NICs = slices.DeleteFunc(slices.Clone(f.VM.NICs), func(n NIC) bool {
			return slices.ContainsFunc(gone, func(g *NIC) bool { return g.Ref == n.Ref })
		})
	},
	"MakeNICs": func(f *Facts) {
		for _, want := range missingNICs(f) {
			f.VM.NICs = append(f.VM.NICs, NIC{
				Ref: xenapi.VIFRef(want.Name), Device: want.Device, Entry: want.Name, MAC: want.MAC, Network: want.Network, RateLimit: want.RateLimit,
			})
		}
	},
	"SetNICs": func(f *Facts) {
		for _, want := range unsetNICs(f) {
			nic := f.nicFor(want)
			nic.Network, nic.RateLimit = want.Network, want.RateLimit
		}
	},
	"PlugNICs": func(f *Facts) {
		for i := range f.VM.NICs {
			f.VM.NICs[i].Attached = true
		}
	},
	"NameVM":        func(f *Facts) { f.VM.Name = f.Want.Name },
	stepStart:       modelPower(v1alpha1.PowerStateRunning),
	stepStartPaused: modelPower(v1alpha1.PowerStatePaused),
	stepResume:      modelPower(v1alpha1.PowerStateRunning),
	stepUnpause:     modelPower(v1alpha1.PowerStateRunning),
	stepPause:       modelPower(v1alpha1.PowerStatePaused),
	stepSuspend:     modelPower(v1alpha1.PowerStateSuspended),
	stepShutDown:    modelPower(v1alpha1.PowerStateHalted),
	stepPowerOff:    modelPower(v1alpha1.PowerStateHalted),
	stepDestroyVM: func(f *Facts) {
		for _, disk := range f.VM.Disks {
			if f.Me.Owns(disk.VDI.Marks) {
				disk.VDI.Users = 0
				f.Loose = append(f.Loose, disk.VDI)
			}
		}
		f.VM = nil
	},
	"DiscardVM": func(f *Facts) { f.VM = nil },
	"DestroyDisk": func(f *Facts) {
		gone := leftovers(f)[0].UUID
		f.Loose = slices.DeleteFunc(slices.Clone(f.Loose), func(v VDI) bool { return v.UUID == gone })
	},
	"BlockStart": func(f *Facts) {
		f.VM.Blocked["start"], f.VM.Blocked["start_on"] = trashBlockReason, trashBlockReason
	},
	"MarkTrashed":   func(f *Facts) { f.VM.OtherConfig[xencache.MarkTrashedAt] = testTime.Format(time.RFC3339) },
	"RenameTrashed": func(f *Facts) { f.VM.Name = trashName(f) },
	"UnmarkDevices": func(f *Facts) {
		for i := range f.VM.Disks {
			f.VM.Disks[i].OtherConfig, f.VM.Disks[i].VDI.OtherConfig, f.VM.Disks[i].VDI.Marks = nil, nil, xencache.Marks{}
		}
		for i := range f.VM.NICs {
			f.VM.NICs[i].OtherConfig = nil
		}
	},
	"UnmarkVM": func(f *Facts) { f.VM.OtherConfig, f.VM.Marks = map[string]string{}, xencache.Marks{} },
}

// modelPower changes the power state and what follows from it.
func modelPower(state v1alpha1.PowerState) func(*Facts) {
	return func(f *Facts) {
		f.VM.Power = state
		up := state == v1alpha1.PowerStateRunning || state == v1alpha1.PowerStatePaused
		for i := range f.VM.Disks {
			f.VM.Disks[i].Attached, f.VM.Disks[i].VDI.Attached = up, up
		}
		for i := range f.VM.NICs {
			f.VM.NICs[i].Attached = up
		}
		f.VM.Guest = Guest{}
		if state == v1alpha1.PowerStateRunning {
			f.VM.Guest = Guest{Reports: true, CanShutDown: true, Hotplug: true}
			f.VM.StartedAt = testTime
		}
	}
}

// draw makes up an instance: what is asked for, and what there is of it.
func draw(t *rapid.T) *Facts {
	states := []v1alpha1.PowerState{v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted, v1alpha1.PowerStatePaused, v1alpha1.PowerStateSuspended}
	f := given(wanting(func(w *Want) {
		w.Power = rapid.SampledFrom(states).Draw(t, "wanted power")
		w.Deletion = rapid.SampledFrom([]v1alpha1.DeletionPolicy{v1alpha1.DeletionTrash, v1alpha1.DeletionDelete, v1alpha1.DeletionOrphan}).Draw(t, "deletion")
		w.Off = rapid.SampledFrom([]v1alpha1.PowerOffMode{v1alpha1.PowerOffTrySoft, v1alpha1.PowerOffHard}).Draw(t, "off")
		w.DriftGrace = 0
	}))
	for i := range rapid.IntRange(0, 3).Draw(t, "wanted disks") {
		size := rapid.Int64Range(1, 4).Draw(t, "size") * gib
		dataDisk(fmt.Sprintf("data%d", i), strconv.Itoa(firstDataDevice+i), size)(f)
	}
	switch rapid.SampledFrom([]string{"nothing", "clone", "complete"}).Draw(t, "there is") {
	case "clone":
		unfinishedClone(f)
	case "complete":
		complete(rapid.SampledFrom(states).Draw(t, "power"))(f)
		for i := range rapid.IntRange(0, 3).Draw(t, "attached disks") {
			attached(fmt.Sprintf("data%d", i), strconv.Itoa(firstDataDevice+i), gib, nil)(f)
		}
		if rapid.Bool().Draw(t, "a stranger's disk") {
			f.VM.Disks = append(f.VM.Disks, Disk{Ref: "stranger-vbd", Device: "9", VDI: VDI{Ref: "stranger", UUID: "stranger", Size: gib, Users: 1}})
		}
	}
	f.Me.Deleting = rapid.Bool().Draw(t, "deleting")
	return f
}

// TestPlansEnd: whatever is asked for and whatever there is, taking step after step comes to an end, no step is taken
// twice without another in between, nothing is made twice, and a stranger's disk stays where it is.
func TestPlansEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := draw(t)
		stranger := f.VM != nil && slices.ContainsFunc(f.VM.Disks, isStranger)
		var taken []string
		for range 60 {
			plan, again := Decide(f, testTime), Decide(f, testTime)
			if stepNames(plan.Steps) != stepNames(again.Steps) || plan.Outcome.String() != again.Outcome.String() {
				t.Fatalf("two plans from the same facts: %s %s, %s %s", stepNames(plan.Steps), plan.Outcome, stepNames(again.Steps), again.Outcome)
			}
			if len(plan.Steps) == 0 {
				settled(t, f, plan, taken)
				if stranger && f.VM != nil && !slices.ContainsFunc(f.VM.Disks, isStranger) {
					t.Fatalf("a stranger's disk was taken away by %v", taken)
				}
				return
			}
			step := plan.Steps[0]
			if step.Name == "MakeVM" && f.VM != nil {
				t.Fatalf("a second VM would be made after %v", taken)
			}
			taken = append(taken, step.Name)
			effect, known := effects[step.Name]
			if !known {
				t.Fatalf("the model does not know step %s", step.Name)
			}
			effect(f)
			if f.VM != nil && !step.Holds(f) {
				t.Fatalf("%s was taken and does not hold, after %v", step.Name, taken)
			}
		}
		t.Fatalf("no end after %v", taken)
	})
}

func isStranger(d Disk) bool { return d.VDI.UUID == "stranger" }

// settled checks what a plan without a step leaves.
func settled(t *rapid.T, f *Facts, plan Plan, taken []string) {
	if f.Me.Deleting {
		if !plan.Released {
			t.Fatalf("deletion ended in %s after %v", plan.Outcome, taken)
		}
		return
	}
	if plan.Outcome.Kind() == reconcile.KindTerminal && plan.Outcome.Reason() == v1alpha1.ReasonIllegalTransition {
		return // off, and to be suspended
	}
	if !plan.Outcome.IsDone() {
		t.Fatalf("the end is %s after %v", plan.Outcome, taken)
	}
	if f.VM.Power != f.Want.Power {
		t.Fatalf("the VM is %s and should be %s after %v", f.VM.Power, f.Want.Power, taken)
	}
	for _, want := range f.Want.Disks {
		if f.attachedDisk(want) == nil && f.VM.Power != v1alpha1.PowerStatePaused {
			t.Fatalf("disk %s is not attached after %v", want.Name, taken)
		}
	}
}

// TestNoStrangersDiskGoes: of whatever disks there are, only those go with the VM that carry our marks, whole and their own.
func TestNoStrangersDiskGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := given()
		uuid := "disk-uuid"
		marks := xencache.Marks{
			Installation: rapid.SampledFrom([]string{"home", "other", ""}).Draw(t, "installation"),
			Ref:          rapid.SampledFrom([]xencache.Key{testKey, {Kind: "XenInstance", Namespace: "team-b", Name: "web"}, {}}).Draw(t, "ref"),
			Self:         rapid.SampledFrom([]string{uuid, "source-uuid"}).Draw(t, "self"),
			Role:         rapid.SampledFrom([]xencache.Role{xencache.RoleRootDisk, xencache.RoleDataDisk, xencache.RoleSnapshot, xencache.RoleImage, ""}).Draw(t, "role"),
		}
		vdi := VDI{UUID: uuid, Marks: marks, OtherConfig: marks.OtherConfig()}
		ours := marks.Installation == "home" && marks.Ref == testKey && marks.Self == uuid && marks.Role == xencache.RoleRootDisk
		if got := f.goesWithVM(&vdi); got != ours {
			t.Fatalf("goes with the VM: %v, want %v, marks %+v", got, ours, marks)
		}
	})
}
