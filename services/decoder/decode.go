package decoder

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// stage is the decoder's name in subjects and dead letters.
const stage = stream.StageDecoder

// message is a parsed RAW message.
type message struct {
	topic    topic.Topic
	subject  string
	id       event.ID
	received time.Time
	body     []byte
	repeat   bool // a possible repeat of an earlier message
}

// settings are the part of the configuration that decode needs.
type settings struct {
	refuseWrongCRC         bool
	maxClockAhead, maxLate time.Duration // 0: the default
	members                *memberMemory
}

func newSettings(cfg *Config, members *memberMemory) settings {
	return settings{refuseWrongCRC: cfg.RefuseWrongCRC, maxClockAhead: cfg.MaxClockAhead, maxLate: cfg.MaxLate, members: members}
}

// outcome is the result of decoding a message.
type outcome struct {
	ok             bool // at least a part of the message was decoded
	dead           []deadletter.Letter
	wrongCRC       bool // the frame is a Modbus response with a wrong CRC
	unknownMembers int  // members of the payload that match no data point
}

// refusal is why a message or a part of it cannot be decoded.
type refusal struct {
	reason string // of a fixed set: of package frame, of package payload, or below
	detail string
}

// The decoder's own reasons.
const (
	reasonUnknownController   = "unknown_controller"
	reasonUnknownConnector    = "unknown_connector"
	reasonUnknownPin          = "unknown_pin"
	reasonNoDataPoints        = "no_data_points"
	reasonUnknownLabel        = "unknown_label"
	reasonAmbiguousController = "ambiguous_controller" // two devices with one MAC address
	reasonAmbiguousPin        = "ambiguous_pin"        // two devices on a pin
	reasonAmbiguousDataPoint  = "ambiguous_data_point" // two data points with one id
	reasonAmbiguousLabel      = "ambiguous_label"      // two data points with one label
	reasonBadMetadata         = "bad_metadata"         // an unreadable row without a reason of its own
	reasonNotAvailable        = "not_available"        // a value that the metadata declare as "not available"
)

// decode decodes a message into d, dead letters, or both: a part that cannot be decoded does
// not affect the others (design 4). c is nil for an unknown controller. It does no I/O.
func decode(m *message, parser *payload.Parser, c *controller, set *settings, now time.Time, d *event.Decoded) outcome {
	w := decoding{m: m, c: c, set: set, now: now, d: d}
	p, err := parser.ParseAt(m.topic, m.body, m.received)
	switch {
	case err != nil:
		w.refuse(refusalOf(err), 0)
		return w.out
	case c == nil:
		w.refuse(refusal{reasonUnknownController, "no \"Device\" row has this MAC address in \"MacAddress\""}, 0)
		return w.out
	case c.refusal != nil:
		w.refuse(*c.refusal, 0)
		return w.out
	}
	d.ID, d.Received, d.Repeat = m.id, m.received.Truncate(time.Microsecond), m.repeat // as exact as timestamptz
	d.Time, d.DeviceTime = plausible(p.Time, m.received, cmp.Or(set.maxClockAhead, defaultMaxClockAhead), cmp.Or(set.maxLate, defaultMaxLate))
	d.Root, d.MAC, d.Mode = string(m.topic.Root), string(m.topic.MAC), string(m.topic.Mode)
	d.Connector, d.Component, d.Verb = m.topic.Connector, m.topic.Component.String(), m.topic.Verb
	d.ControllerID, d.MetadataVersion = c.id, c.version
	decoded := 1
	if p.State != nil {
		d.State = p.State
		w.takeMembers(nil, &p)
	} else {
		s := c.pins[pin{m.topic.Connector, m.topic.Component.Number}]
		if r := missing(c, s, &m.topic); r != nil {
			w.refuse(*r, 0)
			return w.out
		}
		d.DeviceID, d.Device = s.id, s.name
		if r := w.sensor(s, &p); r != nil {
			w.refuse(*r, 0)
			return w.out
		}
		decoded = len(d.Values)
	}
	for i := range w.out.dead {
		w.out.dead[i].Part, w.out.dead[i].Decoded = true, decoded
	}
	w.out.ok = decoded > 0
	return w.out
}

