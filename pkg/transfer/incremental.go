package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// base is the disk to which a disk is uploaded as the difference, null for a whole one.
func (u *upload) base(disk *ManifestDisk) (xenapi.VDIRef, error) {
	if disk.Base == "" {
		return "", nil
	}
	return find(u.handle, disk.Base, xencache.View.VDIByUUID)
}

// PathBetween is where an upload's manifest is as seen from another's, as a relative path; false if they are not in one
// store, so that who reads the one may not be able to read the other.
func PathBetween(from, to *v1alpha1.XenSnapshot) (string, bool) {
	manifest := &v1alpha1.UploadedFile{Name: ManifestName}
	if from.Spec.Destination == nil || to.Spec.Destination == nil {
		return "", false
	}
	a, b := SourceOf(from.Spec.Destination, from, manifest), SourceOf(to.Spec.Destination, to, manifest)
	switch {
	case a.S3 != nil && b.S3 != nil && a.S3.Endpoint == b.S3.Endpoint && a.S3.Bucket == b.S3.Bucket:
		return relative(a.S3.Key, b.S3.Key)
	case a.HTTP != nil && b.HTTP != nil:
		one, err := url.Parse(a.HTTP.URL)
		other, errOther := url.Parse(b.HTTP.URL)
		if err == nil && errOther == nil && one.Scheme == other.Scheme && one.Host == other.Host && one.RawQuery == "" && other.RawQuery == "" {
			return relative(one.Path, other.Path)
		}
	}
	return "", false
}

func relative(from, to string) (string, bool) {
	way, err := filepath.Rel(path.Dir("/"+from), "/"+to)
	return filepath.ToSlash(way), err == nil
}

// baseIsWhole reads what an upload is to be the difference to, down to the full one: a difference that lies upon something that
// was deleted or changed at the store, or upon more than can be put together again, would be found out when it is needed.
func baseIsWhole(ctx context.Context, stores Stores, u *Upload) error {
	p := u.Manifest.Parent
	if p == nil {
		return nil
	}
	object := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: u.Place.Namespace, Name: u.Place.Snapshot}}
	object.Spec.InstanceRef.Name = u.Place.Instance
	below, err := beside(SourceOf(u.Place.Destination, object, &v1alpha1.UploadedFile{Name: ManifestName}), p.Manifest)
	if err != nil {
		return err
	}
	base, err := ReadBackup(ctx, stores, u.Place.Namespace, &v1alpha1.BackupSource{S3: below.S3, HTTP: below.HTTP, ManifestSHA256: p.SHA256})
	for _, disk := range u.Manifest.Disks {
		if err == nil && disk.Base != "" {
			_, err = base.Disk(u.Place.Namespace, disk.Name)
		}
	}
	if err == nil && len(base.links) >= maxParents {
		err = invalidManifest("%d uploads lie one upon the other there, and no more can be put together", len(base.links))
	}
	var failure *Failure
	if !errors.As(err, &failure) {
		return err
	}
	return &Failure{Reason: failure.Reason, Permanent: failure.Permanent || failure.Reason == v1alpha1.ReasonObjectNotFound, Err: fmt.Errorf(
		"the copy of %s, to which this is to be the difference, is no base: %w; make another XenSnapshot without incrementalFrom", p.Snapshot, err)}
}

// DifferenceTo makes a manifest that of the difference to an uploaded snapshot: of each disk that this one has, too.
func (m Manifest) DifferenceTo(base *v1alpha1.XenSnapshot, manifest string) Manifest {
	m.Parent = &ManifestParent{
		Snapshot: base.Namespace + "/" + base.Name, SnapshotUUID: base.Status.UUID, Manifest: manifest, SHA256: base.Status.Upload.SHA256,
	}
	disks := make([]ManifestDisk, len(m.Disks))
	for i, disk := range m.Disks {
		for _, below := range base.Status.Disks {
			if below.Name == disk.Name && (below.Size == nil || below.Size.Value() <= disk.Size) { // one that was made smaller is another disk
				disk.Base = below.VDIUUID
			}
		}
		disks[i] = disk
	}
	m.Disks = disks
	return m
}
