package transfer

import (
	"errors"
	"io"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// importVM answers PUT /import (import.ml).
func (s *service) importVM(x *xapi.Exchange) error {
	s.Lock()
	sr, err := s.requestedSR(x)
	if err == nil && sr == "" {
		sr, err = s.defaultSR()
	}
	s.Unlock()
	if err != nil {
		return shown(err)
	}
	if location, err := s.elsewhere(x, sr); err != nil || location != "" {
		return redirect(x, location, err)
	}
	return s.underTask(x, "VM.import", func(o *operation) error { return o.receiveVM(sr) })
}

// defaultSR is where disks go that nobody wanted elsewhere. The pool is locked.
func (s *service) defaultSR() (string, error) {
	sr := s.DB().Get("pool", s.PoolRef()).Str("default_SR")
	if !s.DB().Get("SR", sr).Exists() {
		return "", xapi.Fail("DEFAULT_SR_NOT_FOUND", sr)
	}
	return sr, nil
}

func (o *operation) receiveVM(sr string) error {
	o.Lock()
	contents := o.DB().Get("SR", sr).Str("content_type")
	o.Unlock()
	if contents == "iso" {
		return errAnswered{errors.Join(xapi.Fail("SR_OPERATION_NOT_SUPPORTED", sr), respondBare(o.x, 400, "Bad Request"))}
	}
	if o.x.Header["transfer-encoding"] != "" {
		return errAnswered{errors.Join(xapi.Fail("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"), respondBare(o.x, 403, "Forbidden"))}
	}
	if err := o.accept(octetStream); err != nil {
		return err
	}
	return importError(o.readArchive(func(r *xva.Reader) error {
		i := newImporter(o, r.Metadata)
		i.sr = sr
		return i.run(func() error { return i.receiveDisks(r) })
	}))
}

// importMetadata answers PUT /import_metadata: records alone, for disks that are there.
func (s *service) importMetadata(x *xapi.Exchange) error {
	return s.underTask(x, "VM.metadata_import", func(o *operation) error {
		if err := o.accept(octetStream); err != nil {
			return err
		}
		return importError(o.readArchive(func(r *xva.Reader) error {
			i := newImporter(o, r.Metadata)
			i.dryRun = x.Query.Get("dry_run") == "true"
			return i.run(func() error { return nil })
		}))
	})
}

// readArchive opens the archive in the body. The whole body is read when it is none, as a real one does while it tries to
// decompress it.
func (o *operation) readArchive(f func(r *xva.Reader) error) error {
	body := o.unboundedBody()
	r, err := xva.NewReader(body)
	if err != nil {
		if o.x.Length >= 0 {
			_, _ = io.Copy(io.Discard, body) // whether the rest arrives makes no difference any more
		}
		return err
	}
	defer r.Close()
	return f(r)
}

// importError gives what goes wrong with an archive its XenAPI error (import.ml, with_error_handling).
func importError(err error) error {
	var known *xapi.Error
	var unexpected *xva.UnexpectedMemberError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return xapi.Fail("IMPORT_ERROR_PREMATURE_EOF")
	case errors.Is(err, xva.ErrChecksum):
		return xapi.Fail("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")
	case errors.As(err, &unexpected):
		return xapi.Fail("IMPORT_ERROR_UNEXPECTED_FILE", unexpected.Expected, unexpected.Actual)
	}
	return xapi.Fail("IMPORT_ERROR_GENERIC", err.Error())
}

// receiveDisks writes the archive's chunks to the disks that were made for them.
func (i *importer) receiveDisks(r *xva.Reader) error {
	received := map[string]int64{}
	chunk, err := i.next(r)
	for err == nil {
		name := chunk.Disk
		vdi, expected := i.made[name]
		if !expected {
			return &xva.UnexpectedMemberError{Expected: "a disk of the archive", Actual: name}
		}
		err = i.attached(vdi, "RW", func(disk *blockstore.Disk) error {
			var err error
			for err == nil && chunk.Disk == name {
				if _, err := disk.WriteAt(chunk.Content, chunk.Offset); err != nil {
					return ioError(err)
				}
				received[name] = chunk.Offset + int64(len(chunk.Content))
				chunk, err = i.next(r)
			}
			return err
		})
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return i.complete(received)
}

// next reads a chunk; force puts up with a wrong checksum.
func (i *importer) next(r *xva.Reader) (xva.Chunk, error) {
	chunk, err := r.Next()
	if errors.Is(err, xva.ErrChecksum) && i.force {
		return chunk, nil
	}
	return chunk, err
}

// complete checks that every disk came to its last byte, which is in every archive even when it is zero.
func (i *importer) complete(received map[string]int64) error {
	for _, o := range i.metadata.Objects {
		if _, made := i.made[o.ID]; o.Class == "VDI" && made && received[o.ID] != integer(o.Record, "virtual_size") {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// text reads a text member of an archived record.
func text(record wire.Struct, name string) string {
	value, _ := record.Get(name)
	s, _ := value.(string)
	return s
}