// decoding is the state of one call of decode.
type decoding struct {
	m   *message
	c   *controller
	set *settings
	now time.Time
	d   *event.Decoded
	out outcome
}

// refuse adds a letter. A message has at most one letter for each reason and data point, so
// that a letter is recognised when it comes again.
func (w *decoding) refuse(r refusal, dataPoint int32) *deadletter.Letter {
	letter := deadletter.Letter{
		Stage: stage, Reason: r.reason, Detail: r.detail, MAC: w.m.topic.MAC, Topic: w.m.subject, ID: w.m.id,
		Received: w.m.received, Time: w.now, DataPointID: dataPoint,
	}
	if w.c != nil {
		letter.MetadataVersion = w.c.version
	}
	w.out.dead = append(w.out.dead, letter)
	return &w.out.dead[len(w.out.dead)-1]
}

// missing returns a refusal if the metadata of the sensor are missing or ambiguous.
func missing(c *controller, s *sensor, t *topic.Topic) *refusal {
	switch {
	case !c.numbers[t.Connector]:
		return &refusal{reasonUnknownConnector, fmt.Sprintf("controller %d has no \"Connector\" row with \"ConnectorNumber\" %d%s", c.id, t.Connector, c.unread)}
	case s == nil:
		return &refusal{reasonUnknownPin, fmt.Sprintf("connector %d of controller %d has no \"Pin\" row with \"Position\" %d and a device%s", t.Connector, c.id, t.Component.Number, c.unread)}
	case s.refusal != nil:
		return s.refusal
	case len(s.points) == 0 && s.unread == "":
		return &refusal{reasonNoDataPoints, fmt.Sprintf("the template of device %d has no \"DataPoint\" rows", s.id)}
	}
	return nil
}

// sensor decodes a sensor's payload. It returns a refusal if the whole message is refused.
func (w *decoding) sensor(s *sensor, p *payload.Payload) *refusal {
	if p.Frame == nil {
		w.takeMembers(s, p)
		return nil
	}
	response, err := frame.ReadResponse(p.Frame, s.layout)
	if err == nil {
		w.out.wrongCRC = response.CRC == frame.CRCWrong
		if w.set.refuseWrongCRC {
			err = response.CheckCRC()
		}
	}
	if err != nil {
		r := refusalOf(err)
		return &r
	}
	w.takeMembers(s, p)
	if s.unread != "" {
		w.refuse(refusal{reasonBadMetadata, s.unread}, 0)
	}
	for i := range s.points {
		w.takePoint(&s.points[i], p.Frame, response)
	}
	return nil
}

// takePoint decodes one data point of a frame.
func (w *decoding) takePoint(p *dataPoint, data []byte, response frame.Response) {
	if p.refusal != nil {
		w.refuse(*p.refusal, p.id)
		return
	}
	var v frame.FieldValue
	err := response.Check(p.field)
	switch {
	case err == nil && p.isAbsent(data):
		w.refuse(refusal{reasonNotAvailable, p.describe("its value means \"not available\", according to " + notAvailableTable)}, p.id)
		return
	case err == nil:
		v, err = p.field.Decode(data)
	}
	if err != nil {
		r := refusalOf(err)
		w.refuse(refusal{r.reason, p.describe(r.detail)}, p.id)
		return
	}
	out := event.DataPoint{DataPointID: p.id, Label: p.label, Unit: p.unit, Number: v.Number}
	if v.IsText {
		out.Text = &v.Text
	}
	w.d.Values = append(w.d.Values, out)
}

// takeMembers takes the numbers of a payload, which the device has scaled itself. It refuses
// members that match no data point, and those that the parser left out. s is nil for
// components that are not sensors.
func (w *decoding) takeMembers(s *sensor, p *payload.Payload) {
	var odd, unknown []payload.Refused
	for _, n := range p.Numbers {
		label := strings.ToLower(n.Label)
		at, ok := s.labels[label]
		switch ids := s.ambiguous[label]; {
		case ids != "":
			odd = append(odd, payload.Refused{
				Member: n.Label, Reason: reasonAmbiguousLabel, What: "ambiguous label: data points " + ids,
			})
		case ok:
			point := &s.points[at]
			w.d.Values = append(w.d.Values, event.DataPoint{DataPointID: point.id, Label: point.label, Unit: point.unit, Number: n.Value})
		default:
			unknown = append(unknown, payload.Refused{Member: n.Label})
		}
	}
	for _, r := range p.Refused {
		if s == nil || s.takes(r.Member) {
			odd = append(odd, r)
		} else {
			unknown = append(unknown, r)
		}
	}
	w.refuseMembers(odd)
	if len(unknown) > 0 {
		// A message without any value always has its letter.
		w.refuseUnknown(s, unknown, p.Frame == nil && len(w.d.Values) == 0 && len(w.out.dead) == 0)
	}
}

