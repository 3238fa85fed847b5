package payload

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// scanner walks over one body. It is used again for others.
type scanner struct {
	decoder jsontext.Decoder
	body    bytes.Buffer
	zone    *time.Location
	name    []byte // of the member that is being read, without quotes
	text    []byte // the last string that had escapes
}

// reset starts on a body, which is UTF-8. jsontext reads a bytes.Buffer in
// place, and does not write to it.
func (s *scanner) reset(body []byte, zone *time.Location) {
	if zone == nil {
		zone = time.UTC
	}
	s.zone = zone
	s.body = *bytes.NewBuffer(body)
	s.decoder.Reset(&s.body)
}

// maxKept bounds the memory that a scanner keeps between bodies.
const maxKept = 4 << 10

// release lets go of the body, and of what was copied from it.
func (s *scanner) release() {
	s.body = bytes.Buffer{}
	s.decoder.Reset(&s.body)
	clear(s.name)
	clear(s.text)
	if cap(s.text) > maxKept {
		s.text = nil
	}
}

// members calls visit for each member of the object that the body is, with
// s.name set and the value next to be read, and checks that nothing follows.
func (s *scanner) members(visit func() error) error {
	begin, err := s.decoder.ReadToken()
	if err != nil {
		return syntaxError(err)
	}
	if begin.Kind() != jsontext.KindBeginObject {
		return &Error{Reason: ReasonNotAnObject}
	}
	for n := 0; s.decoder.PeekKind() != jsontext.KindEndObject; n++ {
		if n == MaxMembers {
			return &Error{Reason: ReasonTooManyMembers}
		}
		if err := s.readName(); err != nil {
			return err
		}
		if err := visit(); err != nil {
			return err
		}
	}
	if _, err := s.decoder.ReadToken(); err != nil {
		return syntaxError(err)
	}
	return s.end()
}

// end checks that nothing but white space is left.
func (s *scanner) end() error {
	if _, err := s.decoder.ReadToken(); err != io.EOF { //nolint:errorlint // jsontext returns io.EOF itself
		return &Error{Reason: ReasonBadJSON}
	}
	return nil
}

// readName reads a member's name into s.name.
func (s *scanner) readName() error {
	raw, err := s.decoder.ReadValue()
	if err != nil {
		return syntaxError(err)
	}
	name, err := s.unquote(raw)
	if err != nil {
		return err
	}
	if len(name) == 0 || len(name) > MaxNameLength {
		return &Error{Reason: ReasonBadField}
	}
	s.name = append(s.name[:0], name...)
	return nil
}

// read reads the next value, which is valid until the next read. An object or
// array is refused before it is read.
func (s *scanner) read() (jsontext.Value, error) {
	switch s.decoder.PeekKind() {
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		return nil, &Error{Reason: ReasonBadField}
	}
	value, err := s.decoder.ReadValue()
	if err != nil {
		return nil, syntaxError(err)
	}
	return value, nil
}

// unquote returns the characters of a JSON string, valid until the next read
// or unquote.
func (s *scanner) unquote(raw jsontext.Value) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	text, err := jsontext.AppendUnquote(s.text[:0], raw)
	if err != nil {
		return nil, &Error{Reason: ReasonBadJSON}
	}
	s.text = text
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, &Error{Reason: ReasonNULCharacter}
	}
	return text, nil
}

// syntaxError drops jsontext's error, which can quote the body.
func syntaxError(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &Error{Reason: ReasonDuplicateName}
	}
	return &Error{Reason: ReasonBadJSON}
}
