package transfer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-logr/logr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/contain"
)

// defect makes of a panic that was contained what its user is told, and logs its stack. The same bytes would bring the same
// panic, so that nobody tries again by himself.
func defect(log logr.Logger, id ID, what string, err error) error {
	var panicked *contain.Panic
	if !errors.As(err, &panicked) {
		return err
	}
	log.Error(panicked, "panicked over a transfer", "owner", id.Owner.String(), "part", id.Part, "stack", string(panicked.Stack))

	return &Failure{Reason: v1alpha1.ReasonDefect, Permanent: true, Err: fmt.Errorf(
		"this is a defect of KubeXen, whatever is in what it read: %s ended in a %w; its stack is in the manager's log, please report it", what, panicked)}
}

// what says what a request moves, without secrets.
func (r Request) what() string {
	switch {
	case r.Upload != nil:
		return fmt.Sprintf("the upload of snapshot %s as %s", r.Upload.Manifest.SnapshotUUID, r.Upload.Format)
	case r.Import != nil:
		return "the import of " + fileOf(r.Import.Place.Source)
	case r.Shrink != nil:
		return "making disk " + r.Shrink.VDI + " smaller"
	}

	return "a transfer of nothing"
}

// fileOf names the file of an import for people.
func fileOf(source *v1alpha1.ImageSource) string {
	switch {
	case source == nil:
	case source.S3 != nil:
		return "s3://" + source.S3.Bucket + "/" + source.S3.Key
	case source.Glance != nil:
		return "image " + source.Glance.ImageID
	case source.HTTP != nil:
		address, _, _ := strings.Cut(source.HTTP.URL, "?") // what follows may be a signature
		return address
	}

	return "a file"
}
