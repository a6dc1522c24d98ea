package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/vhd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// importRawVDI answers PUT /import_raw_vdi (import_raw_vdi.ml).
func (s *service) importRawVDI(x *xapi.Exchange) error {
	vdi, sr, err := s.importTarget(x)
	if err == nil && sr == "" {
		return s.underTask(x, "Importing raw VDI", func(*operation) error {
			return errAnswered{errors.Join(xapi.Fail("VDI_MISSING"), respondBare(x, 400, "Bad Request"))}
		})
	}
	location := ""
	if err == nil {
		location, err = s.elsewhere(x, sr)
	}
	if err != nil {
		return s.underTask(x, "Importing raw VDI", func(*operation) error {
			return errAnswered{errors.Join(err, respondBare(x, 400, "Bad Request"))}
		})
	}
	if location != "" {
		return redirect(x, location, nil)
	}
	return s.underTask(x, "Importing raw VDI", func(o *operation) error { return o.importRaw(vdi, sr) })
}

// importTarget finds the VDI that is named, if one is, and the storage repository that it is in or will be in.
func (s *service) importTarget(x *xapi.Exchange) (vdi, sr string, err error) {
	s.Lock()
	defer s.Unlock()
	if name := x.Param("vdi"); name != "" {
		record, ref, err := s.find("VDI", name)
		if err != nil {
			return "", "", err
		}
		return ref, record.Str("SR"), nil
	}
	sr, err = s.requestedSR(x)
	return "", sr, err
}

// requestedSR resolves sr_id, a reference, or sr_uuid; empty when there is neither. The pool is locked.
func (s *service) requestedSR(x *xapi.Exchange) (string, error) {
	for _, name := range []string{x.Param("sr_id"), x.Param("sr_uuid")} {
		if name != "" {
			_, ref, err := s.find("SR", name)
			return ref, err
		}
	}
	return "", nil
}

func (o *operation) importRaw(vdi, sr string) error {
	format, err := o.formatOf()
	if err != nil {
		return err
	}
	chunked := o.x.Query.Has("chunked") || o.x.Cookie("chunked") != ""
	if chunked && format != formatRaw {
		return o.refuse(404, "Not Found", "Cannot handle chunked VHD")
	}
	if encoding := o.x.Header["transfer-encoding"]; encoding != "" {
		return o.refuse(404, "Not Found", "Cannot handle encoding: "+encoding)
	}
	if vdi == "" {
		if vdi, err = o.newDisk(format, sr); err != nil {
			return err
		}
	}
	if err := o.accept(octetStream); err != nil {
		return err
	}
	err = o.attached(vdi, "RW", func(disk *blockstore.Disk) error {
		switch {
		case chunked:
			return ioError(o.receiveChunked(disk))
		case format == formatVHD:
			return ioError(o.receiveVHD(disk))
		case format == formatTar:
			return ioError(o.receiveTar(disk))
		case format == formatQCOW2:
			return ioError(o.receiveQCOW2(disk))
		}
		return ioError(o.receiveRaw(disk))
	})
	if err == nil {
		o.result = vdi
	}
	return err
}

// newDisk makes a disk of as many bytes as are announced.
func (o *operation) newDisk(format diskFormat, sr string) (string, error) {
	switch {
	case format == formatVHD:
		return "", o.refuse(400, "Bad Request", "Importing a VHD directly into an SR not yet supported")
	case format == formatQCOW2:
		return "", o.refuse(400, "Bad Request", "Importing a QCOW2 directly into an SR not yet supported")
	case format != formatRaw || o.x.Length < 0:
		return "", o.refuse(400, "Bad Request", "Not enough info supplied to import")
	}
	vdi, err := o.call("VDI.create", wire.Struct{
		{Name: "name_label", Value: "Imported VDI"}, {Name: "name_description", Value: ""}, {Name: "SR", Value: sr},
		{Name: "virtual_size", Value: fmt.Sprint(o.x.Length)}, {Name: "type", Value: "user"}, {Name: "sharable", Value: false},
		{Name: "read_only", Value: false}, {Name: "other_config", Value: wire.Struct{}},
	})
	if err != nil {
		return "", err
	}
	return vdi.(string), nil
}

// receiveRaw writes the body to the disk from its beginning on. A body shorter than the disk is fine; of a longer one the
// disk is filled, and then it fails.
func (o *operation) receiveRaw(disk *blockstore.Disk) error {
	if o.x.Length < 0 {
		return io.ErrUnexpectedEOF
	}
	return o.receive(disk, o.x.Body(), 0, o.x.Length)
}

// receive writes n bytes to the disk.
func (o *operation) receive(disk *blockstore.Disk, source io.Reader, offset, n int64) error {
	buffer := make([]byte, copyUnit)
	for done := int64(0); done < n; {
		part := buffer[:min(copyUnit, n-done, max(disk.Size()-offset-done, 1))]
		if _, err := io.ReadFull(source, part); err != nil {
			return err
		}
		if _, err := disk.WriteAt(part, offset+done); err != nil {
			return err
		}
		done += int64(len(part))
		o.progress(offset+done, disk.Size())
	}
	return nil
}

// receiveChunked reads xapi's own framing: little-endian offset and length before each piece, two zeros at the end.
func (o *operation) receiveChunked(disk *blockstore.Disk) error {
	body := o.unboundedBody()
	for {
		var head [12]byte
		if _, err := io.ReadFull(body, head[:]); err != nil {
			return err
		}
		offset, n := int64(binary.LittleEndian.Uint64(head[:])), int64(binary.LittleEndian.Uint32(head[8:]))
		if offset == 0 && n == 0 {
			return nil
		}
		if err := o.receive(disk, body, offset, n); err != nil {
			return err
		}
	}
}

// unboundedBody is the body where its end is in itself, and no length has to be announced.
func (o *operation) unboundedBody() io.Reader {
	if o.x.Length < 0 {
		return o.x.Reader
	}
	return o.x.Body()
}

// receiveVHD writes what a dynamic or differencing VHD holds; the rest of the disk stays. Fixed ones are refused, as a real
// one cannot read them from a stream (vhd_format, openstream).
func (o *operation) receiveVHD(disk *blockstore.Disk) error {
	r, err := vhd.NewReader(o.unboundedBody(), -1)
	if err != nil {
		return err
	}
	for {
		offset, content, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := disk.WriteAt(content, offset); err != nil {
			return err
		}
		o.progress(offset+int64(len(content)), r.Size)
	}
}

// receiveTar reads what sendTar writes.
func (o *operation) receiveTar(disk *blockstore.Disk) error {
	r := xva.NewDiskReader(o.unboundedBody())
	for {
		chunk, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := disk.WriteAt(chunk.Content, chunk.Offset); err != nil {
			return err
		}
		o.progress(chunk.Offset, disk.Size())
	}
}
