package xenapi

import "bytes"

// open reads the beginning of a value. A scalar is consumed to the end of its value and returned as text, valid until the scanner moves on.
// Of an array or struct only the start is consumed: items or members and closeValue must follow, unless empty.
func (s *scanner) open() (kind Kind, text []byte, empty bool, err error) {
	if !s.literal("<value>") {
		none, err := s.start(elValue)
		if err != nil || none {
			return KindString, nil, true, err
		}
	}
	text, err = s.text()
	if err != nil {
		return 0, nil, false, err
	}
	if s.literal("</value>") {
		return KindString, text, false, nil
	}
	blank := len(text) == 0 || len(bytes.TrimSpace(text)) == 0
	if !blank {
		// The window may move while the end tag is read.
		s.name = append(s.name[:0], text...)
		return KindString, s.name, false, s.finish(elValue)
	}
	return s.openTagged(text)
}

// openTagged reads a value's type tag, after the white space before it.
func (s *scanner) openTagged(space []byte) (kind Kind, text []byte, empty bool, err error) {
	s.name = append(s.name[:0], space...)
	t, err := s.tag()
	if err != nil {
		return 0, nil, false, err
	}
	if t.el == elValue && t.end {
		return KindString, s.name, false, nil
	}
	if t.end {
		return 0, nil, false, s.fail(ErrMalformed, "an end tag out of its place")
	}
	kind, known := valueKinds[t.el]
	if !known {
		return 0, nil, false, s.fail(ErrMalformed, "an element that is no value type")
	}
	if kind == KindArray || kind == KindStruct {
		return kind, nil, t.empty, s.enter(t.empty)
	}
	if err := s.taggedText(t); err != nil {
		return 0, nil, false, err
	}
	return kind, s.name, false, s.finish(elValue)
}

var valueKinds = map[element]Kind{
	elString: KindString, elInt: KindInt, elBoolean: KindBool, elDouble: KindDouble, elDateTime: KindTime, elBase64: KindBase64, elNil: KindNil,
	elArray: KindArray, elStruct: KindStruct,
}

// taggedText reads the text of a type tag, and its end tag, into name.
func (s *scanner) taggedText(t tag) error {
	s.name = s.name[:0]
	if t.empty {
		return nil
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	s.name = append(s.name, text...)
	return s.finish(t.el)
}

// enter counts nesting; an empty array or struct is closed at once.
func (s *scanner) enter(empty bool) error {
	if empty {
		return s.finish(elValue)
	}
	if s.depth++; s.depth > s.limits.MaxDepth {
		return s.fail(ErrTooLarge, "nested deeper than %d", s.limits.MaxDepth)
	}
	return nil
}

// member reads the name of a struct's next member; false at the struct's end, which it consumes together with the value's. The name is
// valid until the next call.
func (s *scanner) member() ([]byte, bool, error) {
	if !s.literal("<member><name>") {
		t, err := s.tag()
		if err != nil {
			return nil, false, err
		}
		if t.el == elStruct && t.end {
			s.depth--
			return nil, false, s.closeValue()
		}
		if t.el != elMember || t.end || t.empty {
			return nil, false, s.fail(ErrMalformed, "a struct that holds something else than members")
		}
		if empty, err := s.start(elName); err != nil || empty {
			s.name = s.name[:0]
			return s.name, true, err
		}
	}
	name, err := s.text()
	if err != nil {
		return nil, false, err
	}
	s.name = append(s.name[:0], name...)
	if !s.literal("</name>") {
		err = s.finish(elName)
	}
	return s.name, true, err
}

func (s *scanner) endMember() error {
	if s.literal("</member>") {
		return nil
	}
	return s.finish(elMember)
}

func (s *scanner) closeValue() error {
	if s.literal("</value>") {
		return nil
	}
	return s.finish(elValue)
}

// beginItems reads the start of an array's data; false if it has none.
func (s *scanner) beginItems() (bool, error) {
	if s.literal("<data>") {
		return true, nil
	}
	empty, err := s.start(elData)
	if err != nil {
		return false, err
	}
	if empty {
		return false, s.endItems()
	}
	return true, nil
}

// item says whether another element of the array follows; at the end it consumes the array's and the value's end.
func (s *scanner) item() (bool, error) {
	if s.end-s.pos >= 7 && string(s.buf[s.pos:s.pos+7]) == "<value>" {
		return true, nil
	}
	for {
		if err := s.skipSpace(); err != nil {
			return false, err
		}
		if err := s.need(2); err != nil {
			return false, err
		}
		if s.buf[s.pos] != '<' {
			return false, s.fail(ErrMalformed, "text in an array")
		}
		var err error
		switch s.buf[s.pos+1] {
		case '/':
			if err := s.finish(elData); err != nil {
				return false, err
			}
			return false, s.endItems()
		case '!':
			err = s.declaration(false)
		case '?':
			err = s.skipPast("?>")
		default:
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (s *scanner) endItems() error {
	if err := s.finish(elArray); err != nil {
		return err
	}
	s.depth--
	return s.closeValue()
}

// scalar reads a value that is neither array nor struct.
func (s *scanner) scalar() (Kind, []byte, error) {
	kind, text, _, err := s.open()
	if err != nil {
		return 0, nil, err
	}
	if kind == KindArray || kind == KindStruct {
		return 0, nil, s.fail(ErrUnexpectedType, "%v where a scalar is expected", kind)
	}
	return kind, text, nil
}
