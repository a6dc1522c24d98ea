package transfer

import (
	"errors"
	"strconv"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// Keys of other_config under which an imported disk has what the image service said of it: the firmware, as the API names it,
// secure boot (true, false or auto, as platform has it), and the least disk and memory in bytes.
const (
	MarkFirmware   = "kubexen.io/image-firmware"
	MarkSecureBoot = "kubexen.io/image-secure-boot"
	MarkMinDisk    = "kubexen.io/image-min-disk"
	MarkMinMemory  = "kubexen.io/image-min-memory"
)

// imageMarks are what an image service says of an image, as marks of its disk. An image for a kind of VM that is not made is
// refused before anything of it is read.
func imageMarks(record *imagestore.ImageRecord) (map[string]string, error) {
	marks := map[string]string{}
	if record == nil {
		return marks, nil
	}
	properties := record.Properties
	for _, key := range []string{"hw_vm_mode", "vm_mode"} {
		if mode := properties[key]; mode == "xen" || mode == "pv" {
			return nil, &Failure{Reason: v1alpha1.ReasonInvalidImage, Permanent: true, Err: errors.New(
				"the image service says that the image is for a paravirtualized VM (" + key + " " + mode + "), which hosts no longer run; install a boot loader into it and set the property to hvm")}
		}
	}
	switch properties["hw_firmware_type"] {
	case "uefi":
		marks[MarkFirmware] = string(v1alpha1.FirmwareUEFI)
	case "bios":
		marks[MarkFirmware] = string(v1alpha1.FirmwareBIOS)
	}
	switch properties["os_secure_boot"] {
	case "required":
		marks[MarkSecureBoot], marks[MarkFirmware] = "true", string(v1alpha1.FirmwareUEFI)
	case "disabled":
		marks[MarkSecureBoot] = "false"
	case "optional":
		marks[MarkSecureBoot] = "auto"
	}
	if record.MinDiskGiB > 0 {
		marks[MarkMinDisk] = strconv.FormatInt(int64(record.MinDiskGiB)<<30, 10)
	}
	if record.MinMemoryMiB > 0 {
		marks[MarkMinMemory] = strconv.FormatInt(int64(record.MinMemoryMiB)<<20, 10)
	}
	return marks, nil
}
