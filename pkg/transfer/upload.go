package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/contain"
	bytesof "github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/pool"
)

// upload is one attempt to take a snapshot's files to a store.
type upload struct {
	*Upload
	handle *pool.Handle
	store  imagestore.Store
	meter  *meter
	task   string // the name of its tasks
	slots  *slots
	host   string // through which it goes at the moment
	leave  func() // gives its place on that host up
	// manifest is the request's, with the files that are there.
	manifest Manifest
}

// upload takes the files to the store, one after the other, and the manifest last.
func (l *Local) upload(ctx context.Context, id ID, m *meter, request *Upload) error {
	handle, err := l.pools.Get(request.Pool)
	if err != nil {
		return &Failure{Reason: v1alpha1.ReasonPoolNotReady, Err: err}
	}
	if err := EndTasks(ctx, handle, id); err != nil {
		return poolFailure(err)
	}
	store, err := l.stores.Open(ctx, request.Place)
	if err != nil {
		return err
	}
	u := &upload{
		Upload: request, handle: handle, store: store, meter: m, task: TaskName(handle.Installation, id), manifest: request.Manifest,
		slots: l.slots, leave: func() {},
	}
	defer func() { u.leave() }()
	u.manifest.Format, u.manifest.Compression = request.Format, request.Compression
	if done, err := u.alreadyThere(ctx); done || err != nil {
		return err
	}
	if err := baseIsWhole(ctx, l.stores, request); err != nil {
		return err
	}
	if err := u.through(ctx, request.Manifest.Disks); err != nil {
		return err
	}
	total := int64(0)
	for _, disk := range u.manifest.Disks {
		total += disk.Size
	}
	m.begin(total)
	if err := u.files(ctx); err != nil {
		return err
	}
	if _, images := store.(shelf); images {
		return nil // an image service holds images: each carries the manifest
	}
	if err := u.readNVRAM(ctx); err != nil {
		return err
	}
	return u.putManifest(ctx)
}

// through takes a place on the host that the first of the disks goes through, in exchange for the one on the host before.
func (u *upload) through(ctx context.Context, disks []ManifestDisk) error {
	host := transferHost(u.handle, disks)
	if host == u.host {
		return nil
	}
	u.leave()
	u.host, u.leave = "", func() {}
	leave, err := u.slots.take(ctx, host, u.handle.Pool.Spec.TransferLimit())
	if err == nil {
		u.host, u.leave = host, leave
	}
	return err
}

// alreadyThere looks whether the upload is complete: an attempt that was not heard of, or one before the cluster was
// restored. Another snapshot's upload is not written over.
func (u *upload) alreadyThere(ctx context.Context) (bool, error) {
	found, err := Recall(ctx, u.store)
	switch {
	case IsNotFound(err):
		return false, nil
	case err != nil:
		return false, storeFailure(err)
	case found.Manifest.SnapshotUUID != u.manifest.SnapshotUUID:
		return false, &Failure{Reason: v1alpha1.ReasonStoreRefused, Permanent: true, Err: fmt.Errorf(
			"%s has snapshot %s, taken at %s, which is not overwritten; delete it there, or make a XenSnapshot of another name",
			u.store.Location(""), found.Manifest.SnapshotUUID, found.Manifest.TakenAt)}
	case !found.Complete:
		return false, nil
	}
	u.meter.set(func(s *State) { s.Manifest, s.SHA256, s.Files = found.Location, found.SHA256, found.Files })
	return true, nil
}

// files uploads what the manifest describes, and enters the files into it.
func (u *upload) files(ctx context.Context) error {
	if u.Format == v1alpha1.DiskFormatXVA {
		file, err := u.file(ctx, nil)
		u.manifest.File = file
		return err
	}
	disks := u.manifest.Disks
	u.manifest.Disks = make([]ManifestDisk, len(disks)) // the request's own stay as they are
	for i := range disks {
		file, err := u.file(ctx, &disks[i])
		if err != nil {
			return err
		}
		u.manifest.Disks[i] = disks[i]
		u.manifest.Disks[i].File = file
	}
	return nil
}

