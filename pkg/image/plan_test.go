package image

import (
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xencache/xencachetest"
)

const installation = "ours"

func ofDisk() Image {
	return Image{
		Key: xencache.Key{Kind: "XenImage", Namespace: "team-a", Name: "golden"}, UID: "uid-1",
		Spec: &v1alpha1.XenImageSpec{Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{VDIUUID: "disk"}}},
	}
}

func ofTemplate() Image {
	return Image{Spec: &v1alpha1.XenImageSpec{Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{TemplateUUID: "template"}}}}
}

func TestWhichStepComesNext(t *testing.T) {
	fresh := &xenapi.VM{UUID: "t", IsATemplate: true, NameLabel: xencache.MarkName(installation, ofDisk().Key, xencache.RoleImage), OtherConfig: map[string]string{"disks": "<provision/>"}}
	bootParams, platform := shape(ofDisk(), fresh, nil)
	shaped := *fresh
	shaped.HVMBootParams, shaped.Platform = bootParams, platform
	markedOne := shaped
	markedOne.OtherConfig = marked(installation, ofDisk(), fresh)
	finished := markedOne
	finished.NameLabel = nameOf(ofDisk())
	disk := Facts{Root: &xenapi.VDI{UUID: "disk"}, RootRef: "d", Bases: []xenapi.VMRef{"base"}}
	with := func(vm *xenapi.VM, connected bool) Facts {
		f := disk
		f.TemplateRef, f.Template, f.connected = "t", vm, connected
		return f
	}
	template := func(change func(*xenapi.VM)) Facts {
		vm := &xenapi.VM{UUID: "template", NameLabel: "debian", IsATemplate: true}
		change(vm)
		return Facts{TemplateRef: "t", Template: vm}
	}
	for name, tc := range map[string]struct {
		image  Image
		facts  Facts
		step   string
		kind   reconcile.Kind
		reason string
	}{
		"a template":                      {image: ofTemplate(), facts: template(func(*xenapi.VM) {})},
		"no template":                     {image: ofTemplate(), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonTemplateNotFound},
		"a VM is no template":             {image: ofTemplate(), facts: template(func(vm *xenapi.VM) { vm.IsATemplate = false }), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonTemplateNotFound},
		"a snapshot is no template":       {image: ofTemplate(), facts: template(func(vm *xenapi.VM) { vm.IsASnapshot = true }), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonTemplateNotFound},
		"no disk":                         {image: ofDisk(), kind: reconcile.KindTerminal, reason: v1alpha1.ReasonDiskNotFound},
		"no base":                         {image: ofDisk(), facts: Facts{Root: &xenapi.VDI{}}, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonTemplateNotFound},
		"two bases":                       {image: ofDisk(), facts: Facts{Root: &xenapi.VDI{}, Bases: []xenapi.VMRef{"a", "b"}}, kind: reconcile.KindTerminal, reason: v1alpha1.ReasonAmbiguousName},
		"nothing made yet":                {image: ofDisk(), facts: disk, step: "CloneBase", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"a fresh clone":                   {image: ofDisk(), facts: with(fresh, false), step: "ShapeTemplate", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"shaped":                          {image: ofDisk(), facts: with(&shaped, false), step: "ConnectDisk", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"with its disk":                   {image: ofDisk(), facts: with(&shaped, true), step: "MarkTemplate", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"marked":                          {image: ofDisk(), facts: with(&markedOne, true), step: "NameTemplate", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
		"named":                           {image: ofDisk(), facts: with(&finished, true)},
		"named, but the base is gone":     {image: ofDisk(), facts: func() Facts { f := with(&finished, true); f.Bases = nil; return f }()},
		"named, but somebody took a disk": {image: ofDisk(), facts: with(&finished, false), step: "ConnectDisk", kind: reconcile.KindWait, reason: v1alpha1.ReasonCreating},
	} {
		t.Run(name, func(t *testing.T) {
			step, outcome := Plan(tc.image, tc.facts, installation)
			got := ""
			if step != nil {
				got = step.Name
			}
			if got != tc.step || outcome.Kind() != tc.kind || outcome.Reason() != tc.reason {
				t.Errorf("next is %q with %v, want %q with %v %s", got, outcome, tc.step, tc.kind, tc.reason)
			}
		})
	}
}

func TestAnInstanceIsNotTakenForItsImage(t *testing.T) {
	// Given an image's template and an instance that was cloned from it, which carries a copy of the marks.
	image := ofDisk()
	marks := marksOf(installation, image, "t").OtherConfig()
	pool := xencachetest.Pool{"vm": {
		"t": xenapi.VM{UUID: "t", IsATemplate: true, OtherConfig: marks},
		"c": xenapi.VM{UUID: "c", OtherConfig: marks},
		"d": xenapi.VM{UUID: "d", IsATemplate: true, OtherConfig: marks},
	}}
	var f Facts
	xencachetest.View(t, installation, pool, func(v xencache.View) { f = Observe(v, installation, image) })
	if f.TemplateRef != "t" || len(f.Twins) != 0 {
		t.Errorf("found %s, twins %v", f.TemplateRef, f.Twins)
	}
}
