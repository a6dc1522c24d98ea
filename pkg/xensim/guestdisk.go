package xensim

import (
	"errors"
	"fmt"
	"io"
)

// GuestDisk is a disk as the guest of a running VM has it.
type GuestDisk interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
}

// Disk is the disk at a device number (userdevice) of a running VM.
func (g GuestControl) Disk(vm, device string) (GuestDisk, error) {
	if g.pool.Records("VM")[vm]["power_state"] != "Running" {
		return nil, fmt.Errorf("VM %s does not run, so nobody reads or writes its disks", vm)
	}
	for _, vbd := range g.pool.Records("VBD") {
		if vbd["VM"] != vm || vbd["userdevice"] != device {
			continue
		}
		vdi, isRef := vbd["VDI"].(string)
		if vbd["currently_attached"] != true || !isRef {
			return nil, fmt.Errorf("the disk at %s of VM %s is not attached", device, vm)
		}
		record := g.pool.Records("VDI")[vdi]
		uuid, size := fmt.Sprint(record["uuid"]), record["virtual_size"]
		if bytes, known := size.(int64); known {
			g.pool.disks.Ensure(uuid, bytes) // one that a test has put into the database has no bytes yet
		}
		disk, err := g.pool.disks.Disk(uuid)
		if err != nil {
			return nil, fmt.Errorf("open the disk at %s of VM %s: %w", device, vm, err)
		}
		if vbd["mode"] != "RW" {
			return readOnly{disk}, nil
		}
		return disk, nil
	}
	return nil, fmt.Errorf("VM %s has no disk at %s", vm, device)
}

// readOnly refuses what is written.
type readOnly struct{ GuestDisk }

// WriteAt refuses.
func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, errors.New("the disk is read-only") }
