// Package payload reads the JSON bodies that F2 controllers publish and are
// sent (section 3 of the design): a time and, by component, an RS-485 frame,
// numbers, or a state.
//
// The package is strict, since what it cannot understand becomes a dead letter
// that an operator sees, and never a silent omission: JSON as RFC 7493 has it
// (no invalid UTF-8, no duplicate names), bounds on size, depth and lengths,
// and nothing that a jsonb column would refuse. It does not decode frames, does
// not know which data points a device has, and does not read a clock.
//
// What it refuses and what it keeps:
//   - A sensor's body has "data" or numbers by label. A member that is neither (a
//     boolean, a string, null, an object), a number that is out of range or
//     stands beside "data", and a label that stands twice, also in another case,
//     are left out and named in Refused; the others are kept. With nothing left
//     the body is refused.
//   - An event's body has the member that its component is known by ("status";
//     "door-sensor-N"; "exit-button-N"; "data" for a reader), of the right
//     type. Further members are kept in State as they are. Members that cannot
//     be kept are left out likewise.
//   - A command's body is one of those of section 3, or empty.
//   - "timestamp", "data" and the like are matched exactly; another spelling of
//     them in capitals is refused rather than taken for a label. A body whose
//     "timestamp" cannot be read is refused: nobody knows when it was true. Only
//     that of the top level is the body's.
//
// No error holds a value of a body, since a reader's data are personal.
package payload

import (
	"sync"
	"time"
	"unicode/utf8"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// The bounds on what is parsed.
const (
	DefaultMaxSize   = 64 << 10 // bytes of a body, where Parser.MaxSize is 0
	MaxDepth         = 8        // nested objects and arrays, the body's own included
	MaxMembers       = 128      // of one object or array
	MaxNameLength    = 128      // bytes of a member's name, so of a label
	MaxReaderData    = 1023     // characters of a reader's data
	MaxNumberLength  = 64       // bytes of a number as it is spelled
	maxScaleExponent = 400      // of a number, in either direction
)

// Number is a reading that a sensor sent by its label.
type Number struct {
	Label string  // as sent; labels are matched without regard to case
	Value float64 // finite
}

// Payload is what a body says. Of Frame, Numbers and State one is set.
type Payload struct {
	// Time is the body's timestamp in UTC, to the nanosecond if it says so; it
	// is zero if the body has none.
	Time time.Time
	// Frame is the frame in a sensor's "data", at least one byte.
	Frame []byte
	// Numbers are a sensor's numbers, in the order of the body; at least one.
	Numbers []Number
	// State is a compact JSON object without "timestamp", fit for a jsonb
	// column: an event's or a command's members in their order. Bodies that
	// are not objects become one: {"value":1} for a siren's command,
	// {"success":1} for a reader's, {"request":"status"} for an empty command.
	// A reader's holds personal data.
	State []byte
	// Refused are the members of a sensor's or an event's body that were left out.
	Refused []Refused
}

// Parser parses bodies. Its fields must not change after the first Parse, and
// it must not be copied then. It is safe for concurrent use; the zero Parser
// works.
type Parser struct {
	// Zone is where timestamps without an offset are; nil is UTC.
	Zone *time.Location
	// MaxSize bounds a body, in bytes; 0 is DefaultMaxSize.
	MaxSize int

	scanners sync.Pool // of *scanner; holds no state between bodies
}

// Parse reads the body of a message on t. Errors are of type *Error. The
// result does not share memory with body.
func (p *Parser) Parse(t topic.Topic, body []byte) (Payload, error) {
	return p.ParseAt(t, body, time.Time{})
}

// ParseAt is Parse for a body that was received at a time. Where the zone has a
// local time twice, as when summer time ends, or leaves it out, that decides:
// the time that is nearest to it is meant. Parse leaves it to time.Date.
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

// validLength is how many bytes of a body are UTF-8, up to the first that is not.
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

// parseEmpty is for empty bodies, which ask for the status of a component.
func parseEmpty(t topic.Topic) (Payload, error) {
	if t.Root != topic.Cmnd {
		return Payload{}, refuse(ReasonEmptyPayload, "empty, which only a command may be")
	}
	return Payload{State: []byte(`{"request":"status"}`)}, nil
}

// parse chooses the form of the body. Older firmware publishes readings under
// cmnd, so a sensor's body is a reading whatever the root.
func (s *scanner) parse(t topic.Topic) (Payload, error) {
	switch {
	case t.Component.Kind == topic.Sensor:
		return s.sensor()
	case t.Root == topic.Cmnd:
		return s.command(t)
	}
	return s.event(t.Component.Kind)
}

// isBlank says whether the body is JSON's white space only.
func isBlank(body []byte) bool {
	for _, c := range body {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}
