package image

import (
	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// defaultBase is the template whose platform settings an image of a bare disk takes if it names none.
const defaultBase = "Other install media"

// Image is a XenImage or a XenClusterImage, whichever.
type Image struct {
	// Key names it in marks.
	Key xencache.Key
	// UID is its incarnation.
	UID string
	// Spec is what is asked.
	Spec *v1alpha1.XenImageSpec
}

// Facts are what a pool shows of an image.
type Facts struct {
	// Template is the VM that instances clone: the one that the spec names, or ours; nil if there is none.
	TemplateRef xenapi.VMRef
	Template    *xenapi.VM
	// Root is the template's root disk, nil if it has none.
	RootRef xenapi.VDIRef
	Root    *xenapi.VDI
	// SR holds the root disk.
	SR *xenapi.SR
	// Bases are the templates with the name that the hidden template is cloned from.
	Bases []xenapi.VMRef
	// connected says that the root disk is the template's.
	connected bool
	// Twins are further VMs that carry the mark of our template.
	Twins []xenapi.VMRef
}

// Observe reads what the pool shows of an image.
func Observe(v xencache.View, installation string, image Image) Facts {
	var f Facts
	existing := image.Spec.Source.Existing
	if existing == nil {
		return f
	}
	if existing.TemplateUUID != "" {
		f.TemplateRef, f.Template = v.VMByUUID(existing.TemplateUUID)
		f.RootRef, f.Root = rootOf(v, f.TemplateRef)
	} else {
		f.findOurs(v, installation, image)
		f.RootRef, f.Root = v.VDIByUUID(existing.VDIUUID)
		connected, _ := rootOf(v, f.TemplateRef)
		f.connected = f.Root != nil && connected == f.RootRef
	}
	if f.Root != nil {
		f.SR = v.SR(f.Root.SR)
	}
	return f
}

// findOurs finds the hidden template by its mark, and what it is or would be cloned from.
func (f *Facts) findOurs(v xencache.View, installation string, image Image) {
	for _, ref := range v.VMsByMark(installation, image.Key) {
		vm := v.VM(ref)
		marks := xencache.VMMarks(vm)
		switch {
		case marks.IsCopyOf(vm.UUID) || !vm.IsATemplate || marks.Role != xencache.RoleImage:
			// An instance cloned from our template carries a copy of its marks until it has its own.
		case f.Template == nil:
			f.TemplateRef, f.Template = ref, vm
		default:
			f.Twins = append(f.Twins, ref)
		}
	}
	name := image.Spec.TemplateName
	if name == "" {
		name = defaultBase
	}
	for _, ref := range v.VMsByName(name) {
		if vm := v.VM(ref); vm.IsATemplate && !vm.IsASnapshot {
			f.Bases = append(f.Bases, ref)
		}
	}
}

// rootOf finds the disk that a template boots from: the bootable one, else the one at the first position.
func rootOf(v xencache.View, vm xenapi.VMRef) (ref xenapi.VDIRef, root *xenapi.VDI) {
	for _, vbdRef := range v.VBDsOf(vm) {
		vbd := v.VBD(vbdRef)
		if vbd.Type != xenapi.VBDTypeDisk || vbd.VDI.IsNull() {
			continue
		}
		if vbd.UserDevice == rootDevice || vbd.Bootable && root == nil {
			ref, root = vbd.VDI, v.VDI(vbd.VDI)
		}
	}
	return ref, root
}

// rootDevice is the position of the root disk.
const rootDevice = "0"
