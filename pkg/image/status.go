package image

import (
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// Report writes what is known of the image on its pool. Where the pool cannot be seen (no facts) it stays as it was
// last known, but for being ready.
func Report(status *v1alpha1.XenImageStatus, poolName string, f *Facts, outcome reconcile.Outcome) {
	shown := v1alpha1.ImagePoolStatus{Name: poolName}
	for _, known := range status.Pools {
		if known.Name == poolName {
			shown = known
		}
	}
	shown.Ready, shown.Message = outcome.IsDone(), ""
	if !shown.Ready {
		shown.Message = limited(outcome.Message())
	}
	if f != nil {
		shown.TemplateUUID, shown.VDIUUID, shown.StorageRepository = "", "", ""
		if f.Template != nil && outcome.IsDone() {
			shown.TemplateUUID = f.Template.UUID
		}
		if f.Root != nil {
			shown.VDIUUID = f.Root.UUID
			status.VirtualSize = resource.NewQuantity(f.Root.VirtualSize, resource.BinarySI)
		}
		if f.SR != nil {
			shown.StorageRepository = f.SR.NameLabel
		}
	}
	status.Pools = []v1alpha1.ImagePoolStatus{shown}
}

// messageLimit is how long the API server lets the message be.
const messageLimit = 1024

// Limited cuts a message to what the API server takes.
func Limited(message string) string { return limited(message) }

func limited(message string) string {
	if len(message) <= messageLimit {
		return message
	}
	cut := messageLimit
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut]
}
