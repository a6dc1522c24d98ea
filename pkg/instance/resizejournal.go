package instance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Marks of a resize. The journal is MarkJournal, as with every operation.
const (
	// markResize stands on restore points and names the resize.
	markResize = "kubexen.io/resize"
	// markCopying stands for a moment on a disk that is about to be copied by a call that takes no marks: it names the resize.
	// Who copies the disk at another time does not get it.
	markCopying = "kubexen.io/copying"
	// markTakenAt stands on a restore point and says of when it is.
	markTakenAt = "kubexen.io/taken-at"
	// markIncoming stands on a disk that is complete and takes the place of the root disk: the resize, and why.
	markIncoming = "kubexen.io/incoming"
	// markApplied says since when a resize waits for its user, and that the VM has run with its new size.
	markApplied = "kubexen.io/resize-applied"
	// markResizeRefused stands on a VM that was given its old size back and says what had been asked for; the same is not
	// tried again.
	markResizeRefused = "kubexen.io/resize-refused"
)

// resizeOperation is how the journal names what it is of.
const resizeOperation = "Resize"

// resizeTarget is a size by the name of its flavor, with the root disk in bytes: the least size that is asked for, or the
// size that the disk had before.
type resizeTarget struct {
	Flavor string `json:"flavor"`
	Size   Size   `json:"size"`
	Disk   int64  `json:"disk"`
}

// resizeJournal is what a resize needs to know to be finished, or taken back. It stands on the VM from before the first
// change until the resize is confirmed or reverted.
type resizeJournal struct {
	Format    int    `json:"format"`
	Operation string `json:"operation"`
	// VM is the uuid of the VM that it was written for: a clone of it has a copy.
	VM string `json:"vm"`
	// ID tells this resize from every other, also from one between the same two flavors.
	ID string `json:"id"`
	// Point is the ID that restore points carry. It outlives a change of To.
	Point string    `json:"point"`
	Since time.Time `json:"since"`
	// Power is the power state when it was begun, and LastStart when the VM had been started last.
	Power     v1alpha1.PowerState `json:"power"`
	LastStart string              `json:"lastStart"`
	From      resizeTarget        `json:"from"`
	To        resizeTarget        `json:"to"`
}

// String is the journal as the mark holds it.
func (j resizeJournal) String() string { return marshalled(j) }

// marshalled writes what always marshals: structs of texts, numbers and times.
func marshalled(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(text)
}

// resizeJournal is the resize that the VM remembers, nil for none.
func (f *Facts) resizeJournal() *resizeJournal {
	if f.VM == nil {
		return nil
	}
	return readResizeJournal(f.VM)
}

func readResizeJournal(vm *VM) *resizeJournal {
	var j resizeJournal
	text := vm.OtherConfig[xencache.MarkJournal]
	if text == "" || json.Unmarshal([]byte(text), &j) != nil || j.Operation != resizeOperation || j.VM != vm.UUID {
		return nil
	}
	return &j
}

// otherJournal reports whether another operation than a resize holds the VM.
func (f *Facts) otherJournal() bool {
	return f.VM.OtherConfig[xencache.MarkJournal] != "" && f.resizeJournal() == nil
}

// newResizeJournal is what there is to remember when a resize begins, or goes on to another size.
func newResizeJournal(f *Facts, id string, now time.Time) resizeJournal {
	j := resizeJournal{
		Format: journalFormat, Operation: resizeOperation, VM: f.VM.UUID, ID: id, Point: id, Since: now.UTC().Truncate(time.Second),
		Power: f.VM.Power, LastStart: f.lastStart(), From: resizeTarget{Flavor: f.presentFlavor(), Size: f.VM.Size, Disk: f.rootSize()}, To: f.resizeTarget(),
	}
	if restarting(f) {
		j.Power = v1alpha1.PowerStateRunning // it is off because it is being restarted
	}
	if prior := f.resizeJournal(); prior != nil {
		j.Point, j.From, j.Since = prior.Point, prior.From, prior.Since
		if !f.wasStarted() {
			j.Power, j.LastStart = prior.Power, prior.LastStart
		}
	}
	return j
}

