package payload

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
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

// errBesideData is the error of a sensor's numbers where there is a frame.
var errBesideData = refuse(ReasonDataAndNumbers, "a number beside \"data\", which is decoded in its place")

// sensorMember takes a member, or leaves it out if it is not one that is
// understood. An error is that of the whole body: it is broken, or its time
// cannot be read.
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
		return refuse(ReasonDuplicateName, "member %s stands twice", QuoteName(nameData))
	default:
		p.Frame, err = s.frame(value)
	}
	if err != nil {
		return s.leaveOut(p, err)
	}
	return nil
}

// number takes a number by its label. A label that stands twice, whatever its
// case, names no number.
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
			return refuse(ReasonDuplicateName, "the label stands twice")
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

// isSpelled says whether a name is a known one, whatever its case.
func isSpelled(name []byte, known string) bool {
	return len(name) == len(known) && bytes.EqualFold(name, []byte(known))
}

func misspelt(known string) *Error {
	return refuse(ReasonBadField, "it has to be spelled %q", known)
}
