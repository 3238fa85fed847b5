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
	decoder  jsontext.Decoder
	body     bytes.Buffer
	size     int // of the body
	zone     *time.Location
	received time.Time
	name     []byte // of the member that is being read, without quotes
	badName  *Error // the member's name cannot be used
	text     []byte // the last string that had escapes
}

// reset starts on a body, which is UTF-8. jsontext reads a bytes.Buffer in
// place, and does not write to it. names says whether an object can have a name
// twice.
func (s *scanner) reset(body []byte, zone *time.Location, received time.Time, names jsontext.Options) {
	if zone == nil {
		zone = time.UTC
	}
	s.zone, s.received, s.size = zone, received, len(body)
	s.body = *bytes.NewBuffer(body)
	s.decoder.Reset(&s.body, names)
}

// A sensor's name that stands twice is one odd member; elsewhere the body is not
// what jsonb would keep.
var (
	namesOnce  = jsontext.AllowDuplicateNames(false)
	namesTwice = jsontext.AllowDuplicateNames(true)
)

// maxKept bounds the memory that a scanner keeps between bodies.
const maxKept = 4 << 10

// release lets go of the body, and of what was copied from it.
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

// members calls visit for each member of the object that the body is, with
// s.name set and the value next to be read, and checks that nothing follows.
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

// readName reads a member's name into s.name, and says in s.badName if it cannot
// be used.
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

// Stand-ins for values that are not read.
var (
	someObject = jsontext.Value("{")
	someArray  = jsontext.Value("[")
)

// read reads the next value, which is valid until the next read. An object or an
// array is passed over, and only its first byte returned: it is never what is
// looked for. An error says that the body is broken.
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

// syntaxError drops jsontext's error, which can quote the body.
func (s *scanner) syntaxError(err error) error {
	var syntax *jsontext.SyntacticError
	at := s.decoder.InputOffset()
	if errors.As(err, &syntax) {
		at = syntax.ByteOffset
	}
	refused := refuse(ReasonBadJSON, "not JSON at byte %d of %d", at, s.size)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && syntax != nil:
		refused = refuse(ReasonDuplicateName, "member %s stands twice in one object, the second time at byte %d", QuoteName(syntax.JSONPointer.LastToken()), at)
	case errors.Is(err, io.ErrUnexpectedEOF):
		refused = refuse(ReasonBadJSON, "the body ends within the JSON value, at byte %d", s.size)
	}
	refused.broken = true
	return refused
}