// file uploads one disk, or all in one archive if disk is nil.
func (u *upload) file(ctx context.Context, disk *ManifestDisk) (*ManifestFile, error) {
	diskName := ""
	if disk != nil {
		diskName = disk.Name
	}
	name := FileName(diskName, u.Format, u.Compression)
	if have, found := u.have(ctx, name); found {
		u.meter.set(func(s *State) {
			s.Files = append(s.Files[:len(s.Files):len(s.Files)], have)
			s.Transferred += have.SizeBytes
		})
		return &ManifestFile{Name: name, Size: have.SizeBytes, SHA256: have.SHA256}, nil
	}
	if disk != nil {
		if err := u.through(ctx, []ManifestDisk{*disk}); err != nil {
			return nil, err
		}
	}
	export, err := u.export(ctx, disk)
	if err != nil {
		return nil, err
	}
	defer export.Close()
	length := int64(-1)
	if u.Format == v1alpha1.DiskFormatRaw {
		length = disk.Size
	}
	image, err := bytesof.NewChecked(io.TeeReader(export, u.meter), readAs(u.Format), length)
	if err != nil {
		return nil, poolFailure(fmt.Errorf("export %s: %w", name, err))
	}
	size := int64(-1)
	if image.Len() >= 0 && disk != nil {
		u.meter.set(func(s *State) { s.Total += image.Len() - disk.Size })
		if u.Compression == v1alpha1.CompressionNone && u.Format != v1alpha1.DiskFormatNovaTarball {
			size = image.Len()
		}
	}
	record, err := u.imageRecord(diskName)
	if err != nil {
		return nil, err
	}
	object, err := put(ctx, u.store, name, imagestore.Upload{Size: size, Image: record}, func(w io.Writer) error { return u.write(w, image) })
	if err != nil {
		return nil, storeFailure(fmt.Errorf("upload %s: %w", name, err))
	}
	uploaded := uploadedFile(u.store, name, diskName, object)
	u.meter.set(func(s *State) { s.Files = append(s.Files[:len(s.Files):len(s.Files)], uploaded) })
	return &ManifestFile{Name: name, Size: object.Size, SHA256: object.Digests.SHA256}, nil
}

// have finds a file that an earlier attempt uploaded and verified, and that the store still has.
func (u *upload) have(ctx context.Context, name string) (v1alpha1.UploadedFile, bool) {
	for _, file := range u.Have {
		if file.Name != name {
			continue
		}
		if object, err := u.store.Stat(ctx, name); err == nil && object.Size == file.SizeBytes {
			return file, true
		}
	}
	return v1alpha1.UploadedFile{}, false
}

// uploadedFile is how status shows a file.
func uploadedFile(store imagestore.Store, name, disk string, object imagestore.Object) v1alpha1.UploadedFile {
	location := store.Location(name)
	if object.ID != "" {
		location = object.ID
	}
	return v1alpha1.UploadedFile{Name: name, Disk: disk, Location: location, SizeBytes: object.Size, SHA256: object.Digests.SHA256}
}

// write writes an image as it is to be stored.
func (u *upload) write(w io.Writer, image *bytesof.Checked) error {
	if u.Format == v1alpha1.DiskFormatNovaTarball {
		return bytesof.WriteNovaTarball(w, u.manifest.TakenAt, image)
	}
	packer, err := bytesof.NewCompressor(w, bytesof.Compression(u.Compression))
	if err != nil {
		return err
	}
	if err := pass(packer, image); err != nil {
		return err
	}
	return packer.Close()
}

// put writes one object: it appears only if write and the store's own check went well. What a store has not checked itself is read
// back from it: with a verified upload the snapshot leaves the pool.
func put(ctx context.Context, store imagestore.Store, name string, o imagestore.Upload, write func(io.Writer) error) (imagestore.Object, error) {
	writer, err := store.Create(ctx, name, o)
	if err != nil {
		return imagestore.Object{}, err
	}
	var object imagestore.Object
	err = contain.Call(func() error { return write(writer) }) // what was begun is aborted all the same
	if err == nil {
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
	if object.Confirmed {
		return object, nil
	}
	if err := readBack(ctx, store, name, object); err != nil {
		undo, cancel := tidy(ctx)
		defer cancel()
		if remove := store.Remove(undo, name); remove != nil {
			err = fmt.Errorf("%w (and what stands there could not be removed: %v)", err, remove) //nolint:errorlint // as above
		}
		return imagestore.Object{}, err
	}
	return object, nil
}

// readBack holds what a store gives out against what was sent.
func readBack(ctx context.Context, store imagestore.Store, name string, sent imagestore.Object) error {
	body, err := store.Open(ctx, name, sent, 0, -1)
	if err != nil {
		return fmt.Errorf("the store tells no digest of what it holds, and it cannot be read back: %w", err)
	}
	defer body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, body); err != nil {
		return fmt.Errorf("read it back: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != sent.Digests.SHA256 {
		return &imagestore.Error{Kind: imagestore.Damaged, Op: "upload", Target: store.Location(name),
			Err: fmt.Errorf("its SHA-256 is %s when it is read back, and %s was sent", got, sent.Digests.SHA256)}
	}
	return nil
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
