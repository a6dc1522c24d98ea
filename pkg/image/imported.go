package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// DefaultCopy is what status calls the storage repository of a pool for which the spec names none.
const DefaultCopy = "default"

// CopyFacts are what a pool shows of an imported image on one storage repository.
type CopyFacts struct {
	Facts
	// Unfinished are disks of imports that have not ended well.
	Unfinished []xenapi.VDIRef
}

// ObserveCopy reads what a pool shows of an imported image on a storage repository.
func ObserveCopy(v xencache.View, installation string, image Image, sr xenapi.SRRef) CopyFacts {
	var c CopyFacts
	c.SR = v.SR(sr)
	for _, ref := range v.VDIsByMark(installation, image.Key) {
		vdi := v.VDI(ref)
		marks := xencache.VDIMarks(vdi)
		switch {
		case marks.IsCopyOf(vdi.UUID) || vdi.SR != sr || vdi.IsASnapshot:
		case marks.Role == xencache.RoleImport:
			c.Unfinished = append(c.Unfinished, ref)
		case marks.Role == xencache.RoleImage && (c.Root == nil || vdi.UUID < c.Root.UUID):
			c.RootRef, c.Root = ref, vdi
		}
	}
	c.findOurs(v, installation, image)
	all := c.Twins
	if c.Template != nil {
		all = append([]xenapi.VMRef{c.TemplateRef}, all...)
	}
	c.TemplateRef, c.Template, c.Twins = "", nil, nil
	for _, ref := range all {
		connected, _ := rootOf(v, ref)
		switch {
		case c.Root != nil && connected == c.RootRef:
			c.TemplateRef, c.Template, c.connected = ref, v.VM(ref), true
			return c
		case connected.IsNull() && c.Template == nil: // begun, and without a disk yet
			c.TemplateRef, c.Template = ref, v.VM(ref)
		}
	}
	return c
}

// PlanCopy returns the next step for a copy whose disk is there.
func PlanCopy(image Image, c CopyFacts, installation string) (*Step, reconcile.Outcome) {
	if c.Template == nil && len(c.Bases) != 1 {
		return nil, noBase(image, c.Facts)
	}
	for i := range makeTemplate {
		if step := &makeTemplate[i]; !step.holds(image, c.Facts, installation) {
			return step, reconcile.Wait(v1alpha1.ReasonCreating, "the template around the disk is being made")
		}
	}
	return nil, reconcile.Done()
}

// Holds says whether the step has nothing left to do. It is the barrier after the step, too.
func (s *Step) Holds(image Image, f Facts, installation string) bool {
	return s.holds(image, f, installation)
}

// ImportMarks are those of a disk while it is being imported.
func ImportMarks(installation string, image Image) map[string]string {
	return xencache.Marks{Installation: installation, Ref: image.Key, UID: image.UID, Role: xencache.RoleImport}.OtherConfig()
}

// DoneMarks are those that change when the disk is complete and verified.
func DoneMarks() map[string]string {
	return map[string]string{xencache.MarkRole: string(xencache.RoleImage)}
}

// DiskName is the name of an imported disk.
func DiskName(image Image) string { return nameOf(image) }

// Discard destroys the disk of an import that did not end well.
func Discard(ctx context.Context, h *pool.Handle, image Image, disk xenapi.VDIRef) error {
	if err := h.Client.VDI.Destroy(ctx, disk); err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
		return fmt.Errorf("destroy an unfinished disk of %s: %w", image.Key, err)
	}
	return nil
}

// Made are the objects that were made for an imported image on a pool.
type Made struct {
	Templates []xenapi.VMRef
	Disks     []xenapi.VDIRef
	// Busy names an operation under way on one of the templates.
	Busy string
}

// ObserveMade finds everything that was made for an imported image on a pool. Disks and VMs that were cloned from it carry
// copies of its marks and are not meant.
func ObserveMade(v xencache.View, installation string, image Image) Made {
	var made Made
	for _, ref := range v.VMsByMark(installation, image.Key) {
		vm := v.VM(ref)
		marks := xencache.VMMarks(vm)
		if marks.IsCopyOf(vm.UUID) || !vm.IsATemplate || marks.Role != xencache.RoleImage {
			continue
		}
		made.Templates = append(made.Templates, ref)
		for _, operation := range vm.CurrentOperations {
			made.Busy = string(operation)
		}
	}
	made.Disks = clonedDisks(v, image, made.Templates)
	for _, ref := range v.VDIsByMark(installation, image.Key) {
		if slices.Contains(made.Disks, ref) {
			continue
		}
		vdi := v.VDI(ref)
		marks := xencache.VDIMarks(vdi)
		ours := marks.Role == xencache.RoleImage || marks.Role == xencache.RoleImport
		if ours && !marks.IsCopyOf(vdi.UUID) && !vdi.IsASnapshot && (marks.Self != "" || marks.Role == xencache.RoleImport) {
			made.Disks = append(made.Disks, ref)
		}
	}
	return made
}

// None reports whether nothing is there.
func (m Made) None() bool { return len(m.Templates) == 0 && len(m.Disks) == 0 }

