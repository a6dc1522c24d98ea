package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// largest is the largest disk that is imported, in bytes; what unpacks to more is a bomb.
const largest = 64 << 40

// source is the file of an import.
type source struct {
	store  imagestore.Store
	object imagestore.Object
	wanted imagestore.Digests
	stated disk.Format
	meter  *meter
}

// fill makes a disk of the file: of the exact size of what is in it, marked as unfinished until all of it is verified.
func (l *Local) fill(ctx context.Context, id ID, m *meter, i *Import) error {
	handle, err := l.pools.Get(i.Pool)
	if err != nil {
		return &Failure{Reason: v1alpha1.ReasonPoolNotReady, Err: err}
	}
	if err := EndTasks(ctx, handle, id); err != nil {
		return poolFailure(err)
	}
	sr, err := find(handle, i.SR, xencache.View.SRByUUID)
	if err != nil {
		return err
	}
	store, err := l.stores.Open(ctx, i.Place)
	if err != nil {
		return err
	}
	var host string
	handle.Cache.View(func(v xencache.View) { host = hostOf(v, sr) })
	release, err := l.slots.take(ctx, handle.Name+"/"+host, handle.Pool.Spec.TransferLimit())
	if err != nil {
		return err
	}
	defer release()
	object, err := store.Stat(ctx, "")
	if err != nil {
		return storeFailure(err)
	}
	m.begin(max(0, object.Size))
	s := &source{store: store, object: object, wanted: digests(i.Checksum), stated: disk.Format(i.Format), meter: m}
	return importFailure(s.into(ctx, &target{handle: handle, sr: sr, request: i, task: TaskName(handle.Installation, id)}))
}

func digests(checksum *v1alpha1.Checksum) imagestore.Digests {
	switch {
	case checksum == nil:
		return imagestore.Digests{}
	case checksum.Algorithm == v1alpha1.ChecksumSHA512:
		return imagestore.Digests{SHA512: checksum.Value}
	}
	return imagestore.Digests{SHA256: checksum.Value}
}

// importFailure gives an error of an import its reason.
func importFailure(err error) error {
	var malformed *disk.FormatError
	if errors.As(err, &malformed) {
		return &Failure{Reason: v1alpha1.ReasonInvalidImage, Permanent: true, Err: err}
	}
	err = storeFailure(err)
	var failure *Failure
	if errors.As(err, &failure) && failure.Reason == v1alpha1.ReasonChecksumMismatch {
		failure.Permanent = true
	}
	return err
}

// into chooses the way: as a stream where the file tells its length and size at its head, else by ranges.
func (s *source) into(ctx context.Context, target *target) error {
	download := s.open(ctx)
	defer download.Close()
	content, err := disk.Sniff(io.TeeReader(download, s.meter), s.stated, largest)
	if err != nil {
		return err
	}
	defer content.Close()
	s.meter.set(func(state *State) { state.Format = v1alpha1.DiskFormat(content.Format) })
	switch {
	case content.Format == disk.VHD:
		if head, err := disk.NewChecked(content, disk.VHD, s.lengthOf(content)); err == nil {
			err = target.write(ctx, head.VirtualSize(), xenapi.FormatVHD, head, head.Len())
			return target.finish(ctx, s, download, err)
		} else if content.Compression != disk.None {
			return err
		}
		return s.byRanges(ctx, target) // a fixed one has its mark at the end
	case content.Format == disk.QCOW2 && content.Compression == disk.None:
		return s.byRanges(ctx, target)
	case content.Format == disk.Raw && content.Compression == disk.None && s.object.Size >= 0:
		if s.isFixedVHD(ctx) {
			return s.byRanges(ctx, target)
		}
		err := target.write(ctx, s.object.Size, xenapi.FormatRaw, content, s.object.Size)
		return target.finish(ctx, s, download, err)
	case content.Format == disk.Raw:
		return s.unpacked(ctx, target)
	case content.Format == disk.NovaTarball:
		return s.tarball(ctx, target)
	}
	return &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf(
		"the file is %s (compression %s), which no image is imported from; convert it to VHD, Raw or QCOW2", content.Format, content.Compression)}
}

func (s *source) lengthOf(content *disk.Sniffed) int64 {
	if content.Compression == disk.None {
		return s.object.Size
	}
	return -1
}

// open reads the file from its beginning. Where it breaks off it goes on, if the store can; at the end it compares digests.
func (s *source) open(ctx context.Context) *imagestore.Download {
	return imagestore.NewDownload(ctx, s.store, "", s.object, imagestore.DownloadOptions{Wanted: s.wanted})
}

// restart counts anew: the file is read once more.
func (s *source) restart(total int64) {
	s.meter.set(func(state *State) { state.Total, state.Transferred = total, 0 })
}

// isFixedVHD looks at the end of what looks like a raw disk.
func (s *source) isFixedVHD(ctx context.Context) bool {
	if s.stated == disk.Raw {
		return false
	}
	reader := imagestore.NewReaderAt(ctx, s.store, "", s.object, imagestore.DownloadOptions{})
	found, err := disk.Open(reader, s.object.Size, s.stated)
	_, fixed := found.(*disk.VHDDisk)
	return err == nil && fixed
}

