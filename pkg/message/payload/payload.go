// Package payload parses the JSON bodies that F2 controllers send and receive (section 3 of the
// design): a time and, depending on the component, an RS-485 frame, numbers, or a state.
//
// The package is strict: what it does not understand becomes a dead letter that an operator
// sees, and is never dropped silently. It accepts JSON according to RFC 7493 (no invalid UTF-8,
// no duplicate names), limits size, depth and lengths, and refuses what a jsonb column would
// refuse. It does not decode frames, does not know the data points of a device, and does not
// read a clock.
//
// What it refuses and what it keeps:
//   - A sensor's body has "data" or numbers by label. These members are left out and listed in
//     Refused: members that are neither (a boolean, a string, null, an object), numbers that
//     are out of range or beside "data", and labels that appear twice, ignoring case. Other
//     members are kept. A body without any is refused.
//   - An event's body must have the required member of its component ("status";
//     "door-sensor-N"; "exit-button-N"; "data" for a reader), with the right type. Other
//     members are kept in State unchanged; invalid ones are left out, as for a sensor.
//   - A command's body is one of section 3, or empty.
//   - "timestamp", "data" and other known names are case-sensitive; another spelling is refused
//     and not taken as a label. A body with an invalid "timestamp" is refused, since the time of
//     its values is unknown. Only the "timestamp" of the top level counts.
//
// No error contains a value of a body, since a reader's data are personal.
package payload

import (
	"sync"
	"time"
	"unicode/utf8"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Limits of a body.
const (
	DefaultMaxSize   = 64 << 10 // bytes of a body, if Parser.MaxSize is 0
	MaxDepth         = 8        // nested objects and arrays, including the body itself
	MaxMembers       = 128      // of one object or array
	MaxNameLength    = 128      // bytes of a member's name, and so of a label
	MaxReaderData    = 1023     // characters of a reader's data
	MaxNumberLength  = 64       // bytes of a number in JSON
	maxScaleExponent = 400      // of a number, in either direction
)

// Number is a value that a sensor sent with its label.
type Number struct {
	Label string  // as sent; labels are matched ignoring case
	Value float64 // finite
}

// Payload is a parsed body. One of Frame, Numbers and State is set.
type Payload struct {
	// Time is the body's timestamp in UTC, with nanoseconds if the body has them; it is zero if
	// the body has no timestamp.
	Time time.Time
	// Frame is the frame in a sensor's "data", at least one byte.
	Frame []byte
	// Numbers are a sensor's numbers, in the order of the body; at least one.
	Numbers []Number
	// State is a compact JSON object without "timestamp", for a jsonb column: an event's or a
	// command's members in order. Bodies that are not objects become one: {"value":1} for a
	// siren's command, {"success":1} for a reader's, {"request":"status"} for an empty command.
	// A reader's state contains personal data.
	State []byte
	// Refused are the members of a sensor's or an event's body that were left out.
	Refused []Refused
}

// Parser parses bodies. After the first Parse its fields must not change and it must not be
// copied. It is safe for concurrent use. The zero Parser is ready to use.
type Parser struct {
	// Zone is the time zone of timestamps without an offset; nil is UTC.
	Zone *time.Location
	// MaxSize is the size of the largest body in bytes; 0 is DefaultMaxSize.
	MaxSize int

	scanners sync.Pool // of *scanner
}

// Parse parses the body of a message on t. Errors are of type *Error. The result does not share
// memory with body.
func (p *Parser) Parse(t topic.Topic, body []byte) (Payload, error) {
	return p.ParseAt(t, body, time.Time{})
}

// ParseAt is Parse for a body that was received at a time. If a local time exists twice in the
// zone, for example when summer time ends, or not at all, ParseAt takes the time nearest to
// received. Parse uses time.Date.
func (p *Parser) ParseAt(t topic.Topic, body []byte, received time.Time) (Payload, error) {
	switch {
	case len(body) > p.maxSize():
		return Payload{}, refuse(ReasonTooLarge, "%d bytes; the limit is %d", len(body), p.maxSize())
	case isBlank(body):
		return parseEmpty(t)
	case !utf8.Valid(body):
		return Payload{}, refuse(ReasonBadUTF8, "not UTF-8 at byte %d of %d", validLength(body), len(body))
	}
	s, ok := p.scanners.Get().(*scanner)
	if !ok {
		s = new(scanner)
	}
	names := namesOnce
	if t.Component.Kind == topic.Sensor {
		names = namesTwice
	}
	s.reset(body, p.Zone, received, names)
	result, err := s.parse(t)
	s.release()
	p.scanners.Put(s)
	if err != nil {
		return Payload{}, err
	}
	return result, nil
}

// validLength returns the number of bytes before the first one that is not UTF-8.
func validLength(body []byte) int {
	n := 0
	for n < len(body) {
		r, size := utf8.DecodeRune(body[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}

func (p *Parser) maxSize() int {
	if p.MaxSize > 0 {
		return p.MaxSize
	}
	return DefaultMaxSize
}

// parseEmpty handles empty bodies, which request the status of a component.
func parseEmpty(t topic.Topic) (Payload, error) {
	if t.Root != topic.Cmnd {
		return Payload{}, refuse(ReasonEmptyPayload, "empty; only a command may be empty")
	}
	return Payload{State: []byte(`{"request":"status"}`)}, nil
}

// parse parses the body by its component and root. Older firmware publishes readings under
// cmnd, so a sensor's body is a reading under any root.
func (s *scanner) parse(t topic.Topic) (Payload, error) {
	switch {
	case t.Component.Kind == topic.Sensor:
		return s.sensor()
	case t.Root == topic.Cmnd:
		return s.command(t)
	}
	return s.event(t.Component.Kind)
}

// isBlank reports whether the body is JSON's white space only.
func isBlank(body []byte) bool {
	for _, c := range body {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}
