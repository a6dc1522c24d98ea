package disk

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

// XVADisk is a disk that an XVA holds.
type XVADisk struct {
	// Ref is its name in the archive, such as Ref:7.
	Ref string
	// UUID and NameLabel are what it had where it came from.
	UUID, NameLabel string
	// VirtualSize is in bytes.
	VirtualSize int64
	// Device is the position at the VM, "" if it is at none.
	Device string
	// Bootable says that the VM boots from it.
	Bootable bool
}

// xvaMaxObjects bounds what an archive may describe: a VM with 250 disks has some thousand objects.
const xvaMaxObjects = 16 << 10

// xvaMaxDepth is how deep ova.xml's values may be nested; XenServer's are six deep.
const xvaMaxDepth = 32

// parseOVA reads the disks from ova.xml, in the order in which the archive has them: by their names.
func parseOVA(text []byte) ([]XVADisk, error) {
	decoder := xml.NewDecoder(bytes.NewReader(text))
	value, err := firstValue(decoder)
	if err != nil {
		return nil, &FormatError{Format: XVA, Offset: decoder.InputOffset(), Field: ovaName, Want: "an XML-RPC value", Got: "another text", Err: err}
	}
	top, _ := value.(map[string]any)
	objects, ok := top["objects"].([]any)
	if !ok {
		return nil, malformed(XVA, 0, ovaName, "a list of objects", "none")
	}
	if len(objects) > xvaMaxObjects {
		return nil, malformed(XVA, 0, ovaName, fmt.Sprintf("at most %d objects", xvaMaxObjects), len(objects))
	}
	disks := map[string]XVADisk{}
	for _, o := range objects {
		if class, id, record := object(o); class == "VDI" {
			size, err := strconv.ParseInt(text64(record["virtual_size"]), 10, 64)
			if err != nil || size <= 0 || size > 64<<40 {
				return nil, malformed(XVA, 0, "virtual size of "+id, "1 byte to 64 TiB", text64(record["virtual_size"]))
			}
			disks[id] = XVADisk{Ref: id, UUID: text64(record["uuid"]), NameLabel: text64(record["name_label"]), VirtualSize: size}
		}
	}
	for _, o := range objects {
		class, _, record := object(o)
		if d, found := disks[text64(record["VDI"])]; class == "VBD" && found && text64(record["type"]) == "Disk" {
			d.Device, d.Bootable = text64(record["userdevice"]), text64(record["bootable"]) == "1"
			disks[d.Ref] = d
		}
	}
	list := make([]XVADisk, 0, len(disks))
	for _, d := range disks {
		list = append(list, d)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Ref < list[j].Ref })
	return list, nil
}

func object(value any) (class, id string, record map[string]any) {
	fields, _ := value.(map[string]any)
	record, _ = fields["snapshot"].(map[string]any)
	return text64(fields["class"]), text64(fields["id"]), record
}

func text64(value any) string {
	text, _ := value.(string)
	return text
}

// firstValue reads the <value> that ova.xml is: structs are maps, arrays lists, and all else is its text.
func firstValue(d *xml.Decoder) (any, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		if start, ok := token.(xml.StartElement); ok {
			if start.Name.Local != "value" {
				return nil, fmt.Errorf("an element <%s>", start.Name.Local)
			}
			return readValue(d, 0)
		}
	}
}

// readValue reads up to </value>.
func readValue(d *xml.Decoder, depth int) (any, error) {
	if depth > xvaMaxDepth {
		return nil, errors.New("values nested too deep")
	}
	var value any
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		switch t := token.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.StartElement:
			if value, err = readTyped(d, t.Name.Local, depth); err != nil {
				return nil, err
			}
		case xml.EndElement:
			if value == nil {
				value = text.String()
			}
			return value, nil
		}
	}
}

// readTyped reads what stands in a <value>, after its start.
func readTyped(d *xml.Decoder, kind string, depth int) (any, error) {
	switch kind {
	case "struct":
		fields := map[string]any{}
		err := children(d, func(start xml.StartElement) error {
			name, value, err := readMember(d, depth)
			fields[name] = value
			return err
		})
		return fields, err
	case "array":
		var list []any
		err := children(d, func(xml.StartElement) error { // <data>
			return children(d, func(xml.StartElement) error {
				value, err := readValue(d, depth+1)
				list = append(list, value)
				return err
			})
		})
		return list, err
	default:
		var text string
		err := d.DecodeElement(&text, &xml.StartElement{Name: xml.Name{Local: kind}})
		return text, err
	}
}

func readMember(d *xml.Decoder, depth int) (name string, value any, err error) {
	err = children(d, func(start xml.StartElement) error {
		if start.Name.Local == "name" {
			return d.DecodeElement(&name, &start)
		}
		value, err = readValue(d, depth+1)
		return err
	})
	return name, value, err
}

// children calls f for every element up to the end of the one at hand; f reads past its end.
func children(d *xml.Decoder, f func(xml.StartElement) error) error {
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := f(t); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}
