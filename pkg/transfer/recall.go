package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// Found is what a store remembers of an upload.
type Found struct {
	Manifest Manifest
	// Complete says that all files are there and were verified.
	Complete bool
	// Location is where the manifest is, "" in an image service; SHA256 is its digest.
	Location, SHA256 string
	// Files are those that are there.
	Files []v1alpha1.UploadedFile
}

// shelf is a store that lists what is at its place. Image services are: they have no place for a manifest of its own, so
// that each image carries it.
type shelf interface {
	List(ctx context.Context) ([]imagestore.Object, error)
}

// manifestProperty is the property of an image that holds the manifest, without the files.
const manifestProperty = "kubexen_manifest"

// Recall reads what a store remembers of an upload. Its error is of imagestore's kind NotFound when that is nothing.
func Recall(ctx context.Context, store imagestore.Store) (Found, error) {
	if images, ok := store.(shelf); ok {
		return recallImages(ctx, store, images)
	}
	manifest, digest, err := ReadManifest(ctx, store)
	if err != nil {
		return Found{}, err
	}
	if why := manifest.unfit(store.Location); why != "" {
		return Found{}, unreadable(store.Location(ManifestName), why)
	}
	return Found{
		Manifest: manifest, Complete: true, Location: store.Location(ManifestName), SHA256: digest, Files: filesOf(manifest, store.Location),
	}, nil
}

// recallImages puts together what the images of an upload say.
func recallImages(ctx context.Context, store imagestore.Store, images shelf) (Found, error) {
	nothing := &imagestore.Error{Kind: imagestore.NotFound, Op: "look at", Target: store.Location(""), Err: fmt.Errorf("no image there has a manifest")}
	objects, err := images.List(ctx)
	if err != nil {
		return Found{}, err
	}
	there := map[string]imagestore.Object{}
	var found Found
	for _, object := range objects {
		text := object.Image.Properties[manifestProperty]
		if text == "" {
			continue
		}
		if found.SHA256 == "" {
			var why string
			if found.Manifest, why = parseManifest([]byte(text)); why == "" {
				why = found.Manifest.unfit(store.Location)
			}
			if why != "" {
				return Found{}, unreadable(store.Location(object.Name), why)
			}
			found.SHA256 = digestOf([]byte(text))
		}
		if digestOf([]byte(text)) == found.SHA256 {
			there[object.Name] = object
		}
	}
	if found.SHA256 == "" {
		return Found{}, nothing
	}
	m := &found.Manifest
	wanted := 0
	look := func(disk string) *ManifestFile {
		wanted++
		name := FileName(disk, m.Format, m.Compression)
		object, isThere := there[name]
		if !isThere {
			return nil
		}
		file := uploadedFile(store, name, disk, object)
		found.Files = append(found.Files, file)
		return &ManifestFile{Name: name, Size: file.SizeBytes, SHA256: file.SHA256}
	}
	if m.Format == v1alpha1.DiskFormatXVA {
		m.File = look("")
	} else {
		for i := range m.Disks {
			m.Disks[i].File = look(m.Disks[i].Name)
		}
	}
	found.Complete = len(found.Files) == wanted
	return found, nil
}

// filesOf lists the files of a manifest as status shows them.
func filesOf(manifest Manifest, location func(string) string) []v1alpha1.UploadedFile {
	var files []v1alpha1.UploadedFile
	add := func(disk string, file *ManifestFile) {
		if file != nil {
			files = append(files, v1alpha1.UploadedFile{Name: file.Name, Disk: disk, Location: location(file.Name), SizeBytes: file.Size, SHA256: file.SHA256})
		}
	}
	add("", manifest.File)
	for _, disk := range manifest.Disks {
		add(disk.Name, disk.File)
	}
	return files
}

// ReadManifest reads the manifest beside the files of an upload, and its digest.
func ReadManifest(ctx context.Context, store imagestore.Store) (Manifest, string, error) {
	return readManifest(ctx, store, ManifestName)
}

func readManifest(ctx context.Context, store imagestore.Store, name string) (Manifest, string, error) {
	var manifest Manifest
	object, err := store.Stat(ctx, name)
	if err != nil {
		return manifest, "", err
	}
	body, err := store.Open(ctx, name, object, 0, -1)
	if err != nil {
		return manifest, "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return manifest, "", err
	}
	manifest, why := parseManifest(text)
	if why != "" {
		return Manifest{}, "", unreadable(store.Location(name), why)
	}
	return manifest, digestOf(text), nil
}

func unreadable(where, why string) error {
	return &Failure{Reason: v1alpha1.ReasonInvalidManifest, Permanent: true, Err: fmt.Errorf("%s cannot be read as a manifest: %s", where, why)}
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// putManifest writes the manifest: from now on the upload is complete. Somebody else may have written to the same place
// meanwhile, so that it is looked at once more.
func (u *upload) putManifest(ctx context.Context) error {
	if done, err := u.alreadyThere(ctx); done || err != nil {
		return err
	}
	for _, file := range filesOf(u.manifest, u.store.Location) {
		object, err := u.store.Stat(ctx, file.Name)
		switch {
		case err != nil:
			return storeFailure(fmt.Errorf("look at the files before the manifest is written: %w", err))
		case object.Size >= 0 && object.Size != file.SizeBytes:
			return &Failure{Reason: v1alpha1.ReasonStoreRefused, Err: fmt.Errorf(
				"%s has %d bytes, not the %d that were uploaded: somebody else writes to the same place", file.Location, object.Size, file.SizeBytes)}
		}
	}
	text, err := json.MarshalIndent(u.manifest, "", "  ")
	if err != nil {
		return err
	}
	object, err := put(ctx, u.store, ManifestName, imagestore.Upload{Size: int64(len(text)), ContentType: "application/json"}, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return storeFailure(err)
	}
	u.meter.set(func(s *State) { s.Manifest, s.SHA256 = u.store.Location(ManifestName), object.Digests.SHA256 })
	return nil
}

// imageRecord is what an image service is told of an upload: what OpenStack's XenServer driver tells it, and the manifest.
func (u *upload) imageRecord(disk string) (imagestore.ImageRecord, error) {
	glance := u.Place.Destination.Glance
	if glance == nil {
		return imagestore.ImageRecord{}, nil
	}
	manifest := u.Manifest
	manifest.Format, manifest.Compression = u.Format, u.Compression
	text, err := json.Marshal(manifest)
	if err != nil {
		return imagestore.ImageRecord{}, err
	}
	record := imagestore.ImageRecord{Name: glance.ImageName, DiskFormat: "raw", ContainerFormat: "bare", Tags: glance.Tags, Properties: map[string]string{
		"image_type": "snapshot", "instance_uuid": u.manifest.InstanceUUID, "os_type": "linux", "hw_vm_mode": "hvm",
	}}
	switch u.Format {
	case v1alpha1.DiskFormatVHD:
		record.DiskFormat = "vhd"
	case v1alpha1.DiskFormatQCOW2:
		record.DiskFormat = "qcow2"
	case v1alpha1.DiskFormatNovaTarball:
		record.DiskFormat, record.ContainerFormat = "vhd", "ovf"
	case v1alpha1.DiskFormatRaw, v1alpha1.DiskFormatXVA:
	}
	if record.Name == "" {
		record.Name = u.Place.Snapshot
	}
	if disk != "" && disk != "root" {
		record.Name += "-" + disk
	}
	for key, value := range glance.Properties {
		record.Properties[key] = string(value)
	}
	record.Properties[manifestProperty] = string(text)
	return record, nil
}
