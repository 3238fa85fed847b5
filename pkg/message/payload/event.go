package payload

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// rule checks the value of a known member. The value is a scalar.
type rule func(*scanner, jsontext.Value) error

// rules finds a member's rule. known means that the member is the required one. The rule is nil
// for other members, which are kept unchanged.
type rules func(name []byte) (check rule, known bool)

// event parses the body of a component that is not a sensor.
func (s *scanner) event(kind topic.ComponentKind) (Payload, error) {
	switch kind {
	case topic.Strike, topic.Siren, topic.MotionSensor:
		return s.object(statusRules, "status", true)
	case topic.DoorSensors:
		return s.object(doorRules, doorPrefix+"N", true)
	case topic.ExitButtons:
		return s.object(buttonRules, buttonPrefix+"N", true)
	case topic.Reader:
		return s.object(readerRules, nameData, true)
	}
	return Payload{}, refuse(ReasonBadField, "no such component")
}

// object parses an object into a state. The object must have the required member, called name.
// If lenient, invalid members are left out; otherwise the body is refused.
func (s *scanner) object(find rules, name string, lenient bool) (Payload, error) {
	var p Payload
	known, knownRefused := false, false
	err := s.members(func() error {
		if isSpelled(s.name, nameTimestamp) {
			return s.readTimestamp(&p)
		}
		check, isKnown := find(s.name)
		start, depth := len(p.State), s.decoder.StackDepth()
		err := s.stateMember(&p, check)
		if err == nil {
			known = known || isKnown
			return nil
		}
		if err := s.leaveOut(&p, err); err != nil {
			return err
		}
		knownRefused = knownRefused || isKnown || isSpelled(s.name, name)
		if !lenient {
			return nothingLeft(p.Refused)
		}
		p.State = p.State[:start]
		return s.leave(depth)
	})
	switch {
	case err != nil:
		return Payload{}, err
	case known:
		p.State = append(p.State, '}')
		return p, nil
	case knownRefused:
		return Payload{}, nothingLeft(p.Refused)
	}
	return Payload{}, refuse(ReasonMissingField, "no member %q", name)
}

// leave skips the rest of the current value, up to a depth.
func (s *scanner) leave(depth int) error {
	for s.decoder.StackDepth() > depth {
		if _, err := s.decoder.ReadToken(); err != nil {
			return s.syntaxError(err)
		}
	}
	return nil
}

// stateMember checks a member and appends it to the state. Unless the body is broken, it has
// read the whole or a part of a value that it refuses.
func (s *scanner) stateMember(p *Payload, check rule) (err error) {
	if s.badName != nil || check == nil && isSpelled(s.name, nameData) {
		if _, err := s.read(); err != nil {
			return err
		}
		if s.badName != nil {
			return s.badName
		}
		return misspelt(nameData)
	}
	if p.State, err = s.appendName(p.State); err != nil {
		return err
	}
	if check == nil {
		state, err := s.appendValue(p.State, 1)
		if err == nil {
			p.State = state
		}
		return err
	}
	value, err := s.read()
	if err != nil {
		return err
	}
	p.State = append(p.State, value...)
	return check(s, value)
}

func statusRules(name []byte) (rule, bool) {
	if string(name) == "status" {
		return isBoolean, true
	}
	return nil, false
}

// Prefixes of the names of a connector's inputs.
const (
	doorPrefix   = "door-sensor-"
	buttonPrefix = "exit-button-"
)

func doorRules(name []byte) (rule, bool) { return inputRules(name, doorPrefix) }

func buttonRules(name []byte) (rule, bool) { return inputRules(name, buttonPrefix) }

// inputRules are for the inputs of a connector: a prefix and a number 0..99.
func inputRules(name []byte, prefix string) (rule, bool) {
	number, ok := bytes.CutPrefix(name, []byte(prefix))
	if !ok {
		return nil, false
	}
	if !isInputNumber(number) {
		return noInput, true
	}
	return isBoolean, true
}

func isInputNumber(b []byte) bool {
	if len(b) > 1 && b[0] == '0' || len(b) < 1 || len(b) > 2 {
		return false
	}
	_, ok := decimal(b, 0, topic.MaxNumber)
	return ok
}

func readerRules(name []byte) (rule, bool) {
	if string(name) == nameData {
		return isReaderData, true
	}
	return nil, false
}

func isBoolean(_ *scanner, value jsontext.Value) error {
	if kind := value.Kind(); kind != jsontext.KindTrue && kind != jsontext.KindFalse {
		return refuse(ReasonBadField, "%s, not true or false", kindOf(value))
	}
	return nil
}

func isReaderData(s *scanner, value jsontext.Value) error {
	if value.Kind() != jsontext.KindString {
		return refuse(ReasonBadField, "%s, not a string", kindOf(value))
	}
	text, err := s.unquote(value)
	if err != nil {
		return err
	}
	switch n := utf8.RuneCount(text); {
	case n == 0:
		return refuse(ReasonMissingData, "an empty string")
	case n > MaxReaderData:
		return refuse(ReasonDataTooLong, "%d characters; the limit is %d", n, MaxReaderData)
	}
	return nil
}

func noInput(*scanner, jsontext.Value) error {
	return refuse(ReasonBadField, "its number is not 0 to %d", topic.MaxNumber)
}
