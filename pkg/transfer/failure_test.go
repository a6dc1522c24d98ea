package transfer

import (
	"errors"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// TestWhatStoresRefuse: each refusal has the reason that helps its reader, and what cannot pass is not tried again.
func TestWhatStoresRefuse(t *testing.T) {
	for kind, want := range map[imagestore.Kind]struct {
		reason    string
		permanent bool
	}{
		imagestore.TooLarge:    {v1alpha1.ReasonFormatUnsupported, true},
		imagestore.Forbidden:   {v1alpha1.ReasonEndpointForbidden, true},
		imagestore.Refused:     {v1alpha1.ReasonStoreRefused, false},
		imagestore.Invalid:     {v1alpha1.ReasonInvalidCredentials, false},
		imagestore.Damaged:     {v1alpha1.ReasonStoreUnavailable, false},
		imagestore.Unavailable: {v1alpha1.ReasonStoreUnavailable, false},
	} {
		reason, permanent := IsPermanent(storeFailure(&imagestore.Error{Kind: kind, Err: errors.New("no")}))
		if reason != want.reason || permanent != want.permanent {
			t.Errorf("%s is %s, permanent %t; want %s, %t", kind, reason, permanent, want.reason, want.permanent)
		}
	}
}
