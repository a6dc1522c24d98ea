package xensim

import (
	"archive/tar"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// archive is an XVA as the recordings have it: its records, and the names of its members as far as it is on record.
type archive struct {
	version any
	objects []object // class, id, snapshot
	members []string
}

// readArchive reads an XVA with the standard library alone. Its own names for objects ("Ref:7") become class and number, so
// that two archives can be compared; names of what is not in the archive become null references.
func readArchive(body string) (*archive, error) {
	a := &archive{}
	for files := tar.NewReader(strings.NewReader(body)); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return a, nil // recorded bodies are cut
		}
		if err != nil {
			return nil, err
		}
		a.members = append(a.members, header.Name)
		if header.Name != "ova.xml" {
			continue
		}
		text, err := io.ReadAll(files)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return a, nil
		}
		if err != nil {
			return nil, err
		}
		var root xmlNode
		if err := xml.Unmarshal(text, &root); err != nil {
			return nil, err
		}
		top, _ := root.plain().(object)
		objects, _ := top["objects"].([]any)
		names := map[string]string{}
		for i, o := range objects {
			one, _ := o.(object)
			names[fmt.Sprint(one["id"])] = fmt.Sprintf("%v number %d", one["class"], i)
		}
		a.version = top["version"]
		for _, o := range objects {
			one, _ := renamed(o, names).(object)
			a.objects = append(a.objects, one)
		}
		for i, member := range a.members {
			id, rest, _ := strings.Cut(member, "/")
			a.members[i] = names[id] + "/" + rest
		}
	}
}

func renamed(value any, names map[string]string) any {
	switch value := value.(type) {
	case object:
		out := object{}
		for k, v := range value {
			out[k] = renamed(v, names)
		}
		return out
	case []any:
		out := []any{}
		for _, v := range value {
			out = append(out, renamed(v, names))
		}
		return out
	case string:
		if name, ok := names[value]; ok {
			return name
		}
		if strings.HasPrefix(value, "Ref:") {
			return "OpaqueRef:NULL"
		}
	}
	return value
}

// archives compares two XVAs: who made them, which objects in which order, their records, and which pieces of disks.
func (c *comparison) archives(recorded, actual string) {
	want, err := readArchive(recorded)
	if err != nil {
		c.differ("archive", "the recorded one cannot be read: %v", err)
		return
	}
	got, err := readArchive(actual)
	if err != nil {
		c.differ("archive", "cannot be read: %v", err)
		return
	}
	if want.version == nil {
		return // cut within ova.xml
	}
	c.values("archive.version", want.version, got.version)
	if len(want.objects) != len(got.objects) {
		c.differ("archive", "recorded %d objects, actual %d", len(want.objects), len(got.objects))
		return
	}
	for i := range want.objects {
		c.values(fmt.Sprintf("archive.%v", want.objects[i]["class"]), want.objects[i], got.objects[i])
	}
	if known := len(want.members); len(got.members) < known || !slices.Equal(want.members, got.members[:known]) {
		c.differ("archive", "recorded members %v, actual %v", want.members, got.members)
	}
}
