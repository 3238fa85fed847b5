package payload

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

// Members with a meaning.
const (
	nameTimestamp = "timestamp"
	nameData      = "data"
)

// usualNumbers is how many numbers most sensors send.
const usualNumbers = 4

// sensor parses {"timestamp":…, "data":"01 03 …"} or {"timestamp":…, "<label>":23.5, …}.
func (s *scanner) sensor() (Payload, error) {
	var p Payload
	err := s.members(func() error { return s.sensorMember(&p) })
	switch {
	case err != nil:
		return Payload{}, err
	case p.Frame != nil:
		for _, n := range p.Numbers {
			s.name = append(s.name[:0], n.Label...)
			_ = s.leaveOut(&p, errBesideData)
		}
		p.Numbers = nil
	case len(p.Numbers) > 0:
	case len(p.Refused) > 0:
		return Payload{}, nothingLeft(p.Refused)
	default:
		return Payload{}, refuse(ReasonMissingData, "a sensor's body needs \"data\" or numbers")
	}
	return p, nil
}

// errBesideData is the error of a sensor's numbers if the body has a frame.
var errBesideData = refuse(ReasonDataAndNumbers, "a number beside \"data\"; only \"data\" is decoded")

// sensorMember takes a member, or leaves it out if it is invalid. An error is about the whole
// body: it is broken, or its time is invalid.
func (s *scanner) sensorMember(p *Payload) error {
	if isSpelled(s.name, nameTimestamp) {
		return s.readTimestamp(p)
	}
	value, err := s.read()
	switch {
	case err != nil:
		return err
	case s.badName != nil:
		err = s.badName
	case !isSpelled(s.name, nameData):
		err = s.number(p, value)
	case string(s.name) != nameData:
		err = misspelt(nameData)
	case p.Frame != nil:
		return refuse(ReasonDuplicateName, "member %s appears twice", QuoteName(nameData))
	default:
		p.Frame, err = s.frame(value)
	}
	if err != nil {
		return s.leaveOut(p, err)
	}
	return nil
}

// number takes a number by its label. If a label appears twice, ignoring case, neither number
// is taken.
func (s *scanner) number(p *Payload, value jsontext.Value) error {
	n, err := parseNumber(value)
	if err != nil {
		return err
	}
	label := string(s.name)
	for i := range p.Refused {
		if p.Refused[i].Reason == ReasonDuplicateName && strings.EqualFold(p.Refused[i].Member, label) {
			return nil
		}
	}
	for i := range p.Numbers {
		if strings.EqualFold(p.Numbers[i].Label, label) {
			p.Numbers = slices.Delete(p.Numbers, i, i+1)
			return refuse(ReasonDuplicateName, "the label appears twice")
		}
	}
	if p.Numbers == nil {
		p.Numbers = make([]Number, 0, usualNumbers)
	}
	p.Numbers = append(p.Numbers, Number{Label: label, Value: n})
	return nil
}

// frame parses a sensor's data.
func (s *scanner) frame(value jsontext.Value) ([]byte, error) {
	if value.Kind() != jsontext.KindString {
		return nil, refuse(ReasonBadField, "%s, not a string of hex", kindOf(value))
	}
	text, err := s.unquote(value)
	if err != nil {
		return nil, err
	}
	b, err := frame.ParseHex(make([]byte, 0, (len(text)+2)/3), text)
	if err != nil {
		return nil, refuse(ReasonBadHex, "%v", err)
	}
	if len(b) == 0 {
		return nil, refuse(ReasonMissingData, "no bytes")
	}
	return b, nil
}

// isSpelled reports whether a name is a known one, whatever its case.
func isSpelled(name []byte, known string) bool {
	return len(name) == len(known) && bytes.EqualFold(name, []byte(known))
}

func misspelt(known string) *Error {
	return refuse(ReasonBadField, "it must be spelled %q", known)
}
