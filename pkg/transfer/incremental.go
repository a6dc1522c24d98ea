package transfer

import (
	"net/url"
	"path"
	"path/filepath"

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
