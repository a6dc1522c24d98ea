package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"k8s.io/utils/clock"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/contain"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// largest is the largest disk that is imported, in bytes; what unpacks to more is a bomb.
const largest = 64 << 40

// source is a file of an import.
type source struct {
	store  imagestore.Store
	object imagestore.Object
	wanted imagestore.Digests
	stated disk.Format
	meter  *meter
	clock  clock.PassiveClock
	sha256 string // of the file, once it was read to its end
}

// fill makes a disk of a file, or of several that lie one upon the other: of the exact size of what is in it, marked as
// unfinished until all of it is verified.
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
	layers := append(slices.Clone(i.Below), Layer{Place: i.Place, Format: i.Format, Checksum: i.Checksum})
	sources := make([]*source, len(layers))
	for n, layer := range layers {
		store, err := l.stores.Open(ctx, layer.Place)
		if err != nil {
			return err
		}
		sources[n] = &source{store: store, wanted: digests(layer.Checksum), stated: disk.Format(layer.Format), meter: m, clock: l.clock}
		// Before a slot is taken: a store that does not answer would keep it from all others.
		if sources[n].object, err = store.Stat(ctx, ""); err != nil {
			return importFailure(storeFailure(err))
		}
	}
	var host string
	handle.Cache.View(func(v xencache.View) { host = hostOf(v, sr) })
	release, err := l.slots.take(ctx, handle.Name+"/"+host, handle.Pool.Spec.TransferLimit())
	if err != nil {
		return err
	}
	defer release()
	t := &target{handle: handle, sr: sr, request: i, task: TaskName(handle.Installation, id)}
	for _, s := range sources {
		s.begin()
		if t.said, err = imageMarks(s.object.Image); err == nil {
			err = contain.Call(func() error { return s.into(ctx, t) }) // what was begun is undone all the same
		}
		if err != nil {
			break
		}
		t.layers++
	}
	return importFailure(t.settle(ctx, m, sources[len(sources)-1].sha256, err))
}

// begin says that the file is read from now on.
func (s *source) begin() {
	s.meter.begin(max(0, s.object.Size))
	s.restart(max(0, s.object.Size))
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

// into chooses the way: as a stream where the file tells its length and size at its head, else by ranges, or in two passes.
func (s *source) into(ctx context.Context, t *target) error {
	download := s.open(ctx)
	defer download.Close()
	content, err := disk.Sniff(io.TeeReader(download, s.meter), s.stated, largest)
	if err != nil {
		return err
	}
	defer content.Close()
	t.format = v1alpha1.DiskFormat(content.Format)
	switch plain := content.Compression == disk.None; {
	case t.layers > 0 && content.Format != disk.VHD:
		return &Failure{Reason: v1alpha1.ReasonInvalidImage, Permanent: true, Err: fmt.Errorf("a differential upload has VHDs, and %s is %s", s.store.Location(""), content.Format)}
	case content.Format == disk.VHD:
		return s.vhd(ctx, t, download, content)
	case content.Format == disk.QCOW2 && plain:
		return s.byRanges(ctx, t)
	case content.Format == disk.Raw && plain && s.object.Size >= 0:
		if s.isFixedVHD(ctx) {
			t.format = v1alpha1.DiskFormatVHD
			return s.byRanges(ctx, t)
		}
		if err := t.write(ctx, s.object.Size, xenapi.FormatRaw, content, s.object.Size); err != nil {
			return err
		}
		return s.verify(download)
	case content.Format == disk.Raw:
		return s.unpacked(ctx, t)
	case content.Format == disk.NovaTarball:
		return s.tarball(ctx, t)
	case content.Format == disk.XVA:
		return s.xva(ctx, t)
	}
	return &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf(
		"the file is %s packed with %s, which is read in place and cannot be; unpack it, or convert it to VHD or Raw", content.Format, content.Compression)}
}

