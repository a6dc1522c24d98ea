package classes

import (
	"encoding/xml"
	"strconv"
)

// A template says in other_config which disks a VM made from it gets when it is provisioned:
//
//	<provision><disk device="0" size="10737418240" sr="<uuid>" bootable="true" type="system"/></provision>

// Keys of VM.other_config that a template's provisioning uses.
const (
	disksKey       = "disks"
	postInstallKey = "postinstall"
)

// provisionedDisk is one disk of a template's specification.
type provisionedDisk struct {
	device   string // position in the guest
	size     int64  // bytes
	sr       string // uuid; an empty one is not a default, it fails
	bootable bool
	vdiType  string
}

// parseProvisionedDisks reads the value of other_config["disks"]. It is false for what a real server refuses to read.
func parseProvisionedDisks(text string) ([]provisionedDisk, bool) {
	var specification struct {
		XMLName xml.Name `xml:"provision"`
		Disks   []struct {
			XMLName    xml.Name   `xml:"disk"`
			Attributes []xml.Attr `xml:",any,attr"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(text), &specification); err != nil {
		return nil, false
	}
	var disks []provisionedDisk
	for _, element := range specification.Disks {
		attributes := map[string]string{}
		for _, attribute := range element.Attributes {
			attributes[attribute.Name.Local] = attribute.Value
		}
		for _, needed := range []string{"device", "size", "sr", "bootable"} {
			if _, present := attributes[needed]; !present {
				return nil, false
			}
		}
		size, err := strconv.ParseInt(attributes["size"], 10, 64)
		if err != nil {
			return nil, false
		}
		disks = append(disks, provisionedDisk{
			device: attributes["device"], size: size, sr: attributes["sr"],
			bootable: attributes["bootable"] == "true", vdiType: provisionedType(attributes["type"]),
		})
	}
	return disks, true
}

func provisionedType(text string) string {
	switch text {
	case "user", "ephemeral", "suspend", "crashdump":
		return text
	}
	return "system"
}
