package writer

import (
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// rows holds messages as columns, the parameters of the statements.
type rows struct {
	time, deviceTime, received column[pgtype.Timestamptz]
	id                         column[pgtype.UUID]
	device, point              []int32
	value                      column[pgtype.Float8]
	text                       column[pgtype.Text]

	eventTime, eventDeviceTime, eventReceived column[pgtype.Timestamptz]
	eventID                                   column[pgtype.UUID]
	controller                                []int32
	mac, root, mode                           column[pgtype.Text]
	connector                                 []int16
	component, verb                           column[pgtype.Text]
	state                                     []string
	repeat                                    []bool
}

// column is an array that pgx encodes in place. It would copy each element of an ordinary
// slice to the heap once or twice: 7 % of all allocations between a controller and its rows
// (measured).
type column[T any] []T

// Dimensions is pgtype.ArrayGetter's.
func (c column[T]) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(c)), LowerBound: 1}} //nolint:gosec // a batch is short
}

// Index is pgtype.ArrayGetter's.
func (c column[T]) Index(i int) any { return &c[i] }

// IndexType is pgtype.ArrayGetter's.
func (c column[T]) IndexType() any { return new(T) }

// timestamp is NULL for the zero time.
func timestamp(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}

func text(s string) pgtype.Text { return pgtype.Text{String: s, Valid: true} }

// add appends the rows of one decoded message.
func (r *rows) add(d *event.Decoded) {
	for i := range d.Values {
		v := &d.Values[i]
		r.time = append(r.time, timestamp(d.Time))
		r.deviceTime = append(r.deviceTime, timestamp(d.DeviceTime))
		r.received = append(r.received, timestamp(d.Received))
		r.id = append(r.id, pgtype.UUID{Bytes: d.ID, Valid: true})
		r.device = append(r.device, d.DeviceID)
		r.point = append(r.point, v.DataPointID)
		number, words := pgtype.Float8{Float64: v.Number, Valid: v.Text == nil}, pgtype.Text{}
		if v.Text != nil {
			words = text(*v.Text)
		}
		r.value, r.text = append(r.value, number), append(r.text, words)
	}
	if d.State == nil {
		return
	}
	r.eventTime = append(r.eventTime, timestamp(d.Time))
	r.eventDeviceTime = append(r.eventDeviceTime, timestamp(d.DeviceTime))
	r.eventReceived = append(r.eventReceived, timestamp(d.Received))
	r.eventID = append(r.eventID, pgtype.UUID{Bytes: d.ID, Valid: true})
	r.controller = append(r.controller, d.ControllerID)
	r.mac, r.root, r.mode = append(r.mac, text(d.MAC)), append(r.root, text(d.Root)), append(r.mode, text(d.Mode))
	r.connector = append(r.connector, int16(d.Connector)) //nolint:gosec // 0..99 by the topic's grammar, and PostgreSQL checks
	r.component, r.verb = append(r.component, text(d.Component)), append(r.verb, text(d.Verb))
	r.state = append(r.state, string(d.State))
	r.repeat = append(r.repeat, d.Repeat)
}

func (r *rows) len() int { return len(r.time) + len(r.eventID) }

