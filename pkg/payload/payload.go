// Package payload reads the JSON bodies that F2 controllers publish and are
// sent (section 3 of the design): a time and, by component, an RS-485 frame,
// numbers, or a state.
//
// The package is strict, since what it cannot understand becomes a dead letter
// that an operator sees, and never a silent omission: JSON as RFC 7493 has it
// (no duplicate names, no invalid UTF-8), bounds on size, depth and lengths,
// and nothing that a jsonb column would refuse. It does not decode frames, does
// not know which data points a device has, and does not read a clock.
//
// What it refuses and what it keeps:
//   - A sensor's body has either "data" or numbers by label, not both. Labels
//     that differ in case only are one label twice. A value that is not a
//     number (a boolean, a string, null, an object) is refused.
//   - An event's body has the member that its component is known by ("status";
//     "door-sensor-N"; "exit-button-N"; "data" for a reader), of the right
//     type. Further members are kept in State as they are.
//   - A command's body is one of those of section 3, or empty.
//   - "timestamp", "data" and the like are matched exactly; another spelling of
//     them in capitals is refused rather than taken for a label.
//
// No error holds any part of a body, since a reader's data are personal.
package payload

import (
	"sync"
	"time"
	"unicode/utf8"

	"github.com/f2mesh/f2mesh/pkg/topic"
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
}

// Parser parses bodies. Its fields must not change after the first Parse, and
// it must not be copied then. It is safe for concurrent use; the zero Parser
// works.
type Parser struct {
	// Zone is where timestamps without an offset are; nil is UTC. Where it
	// changes its offset, an hour is ambiguous and time.Date chooses.
	Zone *time.Location
	// MaxSize bounds a body, in bytes; 0 is DefaultMaxSize.
	MaxSize int

	scanners sync.Pool // of *scanner; holds no state between bodies
}

// Parse reads the body of a message on t. Errors are of type *Error. The
// result does not share memory with body.
func (p *Parser) Parse(t topic.Topic, body []byte) (Payload, error) {
	switch {
	case len(body) > p.maxSize():
		return Payload{}, &Error{Reason: ReasonTooLarge}
	case isBlank(body):
		return parseEmpty(t)
	case !utf8.Valid(body):
		return Payload{}, &Error{Reason: ReasonBadUTF8}
	}
	s, ok := p.scanners.Get().(*scanner)
	if !ok {
		s = new(scanner)
	}
	s.reset(body, p.Zone)
	result, err := s.parse(t)
	s.release()
	p.scanners.Put(s)
	if err != nil {
		return Payload{}, err
	}
	return result, nil
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
		return Payload{}, &Error{Reason: ReasonEmptyPayload}
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