// RemoveMade destroys the templates and then the disks. Instances have disks of their own and are none the worse for it.
func RemoveMade(ctx context.Context, h *pool.Handle, image Image, made Made) error {
	if err := h.ClaimWriter(ctx); err != nil {
		return err
	}
	for _, ref := range made.Templates {
		if err := h.Client.VM.Destroy(ctx, ref); err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
			return fmt.Errorf("destroy the template of %s: %w", image.Key, err)
		}
	}
	for _, ref := range made.Disks {
		if err := h.Client.VDI.Destroy(ctx, ref); err != nil && !errors.Is(err, xenapi.ErrHandleInvalid) {
			return fmt.Errorf("destroy the disk of %s: %w", image.Key, err)
		}
	}
	return nil
}

// The first and the longest pause between two attempts of an import.
const (
	retryFirst = 5 * time.Second
	retryMost  = 10 * time.Minute
)

// NextImport decides about an import from where it stands: what the runner says, and what the status remembers, which it
// brings up to date. start says that an attempt begins now.
func NextImport(shown *v1alpha1.ImageCopy, state transfer.State, known bool, now time.Time) (start bool, outcome reconcile.Outcome) {
	if known {
		shown.TransferredBytes, shown.TotalBytes = state.Transferred, state.Total
		shown.Percent, shown.BytesPerSecond = state.Percent(), state.BytesPerSecond
	}
	retryAt, err := time.Parse(time.RFC3339, shown.NextRetryTime)
	waiting := err == nil && now.Before(retryAt)
	importing := reconcile.Wait(v1alpha1.ReasonImporting, "the image is on its way to the pool")
	switch {
	case known && state.Phase == transfer.Waiting:
		return false, reconcile.Wait(v1alpha1.ReasonWaitingForTransfer, "as many transfers as the pool's limits allow are under way; this one is next in line")
	case known && state.Phase == transfer.Running:
		return false, importing
	case known && state.Phase == transfer.Succeeded:
		shown.LastError, shown.NextRetryTime, shown.BytesPerSecond = "", "", 0
		return false, importing.After(retryFirst) // its disk is about to be seen
	case known && shown.NextRetryTime == "":
		return false, failedImport(shown, state.Err, now)
	case waiting:
		return false, retryingImport(shown, state.Err).After(retryAt.Sub(now))
	}
	shown.Attempts++
	shown.NextRetryTime, shown.TransferredBytes, shown.Percent, shown.BytesPerSecond = "", 0, 0, 0
	return true, importing
}

func failedImport(shown *v1alpha1.ImageCopy, err error, now time.Time) reconcile.Outcome {
	shown.LastError, shown.BytesPerSecond = limited(err.Error()), 0
	var failure *transfer.Failure
	if errors.As(err, &failure) && failure.Permanent {
		return reconcile.Terminal(failure.Reason, err.Error())
	}
	pause := retryMost
	if shown.Attempts <= 8 {
		pause = min(retryFirst<<max(0, shown.Attempts-1), retryMost)
	}
	shown.NextRetryTime = now.Add(pause).UTC().Format(time.RFC3339)
	return retryingImport(shown, err).After(pause)
}

func retryingImport(shown *v1alpha1.ImageCopy, err error) reconcile.Outcome {
	reason := v1alpha1.ReasonRetrying
	var failure *transfer.Failure
	if errors.As(err, &failure) {
		reason = failure.Reason
	}
	return reconcile.Wait(reason, fmt.Sprintf("attempt %d failed: %s; the next one begins at %s", shown.Attempts, shown.LastError, shown.NextRetryTime))
}

// SourceText tells where an image comes from, for people.
func SourceText(spec *v1alpha1.XenImageSpec) string {
	switch source := spec.Source; {
	case source.Existing != nil:
		return source.Existing.TemplateUUID + source.Existing.VDIUUID // one of the two is set
	case source.HTTP != nil:
		url, _, _ := strings.Cut(source.HTTP.URL, "?") // what follows may be a signature
		return url
	case source.S3 != nil:
		return "s3://" + source.S3.Bucket + "/" + source.S3.Key
	case source.Glance != nil:
		return source.Glance.ImageID
	case source.Snapshot != nil:
		return source.Snapshot.Name
	}
	return ""
}

// Progress sums up the imports for kubectl get.
func Progress(pools []v1alpha1.ImagePoolStatus) string {
	total, n := int32(0), int32(0)
	for _, p := range pools {
		for _, c := range p.Copies {
			n++
			if c.Ready {
				total += 100
			} else {
				total += c.Percent
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", total/n)
}

// PoolStatus finds what is shown of a pool, or begins it.
func PoolStatus(status *v1alpha1.XenImageStatus, name string) v1alpha1.ImagePoolStatus {
	i := slices.IndexFunc(status.Pools, func(p v1alpha1.ImagePoolStatus) bool { return p.Name == name })
	if i < 0 {
		return v1alpha1.ImagePoolStatus{Name: name}
	}
	return *status.Pools[i].DeepCopy()
}

// CopyStatus finds what is shown of a copy, or begins it.
func CopyStatus(shown v1alpha1.ImagePoolStatus, name string) v1alpha1.ImageCopy {
	i := slices.IndexFunc(shown.Copies, func(c v1alpha1.ImageCopy) bool { return c.StorageRepository == name })
	if i < 0 {
		return v1alpha1.ImageCopy{StorageRepository: name}
	}
	return shown.Copies[i]
}
