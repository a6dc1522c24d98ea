package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// maxParents is how many differences may lie upon one full upload.
const maxParents = 64

// Backup is an upload as its manifest describes it, and those that it is the difference to.
type Backup struct {
	// Manifest is the backup's own.
	Manifest Manifest
	links    []link // the backup's own first, then the one that it is the difference to, and so on
}

// link is a manifest and where its files are.
type link struct {
	manifest Manifest
	file     func(name string) (*v1alpha1.ImageSource, error)
}

// ReadBackup reads the manifest that a source names, and those below it. Each is held against the digest that the one above
// has of it.
func ReadBackup(ctx context.Context, stores Stores, namespace string, source *v1alpha1.BackupSource) (*Backup, error) {
	at := &v1alpha1.ImageSource{S3: source.S3, HTTP: source.HTTP}
	want := source.ManifestSHA256
	backup := &Backup{}
	for range maxParents {
		manifest, err := readBackupManifest(ctx, stores, Place{Namespace: namespace, Source: at}, want)
		if err != nil {
			return nil, err
		}
		here := at
		backup.links = append(backup.links, link{manifest, func(name string) (*v1alpha1.ImageSource, error) { return fileBeside(here, name) }})
		if manifest.Parent == nil {
			backup.Manifest = backup.links[0].manifest
			return backup, nil
		}
		want = manifest.Parent.SHA256
		if at, err = beside(at, manifest.Parent.Manifest); err != nil {
			return nil, err
		}
	}
	return nil, invalidManifest("more than %d uploads lie below it", maxParents)
}

func readBackupManifest(ctx context.Context, stores Stores, place Place, want string) (Manifest, error) {
	store, err := stores.Open(ctx, place)
	if err != nil {
		return Manifest{}, err
	}
	manifest, digest, err := readManifest(ctx, store, "")
	if err != nil {
		return Manifest{}, storeFailure(err)
	}
	where := store.Location("")
	if want != "" && digest != want {
		return Manifest{}, &Failure{Reason: v1alpha1.ReasonChecksumMismatch, Permanent: true,
			Err: fmt.Errorf("%s has the digest %s, and %s is wanted: it is another upload's, or was changed", where, digest, want)}
	}
	if err := manifest.check(); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", where, err)
	}
	return manifest, nil
}

// fileBeside is the source of a file that belongs to a manifest. Where the name of the manifest begins with more than its own, as a
// URL template may have it (urlTemplate), so do the names of its files.
func fileBeside(source *v1alpha1.ImageSource, name string) (*v1alpha1.ImageSource, error) {
	manifest := ""
	if source.S3 != nil {
		manifest = path.Base(source.S3.Key)
	} else if u, err := url.Parse(source.HTTP.URL); err == nil {
		manifest = path.Base(u.EscapedPath())
	}
	if prefix, named := strings.CutSuffix(manifest, ManifestName); named {
		name = prefix + name
	}
	return beside(source, name)
}

// beside is the source of a file whose path is relative to that of another.
func beside(source *v1alpha1.ImageSource, name string) (*v1alpha1.ImageSource, error) {
	if source.S3 != nil {
		object := *source.S3
		object.Key = path.Join(path.Dir(object.Key), name)
		if object.Key == ".." || strings.HasPrefix(object.Key, "../") {
			return nil, invalidManifest("%q leads out of the bucket", name)
		}
		return &v1alpha1.ImageSource{S3: &object}, nil
	}
	base, err := url.Parse(source.HTTP.URL)
	if err != nil {
		return nil, invalidManifest("its URL cannot be read")
	}
	object := *source.HTTP
	next := base.JoinPath("..", name)
	next.RawQuery = "" // a signature is of one file
	object.URL = next.String()
	return &v1alpha1.ImageSource{HTTP: &object}, nil
}

// Disk returns the import of a disk: the files that hold it, the full one below.
func (b *Backup) Disk(namespace, name string) (*Import, error) {
	var layers []Layer
	result := &Import{}
	above := ""
	for n, l := range b.links {
		i := l.manifest.disk(name)
		if i < 0 {
			return nil, invalidManifest("the upload of %s has no disk %q, to which another one is the difference", l.manifest.Snapshot, name)
		}
		disk := l.manifest.Disks[i]
		if n > 0 && disk.VDI != above {
			return nil, invalidManifest("disk %q is the difference to %s, and the upload of %s has %s", name, above, l.manifest.Snapshot, disk.VDI)
		}
		above = disk.Base
		if n == 0 {
			result.Size = disk.Size
		}
		file := disk.File
		if file == nil {
			file, result.Device = l.manifest.File, strconv.Itoa(int(disk.Device))
		}
		source, err := l.file(file.Name)
		if err != nil {
			return nil, err
		}
		layers = append([]Layer{{
			Place: Place{Namespace: namespace, Source: source}, Format: l.manifest.Format,
			Checksum: &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: file.SHA256},
		}}, layers...)
		if disk.Base == "" {
			top := layers[len(layers)-1]
			result.Place, result.Format, result.Checksum, result.Below = top.Place, top.Format, top.Checksum, layers[:len(layers)-1]
			return result, nil
		}
	}
	return nil, invalidManifest("disk %q is a difference to an upload that is not there", name)
}

func invalidManifest(format string, args ...any) error {
	return &Failure{Reason: v1alpha1.ReasonInvalidManifest, Permanent: true, Err: fmt.Errorf("the manifest is no use: "+format, args...)}
}

// IsPermanent reports whether trying again is pointless, and the reason of a failure.
func IsPermanent(err error) (reason string, permanent bool) {
	var failure *Failure
	if errors.As(err, &failure) {
		return failure.Reason, failure.Permanent
	}
	return v1alpha1.ReasonRetrying, false
}
