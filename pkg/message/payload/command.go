package payload

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// The values of a command to a reader, strike or siren (section 3).
const (
	maxPowerFlag  = 2
	minPeriod     = 1
	maxPeriod     = 255
	maxSiren      = 1
	minReadResult = 1
	maxReadResult = 3
)

// command parses a command's body, which is not empty.
func (s *scanner) command(t topic.Topic) (Payload, error) {
	switch {
	case t.Component.Kind == topic.Strike:
		return s.object(strikeRules, "power-flag", false)
	case t.Component.Kind == topic.Siren:
		return s.bareInteger("value", 0, maxSiren)
	case t.Component.Kind == topic.Reader && t.Verb == topic.Success:
		return s.bareInteger(topic.Success, minReadResult, maxReadResult)
	}
	return Payload{}, refuse(ReasonUnknownCommand, "the component has no command with a body")
}

// bareInteger parses a body that is one integer, into a state with a name for it.
func (s *scanner) bareInteger(name string, low, high int) (Payload, error) {
	value, err := s.read()
	if err != nil {
		return Payload{}, err
	}
	n, err := parseInteger(value, low, high)
	if err != nil {
		return Payload{}, err
	}
	if err := s.end(); err != nil {
		return Payload{}, err
	}
	state := append([]byte(`{"`), name...)
	state = strconv.AppendInt(append(state, `":`...), int64(n), 10)
	return Payload{State: append(state, '}')}, nil
}

// strikeRules leave the period optional.
func strikeRules(name []byte) (rule, bool) {
	switch string(name) {
	case "power-flag":
		return isPowerFlag, true
	case "period":
		return isPeriod, false
	}
	return nil, false
}

func isPowerFlag(_ *scanner, value jsontext.Value) error {
	_, err := parseInteger(value, 0, maxPowerFlag)
	return err
}

func isPeriod(_ *scanner, value jsontext.Value) error {
	_, err := parseInteger(value, minPeriod, maxPeriod)
	return err
}
