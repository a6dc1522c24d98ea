package image

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Step is one act on the way to a template that instances can clone.
type Step struct {
	// Name is what metrics and logs call it.
	Name string
	// holds is pure: whether there is nothing left to do.
	holds func(Image, Facts, string) bool
	// Do takes the step: one call of the XenAPI, and again one if it is taken twice.
	Do func(context.Context, *pool.Handle, Image, Facts) error
}

// makeTemplate puts a hidden template around a disk. Each step is skipped while its condition holds, so the sequence
// can be entered anywhere, any number of times.
var makeTemplate = []Step{
	{"CloneBase", hasTemplate, cloneBase},
	{"ShapeTemplate", isShaped, shapeTemplate},
	{"ConnectDisk", hasDisk, connectDisk},
	{"MarkTemplate", isMarked, markTemplate},
	{"NameTemplate", isNamed, nameTemplate},
}

// Plan returns the next step, nil if none is left, or why there is no way.
func Plan(image Image, f Facts, installation string) (*Step, reconcile.Outcome) {
	existing := image.Spec.Source.Existing
	if existing == nil {
		return nil, reconcile.Terminal(v1alpha1.ReasonInvalidSpec, "spec.source names nothing that this version knows")
	}
	if existing.TemplateUUID != "" {
		return nil, checkTemplate(existing.TemplateUUID, f)
	}
	if f.Root == nil {
		return nil, reconcile.Terminal(v1alpha1.ReasonDiskNotFound, fmt.Sprintf("the pool has no disk %s", existing.VDIUUID))
	}
	if f.Template == nil && len(f.Bases) != 1 {
		return nil, noBase(image, f)
	}
	for i := range makeTemplate {
		if step := &makeTemplate[i]; !step.holds(image, f, installation) {
			return step, reconcile.Wait(v1alpha1.ReasonCreating, "the template around the disk is being made")
		}
	}
	return nil, reconcile.Done()
}

// checkTemplate says whether the template that the spec names can be cloned.
func checkTemplate(uuid string, f Facts) reconcile.Outcome {
	switch {
	case f.Template == nil:
		return reconcile.Terminal(v1alpha1.ReasonTemplateNotFound, fmt.Sprintf("the pool has no template %s", uuid))
	case !f.Template.IsATemplate || f.Template.IsASnapshot || f.Template.IsControlDomain:
		return reconcile.Terminal(v1alpha1.ReasonTemplateNotFound,
			fmt.Sprintf("%s is %q, which is no template; make it one on the pool, or name another", uuid, f.Template.NameLabel))
	}
	return reconcile.Done()
}

func noBase(image Image, f Facts) reconcile.Outcome {
	name := image.Spec.TemplateName
	if name == "" {
		name = defaultBase
	}
	if len(f.Bases) == 0 {
		return reconcile.Terminal(v1alpha1.ReasonTemplateNotFound, fmt.Sprintf("the pool has no template %q; name one in spec.templateName", name)).After(lookAgain)
	}
	return reconcile.Terminal(v1alpha1.ReasonAmbiguousName, fmt.Sprintf("the pool has %d templates %q; name another in spec.templateName", len(f.Bases), name)).After(lookAgain)
}

// lookAgain is how often a name is looked up again: of a thing that is known by name alone no event tells us.
const lookAgain = time.Minute

func hasTemplate(_ Image, f Facts, _ string) bool { return f.Template != nil }

// cloneBase makes the template under its mark-name. The base has no disks, so the call is short.
func cloneBase(ctx context.Context, h *pool.Handle, image Image, f Facts) error {
	_, err := h.Client.VM.Clone(ctx, f.Bases[0], xencache.MarkName(h.Installation, image.Key, xencache.RoleImage))
	return err
}

// shape is what of the template the spec decides.
func shape(image Image, vm *xenapi.VM, root *xenapi.VDI) (bootParams, platform map[string]string) {
	bootParams, platform = maps.Clone(vm.HVMBootParams), maps.Clone(vm.Platform)
	if bootParams == nil {
		bootParams = map[string]string{}
	}
	if platform == nil {
		platform = map[string]string{}
	}
	switch firmware(image, root) {
	case v1alpha1.FirmwareUEFI:
		bootParams["firmware"] = "uefi"
	case v1alpha1.FirmwareBIOS:
		bootParams["firmware"] = "bios"
	}
	if secure := secureBoot(image, root); secure != "" {
		platform["secureboot"] = secure
	}
	// The disk comes first: a template for installing boots from CD.
	bootParams["order"] = "cd"
	return bootParams, platform
}

