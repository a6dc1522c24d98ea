package main

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// resizing is an instance whose resize is at a stage.
func resizing(from, to string, stage v1alpha1.ResizeStage, change ...func(*v1alpha1.XenInstance)) *v1alpha1.XenInstance {
	i := &v1alpha1.XenInstance{}
	i.Name = "web"
	i.Spec.FlavorRef = &v1alpha1.FlavorReference{Name: to}
	i.Status.Resize = &v1alpha1.ResizeStatus{ID: "id1", From: from, To: to, Stage: stage}
	for _, c := range change {
		c(i)
	}
	return i
}

// withPoint gives the resize a restore point of 20 GiB, and the spec a root disk of 10.
func withPoint(i *v1alpha1.XenInstance) {
	i.Status.Resize.RestorePoint = &v1alpha1.RestorePoint{ID: "point", Size: ptr.To(resource.MustParse("20Gi"))}
	i.Spec.RootDisk = &v1alpha1.RootDisk{Size: ptr.To(resource.MustParse("10Gi"))}
}

func shrinking(i *v1alpha1.XenInstance) {
	i.Spec.RootDisk = &v1alpha1.RootDisk{Size: ptr.To(resource.MustParse("10Gi")), ShrinkTo: ptr.To(resource.MustParse("10Gi"))}
}

// TestConfirm says what is confirmed, and when nothing is.
func TestConfirm(t *testing.T) {
	for name, test := range map[string]struct {
		instance *v1alpha1.XenInstance
		refused  string
	}{
		"it waits":         {instance: resizing("small", "large", v1alpha1.ResizeAwaitingConfirmation)},
		"no resize":        {instance: &v1alpha1.XenInstance{}, refused: "waits to be confirmed"},
		"it is on its way": {instance: resizing("small", "large", v1alpha1.ResizeApplying), refused: "waits to be confirmed"},
		"it goes back":     {instance: resizing("small", "large", v1alpha1.ResizeReverting), refused: "waits to be confirmed"},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.instance.DeepCopy()
			_, err := confirm(t.Context(), nil, test.instance)
			checkEdit(t, before, test.instance, err, test.refused)
			if err == nil && test.instance.Spec.Resize.Confirm != "id1" {
				t.Errorf("it writes %+v", test.instance.Spec.Resize)
			}
		})
	}
}

// checkEdit complains unless an edit was refused as it should be, and wrote nothing then.
func checkEdit(t *testing.T, before, after *v1alpha1.XenInstance, err error, refused string) {
	t.Helper()
	switch {
	case refused == "" && err != nil:
		t.Errorf("it is refused: %v", err)
	case refused != "" && (err == nil || !strings.Contains(err.Error(), refused)):
		t.Errorf("it ends with %v, want %q", err, refused)
	case refused != "" && !equality.Semantic.DeepEqual(before, after):
		t.Error("it is refused, and something was written")
	}
}

// TestRevert says what is written to go back, and when there is no way.
func TestRevert(t *testing.T) {
	const awaits, applies = v1alpha1.ResizeAwaitingConfirmation, v1alpha1.ResizeApplying
	for name, test := range map[string]struct {
		instance       *v1alpha1.XenInstance
		discard        bool
		refused        string
		flavor         string
		size, shrinkTo string
		discardTo      string
	}{
		"sizes":                        {instance: resizing("small", "large", awaits), flavor: "small"},
		"with a restore point":         {instance: resizing("small", "large", awaits, withPoint), flavor: "small", size: "10Gi"},
		"and the disk":                 {instance: resizing("small", "large", awaits, withPoint), discard: true, flavor: "small", size: "20Gi", discardTo: "point"},
		"of the disk alone":            {instance: resizing("small", "small", awaits, withPoint), discard: true, flavor: "small", size: "20Gi", discardTo: "point"},
		"while the disk is copied":     {instance: resizing("small", "large", applies, shrinking), flavor: "small", size: "10Gi"},
		"of a smaller disk":            {instance: resizing("small", "large", awaits, withPoint, shrinking), discard: true, flavor: "small", size: "20Gi", discardTo: "point"},
		"to no flavor":                 {instance: resizing("", "large", awaits), flavor: ""},
		"no resize":                    {instance: &v1alpha1.XenInstance{}, refused: "can be reverted"},
		"no restore point":             {instance: resizing("small", "large", awaits), discard: true, refused: "no restore point"},
		"the disk alone, and no word":  {instance: resizing("small", "small", awaits, withPoint), refused: "--discard"},
		"no flavor, no restore point":  {instance: resizing("", "large", awaits), discard: true, refused: "no restore point"},
		"the disk alone, of no flavor": {instance: resizing("", "", awaits, withPoint), refused: "--discard"},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.instance.DeepCopy()
			_, err := (&revertRequest{discard: test.discard}).edit(t.Context(), nil, test.instance)
			checkEdit(t, before, test.instance, err, test.refused)
			if err != nil {
				return
			}
			spec, got := test.instance.Spec, [4]string{}
			if spec.FlavorRef != nil {
				got[0] = spec.FlavorRef.Name
			}
			if root := spec.RootDisk; root != nil {
				got[1] = root.Size.String()
				if root.ShrinkTo != nil {
					got[2] = root.ShrinkTo.String()
				}
			}
			if spec.Resize != nil {
				got[3] = spec.Resize.DiscardTo
			}
			if want := [4]string{test.flavor, test.size, test.shrinkTo, test.discardTo}; got != want {
				t.Errorf("it writes %q, want %q", got, want)
			}
		})
	}
}

// TestAResizeInRescue: what is held until the return ends the command with an error, as it does a move.
func TestAResizeInRescue(t *testing.T) {
	i := resizing("small", "large", "")
	i.Status.Resize = nil
	i.Status.Conditions = []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonInRescue}, {Type: v1alpha1.ConditionRescued, Status: metav1.ConditionTrue},
	}
	i.Status.PendingChanges = []v1alpha1.PendingChange{{Field: "flavorRef.vcpus", Requires: v1alpha1.RequiresHold}}
	if got, err := sized(i, "large"); err == nil || !strings.Contains(err.Error(), "kubectl xen unrescue web") {
		t.Errorf("it ends with %+v, %v", got, err)
	}
}