// vhd streams a VHD that tells its length at its head. A fixed one has its mark at the end.
func (s *source) vhd(ctx context.Context, t *target, download *imagestore.Download, content *disk.Sniffed) error {
	head, err := disk.NewChecked(content, disk.VHD, s.lengthOf(content))
	if err != nil && content.Compression == disk.None {
		return s.byRanges(ctx, t)
	}
	if err != nil {
		return err
	}
	if t.layers == 0 && head.VHD().Footer.Type == disk.VHDDifferencing {
		return disk.Incomplete(head.VHD())
	}
	if err := t.write(ctx, head.VirtualSize(), xenapi.FormatVHD, head, head.Len()); err != nil {
		return err
	}
	return s.verify(download)
}

// verify reads what is left of the file, and has its digest compared.
func (s *source) verify(download *imagestore.Download) error {
	if _, err := io.Copy(io.Discard, download); err != nil {
		return err
	}
	s.sha256 = download.Digests().SHA256
	return nil
}

func (s *source) lengthOf(content *disk.Sniffed) int64 {
	if content.Compression == disk.None {
		return s.object.Size
	}
	return -1
}

// open reads the file from its beginning. Where it breaks off it goes on, if the store can; at the end it compares digests.
func (s *source) open(ctx context.Context) *imagestore.Download {
	return imagestore.NewDownload(ctx, s.store, "", s.object, imagestore.DownloadOptions{Wanted: s.wanted, Clock: s.clock})
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
	reader := imagestore.NewReaderAt(ctx, s.store, "", s.object, imagestore.DownloadOptions{Clock: s.clock})
	found, err := disk.Open(reader, s.object.Size, s.stated)
	_, fixed := found.(*disk.VHDDisk)
	return err == nil && fixed
}

// target is the disk that is made.
type target struct {
	handle  *pool.Handle
	sr      xenapi.SRRef
	request *Import
	task    string // its name
	ref     xenapi.VDIRef
	layers  int               // that were written
	said    map[string]string // what the store says of the image, as marks
	format  v1alpha1.DiskFormat
}

// write fills the disk, which it makes if there is none yet.
func (t *target) write(ctx context.Context, size int64, format xenapi.DiskFormat, body io.Reader, length int64) error {
	if t.request.Size > 0 && size > t.request.Size {
		return &Failure{Reason: v1alpha1.ReasonInvalidManifest, Permanent: true, Err: fmt.Errorf(
			"the file holds a disk of %d bytes, and the manifest says that it has %d", size, t.request.Size)}
	}
	if t.ref.IsNull() {
		size = max(size, t.request.Size)
		ref, err := t.handle.Client.VDI.Create(ctx, xenapi.VDI{
			NameLabel: t.request.Name, SR: t.sr, VirtualSize: size, Type: xenapi.VDITypeUser, OtherConfig: t.request.Marks,
		})
		if err != nil {
			return fmt.Errorf("make a disk of %d bytes: %w", size, err)
		}
		t.ref = ref
	}
	return t.handle.Client.ImportVDI(ctx, xenapi.ImportVDI{
		VDI: t.ref, Format: format, Body: contain.Reader(body), Size: length, Transfer: xenapi.Transfer{Label: t.task},
	})
}

// settle marks the disk as what it is to be; where anything went wrong the disk goes.
func (t *target) settle(ctx context.Context, m *meter, sha256 string, err error) error {
	if err == nil {
		err = t.mark(ctx, m, sha256)
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

func (t *target) mark(ctx context.Context, m *meter, sha256 string) error {
	uuid, err := t.handle.Client.VDI.GetUUID(ctx, t.ref)
	if err != nil {
		return err
	}
	config := maps.Clone(t.request.Marks)
	maps.Copy(config, t.request.Done)
	maps.Copy(config, t.said)
	config[xencache.MarkSelf], config[MarkSHA256], config[MarkFileFormat] = uuid, sha256, string(t.format)
	if err := t.handle.Client.VDI.SetOtherConfig(ctx, t.ref, config); err != nil {
		return fmt.Errorf("mark the disk: %w", err)
	}
	m.set(func(state *State) {
		state.VDI, state.Format, state.Checksum = uuid, t.format, &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: sha256}
	})
	return nil
}

// Keys of other_config under which an imported disk has the digest and the format of the file that it was made of.
const (
	MarkSHA256     = "kubexen.io/source-sha256"
	MarkFileFormat = "kubexen.io/source-format"
)
