package main

import (
	"fmt"
	"strings"
)

const docWidth = 130

// writeDoc writes text as a comment, wrapped.
func writeDoc(b *strings.Builder, text string) {
	for _, paragraph := range strings.Split(text, "\n") {
		line := "//"
		for _, word := range strings.Fields(paragraph) {
			if len(line)+1+len(word) > docWidth && line != "//" {
				b.WriteString(line + "\n")
				line = "//"
			}
			line += " " + word
		}
		b.WriteString(line + "\n")
	}
}

func recordDoc(class string) string {
	text, ok := recordDocs[class]
	if !ok {
		text = fmt.Sprintf("is a record of class %s.", class)
	}
	return goName(class) + " " + text + " A field that an older server does not send is zero."
}

// fieldDoc says what a field is, its unit, and how it can be changed.
func fieldDoc(class, wire string, f field) string {
	text, ok := fieldDocs[class+"."+wire]
	if !ok {
		text, ok = fieldDocs[wire]
	}
	if !ok {
		text = fmt.Sprintf("is the field %s.", wire)
	}
	var notes []string
	switch f.State {
	case "Deprecated", "Prototyped", "Removed":
		notes = append(notes, strings.ToLower(f.State)+" in the data model")
	}
	if f.Since != "" && f.Since[0] >= '2' && f.Since[0] <= '9' {
		notes = append(notes, "since "+f.Since)
	}
	text = goName(wire) + " " + text
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	return text
}

// methodDoc says what a call does, which role it needs and which errors the data model declares for it.
func methodDoc(c call) string {
	name := goName(c.wire)
	text := methodDocs[c.class+"."+c.wire]
	switch {
	case text != "":
		text = name + " " + text
	case c.wire == "get_record":
		text = name + " reads the whole record."
	case c.wire == "get_all_records":
		text = name + " reads the records of all objects of the class by their references."
	case c.wire == "get_all":
		text = name + " lists the references of all objects of the class."
	case c.wire == "get_by_uuid":
		text = name + " finds the object with a uuid, or fails with [ErrUUIDInvalid]."
	case c.wire == "get_by_name_label":
		text = name + " finds all objects with exactly this name: none, one or several."
	case strings.HasPrefix(c.wire, "add_to_"):
		text = name + " adds a key to the map; a key that is there already is [ErrMapDuplicateKey], even with an equal value."
	case strings.HasPrefix(c.wire, "remove_from_"):
		text = name + " removes a key from the map; a missing key is no error."
	default:
		text = fmt.Sprintf("%s calls %s.%s.", name, c.class, c.wire)
	}
	for _, p := range c.params {
		if p.optional {
			text += fmt.Sprintf(" %s is sent only if set (or if a later one is).", p.name)
		}
	}
	// A message open to certificate clients too has that role in the model instead of the user's role that it needs.
	if c.m.Role != "" && c.m.Role != "read-only" && c.m.Role != "client-cert" {
		text += " Needs the role " + c.m.Role + "."
	}
	if len(c.m.Errors) > 0 {
		text += "\nDeclared errors: " + strings.Join(c.m.Errors, ", ") + "."
	}
	return text
}
