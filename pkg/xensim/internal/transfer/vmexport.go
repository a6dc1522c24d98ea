package transfer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/httpd"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xva"
)

// requestedVM finds the VM that is named by ref or uuid. The pool is locked.
func (s *service) requestedVM(x *xapi.Exchange) (string, error) {
	if ref := x.Query.Get("ref"); ref != "" {
		_, err := s.Record("VM", ref)
		return ref, shown(err)
	}
	uuid := x.Query.Get("uuid")
	if uuid == "" {
		return "", errors.New("Not_found")
	}
	ref, ok := s.DB().ByUUID("VM", uuid)
	if !ok {
		return "", shown(xapi.Fail("UUID_INVALID", "VM", uuid))
	}
	return ref, nil
}

// exportedDisk is a disk that goes into an archive.
type exportedDisk struct {
	vdi, id string
	size    int64
}

// exportVM answers GET /export (export.ml).
func (s *service) exportVM(x *xapi.Exchange) error {
	s.Lock()
	vm, err := s.requestedVM(x)
	var repositories []string
	if err == nil {
		repositories = s.repositoriesOf(vm)
	}
	s.Unlock()
	if err != nil {
		return err
	}
	if location, err := s.elsewhere(x, repositories...); err != nil || location != "" {
		return redirect(x, location, err)
	}
	return s.underTask(x, "VM.export", func(o *operation) error {
		return o.during(vm, "export", func() error { return o.sendVM(vm) })
	})
}

// repositoriesOf are the storage repositories of a VM's disks. The pool is locked.
func (s *service) repositoriesOf(vm string) []string {
	seen := map[string]bool{}
	for _, ref := range s.DB().Get("VM", vm).Strs("VBDs") {
		vbd := s.DB().Get("VBD", ref)
		if vdi := s.DB().Get("VDI", vbd.Str("VDI")); vdi.Exists() && vbd.Str("type") != "CD" {
			seen[vdi.Str("SR")] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// during runs f while the VM's current_operations says so, if the VM is in a state for it.
func (o *operation) during(vm, op string, f func() error) error {
	if _, err := o.call("VM.assert_operation_valid", vm, op); err != nil {
		return err
	}
	o.setOperation(vm, op)
	defer o.setOperation(vm, "")
	return f()
}

// setOperation enters the operation in the VM's current ones, or removes it when op is empty.
func (o *operation) setOperation(vm, op string) {
	o.Lock()
	defer o.Unlock()
	r := o.DB().Get("VM", vm)
	if !r.Exists() {
		return
	}
	current := maps.Clone(r.Map("current_operations"))
	if current == nil {
		current = map[string]string{}
	}
	current[o.task] = op
	if op == "" {
		delete(current, o.task)
	}
	o.Set("VM", vm, db.Fields{"current_operations": current})
	o.Refresh("VM", vm)
}

// serverHeader is what archives' answers call the server.
func (s *service) serverHeader() httpd.Header {
	s.Lock()
	defer s.Unlock()
	major, minor := xapiVersion(s.DB().Get("host", s.Coordinator()).Map("software_version"))
	return httpd.Header{Name: "Server", Value: fmt.Sprintf("xapi/%d.%d", major, minor)}
}

var archiveFile = httpd.Header{Name: "Content-Disposition", Value: `attachment; filename="export.xva"`}

func (o *operation) sendVM(vm string) error {
	rules := exportRules{powerState: o.x.Param("preserve_power_state") == "true"}
	o.Lock()
	c := o.collect(rules, vm)
	metadata, disks := c.metadata(), c.disks()
	o.Unlock()
	if err := o.accept(o.serverHeader(), octetStream, archiveFile); err != nil {
		return err
	}
	total := int64(1)
	for _, disk := range disks {
		total += disk.size
	}
	out, err := compressed(o.counting(total), o.x.Query.Get("use_compression"))
	if err != nil {
		return err
	}
	w := xva.NewWriter(out)
	if err := w.WriteMetadata(metadata, o.Clock.Now()); err != nil {
		return err
	}
	for _, disk := range disks {
		err := o.attached(disk.vdi, "RO", func(content *blockstore.Disk) error {
			return w.WriteDisk(o.ctx, disk.id, content, disk.size, chunkExtents(content))
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), out.Close())
}

// disks are the collection's disks that have bytes of their own: not those of ISO libraries.
func (c *collection) disks() []exportedDisk {
	var disks []exportedDisk
	for _, ref := range c.DB().Refs("VDI") {
		id := c.ids[ref]
		vdi := c.DB().Get("VDI", ref)
		if sr := c.DB().Get("SR", vdi.Str("SR")); id != "" && sr.Exists() && sr.Str("content_type") != "iso" {
			disks = append(disks, exportedDisk{vdi: ref, id: id, size: vdi.Int("virtual_size")})
		}
	}
	return disks
}

// compressed is a writer that compresses as the client asked; closing it does not close the connection.
func compressed(w io.Writer, how string) (io.WriteCloser, error) {
	switch how {
	case "true", "gzip":
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	}
	return plainWriter{w}, nil
}

type plainWriter struct{ io.Writer }

// Close implements io.Closer; there is nothing to flush.
func (plainWriter) Close() error { return nil }

// exportMetadata answers GET /export_metadata: an archive of records alone.
func (s *service) exportMetadata(x *xapi.Exchange) error {
	return s.underTask(x, "VM.export_metadata", func(o *operation) error {
		o.Lock()
		vms, err := o.metadataVMs()
		o.Unlock()
		if err != nil {
			return err
		}
		for _, vm := range vms {
			if _, err := o.call("VM.assert_operation_valid", vm, "metadata_export"); err != nil {
				return err
			}
		}
		o.Lock()
		metadata := o.collect(exportRules{snapshots: x.Query.Get("export_snapshots") != "false", powerState: true}, vms...).metadata()
		o.Unlock()
		var out bytes.Buffer
		w := xva.NewWriter(&out)
		if err := errors.Join(w.WriteMetadata(metadata, o.Clock.Now()), w.Close()); err != nil {
			return err
		}
		length := httpd.Header{Name: "Content-Length", Value: fmt.Sprint(out.Len())}
		if err := o.accept(o.serverHeader(), octetStream, length, archiveFile); err != nil {
			return err
		}
		_, err = x.Conn.Write(out.Bytes())
		return err
	})
}

// metadataVMs are the VMs whose records are wanted: one, or all that are no default templates. The pool is locked.
func (o *operation) metadataVMs() ([]string, error) {
	if o.x.Query.Get("all") != "true" {
		vm, err := o.requestedVM(o.x)
		return []string{vm}, err
	}
	var vms []string
	for _, ref := range o.DB().Refs("VM") {
		vm := o.DB().Get("VM", ref)
		dom0 := vm.Bool("is_control_domain") && o.x.Query.Get("include_dom0") == "false"
		if !vm.Bool("is_default_template") && vm.Map("other_config")["default_template"] != "true" && !dom0 {
			vms = append(vms, ref)
		}
	}
	return vms, nil
}
