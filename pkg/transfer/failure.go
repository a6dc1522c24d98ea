package transfer

import (
	"errors"
	"fmt"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Failure is why a transfer failed.
type Failure struct {
	// Reason is one of the constants of the API.
	Reason string
	// Permanent says that trying again is pointless.
	Permanent bool
	Err       error
}

// Error implements error.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// storeReasons are the reasons of what a store does not do; what is not among them may be over by the next attempt.
var storeReasons = map[imagestore.Kind]string{
	imagestore.NotFound: v1alpha1.ReasonObjectNotFound, imagestore.Forbidden: v1alpha1.ReasonEndpointForbidden,
	imagestore.Invalid: v1alpha1.ReasonInvalidCredentials, imagestore.Mismatch: v1alpha1.ReasonChecksumMismatch,
	imagestore.TooLarge: v1alpha1.ReasonFormatUnsupported, imagestore.Refused: v1alpha1.ReasonStoreRefused, imagestore.Exists: v1alpha1.ReasonStoreRefused, imagestore.Changed: v1alpha1.ReasonStoreRefused,
}

// storeFailure gives an error of a transfer its reason.
func storeFailure(err error) error {
	var known *Failure
	if err == nil || errors.As(err, &known) {
		return err
	}
	switch kind := imagestore.KindOf(err); {
	case kind == 0:
		return poolFailure(err)
	case storeReasons[kind] != "":
		return &Failure{Reason: storeReasons[kind], Permanent: kind == imagestore.Forbidden || kind == imagestore.TooLarge, Err: err}
	default:
		return &Failure{Reason: v1alpha1.ReasonStoreUnavailable, Err: err}
	}
}

// poolFailure gives an error of the pool its reason.
func poolFailure(err error) error {
	var known *Failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, xenapi.ErrVDITooLarge):
		return &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf("%w; a disk this large is uploaded as Raw", err)}
	case errors.Is(err, xenapi.ErrSRFull), errors.Is(err, xenapi.ErrSRBackendNoSpace):
		return &Failure{Reason: v1alpha1.ReasonInsufficientStorage, Err: err}
	}
	return &Failure{Reason: v1alpha1.ReasonRetrying, Err: err}
}