// lastStart is when the VM was started last, as a text that is only compared for being the same: the pool's clock need not
// be ours.
func (f *Facts) lastStart() string { return f.VM.StartedAt.UTC().Format(time.RFC3339Nano) }

// wasStarted reports whether the VM has run with what the resize made of it. A VM that is off does not tell when it was started
// last, so that is written down.
func (f *Facts) wasStarted() bool {
	return f.VM.OtherConfig[markApplied] != "" || (f.running() && f.resizeJournal().LastStart != f.lastStart())
}

// newResizeID makes up an id that no resize has had.
func newResizeID() string { return strings.ToLower(rand.Text()[:8]) }

// resizeTarget is what is asked for.
func (f *Facts) resizeTarget() resizeTarget {
	target := resizeTarget{Flavor: f.Want.Flavor}
	if f.Want.Size != nil {
		target.Size = f.Want.Size.known()
	}
	if root := f.wantRoot(); root != nil {
		target.Disk = max(root.Size, root.ShrinkTo)
	}
	return target
}

// presentFlavor is the flavor that the VM's size comes from, as far as is known.
func (f *Facts) presentFlavor() string {
	if mark, ok := readFlavorMark(f.VM.OtherConfig); ok {
		return mark.Name
	}
	return ""
}

// rootSize is the size of the root disk in bytes, 0 without one.
func (f *Facts) rootSize() int64 {
	if root := f.VM.rootDisk(); root != nil {
		return root.VDI.Size
	}
	return 0
}

// resizeRefusal is why a size is not tried again.
type resizeRefusal struct {
	// Token is what was asked for, in short.
	Token   string `json:"token"`
	Flavor  string `json:"flavor"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func readRefusal(otherConfig map[string]string) *resizeRefusal {
	var refusal resizeRefusal
	text := otherConfig[markResizeRefused]
	if text == "" || json.Unmarshal([]byte(text), &refusal) != nil {
		return nil
	}
	return &refusal
}

// sizeToken is what the spec says of the size, in short. A new reconcile-requested-at asks for the same anew.
func sizeToken(target resizeTarget, shrinkTo int64, askedAt string) string {
	text := marshalled(struct {
		Target   resizeTarget
		ShrinkTo int64
		AskedAt  string
	}{target, shrinkTo, askedAt})
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// refuseResize remembers on the VM that the size that is asked for cannot be had; the old one comes back from now on, and
// the user reads why. It is tried again when the spec asks for another size.
func (r *Run) refuseResize(ctx context.Context, reason, message string) error {
	refusal := resizeRefusal{
		Token: r.Want.Resize.Token, Flavor: r.Want.Flavor, Reason: reason, Message: cut(message, maxText/2),
	}
	return r.setMark(ctx, markResizeRefused, marshalled(refusal))
}

// forgetResize ends a resize: the journal goes, and the copy of the flavor is that of the size which the VM has. The whole
// map is written in one call, so that the resize is over at one moment.
func forgetResize(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	otherConfig := maps.Clone(r.VM.OtherConfig)
	delete(otherConfig, xencache.MarkJournal)
	delete(otherConfig, markApplied)
	if flavor := writeFlavorMark(&r.Want); flavor != "" && r.Want.Flavor != "" {
		otherConfig[markFlavor] = flavor
	}
	return "", r.doing(r.Client.VM.SetOtherConfig(ctx, r.VM.Ref, otherConfig), "end the resize")
}

// rewriteJournal replaces the journal of a resize or a move, in one call: without it nobody would know the way back.
func (r *Run) rewriteJournal(ctx context.Context, j fmt.Stringer) error {
	otherConfig := maps.Clone(r.VM.OtherConfig)
	otherConfig[xencache.MarkJournal] = j.String()
	delete(otherConfig, markApplied) // the time to confirm is counted anew
	return r.doing(r.Client.VM.SetOtherConfig(ctx, r.VM.Ref, otherConfig), "write down what is under way")
}
