package instance

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// What others have set on the root disk and its block device, a priority or a tag for backups, belongs to the place and not to the
// disk that is in it. A swap makes the block device anew, and the disk from before is destroyed in the end.

// markDevice stands on a disk that takes the place of the root disk and holds what others have set on the block device there, which
// is gone for a moment. It means nothing once the disk is in its place.
const markDevice = "kubexen.io/root-device"

// deviceSettings is what others have set on a block device. A field is empty where the device is as we make it.
type deviceSettings struct {
	OtherConfig    map[string]string `json:"otherConfig,omitempty"`
	QoS            string            `json:"qos,omitempty"`
	QoSParams      map[string]string `json:"qosParams,omitempty"`
	ReadOnly       bool              `json:"readOnly,omitempty"`
	NotBootable    bool              `json:"notBootable,omitempty"`
	NotUnpluggable bool              `json:"notUnpluggable,omitempty"`
}

// settings is what others have set on the block device.
func (d *Disk) settings() deviceSettings {
	like := d.Record
	if like == nil {
		return deviceSettings{}
	}
	return deviceSettings{
		OtherConfig: withoutMarks(like.OtherConfig), QoS: like.QoSAlgorithmType, QoSParams: like.QoSAlgorithmParams,
		ReadOnly: like.Mode == xenapi.VBDModeRO, NotBootable: !like.Bootable, NotUnpluggable: !like.Unpluggable,
	}
}

// String is the settings as the mark holds them, "" if there are none.
func (s deviceSettings) String() string {
	if text := marshalled(s); text != "{}" {
		return text
	}
	return ""
}

// settingsFor is what the block device of a disk is to have that takes the place of the root disk.
func settingsFor(incoming *VDI) deviceSettings {
	var settings deviceSettings
	if json.Unmarshal([]byte(incoming.OtherConfig[markDevice]), &settings) != nil {
		return deviceSettings{} // there were none
	}
	return settings
}

// apply gives them to a block device that is about to be made.
func (s deviceSettings) apply(vbd *xenapi.VBD) {
	otherConfig := maps.Clone(s.OtherConfig)
	if otherConfig == nil {
		otherConfig = map[string]string{}
	}
	maps.Copy(otherConfig, vbd.OtherConfig)
	vbd.OtherConfig, vbd.QoSAlgorithmType, vbd.QoSAlgorithmParams = otherConfig, s.QoS, s.QoSParams
	vbd.Bootable = !s.NotBootable
	if s.ReadOnly {
		vbd.Mode = xenapi.VBDModeRO
	}
	if s.NotUnpluggable {
		vbd.Unpluggable, vbd.Extra = false, map[string]xenapi.Value{"unpluggable": xenapi.BoolValue(false)} // unset is true to the pool
	}
}

// foreignEntries are the entries of other_config that are not ours of a disk that takes the place of the root disk: its own, and
// over them those of the root disk. What the storage layer says of a disk's content stays with the content.
func (r *Run) foreignEntries(incoming *VDI) map[string]string {
	entries := withoutMarks(incoming.OtherConfig)
	if root := r.VM.rootDisk(); root != nil {
		theirs := withoutMarks(root.VDI.OtherConfig)
		delete(theirs, contentID)
		maps.Copy(entries, theirs)
	}
	return entries
}

// keepLabels gives a disk that takes the place of the root disk the tags and the description of that, if it has any.
func (r *Run) keepLabels(ctx context.Context, incoming *VDI) error {
	root := r.VM.rootDisk()
	if root == nil {
		return nil
	}
	if tags := root.VDI.Tags; len(tags) > 0 && !sameTags(tags, incoming.Tags) {
		if err := r.Client.VDI.SetTags(ctx, incoming.Ref, tags); err != nil {
			return r.doing(err, "give the new root disk the tags of the old one")
		}
	}
	if text := root.VDI.Description; text != "" && text != incoming.Description {
		if err := r.Client.VDI.SetNameDescription(ctx, incoming.Ref, text); err != nil {
			return r.doing(err, "give the new root disk the description of the old one")
		}
	}
	return nil
}

// sameTags compares tags, which have no order.
func sameTags(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
