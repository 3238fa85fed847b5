package decoder

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/frame"
	"github.com/f2mesh/f2mesh/pkg/payload"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// stage is the decoder's name in subjects and dead letters.
const stage = "decoder"

// message is a RAW message, taken apart.
type message struct {
	topic    topic.Topic
	subject  string
	id       event.ID
	received time.Time
	body     []byte
	repeat   bool // it may be a repeat of an earlier one
}

// decode turns a message into a decoded one, dead letters, or both: a data
// point that cannot be decoded does not take the others with it (design 4). ok
// is false if nothing of the message could be decoded. c is nil for a
// controller that the metadata does not know. It does no I/O.
func decode(m *message, parser *payload.Parser, c *controller, now time.Time, d *event.Decoded) (ok bool, dead []deadletter.Letter) {
	refuse := func(reason, detail string, dataPoint int32) {
		letter := deadletter.Letter{
			Stage: stage, Reason: reason, Detail: detail, MAC: m.topic.MAC, Topic: m.subject, ID: m.id,
			Payload: m.body, Received: m.received, Time: now, DataPointID: dataPoint,
		}
		if c != nil {
			letter.MetadataVersion = c.version
		}
		dead = append(dead, letter)
	}
	p, err := parser.Parse(m.topic, m.body)
	if err != nil {
		refuse(reasonOf(err), err.Error(), 0)
		return false, dead
	}
	if c == nil {
		refuse("unknown_controller", "no \"Device\" row has this MAC address in \"MacAddress\"", 0)
		return false, dead
	}
	// timestamptz holds microseconds, and the time is part of a row's key.
	d.ID, d.Time, d.Received, d.Repeat = m.id, p.Time.Truncate(time.Microsecond), m.received, m.repeat
	if p.Time.IsZero() {
		d.Time = m.received.Truncate(time.Microsecond)
	}
	d.Root, d.MAC, d.Mode = string(m.topic.Root), string(m.topic.MAC), string(m.topic.Mode)
	d.Connector, d.Component, d.Verb = m.topic.Connector, m.topic.Component.String(), m.topic.Verb
	d.ControllerID, d.MetadataVersion = c.id, c.version
	if p.State != nil {
		d.State = p.State
		return true, nil
	}

	s := c.pins[pin{m.topic.Connector, m.topic.Component.Number}]
	if reason, detail := missing(c, s, &m.topic); reason != "" {
		refuse(reason, detail, 0)
		return false, dead
	}
	d.DeviceID, d.Device = s.id, s.name
	if p.Frame != nil {
		s.decodeFrame(p.Frame, d, refuse)
	} else {
		s.takeNumbers(p.Numbers, d, refuse)
	}
	for i := range dead {
		dead[i].Part, dead[i].Decoded = true, len(d.Values)
	}
	return len(d.Values) > 0, dead
}

// missing says which link of the metadata is not there.
func missing(c *controller, s *sensor, t *topic.Topic) (reason, detail string) {
	switch {
	case !c.numbers[t.Connector]:
		return "unknown_connector", fmt.Sprintf("controller %d has no \"Connector\" row with \"ConnectorNumber\" %d", c.id, t.Connector)
	case s == nil:
		return "unknown_pin", fmt.Sprintf("connector %d of controller %d has no \"Pin\" row with \"Position\" %d and a device", t.Connector, c.id, t.Component.Number)
	case len(s.points) == 0:
		return "no_data_points", fmt.Sprintf("the template of device %d has no \"DataPoint\" rows", s.id)
	}
	return "", ""
}

func (s *sensor) decodeFrame(data []byte, d *event.Decoded, refuse func(reason, detail string, dataPoint int32)) {
	for i := range s.points {
		p := &s.points[i]
		err := p.invalid
		var v frame.Value
		if err == nil {
			v, err = p.field.Decode(data)
		}
		if err != nil {
			refuse(reasonOf(err), fmt.Sprintf("data point %d: %v", p.id, err), p.id)
			continue
		}
		out := event.Value{DataPointID: p.id, Label: p.label, Unit: p.unit, Number: v.Number}
		if v.IsText {
			out.Text = &v.Text
		}
		d.Values = append(d.Values, out)
	}
}

// takeNumbers takes values that the device has scaled itself. Labels that are
// no data points are refused together: they are one letter of the message.
func (s *sensor) takeNumbers(numbers []payload.Number, d *event.Decoded, refuse func(reason, detail string, dataPoint int32)) {
	var unknown []int
	for i, n := range numbers {
		at, ok := s.labels[strings.ToLower(n.Label)]
		if !ok {
			unknown = append(unknown, i+1)
			continue
		}
		p := &s.points[at]
		d.Values = append(d.Values, event.Value{DataPointID: p.id, Label: p.label, Unit: p.unit, Number: n.Value})
	}
	if unknown != nil {
		// A label is the device's own text and not repeated here: it is in the payload.
		refuse("unknown_label", fmt.Sprintf("of the payload's numbers these are no data points of device %d: %v", s.id, unknown), 0)
	}
}

func reasonOf(err error) string {
	var payloadErr *payload.Error
	var frameErr *frame.Error
	switch {
	case errors.As(err, &payloadErr):
		return payloadErr.Reason
	case errors.As(err, &frameErr):
		return frameErr.Reason
	}
	return "undecodable"
}
