package writer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// history returns measurement_history in short form, in order.
func (m *mesh) history() []string {
	m.t.Helper()
	return query[[]string](m, `SELECT coalesce(array_agg(concat_ws(' ', reason, datapoint_id, coalesce(value::text, text_value), right(event_id::text, 2)) ORDER BY recorded, reason, datapoint_id), '{}')
FROM measurement_history`)
}

// TestConflictingValue: two readings of one data point have the same time. The first one stays
// in the table, and the second one is in the history.
func TestConflictingValue(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	first, second := reading(1), reading(1)
	second.ID = event.PlaceID(1, 0x21)
	m.write(first)
	m.write(second)
	assert.Empty(t, m.history(), "the control: the same values again")

	second.Values[0].Number = 25.53
	m.write(second)
	m.write(second) // a redelivery of it is the same
	assert.Equal(t, []string{"conflict 1 25.53 21"}, m.history())
	assert.InDelta(t, 25.52, query[float64](m, "SELECT value FROM measurement WHERE datapoint_id = 1"), 0)
	assert.Equal(t, 1, count(t, m.w.metrics.conflicts))

	third := second
	third.ID = event.PlaceID(1, 0x22)
	third.Values = []event.DataPoint{{DataPointID: 2, Text: new("F2S-2.15")}}
	m.write(third)
	assert.Equal(t, []string{"conflict 1 25.53 21", "conflict 2 F2S-2.15 22"}, m.history())

	// Both in one batch.
	first, second = reading(2), reading(2)
	second.ID, second.Values[0].Number = event.PlaceID(1, 0x23), -1
	m.write(first, second)
	assert.Equal(t, []string{"conflict 1 25.53 21", "conflict 2 F2S-2.15 22", "conflict 1 -1 23"}, m.history())
	assert.Equal(t, 4, query[int](m, "SELECT count(*) FROM measurement"))
	assert.Empty(t, m.letters())
}

// TestReplace decodes messages again: the tables get the new values and the history the
// previous ones. Repeating it changes nothing.
func TestReplace(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	original, loser := reading(1), reading(1)
	loser.ID, loser.Values[0].Number = event.PlaceID(1, 0x21), 7
	door := occurrence(1)
	m.write(original, door)
	m.write(loser)
	value := func() float64 {
		return query[float64](m, "SELECT value FROM measurement WHERE datapoint_id = 1 AND time = $1", original.Time)
	}

	other, otherLoser, otherDoor, late := original, loser, door, reading(9)
	other.Values = []event.DataPoint{{DataPointID: 1, Number: 2.552}, {DataPointID: 2, Text: new("F2S-2.14")}}
	otherLoser.Values = []event.DataPoint{{DataPointID: 1, Number: 0.7}}
	otherDoor.State, otherDoor.ControllerID = []byte(`{"door-sensor-2":false}`), 5
	for range 2 {
		m.writeRaw(again(other, otherLoser, otherDoor, late)...)
		assert.InDelta(t, 2.552, value(), 0, "the first of the moment stays the first")
		assert.Equal(t, []string{"conflict 1 0.7 21", "redecoded 1 25.52 04"}, m.history())
		assert.Equal(t, 1, query[int](m, `SELECT count(*) FROM device_event WHERE state = '{"door-sensor-2":false}' AND controller_id = 5`))
		assert.Equal(t, 2, query[int](m, "SELECT count(*) FROM measurement WHERE time = $1", late.Time), "what was not there is new")
	}
	assert.Equal(t, 1, query[int](m, "SELECT count(*) FROM device_event"))

	m.write(original, loser)
	assert.Len(t, m.history(), 2, "the message as it was first decoded comes again: no conflict")
	assert.InDelta(t, 2.552, value(), 0)

	other.Values[0].Number = 255.2
	m.writeRaw(again(other)...)
	assert.Equal(t, []string{"conflict 1 0.7 21", "redecoded 1 25.52 04", "redecoded 1 2.552 04"}, m.history(), "each previous value")
	m.write(func() event.Decoded { d := original; d.ID = event.PlaceID(1, 0x30); return d }())
	assert.Len(t, m.history(), 4, "the control: another message's value is a conflict")
}

// TestImplausibleTime: a device's clock is wrong. The row has the receive time, and the
// device's time separately.
func TestImplausibleTime(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	r, e := reading(1), occurrence(1)
	r.DeviceTime = time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC)
	e.DeviceTime, e.Repeat = time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC), true
	m.write(r, e, reading(2), occurrence(2))
	assert.Equal(t, 2, query[int](m, "SELECT count(*) FROM measurement WHERE time = $1 AND device_time = $2", r.Time, r.DeviceTime))
	assert.Equal(t, 1, query[int](m, "SELECT count(*) FROM device_event WHERE time = $1 AND device_time = $2 AND possible_repeat", e.Time, e.DeviceTime))
	assert.Equal(t, 2, query[int](m, "SELECT count(*) FROM measurement WHERE device_time IS NULL"), "the control")
	assert.Equal(t, 1, query[int](m, "SELECT count(*) FROM device_event WHERE device_time IS NULL AND NOT possible_repeat"))
}
