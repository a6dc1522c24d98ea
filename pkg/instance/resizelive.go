package instance

import (
	"context"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// sizeLive gives a running guest what it can be given.
var sizeLive = Sequence{
	{Name: "AddVCPUs", Holds: liveVCPUsSet, Needs: canAddVCPUs, Act: addVCPUs},
	{Name: "SetMemory", Holds: liveMemorySet, Needs: canSetMemory, Act: setMemory},
}

func liveVCPUsSet(f *Facts) bool { return f.Want.Size == nil || f.VM.Size.VCPUs == f.Want.Size.VCPUs }

// canAddVCPUs reports whether the guest takes the VCPUs that it lacks now. None can be taken from it.
func canAddVCPUs(f *Facts) bool {
	return f.running() && f.VM.Guest.HotplugCPU && f.VM.Size.VCPUs < f.Want.Size.VCPUs && f.Want.Size.VCPUs <= f.VM.Size.MaxVCPUs
}

func addVCPUs(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	err := r.Client.VM.SetVCPUsNumberLive(ctx, r.VM.Ref, r.Want.Size.VCPUs)
	return "", r.doing(err, "give the guest %d VCPUs", r.Want.Size.VCPUs)
}

func liveMemorySet(f *Facts) bool {
	return f.Want.Size == nil || (f.VM.Size.Memory == f.Want.Size.Memory && f.VM.Size.MinMemory == f.Want.Size.MinMemory)
}

// canSetMemory reports whether the guest's memory can be changed now: between the bounds that it was started with.
func canSetMemory(f *Facts) bool {
	have, want := f.VM.Size, f.Want.Size
	return f.running() && f.VM.Guest.Balloon && !f.nested() && have.StaticMin <= want.MinMemory && want.Memory <= have.MaxMemory
}

func setMemory(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	err := r.Client.VM.SetMemoryDynamicRange(ctx, r.VM.Ref, r.Want.Size.MinMemory, r.Want.Size.Memory)
	return "", r.doing(err, "set the guest's memory to %s", bytesText(r.Want.Size.Memory))
}

// allLive reports whether the running guest can be given everything that it lacks.
func (f *Facts) allLive() bool {
	if !f.running() || sized(f) || f.rootSmall() || f.shrinkWanted() {
		return false
	}
	for _, part := range sizeParts(f) {
		if part.differs && part.requires != v1alpha1.RequiresLive {
			return false
		}
	}
	return true
}

// livePart reports whether some of what the guest lacks can be given to it at once, without asking its user.
func livePart(f *Facts) bool {
	return !f.Want.Resize.Manual && f.resizeJournal() == nil && len(resizeProblems(f)) == 0
}

// withoutAsking is a step that is taken at once unless the user is to be asked about the whole.
func withoutAsking(step Step) Step {
	needs := step.Needs
	step.Needs = func(f *Facts) bool { return livePart(f) && needs(f) }
	return step
}
