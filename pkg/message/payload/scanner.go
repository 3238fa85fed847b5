package payload

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// scanner parses one body at a time. It is reused.
type scanner struct {
	decoder  jsontext.Decoder
	body     bytes.Buffer
	size     int // of the body
	zone     *time.Location
	received time.Time
	name     []byte // of the current member, without quotes
	badName  *Error // why the member's name is invalid, or nil
	text     []byte // the last string that had escapes
}

// reset prepares for a body, which is UTF-8. jsontext reads a bytes.Buffer in place, and does
// not write to it. names is whether an object may have a name twice.
func (s *scanner) reset(body []byte, zone *time.Location, received time.Time, names jsontext.Options) {
	if zone == nil {
		zone = time.UTC
	}
	s.zone, s.received, s.size = zone, received, len(body)
	s.body = *bytes.NewBuffer(body)
	s.decoder.Reset(&s.body, names)
}

// In a sensor's body, a duplicate name only makes a member invalid. In other bodies the whole
// body is refused, since jsonb would drop one of the two.
var (
	namesOnce  = jsontext.AllowDuplicateNames(false)
	namesTwice = jsontext.AllowDuplicateNames(true)
)

// maxKept is how much memory a scanner keeps between bodies.
const maxKept = 4 << 10

// release drops the body and everything that was copied from it.
func (s *scanner) release() {
	s.body = bytes.Buffer{}
	s.decoder.Reset(&s.body)
	clear(s.name)
	clear(s.text)
	s.badName = nil
	if cap(s.text) > maxKept {
		s.text = nil
	}
}

// members calls visit for each member of the body, which must be an object and end with it.
// visit finds the name in s.name and must read the value.
func (s *scanner) members(visit func() error) error {
	switch s.decoder.PeekKind() {
	case jsontext.KindBeginObject:
	case jsontext.KindInvalid, jsontext.KindEndObject, jsontext.KindEndArray:
		_, err := s.decoder.ReadToken()
		return s.syntaxError(err)
	default:
		return refuse(ReasonNotAnObject, "the body is JSON, but not an object")
	}
	if _, err := s.decoder.ReadToken(); err != nil {
		return s.syntaxError(err)
	}
	for n := 0; s.decoder.PeekKind() != jsontext.KindEndObject; n++ {
		if n == MaxMembers {
			return refuse(ReasonTooManyMembers, "the body has more than %d members", MaxMembers)
		}
		if err := s.readName(); err != nil {
			return err
		}
		if err := visit(); err != nil {
			return err
		}
	}
	if _, err := s.decoder.ReadToken(); err != nil {
		return s.syntaxError(err)
	}
	return s.end()
}

// end checks that nothing but white space is left.
func (s *scanner) end() error {
	if _, err := s.decoder.ReadToken(); err != io.EOF { //nolint:errorlint // jsontext returns io.EOF itself
		return refuse(ReasonBadJSON, "something follows the JSON value, which ends at byte %d of %d", s.decoder.InputOffset(), s.size)
	}
	return nil
}

// readName reads a member's name into s.name, and sets s.badName if it is invalid.
func (s *scanner) readName() error {
	raw, err := s.decoder.ReadValue()
	if err != nil {
		return s.syntaxError(err)
	}
	name, err := s.unquote(raw)
	s.badName = nil
	switch {
	case errors.As(err, &s.badName):
		name = raw[1 : len(raw)-1]
	case len(name) == 0:
		s.badName = refuse(ReasonBadField, "an empty name")
	case len(name) > MaxNameLength:
		s.badName = refuse(ReasonBadField, "a name of %d bytes; the limit is %d", len(name), MaxNameLength)
	}
	s.name = append(s.name[:0], name...)
	return nil
}

// Placeholders for values that are skipped.
var (
	someObject = jsontext.Value("{")
	someArray  = jsontext.Value("[")
)

// read reads the next value, which is valid until the next read. It skips an object or an array
// and returns only the first byte: no member needs them. An error means that the body is broken.
func (s *scanner) read() (jsontext.Value, error) {
	kind := s.decoder.PeekKind()
	if kind != jsontext.KindBeginObject && kind != jsontext.KindBeginArray {
		value, err := s.decoder.ReadValue()
		if err != nil {
			return nil, s.syntaxError(err)
		}
		return value, nil
	}
	if err := s.decoder.SkipValue(); err != nil {
		return nil, s.syntaxError(err)
	}
	if kind == jsontext.KindBeginArray {
		return someArray, nil
	}
	return someObject, nil
}

// unquote returns the characters of a JSON string, valid until the next read
// or unquote.
func (s *scanner) unquote(raw jsontext.Value) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	text, err := jsontext.AppendUnquote(s.text[:0], raw)
	if err != nil {
		return nil, s.syntaxError(err)
	}
	s.text = text
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, refuse(ReasonNULCharacter, "\\u0000, which PostgreSQL does not store")
	}
	return text, nil
}

// syntaxError replaces jsontext's error, which may quote the body.
func (s *scanner) syntaxError(err error) error {
	var syntax *jsontext.SyntacticError
	at := s.decoder.InputOffset()
	if errors.As(err, &syntax) {
		at = syntax.ByteOffset
	}
	refused := refuse(ReasonBadJSON, "not JSON at byte %d of %d", at, s.size)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && syntax != nil:
		refused = refuse(ReasonDuplicateName, "member %s appears twice in one object, the second time at byte %d", QuoteName(syntax.JSONPointer.LastToken()), at)
	case errors.Is(err, io.ErrUnexpectedEOF):
		refused = refuse(ReasonBadJSON, "the body ends within the JSON value, at byte %d", s.size)
	}
	refused.broken = true
	return refused
}
