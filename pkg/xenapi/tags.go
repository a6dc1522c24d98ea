package xenapi

import "bytes"

// element is one of the XML elements that an XML-RPC answer is made of.
type element uint8

const (
	elNone element = iota
	elMethodResponse
	elParams
	elParam
	elValue
	elString
	elInt
	elBoolean
	elDouble
	elDateTime
	elBase64
	elNil
	elArray
	elData
	elStruct
	elMember
	elName
)

func elementNamed(name []byte) element {
	switch string(name) {
	case "value":
		return elValue
	case "member":
		return elMember
	case "name":
		return elName
	case "struct":
		return elStruct
	case "array":
		return elArray
	case "data":
		return elData
	case "boolean":
		return elBoolean
	default:
		return rareElements[string(name)]
	}
}

// rareElements are those of which an answer holds few.
var rareElements = map[string]element{
	"string": elString, "int": elInt, "i4": elInt, "i8": elInt, "i1": elInt, "i2": elInt, "ex:i8": elInt, "double": elDouble,
	"dateTime.iso8601": elDateTime, "base64": elBase64, "nil": elNil, "ex:nil": elNil,
	"methodResponse": elMethodResponse, "params": elParams, "param": elParam,
}

// tag is one start or end tag. An empty-element tag is a start tag with empty set, for which no end tag follows.
type tag struct {
	el         element
	end, empty bool
}

// tag reads the next tag. Only white space, comments and processing instructions may come before it.
func (s *scanner) tag() (tag, error) {
	for {
		if err := s.skipSpace(); err != nil {
			return tag{}, err
		}
		if s.buf[s.pos] != '<' {
			return tag{}, s.fail(ErrMalformed, "text where a tag is expected")
		}
		if err := s.need(2); err != nil {
			return tag{}, err
		}
		var err error
		switch s.buf[s.pos+1] {
		case '?':
			err = s.skipPast("?>")
		case '!':
			err = s.declaration(false)
		default:
			return s.element()
		}
		if err != nil {
			return tag{}, err
		}
	}
}

// element reads the tag at pos. Attributes are passed over: XML-RPC has none.
func (s *scanner) element() (tag, error) {
	inside, err := s.until('>')
	if err != nil {
		return tag{}, err
	}
	if bytes.IndexByte(inside, '"') >= 0 || bytes.IndexByte(inside, '\'') >= 0 {
		return tag{}, s.fail(ErrMalformed, "an attribute")
	}
	width := len(inside) + 1
	var t tag
	name := inside[1:]
	if len(name) > 0 && name[0] == '/' {
		t.end, name = true, name[1:]
	} else if len(name) > 0 && name[len(name)-1] == '/' {
		t.empty, name = true, name[:len(name)-1]
	}
	name = bytes.TrimRight(name, " \t\r\n")
	if t.el = elementNamed(name); t.el == elNone {
		return tag{}, s.fail(ErrMalformed, "an element that is not part of XML-RPC")
	}
	s.pos += width
	return t, nil
}

// start reads the start tag of el, and says whether it was an empty-element tag.
func (s *scanner) start(el element) (empty bool, err error) {
	t, err := s.tag()
	if err != nil {
		return false, err
	}
	if t.el != el || t.end {
		return false, s.fail(ErrMalformed, "an element out of its place")
	}
	return t.empty, nil
}

// finish reads the end tag of el.
func (s *scanner) finish(el element) error {
	t, err := s.tag()
	if err != nil {
		return err
	}
	if t.el != el || !t.end {
		return s.fail(ErrMalformed, "an element that is not closed")
	}
	return nil
}
