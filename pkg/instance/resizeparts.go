package instance

import (
	"fmt"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// sizePart is one figure of the VM's size: what it is, what is asked for, and what a change of it waits for.
type sizePart struct {
	field    string
	differs  bool
	requires v1alpha1.ChangeRequires
	message  string
}

// sizeParts are the figures of the VM's size, with what a change needs as the VM is now.
func sizeParts(f *Facts) []sizePart {
	if f.Want.Size == nil {
		return nil
	}
	have, want := f.VM.Size, *f.Want.Size
	part := func(field string, have, want int64, text func(int64) string, live bool, why string) sizePart {
		p := sizePart{field: "flavorRef." + field, differs: have != want, requires: v1alpha1.RequiresLive}
		p.message = fmt.Sprintf("from %s to %s", text(have), text(want))
		if !live && !f.halted() {
			p.requires, p.message = v1alpha1.RequiresPowerOff, p.message+": "+why
		}
		return p
	}
	set := func(have, want int64) int64 { // what the flavor leaves open stays as it is
		if want == 0 {
			return have
		}
		return max(want, 0)
	}
	number := func(n int64) string { return fmt.Sprint(n) }
	const atBoot = "the guest gets it when the VM is started"
	return []sizePart{
		part("vcpus", have.VCPUs, want.VCPUs, number, canAddVCPUs(f), f.whyNoVCPUs()),
		part("maxVCPUs", have.MaxVCPUs, want.MaxVCPUs, number, false, "the most that a guest can have is settled when the VM is started"),
		part("memory", have.Memory, want.Memory, bytesText, canSetMemory(f), f.whyNoMemory()),
		part("maxMemory", have.MaxMemory, want.MaxMemory, bytesText, false, "the most that a guest can have is settled when the VM is started"),
		part("coresPerSocket", have.CoresPerSocket, set(have.CoresPerSocket, want.CoresPerSocket), number, false, atBoot),
		part("cpuWeight", have.Weight, set(have.Weight, want.Weight), number, false, atBoot),
		part("cpuCap", have.Cap, set(have.Cap, want.Cap), number, false, atBoot),
	}
}

// whyNoVCPUs is why the running guest cannot be given the VCPUs now.
func (f *Facts) whyNoVCPUs() string {
	have, want := f.VM.Size, f.Want.Size
	switch {
	case !f.running():
		return "the VM is " + string(f.VM.Power)
	case want.VCPUs < have.VCPUs:
		return "VCPUs cannot be taken from a running guest"
	case want.VCPUs > have.MaxVCPUs:
		return fmt.Sprintf("the guest was started with at most %d", have.MaxVCPUs)
	}
	return "the guest's agent does not report that it takes VCPUs while it runs"
}

// whyNoMemory is why the running guest's memory cannot be changed now.
func (f *Facts) whyNoMemory() string {
	have, want := f.VM.Size, f.Want.Size
	switch {
	case !f.running():
		return "the VM is " + string(f.VM.Power)
	case want.Memory > have.MaxMemory:
		return "the guest was started with at most " + bytesText(have.MaxMemory)
	case want.MinMemory < have.StaticMin:
		return "the guest was started with at least " + bytesText(have.StaticMin)
	case f.nested():
		return "nested virtualisation keeps the memory of a running guest as it is"
	}
	return "the guest's agent does not report, so its memory cannot be changed while it runs"
}

// pendingResize lists what differs of size and root disk, and what each difference waits for.
func pendingResize(f *Facts, add adder) {
	problems := resizeProblems(f)
	say := func(field string, requires v1alpha1.ChangeRequires, format string, args ...any) {
		message := fmt.Sprintf(format, args...)
		switch {
		case len(problems) > 0 && (f.resizeJournal() == nil || !onTarget(f)):
			requires, message = v1alpha1.RequiresHold, message+"; not begun: "+problems[0].Message
		case requires == v1alpha1.RequiresLive && f.running() && f.Want.Resize.Manual && !f.allLive():
			requires, message = v1alpha1.RequiresPowerOff, message+": together with the rest, because you confirm it as one"
		}
		if requires == v1alpha1.RequiresPowerOff && f.Want.Resize.Strategy == v1alpha1.ResizeRestart && f.running() {
			message += "; resize.strategy Restart turns the VM off and on for it"
		}
		add(field, requires, "%s", message)
	}
	for _, part := range sizeParts(f) {
		if part.differs && !sized(f) {
			say(part.field, part.requires, "%s: %s", f.Want.Flavor, part.message)
		}
	}
	pendingRoot(f, say)
	pendingOtherShrink(f, add)
	pendingConfirmation(f, add)
}

// pendingRoot lists what is going to become of the root disk.
func pendingRoot(f *Facts, say adder) {
	want := f.wantRoot()
	if f.rootSmall() {
		message := fmt.Sprintf("from %s to %s", bytesText(f.rootSize()), bytesText(want.Size))
		if f.Want.Resize.Manual && !f.resizeReverting() {
			message += ", with a restore point from before"
		}
		say("rootDisk.size", live(f.halted(), v1alpha1.RequiresPowerOff), "%s: a disk grows only while no guest has it", message)
	}
	if f.shrinkWanted() {
		say("rootDisk.shrinkTo", live(f.halted(), v1alpha1.RequiresPowerOff), "from %s to %s: the disk is copied while the VM is off",
			bytesText(f.rootSize()), bytesText(want.ShrinkTo))
	}
	if pointWanted(f) || (swapPending(f) && f.diskGoesBack()) {
		say("resize.discardTo", live(f.halted(), v1alpha1.RequiresPowerOff), "the root disk goes back to the restore point, which LOSES what was written since")
	}
}
