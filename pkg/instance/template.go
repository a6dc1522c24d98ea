package instance

import (
	"encoding/xml"
	"slices"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// provisionKey is the entry of a template's other_config that asks for disks, as XML.
const provisionKey = "disks"

// ProvisionDisk is one disk that a template asks to be made.
type ProvisionDisk struct {
	Device   string
	Size     int64 // bytes
	SR       xenapi.SRRef
	Bootable bool
}

// observeTemplate says what a clone of a template brings along. We make the disks that it asks for ourselves, with their
// marks from the start, and do not use VM.provision: it makes disks that nobody could tell from a stranger's after a
// crash, and cannot be repeated once it has failed.
func observeTemplate(v xencache.View, ref xenapi.VMRef) *Template {
	record := v.VM(ref)
	if record == nil {
		return nil
	}
	template := &Template{Ref: ref, UUID: record.UUID, Name: record.NameLabel, Disks: provisionDisks(v, record.OtherConfig[provisionKey])}
	for _, vbd := range v.VBDsOf(ref) {
		device := v.VBD(vbd)
		if device == nil || device.Type != xenapi.VBDTypeDisk || device.UserDevice != strconv.Itoa(rootDevice) {
			continue
		}
		if vdi := v.VDI(device.VDI); vdi != nil {
			template.RootSize, template.RootSR = vdi.VirtualSize, vdi.SR
			if sr := v.SR(vdi.SR); sr != nil {
				template.RootShared = sr.Shared
			}
		}
	}
	for task, operation := range record.CurrentOperations {
		if operation == xenapi.VMOperationClone || operation == xenapi.VMOperationCopy {
			template.Cloning = append(template.Cloning, xenapi.TaskRef(task))
		}
	}
	slices.Sort(template.Cloning)
	template.observeBrought(v, record)
	return template
}

// provisionDisks reads <provision><disk device="0" size="…" sr="…" bootable="true"/></provision>. What does not parse
// asks for nothing. A storage repository that is empty or unknown here is left open: the pool's default serves.
func provisionDisks(v xencache.View, text string) []ProvisionDisk {
	var provision struct {
		Disks []struct {
			Device   string `xml:"device,attr"`
			Size     int64  `xml:"size,attr"`
			SR       string `xml:"sr,attr"`
			Bootable bool   `xml:"bootable,attr"`
		} `xml:"disk"`
	}
	if text == "" || xml.Unmarshal([]byte(text), &provision) != nil {
		return nil
	}
	var disks []ProvisionDisk
	for _, asked := range provision.Disks {
		disk := ProvisionDisk{Device: asked.Device, Size: asked.Size, Bootable: asked.Bootable}
		if asked.SR != "" {
			disk.SR, _ = v.SRByUUID(asked.SR)
		}
		disks = append(disks, disk)
	}
	return disks
}
