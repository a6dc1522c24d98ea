package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
	bytesof "github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// copyBuffer is how much of a stream is in our hands at a time.
const copyBuffer = 1 << 20

// upload takes the files to the store, one after the other, and the manifest last.
func (l *Local) upload(ctx context.Context, m *meter, u *Upload) error {
	handle, err := l.pools.Get(u.Pool)
	if err != nil {
		return &Failure{Reason: v1alpha1.ReasonPoolNotReady, Err: err}
	}
	store, err := l.stores.Open(ctx, u.Place)
	if err != nil {
		return err
	}
	if done, err := l.alreadyThere(ctx, m, store, u); done || err != nil {
		return err
	}
	release, err := l.slots.take(ctx, transferHost(handle, u.Manifest), handle.Pool.Spec.TransferLimit())
	if err != nil {
		return err
	}
	defer release()
	total := int64(0)
	for _, disk := range u.Manifest.Disks {
		total += disk.Size
	}
	m.begin(total)
	manifest := u.Manifest
	manifest.Format, manifest.Compression = u.Format, u.Compression
	if err := l.files(ctx, m, handle, store, u, &manifest); err != nil {
		return err
	}
	if u.Place.Destination.Glance != nil {
		return nil // an image service holds images: there is no place for other files
	}
	return putManifest(ctx, m, store, manifest)
}

// files uploads what the manifest describes, and enters the files into it.
func (l *Local) files(ctx context.Context, m *meter, handle *pool.Handle, store imagestore.Store, u *Upload, manifest *Manifest) error {
	if u.Format == v1alpha1.DiskFormatXVA {
		file, err := l.file(ctx, m, handle, store, u, nil)
		manifest.File = file
		return err
	}
	for i := range manifest.Disks {
		file, err := l.file(ctx, m, handle, store, u, &manifest.Disks[i])
		if err != nil {
			return err
		}
		manifest.Disks[i].File = file
	}
	return nil
}

// transferHost is the host that the transfers of a snapshot go through: the coordinator if it sees the disks, else one that
// does, where the coordinator sends us.
func transferHost(h *pool.Handle, manifest Manifest) string {
	host := ""
	h.Cache.View(func(v xencache.View) {
		for _, disk := range manifest.Disks {
			if _, vdi := v.VDIByUUID(disk.VDI); vdi != nil {
				host = hostOf(v, vdi.SR)
				return
			}
		}
	})
	return h.Name + "/" + host
}

// hostOf is the host through which a storage repository is reached.
func hostOf(v xencache.View, sr xenapi.SRRef) string {
	_, record := v.Pool()
	if record == nil {
		return ""
	}
	found := ""
	for _, pbd := range v.PBDs() {
		switch {
		case pbd.SR != sr || !pbd.CurrentlyAttached:
		case pbd.Host == record.Master:
			return string(record.Master)
		case found == "" || string(pbd.Host) < found:
			found = string(pbd.Host)
		}
	}
	return found
}

// alreadyThere looks whether the upload is complete: an attempt that was not heard of, or one before the cluster was
// restored. Another snapshot's upload is not written over.
func (l *Local) alreadyThere(ctx context.Context, m *meter, store imagestore.Store, u *Upload) (bool, error) {
	if u.Place.Destination.Glance != nil {
		return false, nil
	}
	manifest, digest, err := ReadManifest(ctx, store)
	switch {
	case imagestore.KindOf(err) == imagestore.NotFound:
		return false, nil
	case err != nil:
		return false, storeFailure(err)
	case manifest.SnapshotUUID != u.Manifest.SnapshotUUID:
		return false, &Failure{Reason: v1alpha1.ReasonStoreRefused, Permanent: true, Err: fmt.Errorf(
			"%s is the manifest of snapshot %s taken at %s, which is not overwritten; delete it, or make a XenSnapshot of another name",
			store.Location(ManifestName), manifest.SnapshotUUID, manifest.TakenAt)}
	}
	m.set(func(s *State) {
		s.Manifest, s.SHA256, s.Files = store.Location(ManifestName), digest, FilesOf(manifest, store.Location)
	})
	return true, nil
}