func isShaped(image Image, f Facts, _ string) bool {
	bootParams, platform := shape(image, f.Template, f.Root)
	return maps.Equal(bootParams, f.Template.HVMBootParams) && maps.Equal(platform, f.Template.Platform)
}

func shapeTemplate(ctx context.Context, h *pool.Handle, image Image, f Facts) error {
	bootParams, platform := shape(image, f.Template, f.Root)
	if !maps.Equal(bootParams, f.Template.HVMBootParams) {
		if err := h.Client.VM.SetHVMBootParams(ctx, f.TemplateRef, bootParams); err != nil {
			return err
		}
	}
	if !maps.Equal(platform, f.Template.Platform) {
		return h.Client.VM.SetPlatform(ctx, f.TemplateRef, platform)
	}
	return nil
}

func hasDisk(_ Image, f Facts, _ string) bool { return f.connected }

// connectDisk makes the disk the template's root. A template never runs, so the disk is never attached.
func connectDisk(ctx context.Context, h *pool.Handle, image Image, f Facts) error {
	_, err := h.Client.VBD.Create(ctx, xenapi.VBD{
		VM: f.TemplateRef, VDI: f.RootRef, UserDevice: rootDevice,
		Bootable: true, Mode: xenapi.VBDModeRW, Type: xenapi.VBDTypeDisk,
		OtherConfig: marksOf(h.Installation, image, "").OtherConfig(),
	})
	return err
}

// marksOf are the marks of the template with a uuid.
func marksOf(installation string, image Image, uuid string) xencache.Marks {
	return xencache.Marks{Installation: installation, Ref: image.Key, UID: image.UID, Self: uuid, Role: xencache.RoleImage}
}

// provisioning are the keys of other_config by which a template makes disks or installs: ours must do neither.
var provisioning = []string{"disks", "install-methods", "install-repository", "default_template", "reference_label"}

// hiddenKey keeps the template out of the lists of graphical clients.
const hiddenKey = "HideFromXenCenter"

func isMarked(image Image, f Facts, installation string) bool {
	return maps.Equal(f.Template.OtherConfig, marked(installation, image, f.Template))
}

func marked(installation string, image Image, vm *xenapi.VM) map[string]string {
	config := maps.Clone(vm.OtherConfig)
	if config == nil {
		config = map[string]string{}
	}
	maps.DeleteFunc(config, func(key, _ string) bool { return xencache.IsMark(key) || slices.Contains(provisioning, key) })
	maps.Copy(config, marksOf(installation, image, vm.UUID).OtherConfig())
	config[hiddenKey] = "true"
	return config
}

func markTemplate(ctx context.Context, h *pool.Handle, image Image, f Facts) error {
	return h.Client.VM.SetOtherConfig(ctx, f.TemplateRef, marked(h.Installation, image, f.Template))
}

// isNamed is the last step: until it is taken the name is the mark.
func isNamed(image Image, f Facts, _ string) bool { return f.Template.NameLabel == nameOf(image) }

func nameTemplate(ctx context.Context, h *pool.Handle, image Image, f Facts) error {
	return h.Client.VM.SetNameLabel(ctx, f.TemplateRef, nameOf(image))
}

// nameOf is what people see on the pool.
func nameOf(image Image) string {
	if image.Key.Namespace == "" {
		return "image " + image.Key.Name
	}
	return "image " + image.Key.Namespace + "/" + image.Key.Name
}

// Remove destroys the hidden template, which leaves the disk alone, and reports whether it is gone. A template that the
// spec names is not ours to remove.
func Remove(ctx context.Context, h *pool.Handle, image Image, f Facts) (gone bool, err error) {
	if existing := image.Spec.Source.Existing; existing == nil || existing.VDIUUID == "" || f.Template == nil {
		return true, nil
	}
	if err := h.ClaimWriter(ctx); err != nil {
		return false, err
	}
	if err := h.Client.VM.Destroy(ctx, f.TemplateRef); err != nil {
		return false, fmt.Errorf("destroy the template of %s: %w", image.Key, err)
	}
	return false, nil
}
