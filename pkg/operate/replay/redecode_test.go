package replay_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/operate/replay"
)

func (m *mesh) redecode(i replay.Interval) *replay.Difference {
	m.t.Helper()
	d, err := m.Redecode(m.t.Context(), i)
	require.NoError(m.t, err)
	m.settled()
	return d
}

// TestRedecode: a template that was wrong is corrected for what is in the tables; a
// dry run says how before, and a second run finds nothing left.
func TestRedecode(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.receive("1", "2", "0", "open")
	m.pass()
	m.receive("bad") // an event that was never decoded
	before := m.taken()

	m.scale, m.points = 10, []int32{1, 3}
	d := m.redecode(replay.Interval{DryRun: true})
	assert.EqualValues(t, 5, d.Messages)
	assert.EqualValues(t, 5, d.Decoded)
	require.Len(t, d.Points, 4)
	first := moment.Truncate(time.Microsecond)
	assert.Equal(t, replay.PointDifference{
		DeviceID: 70, DataPointID: 1, Label: "P1", Same: 1, Changed: 2,
		Examples: []replay.Example{{Time: first, Before: "1", After: "10"}, {Time: first.Add(time.Second), Before: "2", After: "20"}},
	}, inUTC(d.Points[0]))
	assert.EqualValues(t, 3, d.Points[1].Gone)
	assert.EqualValues(t, 3, d.Points[2].New)
	assert.Equal(t, "events", d.Points[3].Label)
	assert.EqualValues(t, 1, d.Points[3].New)
	assert.EqualValues(t, 1, d.Points[3].Same)
	assert.EqualValues(t, 6, d.Changes())
	assert.Zero(t, d.Stored)
	assert.Equal(t, before, m.taken(), "a dry run puts nothing on DECODED")

	d = m.redecode(replay.Interval{})
	assert.EqualValues(t, 4, d.Stored, "what does not change is not put there")
	assert.Equal(t, 30, m.count("SELECT sum(value)::int FROM measurement WHERE datapoint_id = 1"))
	assert.Equal(t, 2, m.count("SELECT count(*) FROM measurement_history WHERE reason = 'redecoded'"))
	assert.Equal(t, 3, m.count("SELECT count(*) FROM measurement WHERE datapoint_id = 2"), "rows that are gone from the metadata stay")

	d = m.redecode(replay.Interval{})
	assert.Zero(t, d.Stored)
	assert.Zero(t, d.Changes())
}

func inUTC(p replay.PointDifference) replay.PointDifference {
	for i := range p.Examples {
		p.Examples[i].Time = p.Examples[i].Time.UTC()
	}
	return p
}

// TestRedecodeInterval takes what RAW stored then, of one controller.
func TestRedecodeInterval(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.receive("1")
	from := time.Now()
	m.receive("2")
	to := time.Now()
	m.receive("3")
	assert.EqualValues(t, 1, m.redecode(replay.Interval{From: from, To: to}).Stored)
	assert.Equal(t, 2, m.count("SELECT value::int FROM measurement WHERE datapoint_id = 1"))
	assert.Zero(t, m.redecode(replay.Interval{MAC: "ffffffffffff"}).Messages)
	assert.EqualValues(t, 2, m.redecode(replay.Interval{MAC: mac}).Stored)
}

// TestRedecodeSecond: of two messages with a value for the same moment the second does
// not take the first's place, however often they are decoded.
func TestRedecodeSecond(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.points = []int32{1}
	m.receive("1")
	m.pass()
	m.received = 0
	second := m.receive("2")
	_, err := m.pool.Exec(t.Context(), `INSERT INTO measurement_history (time, device_id, datapoint_id, value, received, event_id, reason)
SELECT time, device_id, datapoint_id, 2, received, $1::text::uuid, 'conflict' FROM measurement`, second[0].String())
	require.NoError(t, err)
	d := m.redecode(replay.Interval{})
	assert.Zero(t, d.Stored)
	assert.EqualValues(t, 1, d.Points[0].Second)
	_, err = m.pool.Exec(t.Context(), "DELETE FROM measurement_history")
	require.NoError(t, err)
	assert.EqualValues(t, 1, m.redecode(replay.Interval{}).Stored, "the control")
}

// TestRedecodeRefused counts what cannot be decoded, and needs a history to replace.
func TestRedecodeRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.receive("1", "2")
	m.scale = 0
	d := m.redecode(replay.Interval{})
	assert.Equal(t, map[string]uint64{"unknown_controller": 2}, d.Refused)
	assert.Zero(t, d.Stored)

	_, err := m.pool.Exec(t.Context(), "DROP TABLE measurement_history")
	require.NoError(t, err)
	m.Tables, err = replay.NewTables(t.Context(), m.pool)
	require.NoError(t, err)
	m.scale = 1
	_, err = m.Redecode(t.Context(), replay.Interval{})
	require.ErrorIs(t, err, replay.ErrNoHistory)
	d = m.redecode(replay.Interval{DryRun: true})
	assert.EqualValues(t, 4, d.Changes())
}
