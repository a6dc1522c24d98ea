package transfer

import (
	"net/url"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// UploadedDisk finds the uploaded file of a snapshot's disk, and the source from which it is imported; nil if there is none.
func UploadedDisk(object *v1alpha1.XenSnapshot, disk string) (*v1alpha1.ImageSource, *v1alpha1.UploadedFile) {
	d, upload := object.Spec.Destination, object.Status.Upload
	if d == nil || upload == nil {
		return nil, nil
	}
	for i := range upload.Files {
		if file := &upload.Files[i]; file.Disk == disk || file.Disk == "" { // one archive has all disks
			return SourceOf(d, object, file), file
		}
	}
	return nil, nil
}

// SourceOf is the source that an uploaded file is for an import.
func SourceOf(d *v1alpha1.SnapshotDestination, object *v1alpha1.XenSnapshot, file *v1alpha1.UploadedFile) *v1alpha1.ImageSource {
	switch {
	case d.S3 != nil:
		return &v1alpha1.ImageSource{S3: &v1alpha1.S3Object{S3Bucket: d.S3.S3Bucket, Key: s3Prefix(d.S3, object.Namespace, object.Name) + file.Name}}
	case d.Glance != nil:
		return &v1alpha1.ImageSource{Glance: &v1alpha1.GlanceImage{GlanceService: d.Glance.GlanceService, ImageID: file.Location}}
	case d.HTTP != nil:
		address := d.HTTP.URLTemplate
		for placeholder, value := range map[string]string{
			"namespace": object.Namespace, "instance": object.Spec.InstanceRef.Name, "snapshot": object.Name, "file": file.Name,
		} {
			address = strings.ReplaceAll(address, "{"+placeholder+"}", url.PathEscape(value))
		}
		return &v1alpha1.ImageSource{HTTP: &v1alpha1.HTTPObject{URL: address, CredentialsSecretRef: d.HTTP.CredentialsSecretRef}}
	}
	return nil
}

// s3Prefix is what the keys of a snapshot's files begin with.
func s3Prefix(d *v1alpha1.S3Destination, namespace, snapshot string) string {
	prefix := d.Prefix
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	return prefix + namespace + "/" + snapshot + "/"
}
