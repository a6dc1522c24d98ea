package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// decodeWithEncodingXML is what one would write with the standard library: its tokens, put into a struct by reflection.
func decodeWithEncodingXML(body []byte, envelope reflect.Value) error {
	d := &tokenDecoder{xml.NewDecoder(bytes.NewReader(body)), map[reflect.Type]map[string]int{}}
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "value" {
			return d.envelope(envelope)
		}
	}
}

type tokenDecoder struct {
	*xml.Decoder
	fields map[reflect.Type]map[string]int
}

// envelope reads {Status, Value} behind the first <value>.
func (d *tokenDecoder) envelope(out reflect.Value) error {
	name := ""
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			switch {
			case token.Name.Local == "name":
				err = d.DecodeElement(&name, &token)
			case token.Name.Local == "value" && name == "Status":
				err = d.value(out.FieldByName("Status"))
			case token.Name.Local == "value":
				err = d.value(out.FieldByName("Value"))
			}
		case xml.EndElement:
			if token.Name.Local == "struct" {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// value is called behind <value> and reads to </value>.
func (d *tokenDecoder) value(out reflect.Value) error {
	var text []byte
	composite := false
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.CharData:
			text = append(text, token...)
		case xml.EndElement:
			if composite {
				return nil
			}
			return setScalar(out, string(text))
		case xml.StartElement:
			switch token.Name.Local {
			case "array":
				composite, err = true, d.array(out)
			case "struct":
				composite, err = true, d.structure(out)
			default:
				text, err = d.inner()
			}
			if err != nil {
				return err
			}
		}
	}
}

// inner reads a type tag's text.
func (d *tokenDecoder) inner() ([]byte, error) {
	var text []byte
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.CharData:
			text = append(text, token...)
		case xml.EndElement:
			return text, nil
		}
	}
}

func (d *tokenDecoder) array(out reflect.Value) error {
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == "value" {
				one := reflect.New(out.Type().Elem()).Elem()
				if err := d.value(one); err != nil {
					return err
				}
				out.Set(reflect.Append(out, one))
			}
		case xml.EndElement:
			if token.Name.Local == "array" {
				return nil
			}
		}
	}
}

func (d *tokenDecoder) structure(out reflect.Value) error {
	if out.Kind() == reflect.Map {
		out.Set(reflect.MakeMap(out.Type()))
	}
	name := ""
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			switch token.Name.Local {
			case "name":
				var text []byte
				text, err = d.inner()
				name = string(text)
			case "value":
				err = d.member(out, name)
			}
			if err != nil {
				return err
			}
		case xml.EndElement:
			if token.Name.Local == "struct" {
				return nil
			}
		}
	}
}

func (d *tokenDecoder) member(out reflect.Value, name string) error {
	if out.Kind() == reflect.Map {
		one := reflect.New(out.Type().Elem()).Elem()
		if err := d.value(one); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(name), one)
		return nil
	}
	i, ok := d.index(out.Type())[name]
	if !ok {
		return d.Skip()
	}
	return d.value(out.Field(i))
}

func (d *tokenDecoder) index(t reflect.Type) map[string]int {
	if d.fields[t] == nil {
		d.fields[t] = map[string]int{}
		for i := range t.NumField() {
			d.fields[t][t.Field(i).Tag.Get("json")] = i
		}
	}
	return d.fields[t]
}

var errNoScalar = errors.New("a scalar where none is expected")

func setScalar(out reflect.Value, text string) error {
	switch out.Kind() {
	case reflect.String:
		out.SetString(text)
	case reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		out.SetInt(n)
		return err
	case reflect.Bool:
		out.SetBool(text == "1")
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		out.SetFloat(f)
		return err
	case reflect.Struct:
		when, err := time.Parse("20060102T15:04:05Z", text)
		out.Set(reflect.ValueOf(when))
		return err
	default:
		return fmt.Errorf("%w: %v", errNoScalar, out.Type())
	}
	return nil
}
