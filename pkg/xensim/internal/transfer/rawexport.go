package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/vhd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// diskFormat is a form in which a disk travels.
type diskFormat string

const (
	formatRaw diskFormat = "raw"
	formatVHD diskFormat = "vhd"
	formatTar diskFormat = "tar"

	formatQCOW2 diskFormat = "qcow2"
)

// tarDisk is the name of the disk in a tar of one disk (xapi_globs.ml, vdi_tar_export_dir).
const tarDisk = "vdi"

// formatOf reads the format parameter. An unknown one is an error in the task and a bare 404.
func (o *operation) formatOf() (diskFormat, error) {
	name := o.x.Param("format")
	switch format := diskFormat(strings.ToLower(name)); format {
	case "":
		return formatRaw, nil
	case formatRaw, formatVHD, formatTar:
		return format, nil
	case formatQCOW2:
		if o.QCOW2 {
			return format, nil
		}
	}
	return "", o.refuse(404, "Not Found", "Unknown format "+name)
}

// refuse answers with a bare head and makes an INTERNAL_ERROR for the task.
func (o *operation) refuse(status int, reason, text string) error {
	o.x.Version = "1.0"
	failed := xapi.Fail("INTERNAL_ERROR", text)
	return errAnswered{errors.Join(failed, respondBare(o.x, status, reason))}
}

// exportRawVDI answers GET /export_raw_vdi (export_raw_vdi.ml).
func (s *service) exportRawVDI(x *xapi.Exchange) error {
	name := x.Param("vdi")
	if name == "" {
		return errors.New(`Failure("Missing vdi query parameter")`)
	}
	s.Lock()
	record, vdi, err := s.find("VDI", name)
	s.Unlock()
	if err != nil {
		return err
	}
	if location, err := s.elsewhere(x, record.Str("SR")); err != nil || location != "" {
		return redirect(x, location, err)
	}
	return s.underTask(x, "Exporting raw VDI", func(o *operation) error { return o.exportRaw(vdi, record) })
}

func (o *operation) exportRaw(vdi string, record db.Record) error {
	format, err := o.formatOf()
	if err != nil {
		return err
	}
	filename := fmt.Sprintf("attachment; filename=\"%s.%s\"", record.Str("uuid"), format)
	if err := o.accept(octetStream, httpd.Header{Name: "content-disposition", Value: filename}); err != nil {
		return err
	}
	if size := record.Int("virtual_size"); format == formatVHD && size > vhd.MaxSize {
		return xapi.Fail("VDI_TOO_LARGE", vdi, fmt.Sprint(int64(vhd.MaxSize)))
	}
	return o.attached(vdi, "RO", func(disk *blockstore.Disk) error {
		send := map[diskFormat]func() error{
			formatRaw: func() error { return o.sendRaw(disk) },
			formatVHD: func() error { return o.sendVHD(record, disk) },
			formatTar: func() error { return o.sendTar(disk) },

			formatQCOW2: func() error { return o.sendQCOW2(disk) },
		}
		return ioError(send[format]())
	})
}

// copyUnit is how many bytes are moved at once.
const copyUnit = 1 << 20

// sendRaw sends every byte of the disk; what was never written is not read either.
func (o *operation) sendRaw(disk *blockstore.Disk) error {
	size := disk.Size()
	buffer, zeros := make([]byte, copyUnit), make([]byte, copyUnit)
	var position int64
	send := func(end int64, fill func(p []byte) ([]byte, error)) error {
		for position < end {
			part, err := fill(buffer[:min(copyUnit, end-position)])
			if err != nil {
				return err
			}
			if _, err := o.x.Conn.Write(part); err != nil {
				return err
			}
			position += int64(len(part))
			o.progress(position, size)
		}
		return nil
	}
	hole := func(p []byte) ([]byte, error) { return zeros[:len(p)], nil }
	content := func(p []byte) ([]byte, error) {
		_, err := disk.ReadAt(p, position)
		return p, err
	}
	for _, extent := range disk.Extents() {
		if err := errors.Join(send(extent.Offset, hole), send(extent.Offset+extent.Length, content)); err != nil {
			return err
		}
	}
	return send(size, hole)
}

// sendVHD sends a dynamic VHD, or with a base a differencing one: what changed since the base.
func (o *operation) sendVHD(record db.Record, disk *blockstore.Disk) error {
	image := vhd.Image{Size: disk.Size(), ID: vhdID(record), Created: time.Unix(0, 0)}
	extents := disk.Extents()
	if name := o.x.Param("base"); name != "" {
		base, baseDisk, err := o.base(name)
		if err != nil {
			return err
		}
		extents = disk.ChangedSince(baseDisk)
		image.Parent = &vhd.Parent{ID: vhdID(base), Created: image.Created, Name: base.Str("uuid") + ".vhd"}
	}
	for _, e := range extents {
		image.Extents = append(image.Extents, vhd.Extent(e))
	}
	return image.Write(o.counting(image.Len()), disk)
}

func (o *operation) base(name string) (db.Record, *blockstore.Disk, error) {
	o.Lock()
	defer o.Unlock()
	record, ref, err := o.find("VDI", name)
	if err != nil {
		return db.Record{}, nil, err
	}
	disk, err := o.disk(ref)
	return record, disk, err
}

// vhdID gives a VDI the same unique id in every export, so that a differencing VHD can name its base.
func vhdID(record db.Record) (id [16]byte) {
	sum := sha256.Sum256([]byte(record.Str("uuid")))
	copy(id[:], sum[:])
	return id
}

// sendTar sends the disk as an XVA's chunks without an ova.xml.
func (o *operation) sendTar(disk *blockstore.Disk) error {
	w := xva.NewWriter(o.counting(disk.Size()))
	if err := w.WriteDisk(o.ctx, tarDisk, disk, disk.Size(), chunkExtents(disk)); err != nil {
		return err
	}
	return w.Close()
}

func chunkExtents(disk *blockstore.Disk) []xva.Extent {
	var extents []xva.Extent
	for _, e := range disk.Extents() {
		extents = append(extents, xva.Extent(e))
	}
	return extents
}

// counting is the connection, with the task told how much of the total was written.
func (o *operation) counting(total int64) io.Writer { return &counter{o: o, total: total} }

type counter struct {
	o           *operation
	done, total int64
}

func (c *counter) Write(p []byte) (int, error) {
	if err := c.o.ctx.Err(); err != nil {
		return 0, context.Cause(c.o.ctx)
	}
	n, err := c.o.x.Conn.Write(p)
	c.done += int64(n)
	c.o.progress(min(c.done, c.total), c.total)
	return n, err
}