// takes reports whether a member of the payload is meant for a data point.
func (s *sensor) takes(member string) bool {
	label := strings.ToLower(member)
	_, known := s.labels[label]
	return known || s.ambiguous[label] != "" || label == "data"
}

// refuseMembers adds a letter for each reason, which names all its members.
func (w *decoding) refuseMembers(odd []payload.Refused) {
	slices.SortStableFunc(odd, func(a, b payload.Refused) int { return strings.Compare(a.Reason, b.Reason) })
	for len(odd) > 0 {
		n := 1
		for n < len(odd) && odd[n].Reason == odd[0].Reason {
			n++
		}
		details := make([]string, n)
		for i := range details {
			details[i] = odd[i].Detail()
		}
		w.refuse(refusal{odd[0].Reason, strings.Join(details, "; ")}, 0).Member = quoteMembers(odd[:n])
		odd = odd[n:]
	}
}

// refuseUnknown adds a letter for members that match no data point. Unless always is set, it
// names each member once a day: a device sends them in every message.
func (w *decoding) refuseUnknown(s *sensor, unknown []payload.Refused, always bool) {
	w.out.unknownMembers = len(unknown)
	var named []payload.Refused
	for i := range unknown {
		if w.set.members.first(w.m.topic.MAC, unknown[i].Member, w.m.id, w.m.received) {
			named = append(named, unknown[i])
		}
	}
	switch {
	case len(named) > 0:
	case always:
		named = unknown
	default:
		return
	}
	names := quoteMembers(named)
	detail := fmt.Sprintf("device %d (%s) has no data point with the label %s", s.id, payload.QuoteName(s.name), names)
	w.refuse(refusal{reasonUnknownLabel, detail}, 0).Member = names
}

func quoteMembers(members []payload.Refused) string {
	names := make([]string, len(members))
	for i := range names {
		names[i] = payload.QuoteName(members[i].Member)
	}
	return strings.Join(names, ", ")
}

// refusalOf returns the refusal for an error of package payload or frame.
func refusalOf(err error) refusal {
	var payloadErr *payload.Error
	var frameErr *frame.Error
	switch {
	case errors.As(err, &payloadErr):
		return refusal{payloadErr.Reason, payloadErr.Detail}
	case errors.As(err, &frameErr):
		return refusal{frameErr.Reason, frameErr.Detail}
	}
	return refusal{"undecodable", err.Error()}
}

// How far a device's clock may be off, if the configuration does not say.
const (
	defaultMaxClockAhead = 24 * time.Hour
	defaultMaxLate       = 90 * 24 * time.Hour
)

// plausible returns the time of a device's values. That is the timestamp of the device, or
// the receive time if the device sent none or if its clock is too far ahead or behind. In the
// last case deviceTime is the implausible timestamp, else zero. Times are in microseconds, as
// in timestamptz, since the time is part of a row's key.
func plausible(claimed, received time.Time, maxAhead, maxLate time.Duration) (at, deviceTime time.Time) {
	received = received.Truncate(time.Microsecond)
	claimed = claimed.Truncate(time.Microsecond)
	switch ahead := claimed.Sub(received); {
	case claimed.IsZero():
		return received, time.Time{}
	case ahead > maxAhead, -ahead > maxLate:
		return received, claimed
	}
	return claimed, time.Time{}
}

// describe returns a detail with the data point that it is about.
func (p *dataPoint) describe(detail string) string {
	return "data point " + strconv.Itoa(int(p.id)) + " (" + payload.QuoteName(p.label) + "): " + detail
}