// byRanges reads a format whose content is not in order. The digest is that of the file from beginning to end, so it is read
// once for that, and only then for its content.
func (s *source) byRanges(ctx context.Context, t *target) error {
	digest := s.open(ctx)
	defer digest.Close()
	if _, err := io.Copy(io.Discard, digest); err != nil {
		return err
	}
	reader := imagestore.NewReaderAt(ctx, s.store, "", s.object, imagestore.DownloadOptions{})
	content, err := disk.Open(reader, s.object.Size, s.stated)
	if err != nil {
		return err
	}
	image, err := disk.NewVHDImage(content, disk.VHDOptions{})
	if err != nil {
		return err
	}
	s.restart(image.Len())
	err = t.write(ctx, content.Size(), xenapi.FormatVHD, io.TeeReader(image, s.meter), image.Len())
	return t.finish(ctx, s, digest, err)
}

// unpacked imports a raw disk whose length only its end tells: it is read once to learn it.
func (s *source) unpacked(ctx context.Context, t *target) error {
	length := int64(0)
	for pass := range 2 {
		s.restart(s.object.Size)
		download := s.open(ctx)
		content, err := disk.Sniff(io.TeeReader(download, s.meter), s.stated, largest)
		if err == nil && pass == 0 {
			length, err = io.Copy(io.Discard, content)
		}
		if err == nil && pass == 1 {
			err = t.write(ctx, length, xenapi.FormatRaw, content, length)
			err = t.finish(ctx, s, download, err)
		}
		if closing := download.Close(); err == nil && closing != nil {
			err = closing
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tarball imports a chain of VHDs: the base comes last, so the file is read once for each, and once to learn how many there
// are.
func (s *source) tarball(ctx context.Context, t *target) error {
	layers := 0
	visit := func(wanted int, use func(*disk.TarballReader, int64) error) (*imagestore.Download, error) {
		s.restart(s.object.Size)
		download := s.open(ctx)
		content, err := disk.Sniff(io.TeeReader(download, s.meter), s.stated, largest)
		if err != nil {
			return download, err
		}
		for reader := disk.NewTarballReader(content); ; {
			layer, length, err := reader.Next()
			switch {
			case errors.Is(err, io.EOF):
				return download, nil
			case err != nil:
				return download, err
			case wanted < 0:
				layers++
			case layer == wanted:
				if err := use(reader, length); err != nil {
					return download, err
				}
			}
		}
	}
	download, err := visit(-1, nil)
	_ = download.Close()
	for layer := layers - 1; layer >= 0 && err == nil; layer-- {
		download, err = visit(layer, func(reader *disk.TarballReader, length int64) error {
			head, err := disk.NewChecked(reader, disk.VHD, length)
			if err != nil {
				return err
			}
			return t.write(ctx, head.VirtualSize(), xenapi.FormatVHD, head, head.Len())
		})
		if layer == 0 {
			err = t.finish(ctx, s, download, err)
		}
		_ = download.Close()
	}
	return err
}

// target is the disk that is made.
type target struct {
	handle  *pool.Handle
	sr      xenapi.SRRef
	request *Import
	task    string // its name
	ref     xenapi.VDIRef
}

// write fills the disk, which it makes if there is none yet.
func (t *target) write(ctx context.Context, size int64, format xenapi.DiskFormat, body io.Reader, length int64) error {
	if t.ref.IsNull() {
		ref, err := t.handle.Client.VDI.Create(ctx, xenapi.VDI{
			NameLabel: t.request.Name, SR: t.sr, VirtualSize: size, Type: xenapi.VDITypeUser, OtherConfig: t.request.Marks,
		})
		if err != nil {
			return fmt.Errorf("make a disk of %d bytes: %w", size, err)
		}
		t.ref = ref
	}
	return t.handle.Client.ImportVDI(ctx, xenapi.ImportVDI{
		VDI: t.ref, Format: format, Body: body, Size: length, Transfer: xenapi.Transfer{Label: t.task},
	})
}

// finish verifies the file to its very end and marks the disk as an image; where anything went wrong the disk goes.
func (t *target) finish(ctx context.Context, s *source, download *imagestore.Download, err error) error {
	if err == nil {
		_, err = io.Copy(io.Discard, download)
	}
	if err == nil {
		err = t.mark(ctx, s, download.Digests().SHA256)
	}
	if err == nil || t.ref.IsNull() {
		return err
	}
	undo, cancel := tidy(ctx)
	defer cancel()
	// The pool may hold the disk for a moment longer; then its mark tells that it is to be removed.
	if left := t.handle.Client.VDI.Destroy(undo, t.ref); left != nil && !errors.Is(left, xenapi.ErrVDIInUse) {
		err = fmt.Errorf("%w (and the unfinished disk is left: %v)", err, left) //nolint:errorlint // the cause decides, this one is for the reader
	}
	return err
}

func (t *target) mark(ctx context.Context, s *source, sha256 string) error {
	uuid, err := t.handle.Client.VDI.GetUUID(ctx, t.ref)
	if err != nil {
		return err
	}
	config := maps.Clone(t.request.Marks)
	config[xencache.MarkRole], config[xencache.MarkSelf], config[MarkSHA256] = string(xencache.RoleImage), uuid, sha256
	if err := t.handle.Client.VDI.SetOtherConfig(ctx, t.ref, config); err != nil {
		return fmt.Errorf("mark the disk: %w", err)
	}
	s.meter.set(func(state *State) {
		state.VDI, state.Checksum = uuid, &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: sha256}
	})
	return nil
}

// MarkSHA256 is the key of other_config under which an imported disk has the digest of the file that it was made of.
const MarkSHA256 = "kubexen.io/source-sha256"
