package xva

import (
	"errors"
	"fmt"

	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

const (
	metadataName = "ova.xml"

	// ChunkSize is how many bytes of a disk one member holds; a disk's last may hold fewer.
	ChunkSize = 1 << 20
)

// ErrFormat says that an archive's content makes no sense, though the archive itself can be read.
var ErrFormat = errors.New("not a readable XVA")

// Metadata is what ova.xml holds.
type Metadata struct {
	// Version tells who wrote the archive.
	Version wire.Struct
	// Objects are the records, in which references are names of the archive's own.
	Objects []Object
}

// Object is one record of an archive.
type Object struct {
	// Class is the XenAPI's class, such as VM.
	Class string
	// ID is the object's name in the archive, such as Ref:7.
	ID string
	// Record has the fields of the class.
	Record wire.Struct
}

// Encode writes ova.xml.
func (m Metadata) Encode() []byte {
	objects := make([]any, len(m.Objects))
	for i, o := range m.Objects {
		objects[i] = wire.Struct{{Name: "class", Value: o.Class}, {Name: "id", Value: o.ID}, {Name: "snapshot", Value: o.Record}}
	}
	return wire.AppendXML(nil, wire.Struct{{Name: "version", Value: m.Version}, {Name: "objects", Value: objects}})
}

// ParseMetadata reads ova.xml.
func ParseMetadata(text []byte) (Metadata, error) {
	value, err := wire.ParseXMLValue(string(text))
	if err != nil {
		return Metadata{}, fmt.Errorf("%w: %s: %w", ErrFormat, metadataName, err)
	}
	top, _ := value.(wire.Struct)
	version, _ := top.Get("version")
	list, _ := top.Get("objects")
	elements, isList := list.([]any)
	m := Metadata{}
	var isStruct bool
	if m.Version, isStruct = version.(wire.Struct); !isStruct || !isList {
		return Metadata{}, fmt.Errorf("%w: %s lacks a version or objects", ErrFormat, metadataName)
	}
	for i, element := range elements {
		object, err := parseObject(element)
		if err != nil {
			return Metadata{}, fmt.Errorf("%w: object %d of %s", err, i, metadataName)
		}
		m.Objects = append(m.Objects, object)
	}
	return m, nil
}

func parseObject(element any) (Object, error) {
	fields, _ := element.(wire.Struct)
	class, _ := fields.Get("class")
	id, _ := fields.Get("id")
	record, _ := fields.Get("snapshot")
	var o Object
	var hasClass, hasID, hasRecord bool
	o.Class, hasClass = class.(string)
	o.ID, hasID = id.(string)
	o.Record, hasRecord = record.(wire.Struct)
	if !hasClass || !hasID || !hasRecord {
		return Object{}, fmt.Errorf("%w: it lacks a class, an id or a snapshot", ErrFormat)
	}
	return o, nil
}
