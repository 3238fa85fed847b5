package payload

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/frame"
)

// The members that have a meaning of their own.
const (
	nameTimestamp = "timestamp"
	nameData      = "data"
)

// usualNumbers is how many numbers most sensors send.
const usualNumbers = 4

// sensor reads {"timestamp":…, "data":"01 03 …"} or {"timestamp":…, "<label>":23.5, …}.
func (s *scanner) sensor() (Payload, error) {
	var p Payload
	err := s.members(func() error { return s.sensorMember(&p) })
	switch {
	case err != nil:
		return Payload{}, err
	case p.Frame != nil && p.Numbers != nil:
		return Payload{}, &Error{Reason: ReasonDataAndNumbers}
	case p.Frame == nil && p.Numbers == nil:
		return Payload{}, &Error{Reason: ReasonMissingData}
	}
	return p, nil
}

func (s *scanner) sensorMember(p *Payload) error {
	if string(s.name) == nameTimestamp {
		return s.readTimestamp(p)
	}
	value, err := s.read()
	if err != nil {
		return err
	}
	switch {
	case string(s.name) == nameData:
		p.Frame, err = s.frame(value)
		return err
	case isMisspelt(s.name):
		return &Error{Reason: ReasonBadField}
	}
	n, err := parseNumber(value)
	if err != nil {
		return err
	}
	label := string(s.name)
	for _, other := range p.Numbers {
		if strings.EqualFold(other.Label, label) {
			return &Error{Reason: ReasonDuplicateName}
		}
	}
	if p.Numbers == nil {
		p.Numbers = make([]Number, 0, usualNumbers)
	}
	p.Numbers = append(p.Numbers, Number{Label: label, Value: n})
	return nil
}

// frame reads a sensor's data.
func (s *scanner) frame(value jsontext.Value) ([]byte, error) {
	if value.Kind() != jsontext.KindString {
		return nil, &Error{Reason: ReasonBadField}
	}
	text, err := s.unquote(value)
	if err != nil {
		return nil, err
	}
	b, err := frame.ParseHex(make([]byte, 0, (len(text)+2)/3), text)
	if err != nil {
		return nil, &Error{Reason: ReasonBadHex}
	}
	if len(b) == 0 {
		return nil, &Error{Reason: ReasonMissingData}
	}
	return b, nil
}

// isMisspelt says whether a name is a known one but for its case.
func isMisspelt(name []byte) bool {
	return bytes.EqualFold(name, []byte(nameTimestamp)) || bytes.EqualFold(name, []byte(nameData))
}
