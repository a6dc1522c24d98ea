package instance

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// WantResize is how a change of size is to come about.
type WantResize struct {
	Strategy  v1alpha1.ResizeStrategy
	Manual    bool
	Confirm   string
	Timeout   time.Duration // 0 without an end
	OnTimeout v1alpha1.ResizeTimeoutPolicy
	DiscardTo string
	// OtherShrink is a size in rootDisk.shrinkTo that is not the size that is asked for, so nothing is made smaller.
	OtherShrink int64
	// MinMemory and MinDisk are what the image demands, in bytes.
	MinMemory, MinDisk int64
	// Problems are those found outside the pool: the namespace's quota.
	Problems []Problem
	// Token is what the spec says of the size, in short.
	Token string
}

// unset says of a figure that the flavor leaves open that the one before set it: it goes back to its default.
const unset = -1

// known is a size with what is unset left open.
func (have Size) known() Size {
	have.CoresPerSocket, have.Weight, have.Cap = max(have.CoresPerSocket, 0), max(have.Weight, 0), max(have.Cap, 0)
	have.StaticMin = 0
	return have
}

// bytesOf is a size that may be left open.
func bytesOf(size *resource.Quantity) int64 {
	if size == nil {
		return 0
	}
	return size.Value()
}

// resize works out how a change of size comes about. A size that was refused is not asked for any more: the one that the VM
// had before is, and Refused says why.
func (w *wanter) resize(spec *v1alpha1.XenInstanceSpec) {
	want := &w.want.Resize
	*want = WantResize{
		Strategy: spec.ResizeStrategy(), Manual: spec.ConfirmsResizes(), Timeout: spec.ConfirmTimeout(), OnTimeout: spec.ResizeTimeoutPolicy(),
	}
	if spec.Resize != nil {
		want.Confirm, want.DiscardTo = spec.Resize.Confirm, spec.Resize.DiscardTo
	}
	if image := w.in.Image; image != nil {
		want.MinMemory, want.MinDisk = bytesOf(image.MinMemory), bytesOf(image.MinDisk)
	}
	w.shrink(spec)
	if w.vm == nil {
		return
	}
	w.remember(spec)
	f := &Facts{VM: w.vm, Want: w.want}
	shrinkTo := int64(0)
	if root := f.wantRoot(); root != nil {
		shrinkTo = root.ShrinkTo
	}
	want.Token = sizeToken(f.resizeTarget(), shrinkTo, w.in.Object.Annotations[v1alpha1.AnnotationReconcileRequestedAt])
	w.openFigures()
	if refusal := readRefusal(w.vm.OtherConfig); refusal != nil && refusal.Token == want.Token {
		w.want.Refused = refusal
		w.takeBack()
	}
}

// remember takes from the journal what the spec does not say any more: of a flavor that is gone its root disk, and of one that
// was taken out again the size from before it.
func (w *wanter) remember(spec *v1alpha1.XenInstanceSpec) {
	j := readResizeJournal(w.vm)
	switch {
	case j == nil:
	case spec.FlavorRef == nil && j.From.Flavor == "":
		size := j.backwards()
		w.want.Size = &size
	case spec.FlavorRef != nil && w.in.Flavor == nil && spec.FlavorRef.Name == j.To.Flavor:
		if root := (&Facts{Want: w.want}).wantRoot(); root != nil && root.Size == 0 && root.ShrinkTo == 0 {
			root.Size = j.To.Disk
		}
	}
}

// shrink lets the root disk become smaller if that very size is asked for.
func (w *wanter) shrink(spec *v1alpha1.XenInstanceSpec) {
	root := (&Facts{Want: w.want}).wantRoot()
	if root == nil || spec.RootDisk == nil || spec.RootDisk.ShrinkTo == nil || !w.complete() {
		return
	}
	if to := spec.RootDisk.ShrinkTo.Value(); root.Size == 0 || root.Size == to {
		root.ShrinkTo = to
	} else {
		w.want.Resize.OtherShrink = to
	}
}

// openFigures finds what the flavor leaves open and an earlier one of ours has set.
func (w *wanter) openFigures() {
	if w.want.Size == nil {
		return
	}
	var earlier []Size
	if mark, ok := readFlavorMark(w.vm.OtherConfig); ok {
		earlier = append(earlier, mark.Size)
	}
	if j := readResizeJournal(w.vm); j != nil {
		earlier = append(earlier, j.To.Size)
	}
	size := *w.want.Size
	for _, other := range earlier {
		for _, figure := range []struct{ want, was *int64 }{
			{&size.CoresPerSocket, &other.CoresPerSocket}, {&size.Weight, &other.Weight}, {&size.Cap, &other.Cap},
		} {
			if *figure.want == 0 && *figure.was > 0 {
				*figure.want = unset
			}
		}
	}
	w.want.Size = &size
}

// backwards is the size from before the resize; what had not been set is unset again.
func (j *resizeJournal) backwards() Size {
	size := j.From.Size
	for figure, set := range map[*int64]int64{
		&size.CoresPerSocket: j.To.Size.CoresPerSocket, &size.Weight: j.To.Size.Weight, &size.Cap: j.To.Size.Cap,
	} {
		if *figure == 0 && set > 0 {
			*figure = unset
		}
	}
	return size
}

// takeBack asks for the size from before a resize: that of the journal, or of the flavor that the VM has. The disks are left.
func (w *wanter) takeBack() {
	if root := (&Facts{Want: w.want}).wantRoot(); root != nil {
		root.Size, root.ShrinkTo = 0, 0
	}
	mark, marked := readFlavorMark(w.vm.OtherConfig)
	switch j := readResizeJournal(w.vm); {
	case j != nil:
		size := j.backwards()
		w.want.Flavor, w.want.Size = j.From.Flavor, &size
	case marked:
		w.want.Flavor, w.want.Size = mark.Name, &mark.Size
	default:
		w.want.Flavor, w.want.Size = "", nil
	}
}
