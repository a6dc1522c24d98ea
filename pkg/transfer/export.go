package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/kubexen/kubexen/api/v1alpha1"
	bytesof "github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// asked is the format in which a pool is asked for what is to be stored in a format.
var asked = map[v1alpha1.DiskFormat]xenapi.DiskFormat{
	v1alpha1.DiskFormatVHD: xenapi.FormatVHD, v1alpha1.DiskFormatNovaTarball: xenapi.FormatVHD,
	v1alpha1.DiskFormatRaw: xenapi.FormatRaw, v1alpha1.DiskFormatQCOW2: xenapi.FormatQCOW2,
}

// readAs is the format in which the pool sends what is to be stored in a format.
func readAs(format v1alpha1.DiskFormat) bytesof.Format {
	if format == v1alpha1.DiskFormatNovaTarball {
		return bytesof.VHD
	}
	return bytesof.Format(format)
}

// export opens the stream of a disk, or of the whole snapshot.
func (u *upload) export(ctx context.Context, disk *ManifestDisk) (*xenapi.Download, error) {
	named := xenapi.Transfer{Label: u.task}
	if disk == nil {
		ref, err := find(u.handle, u.manifest.SnapshotUUID, xencache.View.VMByUUID)
		if err != nil {
			return nil, err
		}
		download, err := u.handle.Client.ExportVM(ctx, xenapi.ExportVM{VM: ref, Transfer: named})
		return download, poolFailure(err)
	}
	ref, err := find(u.handle, disk.VDI, xencache.View.VDIByUUID)
	if err != nil {
		return nil, err
	}
	format, ok := asked[u.Format]
	if !ok {
		return nil, &Failure{Reason: v1alpha1.ReasonFormatUnsupported, Permanent: true, Err: fmt.Errorf("this version uploads no %s", u.Format)}
	}
	base, err := u.base(disk)
	if err != nil {
		return nil, err
	}
	download, err := u.handle.Client.ExportVDI(ctx, xenapi.ExportVDI{VDI: ref, Format: format, Base: base, Transfer: named})
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

// transferHost is the host that the transfer of the first of the disks goes through: the coordinator if it sees the disk, else
// one that does, where the coordinator sends us.
func transferHost(h *pool.Handle, disks []ManifestDisk) string {
	host := ""
	h.Cache.View(func(v xencache.View) {
		for _, disk := range disks {
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
