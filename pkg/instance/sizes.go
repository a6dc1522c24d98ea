package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// markFlavor holds a copy of the flavor's sizes on the VM, so that a deleted flavor hurts no VM.
const markFlavor = "kubexen.io/flavor"

// flavorMark is what markFlavor holds.
type flavorMark struct {
	Name string `json:"name"`
	Size Size   `json:"size"`
}

// Keys of platform and VCPUs_params that a flavor sets.
const (
	platformCores = "cores-per-socket"
	paramWeight   = "weight"
	paramCap      = "cap"
)

// size works out the sizes that the flavor asks for; from the copy on the VM if the flavor is gone.
func (w *wanter) size(spec *v1alpha1.XenInstanceSpec) {
	if spec.FlavorRef == nil {
		return
	}
	w.want.Flavor = spec.FlavorRef.Name
	if w.in.Flavor != nil {
		size := sizeOf(&w.in.Flavor.Spec)
		w.want.Size = &size
		return
	}
	if w.vm != nil {
		if mark, ok := readFlavorMark(w.vm.OtherConfig); ok && mark.Name == spec.FlavorRef.Name {
			w.want.Size = &mark.Size
			return
		}
		if j := readResizeJournal(w.vm); j != nil && j.To.Flavor == spec.FlavorRef.Name {
			w.want.Size = &j.To.Size
			return
		}
	}
	w.want.Problems = append(w.want.Problems, Problem{
		Reason:  v1alpha1.ReasonFlavorNotFound,
		Message: fmt.Sprintf("there is no XenFlavor %q; make it, or name another in flavorRef", spec.FlavorRef.Name),
		Passing: true,
	})
}

// sizeOf is a flavor in the pool's terms.
func sizeOf(flavor *v1alpha1.XenFlavorSpec) Size {
	size := Size{
		VCPUs: int64(flavor.VCPUs), MaxVCPUs: int64(flavor.VCPUsMax()),
		MinMemory: flavor.MemoryBytes(), Memory: flavor.MemoryBytes(), MaxMemory: flavor.MaxMemoryBytes(),
	}
	for field, value := range map[*int64]*int32{
		&size.CoresPerSocket: flavor.CoresPerSocket, &size.Weight: flavor.CPUWeight, &size.Cap: flavor.CPUCap,
	} {
		if value != nil {
			*field = int64(*value)
		}
	}
	return size
}

// readFlavorMark reads the copy of the flavor on the VM.
func readFlavorMark(otherConfig map[string]string) (flavorMark, bool) {
	var mark flavorMark
	err := json.Unmarshal([]byte(otherConfig[markFlavor]), &mark)
	return mark, err == nil
}

// writeFlavorMark is the copy of the flavor that belongs on the VM, "" if no flavor is asked for.
func writeFlavorMark(want *Want) string {
	if want.Size == nil {
		return ""
	}
	text, err := json.Marshal(flavorMark{Name: want.Flavor, Size: want.Size.known()})
	if err != nil {
		return "" // a struct of numbers always marshals
	}
	return string(text)
}

// covers reports whether the VM has the size; what the flavor leaves open is not compared.
func (have Size) covers(want Size) bool {
	return have.VCPUs == want.VCPUs && have.MaxVCPUs == want.MaxVCPUs &&
		have.MinMemory == want.MinMemory && have.Memory == want.Memory && have.MaxMemory == want.MaxMemory &&
		figureFits(have.CoresPerSocket, want.CoresPerSocket) && figureFits(have.Weight, want.Weight) && figureFits(have.Cap, want.Cap)
}

// figureFits reports whether a figure that a flavor may leave open is as it asks.
func figureFits(have, want int64) bool { return want == 0 || have == max(want, 0) }

// sized reports whether the VM has the size that is asked for.
func sized(f *Facts) bool {
	return f.Want.Size == nil || f.VM.Size.covers(*f.Want.Size)
}

// applySize sets what differs. The VM is off. VCPUs_max goes up before VCPUs_at_startup and comes down after it
// (INVALID_VALUE otherwise); memory is set in one call, because the single setters depend on each other's order.
func applySize(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	vm, have, want := r.VM.Ref, r.VM.Size, *r.Want.Size
	if have.MinMemory != want.MinMemory || have.Memory != want.Memory || have.MaxMemory != want.MaxMemory {
		if err := r.Client.VM.SetMemoryLimits(ctx, vm, want.MinMemory, want.MaxMemory, want.MinMemory, want.Memory); err != nil {
			return "", r.doing(err, "set the memory to %s", bytesText(want.Memory))
		}
	}
	type setter struct {
		name       string
		have, want int64
		set        func(context.Context, xenapi.VMRef, int64) error
	}
	order := []setter{
		{"VCPUs_max", have.MaxVCPUs, want.MaxVCPUs, r.Client.VM.SetVCPUsMax},
		{"VCPUs_at_startup", have.VCPUs, want.VCPUs, r.Client.VM.SetVCPUsAtStartup},
	}
	if want.MaxVCPUs < have.MaxVCPUs {
		order[0], order[1] = order[1], order[0]
	}
	for _, s := range order {
		if s.have == s.want {
			continue
		}
		if err := s.set(ctx, vm, s.want); err != nil {
			return "", r.doing(err, "set %s to %d", s.name, s.want)
		}
	}
	return "", r.applyShares(ctx, have, want)
}

// applyShares sets the topology and the shares of CPU time; other keys of the maps stay as they are.
func (r *Run) applyShares(ctx context.Context, have, want Size) error {
	if !figureFits(have.CoresPerSocket, want.CoresPerSocket) {
		platform := withFigure(maps.Clone(r.VM.Platform), platformCores, want.CoresPerSocket)
		if err := r.Client.VM.SetPlatform(ctx, r.VM.Ref, platform); err != nil {
			return r.doing(err, "set %s", platformCores)
		}
	}
	params := withFigure(maps.Clone(r.VM.VCPUsParams), paramWeight, want.Weight)
	params = withFigure(params, paramCap, want.Cap)
	if maps.Equal(params, r.VM.VCPUsParams) {
		return nil
	}
	return r.doing(r.Client.VM.SetVCPUsParams(ctx, r.VM.Ref, params), "set the CPU weight and cap")
}

// withFigure sets a figure in a map that may be nil; one that is left open stays, one that is unset goes.
func withFigure(m map[string]string, key string, value int64) map[string]string {
	switch {
	case value == 0:
		return m
	case value < 0:
		delete(m, key)
		return m
	case m == nil:
		m = map[string]string{}
	}
	m[key] = strconv.FormatInt(value, 10)
	return m
}
