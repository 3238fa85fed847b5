package payload

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/topic"
)

// rule checks the value of a member that has a meaning. The value is a scalar.
type rule func(*scanner, jsontext.Value) error

// rules finds a member's rule, and says whether the component is known by the
// member. The rule is nil for a further member, which is kept as it is.
type rules func(name []byte) (check rule, known bool)

// event reads what a component other than a sensor reports.
func (s *scanner) event(kind topic.Kind) (Payload, error) {
	switch kind {
	case topic.Strike, topic.Siren, topic.MotionSensor:
		return s.object(statusRules)
	case topic.DoorSensors:
		return s.object(doorRules)
	case topic.ExitButtons:
		return s.object(buttonRules)
	case topic.Reader:
		return s.object(readerRules)
	}
	return Payload{}, &Error{Reason: ReasonBadField}
}

// object reads an object into a state. It needs a member that the component is known by.
func (s *scanner) object(find rules) (Payload, error) {
	var p Payload
	known := false
	err := s.members(func() error {
		if string(s.name) == nameTimestamp {
			return s.readTimestamp(&p)
		}
		check, isKnown := find(s.name)
		known = known || isKnown
		return s.stateMember(&p, check)
	})
	if err != nil {
		return Payload{}, err
	}
	if !known {
		return Payload{}, &Error{Reason: ReasonMissingField}
	}
	p.State = append(p.State, '}')
	return p, nil
}

// stateMember checks a member and appends it to the state.
func (s *scanner) stateMember(p *Payload, check rule) (err error) {
	if p.State, err = s.appendName(p.State); err != nil {
		return err
	}
	if check == nil {
		if isMisspelt(s.name) {
			return &Error{Reason: ReasonBadField}
		}
		p.State, err = s.appendValue(p.State, 1)
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

func doorRules(name []byte) (rule, bool) { return inputRules(name, "door-sensor-") }

func buttonRules(name []byte) (rule, bool) { return inputRules(name, "exit-button-") }

// inputRules is for the inputs of a connector, numbered 0..99 after the prefix.
func inputRules(name []byte, prefix string) (rule, bool) {
	number, ok := bytes.CutPrefix(name, []byte(prefix))
	if !ok {
		return nil, false
	}
	if !isInputNumber(number) {
		return refuse, true
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
		return &Error{Reason: ReasonBadField}
	}
	return nil
}

func isReaderData(s *scanner, value jsontext.Value) error {
	if value.Kind() != jsontext.KindString {
		return &Error{Reason: ReasonBadField}
	}
	text, err := s.unquote(value)
	switch {
	case err != nil:
		return err
	case len(text) == 0:
		return &Error{Reason: ReasonMissingData}
	case utf8.RuneCount(text) > MaxReaderData:
		return &Error{Reason: ReasonDataTooLong}
	}
	return nil
}

func refuse(*scanner, jsontext.Value) error { return &Error{Reason: ReasonBadField} }
