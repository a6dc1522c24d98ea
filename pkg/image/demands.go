package image

import (
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// What the spec leaves open of an image, the image service may have said: it stands on the disk.

// said is what stands on the image's disk under a key, "" without a disk.
func said(root *xenapi.VDI, key string) string {
	if root == nil {
		return ""
	}
	return root.OtherConfig[key]
}

// firmware is what VMs of the image boot with, "" for the template's own.
func firmware(image Image, root *xenapi.VDI) v1alpha1.Firmware {
	if image.Spec.Firmware != "" {
		return image.Spec.Firmware
	}
	return v1alpha1.Firmware(said(root, transfer.MarkFirmware))
}

// secureBoot is the value of platform, "" for the template's own.
func secureBoot(image Image, root *xenapi.VDI) string {
	switch {
	case image.Spec.SecureBoot != nil:
		return fmt.Sprint(*image.Spec.SecureBoot)
	case image.Spec.Firmware == v1alpha1.FirmwareBIOS:
		return ""
	}
	return said(root, transfer.MarkSecureBoot)
}

// Demands writes down what is known of the image's file, and what VMs of it must have.
func Demands(status *v1alpha1.XenImageStatus, spec *v1alpha1.XenImageSpec, root *xenapi.VDI) {
	least := func(stated *resource.Quantity, key string) *resource.Quantity {
		if stated != nil {
			return stated
		}
		bytes, err := strconv.ParseInt(said(root, key), 10, 64)
		if err != nil || bytes <= 0 {
			return nil
		}
		return resource.NewQuantity(bytes, resource.BinarySI)
	}
	if sum := said(root, transfer.MarkSHA256); status.Checksum == nil && sum != "" {
		status.Checksum = &v1alpha1.Checksum{Algorithm: v1alpha1.ChecksumSHA256, Value: sum}
	}
	if status.Format == "" {
		status.Format = v1alpha1.DiskFormat(said(root, transfer.MarkFileFormat))
	}
	status.MinDisk, status.MinMemory = least(spec.MinDisk, transfer.MarkMinDisk), least(spec.MinMemory, transfer.MarkMinMemory)
	status.Firmware = firmware(Image{Spec: spec}, root)
}

// Demanded is the spec with what the image service said where it leaves it open.
func Demanded(spec *v1alpha1.XenImageSpec, status *v1alpha1.XenImageStatus) *v1alpha1.XenImageSpec {
	full := spec.DeepCopy()
	if full.MinDisk == nil {
		full.MinDisk = status.MinDisk
	}
	if full.MinMemory == nil {
		full.MinMemory = status.MinMemory
	}
	return full
}