// FilesOf lists the files of a manifest as status shows them.
func FilesOf(manifest Manifest, location func(string) string) []v1alpha1.UploadedFile {
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

// maxManifest bounds what is read as a manifest.
const maxManifest = 4 << 20

// ReadManifest reads the manifest beside the files of an upload, and its digest.
func ReadManifest(ctx context.Context, store imagestore.Store) (Manifest, string, error) {
	var manifest Manifest
	object, err := store.Stat(ctx, ManifestName)
	if err != nil {
		return manifest, "", err
	}
	body, err := store.Open(ctx, ManifestName, object, 0, -1)
	if err != nil {
		return manifest, "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxManifest))
	if err != nil {
		return manifest, "", err
	}
	sum := sha256.Sum256(text)
	if err := json.Unmarshal(text, &manifest); err != nil || manifest.Version < 1 {
		return manifest, "", &Failure{Reason: v1alpha1.ReasonInvalidManifest, Permanent: true,
			Err: fmt.Errorf("%s cannot be read as a manifest", store.Location(ManifestName))}
	}
	return manifest, hex.EncodeToString(sum[:]), nil
}

func putManifest(ctx context.Context, m *meter, store imagestore.Store, manifest Manifest) error {
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	object, err := put(ctx, store, ManifestName, imagestore.Upload{Size: int64(len(text)), ContentType: "application/json"}, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return storeFailure(err)
	}
	m.set(func(s *State) { s.Manifest, s.SHA256 = store.Location(ManifestName), object.Digests.SHA256 })
	return nil
}

// put writes one object: it appears only if write and the store's own check went well.
func put(ctx context.Context, store imagestore.Store, name string, o imagestore.Upload, write func(io.Writer) error) (imagestore.Object, error) {
	writer, err := store.Create(ctx, name, o)
	if err != nil {
		return imagestore.Object{}, err
	}
	var object imagestore.Object
	if err = write(writer); err == nil {
		object, err = writer.Commit(ctx)
	}
	if err != nil {
		undo, cancel := tidy(ctx)
		defer cancel()
		if abort := writer.Abort(undo); abort != nil {
			err = fmt.Errorf("%w (and what was begun could not be removed: %v)", err, abort) //nolint:errorlint // the cause decides, this one is for the reader
		}
		return imagestore.Object{}, err
	}
	return object, nil
}

// extensions of the files, by format and by compression.
var (
	extensions = map[v1alpha1.DiskFormat]string{
		v1alpha1.DiskFormatVHD: ".vhd", v1alpha1.DiskFormatRaw: ".raw", v1alpha1.DiskFormatQCOW2: ".qcow2",
		v1alpha1.DiskFormatXVA: ".xva", v1alpha1.DiskFormatNovaTarball: ".tar.gz",
	}
	packed = map[v1alpha1.Compression]string{v1alpha1.CompressionZstd: ".zst", v1alpha1.CompressionGzip: ".gz"}
)

// FileName is how the file of a disk is called; disk is "" for the archive of all.
func FileName(disk string, format v1alpha1.DiskFormat, compression v1alpha1.Compression) string {
	if disk == "" {
		disk = "vm"
	}
	return disk + extensions[format] + packed[compression]
}

// file uploads one disk, or all in one archive if disk is nil.
func (l *Local) file(ctx context.Context, m *meter, handle *pool.Handle, store imagestore.Store, u *Upload, disk *ManifestDisk) (*ManifestFile, error) {
	diskName := ""
	if disk != nil {
		diskName = disk.Name
	}
	name := FileName(diskName, u.Format, u.Compression)
	for _, have := range u.Have {
		if have.Name != name {
			continue
		}
		stored := have.Name
		if u.Place.Destination.Glance != nil {
			stored = have.Location
		}
		if object, err := store.Stat(ctx, stored); err == nil && object.Size == have.SizeBytes {
			m.set(func(s *State) { s.Files = append(s.Files, have); s.Transferred += have.SizeBytes })
			return &ManifestFile{Name: name, Size: have.SizeBytes, SHA256: have.SHA256}, nil
		}
	}
	export, err := l.export(ctx, handle, u, disk)
	if err != nil {
		return nil, err
	}
	defer export.Close()
	length := int64(-1)
	if u.Format == v1alpha1.DiskFormatRaw {
		length = disk.Size
	}
	image, err := bytesof.NewChecked(io.TeeReader(export, m), readAs(u.Format), length)
	if err != nil {
		return nil, poolFailure(fmt.Errorf("export %s: %w", name, err))
	}
	size := int64(-1)
	if image.Len() >= 0 && disk != nil {
		m.set(func(s *State) { s.Total += image.Len() - disk.Size })
		if u.Compression == v1alpha1.CompressionNone && u.Format != v1alpha1.DiskFormatNovaTarball {
			size = image.Len()
		}
	}
	object, err := put(ctx, store, name, imagestore.Upload{Size: size, Image: imageRecord(u, diskName)}, func(w io.Writer) error {
		return write(w, u, image)
	})
	if err != nil {
		return nil, storeFailure(fmt.Errorf("upload %s: %w", name, err))
	}
	location := store.Location(name)
	if object.ID != "" {
		location = object.ID
	}
	uploaded := v1alpha1.UploadedFile{Name: name, Disk: diskName, Location: location, SizeBytes: object.Size, SHA256: object.Digests.SHA256}
	m.set(func(s *State) { s.Files = append(s.Files[:len(s.Files):len(s.Files)], uploaded) })
	return &ManifestFile{Name: name, Size: object.Size, SHA256: object.Digests.SHA256}, nil
}

// readAs is the format in which the pool sends what is to be stored in a format.
func readAs(format v1alpha1.DiskFormat) bytesof.Format {
	if format == v1alpha1.DiskFormatNovaTarball {
		return bytesof.VHD
	}
	return bytesof.Format(format)
}

// write writes an image as it is to be stored.
func write(w io.Writer, u *Upload, image *bytesof.Checked) error {
	if u.Format == v1alpha1.DiskFormatNovaTarball {
		return bytesof.WriteNovaTarball(w, u.Manifest.TakenAt, image)
	}
	packer, err := bytesof.NewCompressor(w, bytesof.Compression(u.Compression))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{packer}, struct{ io.Reader }{image}, make([]byte, copyBuffer))
	if err != nil {
		return err
	}
	return packer.Close()
}

// export opens the stream of a disk, or of the whole snapshot.
func (l *Local) export(ctx context.Context, h *pool.Handle, u *Upload, disk *ManifestDisk) (*xenapi.Download, error) {
	if disk == nil {
		ref, err := find(h, u.Manifest.SnapshotUUID, xencache.View.VMByUUID)
		if err != nil {
			return nil, err
		}
		download, err := h.Client.ExportVM(ctx, xenapi.ExportVM{VM: ref, Transfer: xenapi.Transfer{Label: "Upload of " + u.Manifest.Snapshot}})
		return download, poolFailure(err)
	}
	ref, err := find(h, disk.VDI, xencache.View.VDIByUUID)
	if err != nil {
		return nil, err
	}
	formats := map[v1alpha1.DiskFormat]xenapi.DiskFormat{
		v1alpha1.DiskFormatVHD: xenapi.FormatVHD, v1alpha1.DiskFormatNovaTarball: xenapi.FormatVHD, v1alpha1.DiskFormatRaw: xenapi.FormatRaw, v1alpha1.DiskFormatQCOW2: xenapi.FormatQCOW2,
	}
	format, ok := formats[u.Format]
	if !ok {
		return nil, &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf("this version uploads no %s", u.Format)}
	}
	download, err := h.Client.ExportVDI(ctx, xenapi.ExportVDI{VDI: ref, Format: format, Transfer: xenapi.Transfer{Label: "Upload of " + u.Manifest.Snapshot}})
	var refused *xenapi.HTTPError
	if errors.As(err, &refused) && u.Format == v1alpha1.DiskFormatQCOW2 {
		return nil, &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true,
			Err: fmt.Errorf("pool %s does not write qcow2 (%w); choose VHD or Raw", u.Pool, err)}
	}
	return download, poolFailure(err)
}

