package transfer

import (
	"context"
	"errors"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// IsNotFound reports whether a store has nothing under the name.
func IsNotFound(err error) bool { return imagestore.KindOf(err) == imagestore.NotFound }

// RemoveUpload removes what an upload left in a store, complete or not: the manifest first, because without it nothing is
// complete. What belongs to another snapshot stays.
func RemoveUpload(ctx context.Context, store imagestore.Store, d *v1alpha1.SnapshotDestination, disks []v1alpha1.SnapshotDisk, uuid string) error {
	found, err := Recall(ctx, store)
	switch {
	case err == nil && found.Manifest.SnapshotUUID != uuid:
		return nil
	case err != nil && !IsNotFound(err):
		return err
	case err == nil && found.Location != "":
		if err := store.Remove(ctx, ManifestName); err != nil {
			return err
		}
	}
	var problems []error
	for _, name := range fileNames(d, disks) {
		problems = append(problems, store.Remove(ctx, name))
	}
	return errors.Join(problems...)
}

// fileNames are the files that an upload has.
func fileNames(d *v1alpha1.SnapshotDestination, disks []v1alpha1.SnapshotDisk) []string {
	format, compression := d.DesiredFormat(), d.DesiredCompression()
	if format == v1alpha1.DiskFormatXVA {
		return []string{FileName("", format, compression)}
	}
	names := make([]string, 0, len(disks))
	for _, disk := range disks {
		names = append(names, FileName(disk.Name, format, compression))
	}
	return names
}
