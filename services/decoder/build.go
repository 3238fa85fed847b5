package decoder

import (
	"encoding/hex"
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// builder builds a controller from rows.
type builder struct {
	devices []string // "DeviceId"s with the MAC address
	c       *controller
	pins    map[pin][]pinRow
	points  map[pointKey]*row // the row of each data point
	unread  map[string]bool
	version hash.Hash
	absent  map[string][]*string // by "DataPointId"
}

// pinRow is a "Pin" row that has a device.
type pinRow struct{ id, connector, device string }

// pointKey is a data point of a sensor.
type pointKey struct {
	at pin
	id string
}

func newBuilder() *builder {
	return &builder{
		c:    &controller{pins: map[pin]*sensor{}, numbers: map[int]bool{}},
		pins: map[pin][]pinRow{}, points: map[pointKey]*row{}, unread: map[string]bool{},
		absent: map[string][]*string{}, version: fnv.New32a(),
	}
}

// add adds a row. Rows come in the order of the controllers' ids.
func (b *builder) add(r *row) {
	if !slices.Contains(b.devices, r.controller) {
		b.devices = append(b.devices, r.controller)
	}
	b.hash(&r.controller, r.connector, r.number, r.pin, r.position, r.device, r.deviceName,
		r.dataPoint, r.label, r.offset, r.length, r.encoding, r.decimals, r.unit)
	if r.connector == nil || len(b.devices) > 1 {
		return
	}
	number, err := readInteger(r.number, 0, topic.MaxNumber)
	if err != nil {
		b.noteUnread("\"Connector\" row %s: its \"ConnectorNumber\" %v", *r.connector, err)
		return
	}
	b.c.numbers[number] = true
	if r.pin == nil {
		return
	}
	position, err := readInteger(r.position, 0, topic.MaxNumber)
	if err != nil {
		b.noteUnread("\"Pin\" row %s: its \"Position\" %v", *r.pin, err)
		return
	}
	if r.device == nil {
		return
	}
	b.addToPin(pin{number, position}, r)
}

func (b *builder) addToPin(at pin, r *row) {
	this := pinRow{*r.pin, *r.connector, *r.device}
	if !slices.Contains(b.pins[at], this) {
		b.pins[at] = append(b.pins[at], this)
	}
	s := b.c.pins[at]
	if s == nil {
		s = &sensor{name: value(r.deviceName), labels: map[string]int{}}
		b.c.pins[at] = s
		id, err := readInteger(r.device, math.MinInt32, math.MaxInt32)
		if err != nil {
			s.refusal = &refusal{reasonBadMetadata, fmt.Sprintf("\"Device\" row %s: its \"DeviceId\" %v", *r.device, err)}
		}
		s.id = int32(id) //nolint:gosec // bounded
	}
	if r.dataPoint == nil || this.device != b.pins[at][0].device {
		return
	}
	key := pointKey{at, *r.dataPoint}
	known := b.points[key]
	if known == nil {
		b.points[key] = r
		s.addPoint(r)
		return
	}
	if known.sameDataPoint(r) {
		return // the device is wired to the pin twice
	}
	for i := range s.points {
		if p := &s.points[i]; strconv.Itoa(int(p.id)) == *r.dataPoint {
			p.refusal = &refusal{reasonAmbiguousDataPoint, p.describe("there is another \"DataPoint\" row with this \"DataPointId\"")}
		}
	}
}

func (r *row) sameDataPoint(other *row) bool {
	same := func(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
	return same(r.label, other.label) && same(r.offset, other.offset) && same(r.length, other.length) &&
		same(r.encoding, other.encoding) && same(r.decimals, other.decimals) && same(r.unit, other.unit)
}

// addPoint reads the data point of a row.
func (s *sensor) addPoint(r *row) {
	p := dataPoint{label: value(r.label), unit: value(r.unit)}
	id, err := readInteger(r.dataPoint, math.MinInt32, math.MaxInt32)
	if err != nil {
		if s.unread != "" {
			s.unread += "; "
		}
		s.unread += fmt.Sprintf("\"DataPoint\" row %s (%s): its \"DataPointId\" %v", *r.dataPoint, payload.QuoteName(p.label), err)
		return
	}
	p.id = int32(id) //nolint:gosec // bounded
	p.refusal = p.readField(r)
	s.points = append(s.points, p)
}

// readField reads the data point's place in a frame.
func (p *dataPoint) readField(r *row) *refusal {
	var err error
	for _, column := range []struct {
		name, reason string
		text         *string
		into         *int
	}{
		{"Offset", frame.ReasonBadOffset, r.offset, &p.field.Offset},
		{"Length", frame.ReasonBadLength, r.length, &p.field.Length},
		{"Decimals", frame.ReasonBadDecimals, r.decimals, &p.field.Decimals},
	} {
		if *column.into, err = readInteger(column.text, math.MinInt32, math.MaxInt32); err != nil {
			return &refusal{column.reason, p.describe(fmt.Sprintf("its %q %v", column.name, err))}
		}
	}
	if r.encoding == nil {
		return &refusal{frame.ReasonUnknownEncoding, p.describe("its \"DataEncoding\" is NULL")}
	}
	if p.field.Encoding, err = frame.ParseEncoding(*r.encoding); err == nil {
		err = p.field.Validate()
	}
	if err != nil {
		refused := refusalOf(err)
		return &refusal{refused.reason, p.describe(refused.detail)}
	}
	return nil
}

// noteUnread notes an unreadable row that a message may need.
func (b *builder) noteUnread(format string, args ...any) {
	const most = 8
	note := fmt.Sprintf(format, args...)
	if !b.unread[note] && len(b.unread) < most {
		b.unread[note] = true
		b.c.unread += "; " + note
	}
}

// addAbsent adds a row of the table of values that mean "not available".
func (b *builder) addAbsent(id string, raw *string) {
	b.absent[id] = append(b.absent[id], raw)
	b.hash(&id, raw)
}

// hash adds to the version.
func (b *builder) hash(columns ...*string) {
	var line []byte
	for _, c := range columns {
		if c != nil {
			line = strconv.AppendQuote(line, *c)
		}
		line = append(line, ',')
	}
	_, _ = b.version.Write(append(line, '\n'))
}

// build returns nil if there were no rows.
func (b *builder) build() *controller {
	if len(b.devices) == 0 {
		return nil
	}
	c := b.c
	c.version = hex.EncodeToString(b.version.Sum(nil))
	id, err := readInteger(&b.devices[0], math.MinInt32, math.MaxInt32)
	if err != nil {
		c.refusal = &refusal{reasonBadMetadata, fmt.Sprintf("\"Device\" row %s: its \"DeviceId\" %v", b.devices[0], err)}
	}
	c.id = int32(id) //nolint:gosec // bounded
	if len(b.devices) > 1 {
		c.refusal = &refusal{reasonAmbiguousController, fmt.Sprintf(
			"\"Device\" rows %s have this MAC address in \"MacAddress\"; only one may have it", enumerate(b.devices))}
	}
	for at, s := range c.pins {
		b.finish(at, s)
	}
	return c
}

// finish finds ambiguities of a sensor after all its rows were added.
func (b *builder) finish(at pin, s *sensor) {
	rows := b.pins[at]
	if slices.ContainsFunc(rows, func(r pinRow) bool { return r.device != rows[0].device }) {
		names := make([]string, len(rows))
		for i, r := range rows {
			names[i] = fmt.Sprintf("%s (device %s, connector %s)", r.id, r.device, r.connector)
		}
		s.refusal = &refusal{reasonAmbiguousPin, fmt.Sprintf(
			"\"Pin\" rows %s are position %d of connector %d; only one device may be there", enumerate(names), at.position, at.connector)}
	}
	slices.SortFunc(s.points, func(a, b dataPoint) int { return int(int64(a.id) - int64(b.id)) })
	same := map[string][]string{}
	for i := range s.points {
		p := &s.points[i]
		for _, raw := range b.absent[strconv.Itoa(int(p.id))] {
			p.addAbsent(raw)
		}
		if p.refusal == nil {
			s.layout.Add(p.field)
		}
		label := strings.ToLower(p.label)
		s.labels[label] = i
		same[label] = append(same[label], strconv.Itoa(int(p.id)))
	}
	for label, ids := range same {
		if len(ids) > 1 {
			if s.ambiguous == nil {
				s.ambiguous = map[string]string{}
			}
			s.ambiguous[label] = enumerate(ids)
		}
	}
}

// addAbsent adds a value that means "not available", in hex: 8000, 0x8000 or 8000h.
func (p *dataPoint) addAbsent(raw *string) {
	if p.refusal != nil {
		return
	}
	longest := min(p.field.Length, 8)
	digits := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(value(raw))), "h")
	n, err := strconv.ParseUint(strings.TrimPrefix(digits, "0x"), 16, 64)
	switch {
	case err != nil || n>>(8*longest-1)>>1 != 0:
		p.refusal = &refusal{reasonBadMetadata, p.describe(fmt.Sprintf(
			"its \"RawValue\" in %s is %s; it must be hex digits of at most %d bytes", notAvailableTable, quoteValue(raw), longest))}
	default:
		p.absent = append(p.absent, n)
	}
}
