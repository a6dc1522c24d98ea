package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/imagestore"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// What stands here reads files that do not tell their length, or where their content is, before they end.

// pass reads the file once more from its beginning, as what it is in no compression. The caller's use need not read to the
// end: the rest is read and verified.
func (s *source) pass(ctx context.Context, use func(*disk.Sniffed) error) error {
	s.restart(s.object.Size)
	download := s.open(ctx)
	defer download.Close()
	content, err := disk.Sniff(io.TeeReader(download, s.meter), s.stated, largest)
	if err != nil {
		return err
	}
	defer content.Close()
	if err := use(content); err != nil {
		return err
	}
	return s.verify(download)
}

// byRanges reads a format whose content is not in order. The digest is that of the file from beginning to end, so it is read
// once for that, and only then for its content.
func (s *source) byRanges(ctx context.Context, t *target) error {
	if err := s.servesRanges(ctx); err != nil {
		return err
	}
	digest := s.open(ctx)
	defer digest.Close()
	blocks := &imagestore.Blocks{}
	if _, err := io.Copy(blocks, io.TeeReader(digest, s.meter)); err != nil {
		return err
	}
	if err := s.verify(digest); err != nil {
		return err
	}
	reader := imagestore.NewReaderAt(ctx, s.store, "", s.object, imagestore.DownloadOptions{Clock: s.clock}).Verify(blocks)
	content, err := disk.Open(reader, s.object.Size, s.stated)
	if err != nil {
		return err
	}
	return t.copy(ctx, s, content)
}

// servesRanges asks for a byte in the middle, before the whole file is read in vain.
func (s *source) servesRanges(ctx context.Context) error {
	body, err := s.store.Open(ctx, "", s.object, 1, 1)
	if imagestore.KindOf(err) == imagestore.NoRanges {
		return &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf(
			"%w, and the content of such a file is in no order; let the server serve ranges, or convert the file (qemu-img convert -O vpc makes a VHD)", err)}
	}
	if err != nil {
		return err
	}
	return body.Close()
}

// unpacked imports a raw disk whose length only its end tells: it is read once to learn it.
func (s *source) unpacked(ctx context.Context, t *target) error {
	length := int64(0)
	err := s.pass(ctx, func(content *disk.Sniffed) (err error) {
		length, err = io.Copy(io.Discard, io.LimitReader(content, t.room()+1))
		if err == nil && length > t.room() {
			err = &Failure{Reason: v1alpha1.ReasonInsufficientStorage, Permanent: true, Err: fmt.Errorf(
				"the file unpacks to more than the %d MiB that the storage repository has free", t.room()>>20)}
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.pass(ctx, func(content *disk.Sniffed) error { return t.write(ctx, length, xenapi.FormatRaw, content, length) })
}

// tarball imports a chain of VHDs: the base comes last, so the file is read once for each, and once to learn how many there
// are.
func (s *source) tarball(ctx context.Context, t *target) error {
	layers := 0
	size := int64(0)
	visit := func(wanted int, use func(*disk.Checked) error) error {
		return s.pass(ctx, func(content *disk.Sniffed) error {
			for reader := disk.NewTarballReader(content); ; {
				layer, length, err := reader.Next()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil || wanted >= 0 && layer != wanted {
					if err != nil {
						return err
					}
					continue
				}
				head, err := disk.NewChecked(reader, disk.VHD, length)
				if err == nil {
					err = use(head)
				}
				if err != nil {
					return err
				}
			}
		})
	}
	err := visit(-1, func(head *disk.Checked) error {
		layers, size = layers+1, max(size, head.VirtualSize())
		return nil
	})
	for layer := layers - 1; layer >= 0 && err == nil; layer-- {
		err = visit(layer, func(head *disk.Checked) error {
			if layer == layers-1 && head.VHD().Footer.Type == disk.VHDDifferencing {
				return disk.Incomplete(head.VHD())
			}
			return t.write(ctx, size, xenapi.FormatVHD, head, head.Len())
		})
	}
	return err
}

// xva imports one disk of an archive of a VM. What the archive leaves out is known only at its end, so it is read twice.
func (s *source) xva(ctx context.Context, t *target) error {
	var wanted disk.XVADisk
	var extents []disk.Extent
	err := s.pass(ctx, func(content *disk.Sniffed) error {
		reader, err := disk.NewXVAReader(content)
		if err != nil {
			return err
		}
		if t.request.Device == "" {
			wanted, err = reader.BootDisk()
		} else {
			wanted, err = reader.DiskAt(t.request.Device)
		}
		if err == nil {
			extents, err = reader.Extents(wanted.Ref)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.pass(ctx, func(content *disk.Sniffed) error {
		reader, err := disk.NewXVAReader(content)
		if err != nil {
			return err
		}
		return t.copy(ctx, nil, reader.Disk(wanted, extents))
	})
}

// room is how much a disk may have that is not known to be smaller: what its storage repository has free.
func (t *target) room() int64 {
	room := int64(largest)
	t.handle.Cache.View(func(v xencache.View) {
		if sr := v.SR(t.sr); sr != nil && sr.PhysicalSize > 0 {
			room = max(0, sr.PhysicalSize-sr.PhysicalUtilisation)
		}
	})
	return room
}

// copy writes the content of a disk: as a VHD, so that zeros are neither sent nor stored; as raw where that cannot hold it.
func (t *target) copy(ctx context.Context, s *source, content disk.Disk) error {
	format := xenapi.FormatVHD
	image, err := disk.NewVHDImage(content, disk.VHDOptions{})
	if !disk.FitsVHD(content.Size()) {
		format, image, err = xenapi.FormatRaw, disk.NewRawImage(content), nil
	}
	if err != nil {
		return err
	}
	body := io.Reader(image)
	if s != nil { // nobody else counts what is read by ranges
		s.restart(image.Len())
		body = io.TeeReader(image, s.meter)
	}
	return t.write(ctx, content.Size(), format, body, image.Len())
}
