package xenapi

import (
	"errors"
	"io"
)

// answer is what a call got back.
type answer struct {
	failed      bool
	description []string
}

// readAnswer reads a whole methodResponse and gives the call's result to read. A result that is not wrapped in Status and Value (only
// system.listMethods sends one) is given to read as it is. Afterwards src is at its end.
func readAnswer(src io.Reader, limits Limits, read func(*scanner) error) (answer, error) {
	s := newScanner(src, limits)
	defer s.release()
	for _, el := range []element{elMethodResponse, elParams, elParam} {
		if empty, err := s.start(el); err != nil || empty {
			return answer{}, orMalformed(s, err, "an answer without a value")
		}
	}
	a, err := s.unwrap(read)
	if err != nil {
		return a, err
	}
	for _, el := range []element{elParam, elParams, elMethodResponse} {
		if err := s.finish(el); err != nil {
			return a, err
		}
	}
	return a, s.atEnd()
}

func orMalformed(s *scanner, err error, reason string) error {
	if err != nil {
		return err
	}
	return s.fail(ErrMalformed, "%s", reason)
}

// unwrap reads {Status, Value} or {Status, ErrorDescription}.
func (s *scanner) unwrap(read func(*scanner) error) (answer, error) {
	wrapped, err := s.peekStruct()
	if err != nil {
		return answer{}, err
	}
	if !wrapped {
		return answer{}, read(s)
	}
	_, _, empty, err := s.open()
	if err != nil || empty {
		return answer{}, orMalformed(s, err, "an empty envelope")
	}
	e := envelope{read: read}
	for {
		name, ok, err := s.member()
		if err != nil {
			return answer{}, err
		}
		if !ok {
			break
		}
		if err := e.readField(s, name); err != nil {
			return answer{}, err
		}
		if err := s.endMember(); err != nil {
			return answer{}, err
		}
	}
	switch {
	case e.status == "Success" && e.valued:
		return answer{}, nil
	case e.status == "Failure":
		return answer{failed: true, description: e.description}, nil
	default:
		return answer{}, s.fail(ErrMalformed, "an envelope without a status that fits")
	}
}

// envelope is what a XenAPI wraps a result in.
type envelope struct {
	status      string
	description []string
	valued      bool
	read        func(*scanner) error // for the result
}

func (e *envelope) readField(s *scanner, name []byte) error {
	switch string(name) {
	case "Status":
		return readString(s, &e.status)
	case "Value":
		e.valued = true
		return e.read(s)
	case "ErrorDescription":
		return readStrings(s, &e.description)
	default:
		return readVoid(s, nil)
	}
}

// peekStruct says whether the next value is a struct, consuming nothing of it.
func (s *scanner) peekStruct() (bool, error) {
	if err := s.skipSpace(); err != nil {
		return false, err
	}
	for n := len("<value>"); n < 256; n++ {
		if err := s.need(n); err != nil {
			return false, err
		}
		rest := s.buf[s.pos+len("<value>") : s.pos+n]
		for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\n' || rest[0] == '\r' || rest[0] == '\t') {
			rest = rest[1:]
		}
		if len(rest) >= len("<struct") {
			return string(rest[:len("<struct")]) == "<struct", nil
		}
		if len(rest) > 0 && rest[0] != '<' {
			return false, nil
		}
		if len(rest) >= len("</") && rest[1] == '/' {
			return false, nil
		}
	}
	return false, nil
}

// atEnd reads on to the end of the answer, where nothing but white space and comments may follow.
func (s *scanner) atEnd() error {
	for {
		for s.pos < s.end {
			switch s.buf[s.pos] {
			case ' ', '\t', '\r', '\n':
				s.pos++
				continue
			default:
				return s.fail(ErrMalformed, "something after the answer")
			}
		}
		switch err := s.more(s.pos); {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return s.broken(err)
		}
	}
}