// find looks an object of the pool up by its uuid.
func find[R ~string, T any](h *pool.Handle, uuid string, by func(xencache.View, string) (R, *T)) (ref R, err error) {
	var record *T
	h.Cache.View(func(v xencache.View) { ref, record = by(v, uuid) })
	if record == nil {
		return "", &Failure{Reason: v1alpha1.ReasonDiskNotFound, Permanent: true, Err: fmt.Errorf("%s is no longer on pool %s", uuid, h.Name)}
	}
	return ref, nil
}

// imageRecord is what an image service is told of an upload.
func imageRecord(u *Upload, disk string) imagestore.ImageRecord {
	glance := u.Place.Destination.Glance
	if glance == nil {
		return imagestore.ImageRecord{}
	}
	record := imagestore.ImageRecord{Name: glance.ImageName, DiskFormat: "raw", ContainerFormat: "bare", Tags: glance.Tags, Properties: map[string]string{
		"image_type": "snapshot", "instance_uuid": u.Manifest.InstanceUUID, "os_type": "linux", "hw_vm_mode": "hvm",
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
		record.Name = strings.Join([]string{record.Name, disk}, "-")
	}
	for key, value := range glance.Properties {
		record.Properties[key] = string(value)
	}
	return record
}

// storeFailure gives an error of a transfer its reason.
func storeFailure(err error) error {
	var known *Failure
	if err == nil || errors.As(err, &known) {
		return err
	}
	reasons := map[imagestore.Kind]string{
		imagestore.NotFound: v1alpha1.ReasonObjectNotFound, imagestore.Forbidden: v1alpha1.ReasonEndpointForbidden,
		imagestore.Invalid: v1alpha1.ReasonInvalidCredentials, imagestore.Mismatch: v1alpha1.ReasonChecksumMismatch,
		imagestore.Refused: v1alpha1.ReasonStoreRefused, imagestore.Exists: v1alpha1.ReasonStoreRefused, imagestore.Changed: v1alpha1.ReasonStoreRefused,
	}
	switch kind := imagestore.KindOf(err); {
	case kind == 0:
		return poolFailure(err)
	case reasons[kind] != "":
		return &Failure{Reason: reasons[kind], Permanent: kind == imagestore.Forbidden, Err: err}
	default:
		return &Failure{Reason: v1alpha1.ReasonStoreUnavailable, Err: err}
	}
}

// poolFailure gives an error of the pool its reason.
func poolFailure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, xenapi.ErrVDITooLarge):
		return &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf("%w; a disk this large is uploaded as Raw", err)}
	case errors.Is(err, xenapi.ErrSRFull), errors.Is(err, xenapi.ErrSRBackendNoSpace):
		return &Failure{Reason: v1alpha1.ReasonInsufficientStorage, Err: err}
	}
	return &Failure{Reason: v1alpha1.ReasonRetrying, Err: err}
}