// unnest with one array a column is the fastest idempotent insert (design 7).
const (
	insertMeasurements = `
INSERT INTO measurement (time, device_time, received, device_id, datapoint_id, value, text_value)
SELECT * FROM unnest($1::timestamptz[], $2::timestamptz[], $3::timestamptz[], $4::int4[], $5::int4[], $6::float8[], $7::text[])
ON CONFLICT DO NOTHING`

	insertEvents = `
INSERT INTO device_event (time, device_time, received, event_id, controller_id, mac, root, mode, connector, component, verb, state, possible_repeat)
SELECT * FROM unnest($1::timestamptz[], $2::timestamptz[], $3::timestamptz[], $4::uuid[], $5::int4[], $6::text[], $7::text[], $8::text[], $9::int2[], $10::text[], $11::text[], $12::jsonb[], $13::bool[])
ON CONFLICT DO NOTHING`

	// The second condition is for a message that is delivered again after its value was
	// replaced.
	keepConflicts = `
INSERT INTO measurement_history (time, device_id, datapoint_id, value, text_value, received, event_id, reason)
SELECT n.time, n.device_id, n.datapoint_id, n.value, n.text_value, n.received, n.event_id, 'conflict'
FROM unnest($1::timestamptz[], $2::timestamptz[], $3::uuid[], $4::int4[], $5::int4[], $6::float8[], $7::text[]) AS n (time, received, event_id, device_id, datapoint_id, value, text_value)
JOIN measurement m ON m.device_id = n.device_id AND m.datapoint_id = n.datapoint_id AND m.time = n.time
WHERE (m.value IS DISTINCT FROM n.value OR m.text_value IS DISTINCT FROM n.text_value)
  AND NOT EXISTS (SELECT FROM measurement_history h WHERE h.device_id = n.device_id AND h.datapoint_id = n.datapoint_id AND h.time = n.time
                  AND h.event_id = n.event_id AND h.reason = 'redecoded')
ON CONFLICT DO NOTHING`

	// A value that came second for its time is in the history; the next statement replaces
	// it there.
	replaceMeasurements = `
WITH n AS (
  SELECT DISTINCT ON (device_id, datapoint_id, time) *
  FROM unnest($1::timestamptz[], $2::timestamptz[], $3::uuid[], $4::int4[], $5::int4[], $6::float8[], $7::text[]) WITH ORDINALITY
    AS u (time, device_time, event_id, device_id, datapoint_id, value, text_value, ordinality)
  WHERE NOT EXISTS (SELECT FROM measurement_history h WHERE h.device_id = u.device_id AND h.datapoint_id = u.datapoint_id AND h.time = u.time
                    AND h.event_id = u.event_id AND h.reason = 'conflict')
  ORDER BY device_id, datapoint_id, time, ordinality DESC
), changed AS (
  SELECT n.*, m.value AS old_value, m.text_value AS old_text, m.received
  FROM n JOIN measurement m ON m.device_id = n.device_id AND m.datapoint_id = n.datapoint_id AND m.time = n.time
  WHERE m.value IS DISTINCT FROM n.value OR m.text_value IS DISTINCT FROM n.text_value
), kept AS (
  INSERT INTO measurement_history (time, device_id, datapoint_id, value, text_value, received, event_id, reason)
  SELECT time, device_id, datapoint_id, old_value, old_text, received, event_id, 'redecoded' FROM changed
)
UPDATE measurement m SET value = c.value, text_value = c.text_value, device_time = c.device_time
FROM changed c WHERE m.device_id = c.device_id AND m.datapoint_id = c.datapoint_id AND m.time = c.time`

	replaceConflicts = `
UPDATE measurement_history h SET value = n.value, text_value = n.text_value
FROM unnest($1::timestamptz[], $2::uuid[], $3::int4[], $4::int4[], $5::float8[], $6::text[]) AS n (time, event_id, device_id, datapoint_id, value, text_value)
WHERE h.device_id = n.device_id AND h.datapoint_id = n.datapoint_id AND h.time = n.time AND h.event_id = n.event_id AND h.reason = 'conflict'
  AND (h.value IS DISTINCT FROM n.value OR h.text_value IS DISTINCT FROM n.text_value)`

	replaceEvents = `
UPDATE device_event e SET state = n.state, controller_id = n.controller_id, device_time = n.device_time
FROM unnest($1::timestamptz[], $2::timestamptz[], $3::uuid[], $4::int4[], $5::jsonb[]) AS n (time, device_time, event_id, controller_id, state)
WHERE e.time = n.time AND e.event_id = n.event_id
  AND (e.state IS DISTINCT FROM n.state OR e.controller_id IS DISTINCT FROM n.controller_id OR e.device_time IS DISTINCT FROM n.device_time)`
)

// insert queues the inserts. PostgreSQL runs a batch in one round trip and one transaction.
func (r *rows) insert(b *pgx.Batch) {
	if len(r.time) > 0 {
		b.Queue(insertMeasurements, r.time, r.deviceTime, r.received, r.device, r.point, r.value, r.text)
	}
	if len(r.eventID) > 0 {
		b.Queue(insertEvents, r.eventTime, r.eventDeviceTime, r.eventReceived, r.eventID, r.controller, r.mac, r.root, r.mode,
			r.connector, r.component, r.verb, r.state, r.repeat)
	}
}

// replace queues the statements that replace existing rows. It is idempotent.
func (r *rows) replace(b *pgx.Batch) {
	if len(r.time) > 0 {
		b.Queue(replaceMeasurements, r.time, r.deviceTime, r.id, r.device, r.point, r.value, r.text)
		b.Queue(replaceConflicts, r.time, r.id, r.device, r.point, r.value, r.text)
	}
	if len(r.eventID) > 0 {
		b.Queue(replaceEvents, r.eventTime, r.eventDeviceTime, r.eventID, r.controller, r.state)
	}
}
