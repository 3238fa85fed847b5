package ledger

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// fill passes readings of two controllers, 10 messages in all.
func (m *mesh) fill() []*reading {
	m.t.Helper()
	var all []*reading
	for i := range 5 {
		all = append(all, newReading(1, i), newReading(2, i))
	}
	m.pass(all...)
	return all
}

func TestEmptyMeshIsBalanced(t *testing.T) {
	t.Parallel()
	r := newMesh(t).audit(Options{})
	require.True(t, r.Balanced())
	require.Zero(t, r.Total)
}

func TestBalanced(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	m.pass(newEvent(1, 7))

	// One data point refused, the others written.
	half := newReading(1, 20)
	half.d.Values = half.d.Values[:2]
	m.pass(half)
	m.refuse(stream.StageDecoder, "out_of_range", half, point(3, 2))
	// All data points refused, each by a letter of its own.
	truncated := newReading(2, 21)
	m.receive(truncated)
	m.refuse(stream.StageDecoder, "out_of_range", truncated, point(1, 0))
	m.refuse(stream.StageDecoder, "out_of_range", truncated, point(2, 0))
	// Refused as a whole by the decoder, and by the writer.
	strange, refused := newReading(2, 22), newReading(2, 23)
	m.receive(strange, refused)
	m.refuse(stream.StageDecoder, "unknown_pin", strange)
	m.decode(refused)
	m.refuse(stream.StageWriter, "refused_by_database", refused)
	// Decoded twice.
	m.decode(all[0])
	// Refused by the bridge, with and without a MAC; a copy and retained ones.
	wild, nobody := newReading(3, 0), newReading(4, 0)
	m.refuse(stream.StageBridge, "payload_too_large", wild)
	m.refuse(stream.StageBridge, "bad_levels", nobody, func(l *deadletter.Letter) { l.MAC, l.Topic = "", "nonsense" })
	m.refuse(stream.StageBridge, deadletter.ReasonCopy, all[0], func(l *deadletter.Letter) { l.ID = event.ID{} })
	m.refuse(stream.StageBridge, deadletter.ReasonRetained, wild)
	m.refuse(stream.StageBridge, deadletter.ReasonRetained, wild)
	m.acknowledgeAll()

	var seen, of uint64
	r := m.audit(Options{Progress: func(done, total uint64) { seen, of = done, total }})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, Counts{Received: 20, Decoded: 13, Written: 12, Partial: 1, DeadLettered: 5, Copies: 1, Retained: 2}, r.Total)
	require.Equal(t, []Stage{
		{Name: "bridge", Received: 20, Passed: 15, DeadLettered: 2, Copies: 1, Retained: 2},
		{Name: "decoder", Received: 15, Passed: 13, DeadLettered: 2},
		{Name: "writer", Received: 14, Passed: 12, DeadLettered: 1, Copies: 1},
	}, r.Stages)
	require.Equal(t, Rows{Expected: 39, Found: 36, Refused: 3}, r.Rows)
	require.Equal(t, []LetterCounts{
		{Stage: "bridge", Reason: "bad_levels", Messages: 1},
		{Stage: "bridge", Reason: "payload_too_large", Messages: 1},
		{Stage: "decoder", Reason: "out_of_range", Messages: 1, Parts: 3, InParts: 1},
		{Stage: "decoder", Reason: "unknown_pin", Messages: 1},
		{Stage: "writer", Reason: "refused_by_database", Messages: 1},
	}, r.Letters)
	require.Equal(t, []ControllerCounts{
		{MAC: macAt(1), Counts: Counts{Received: 8, Decoded: 7, Written: 7, Partial: 1, Copies: 1}},
		{MAC: macAt(2), Counts: Counts{Received: 8, Decoded: 6, Written: 5, DeadLettered: 3}},
		{MAC: macAt(3), Counts: Counts{Received: 3, DeadLettered: 1, Retained: 2}},
		{MAC: "unknown", Counts: Counts{Received: 1, DeadLettered: 1}},
	}, r.Devices)
	require.Equal(t, of, seen)
	require.EqualValues(t, 15+14+10, seen)
	require.Contains(t, text(t, r), "Partial: 1 message written")

	one := m.audit(Options{MAC: macAt(2)})
	require.True(t, one.Balanced())
	require.Equal(t, r.Devices[1].Counts, one.Total)
}

// TestRawRemovedIsMissing: a sequence that RAW gave is a message that it took.
func TestRawRemovedIsMissing(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.fill()
	undecoded := newReading(1, 40)
	m.receive(undecoded, newReading(1, 41))
	m.acknowledge(m.decoder, 11)
	m.remove(stream.Raw, 4)
	m.remove(stream.Raw, 11)

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, Counts{Received: 12, Decoded: 9, Written: 9, Pending: 1, Missing: 2}, r.Total)
	require.Equal(t, Vanished{Messages: 2, Outcomes: 1, Listed: []Span{{4, 4}, {11, 11}}}, r.Vanished)
	require.Zero(t, r.Unexplained)
	require.Contains(t, text(t, r), "2 messages vanished from RAW: removed from between others. DECODED and DEAD_LETTER have 1 outcome of them")

	// The last, too; and trimming at the beginning is no loss.
	m.remove(stream.Raw, 12)
	r = m.audit(Options{})
	require.EqualValues(t, 3, r.Total.Missing)
	raw, err := m.js.Stream(t.Context(), stream.Raw)
	require.NoError(t, err)
	require.NoError(t, raw.Purge(t.Context(), jetstream.WithPurgeSequence(6)))
	r = m.audit(Options{})
	require.EqualValues(t, 2, r.Total.Missing)
	require.EqualValues(t, 5, r.Total.Written)
	require.Equal(t, "RAW", r.Limits[0].Stream)
}

func TestRowRemovedIsMissing(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	m.exec("DELETE FROM measurement WHERE device_id = 1002 AND datapoint_id = 2 AND time = $1", all[5].d.Time)

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []Missing{{ID: all[5].d.ID, MAC: macAt(2), Stage: "writer", Stream: "DECODED", Sequence: 6}}, r.Missing)
	require.Equal(t, []RowFault{{ID: all[5].d.ID, DeviceID: 1002, DataPointID: 2, Time: all[5].d.Time}}, r.Faults)
	require.Equal(t, Rows{Expected: 30, Found: 29, Absent: 1}, r.Rows)
	require.Equal(t, Counts{Received: 5, Decoded: 5, Written: 4, Missing: 1}, r.Devices[1].Counts)
	require.Zero(t, r.Devices[0].Missing)
	require.Contains(t, text(t, r), "1 message vanished between DECODED and the tables")
}

func TestEventRemovedOrChangedIsMissing(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	gone, changed, kept := newEvent(1, 0), newEvent(1, 1), newEvent(2, 2)
	m.pass(gone, changed, kept)
	m.acknowledgeAll()
	m.exec("DELETE FROM device_event WHERE event_id = $1::text::uuid", gone.d.ID.String())
	m.exec(`UPDATE device_event SET state = '{"door-sensor-2":1.5}' WHERE event_id = $1::text::uuid`, changed.d.ID.String())

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, Rows{Expected: 3, Found: 1, Absent: 1, Differing: 1}, r.Rows)
	require.Equal(t, Counts{Received: 3, Decoded: 3, Written: 1, Missing: 2}, r.Total)
}

// TestEqualEventsAreTwo: open, closed, open within one second are three rows; with two
// of them the ledger says what vanished.
func TestEqualEventsAreTwo(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	first, second, third := newEvent(1, 0), newEvent(1, 0), newEvent(1, 0)
	second.d.State = []byte(`{"door-sensor-2":false}`)
	m.pass(first, second, third)
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.True(t, r.Balanced())
	require.EqualValues(t, 3, r.Total.Written)

	m.exec("DELETE FROM device_event WHERE event_id = $1::text::uuid", third.d.ID.String())
	r = m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, third.d.ID, r.Missing[0].ID)
}

func TestDecodedRemovedIsMissingAtDecoder(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	m.remove(stream.Decoded, 4)

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []Missing{{ID: all[3].d.ID, MAC: macAt(2), Stage: "decoder", Stream: "RAW", Sequence: 4}}, r.Missing)
	require.EqualValues(t, 1, r.Stages[1].Missing)
	require.Contains(t, text(t, r), "1 message vanished between RAW and DECODED")
}

func TestPartialLetterDoesNotHideLostDecoded(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	whole, lost := newReading(1, 0), newReading(1, 1)
	m.receive(whole, lost)
	m.refuse(stream.StageDecoder, "out_of_range", whole, point(3, 0))
	m.refuse(stream.StageDecoder, "out_of_range", lost, point(3, 2))
	m.acknowledgeAll()

	r := m.audit(Options{})
	require.Equal(t, Counts{Received: 2, DeadLettered: 1, Missing: 1}, r.Total)
	require.Equal(t, lost.d.ID, r.Missing[0].ID)
	require.Equal(t, []LetterCounts{{Stage: "decoder", Reason: "out_of_range", Messages: 1, Parts: 2, InParts: 1}}, r.Letters)
}

// TestLettersNotKept: of a controller's letters the last are kept; the others explain
// as many of its messages as they were, and neither more, nor another controller's, nor
// one behind them.
func TestLettersNotKept(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	const refused = deadletter.Kept + 30
	var all []*reading
	for i := range refused {
		all = append(all, newReading(1, i))
	}
	m.receive(all...)
	for _, r := range all {
		m.refuse(stream.StageDecoder, "unknown_controller", r)
	}
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, Counts{Received: refused, DeadLettered: refused}, r.Total)
	require.Equal(t, []LetterCounts{{Stage: "decoder", Reason: "unknown_controller", Messages: refused, NotKept: 30}}, r.Letters)
	require.Contains(t, text(t, r), "Letters not kept: 30 messages counted as dead-lettered")

	behind, other := newReading(1, 500), newReading(2, 0)
	m.receive(behind, other)
	m.acknowledgeAll()
	r = m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []topic.MAC{macAt(1), macAt(2)}, []topic.MAC{r.Missing[0].MAC, r.Missing[1].MAC})
	require.Equal(t, behind.d.ID, r.Missing[0].ID)

	// One of those that were decoded loses its DECODED message, among those refused.
	lost := newReading(1, 501)
	m.receive(lost)
	for i := range deadletter.Kept {
		late := newReading(1, 600+i)
		m.receive(late)
		m.refuse(stream.StageDecoder, "unknown_controller", late)
	}
	m.acknowledgeAll()
	r = m.audit(Options{})
	require.EqualValues(t, 3, r.Total.Missing, "as many letters as there were explain no more messages")
}

// TestWriterLettersNotKept is the same of rows.
func TestWriterLettersNotKept(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	const refused = deadletter.Kept + 5
	for i := range refused {
		r := newReading(1, i)
		m.receive(r)
		m.decode(r)
		m.refuse(stream.StageWriter, "refused_by_database", r)
	}
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, Rows{Expected: 3 * refused, Refused: 3 * deadletter.Kept, NotKept: 15}, r.Rows)
	require.Equal(t, []LetterCounts{{Stage: "writer", Reason: "refused_by_database", Messages: refused, NotKept: 5}}, r.Letters)

	gone := newReading(1, 900)
	m.pass(gone)
	m.acknowledgeAll()
	m.exec("DELETE FROM measurement WHERE datapoint_id = 1 AND time = $1", gone.d.Time)
	require.EqualValues(t, 1, m.audit(Options{}).Total.Missing)
}

// TestRemovedLettersStayCounted: what an operator purged is known to have been there.
func TestRemovedLettersStayCounted(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for i := range 5 {
		r := newReading(1, i)
		m.receive(r)
		m.refuse(stream.StageDecoder, "bad_json", r)
	}
	m.acknowledgeAll()
	var letters []deadletter.Stored
	filter := deadletter.Filter{Stage: stream.StageDecoder}
	require.NoError(t, filter.Read(t.Context(), m.js, func(l deadletter.Stored) error {
		letters = append(letters, l)
		return nil
	}))
	require.NoError(t, deadletter.Remove(t.Context(), m.js, letters[3:]))
	require.NoError(t, deadletter.Remove(t.Context(), m.js, letters[1:2]))
	r := m.audit(Options{})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, []LetterCounts{{Stage: "decoder", Reason: "bad_json", Messages: 5, NotKept: 3}}, r.Letters)

	next := newReading(1, 6)
	m.receive(next, newReading(1, 7))
	m.letters = map[string]*deadletter.Recorder{} // another process
	m.refuse(stream.StageDecoder, "bad_json", next)
	m.acknowledgeAll()
	r = m.audit(Options{})
	require.Equal(t, Counts{Received: 7, DeadLettered: 6, Missing: 1}, r.Total)
	require.EqualValues(t, 3, r.Letters[0].NotKept)
}

// TestBridgeLettersNotKept: what never reached RAW is counted, too.
func TestBridgeLettersNotKept(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	const refused = deadletter.Kept + 20
	var claims strings.Builder
	for i := range refused {
		r := newReading(1, i)
		m.refuse(stream.StageBridge, "payload_too_large", r)
		m.refuse(stream.StageBridge, deadletter.ReasonCopy, r)
		claims.WriteString(r.digest() + "\n")
	}
	r := m.audit(Options{Acknowledged: strings.NewReader(claims.String())})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, Counts{Received: 2 * refused, DeadLettered: refused, Copies: refused}, r.Total)
	require.Equal(t, []LetterCounts{{Stage: "bridge", Reason: "payload_too_large", Messages: refused, NotKept: 20}}, r.Letters)
	require.EqualValues(t, refused, r.Acknowledged.Claimed)
	require.EqualValues(t, deadletter.Kept, r.Acknowledged.Received)
	require.EqualValues(t, 20, r.Acknowledged.NotKept)

	claims.WriteString(newReading(1, 5000).digest() + "\n")
	r = m.audit(Options{Acknowledged: strings.NewReader(claims.String())})
	require.False(t, r.Balanced())
	require.EqualValues(t, 1, r.Acknowledged.NeverReceived)
}

func TestParkedIsPending(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.fill()
	waiting, moved, lost := newReading(3, 0), newReading(3, 1), newReading(3, 2)
	m.receive(waiting, moved, lost)
	for _, r := range []*reading{waiting, moved} {
		m.store(stream.Parked, &nats.Msg{Subject: "f2.parked." + string(r.mac), Header: nats.Header{event.HeaderID: {r.d.ID.String()}}, Data: r.msg.Data})
	}
	m.decode(moved) // and is about to leave PARKED
	m.write(moved)
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.Equal(t, Counts{Received: 13, Decoded: 11, Written: 11, Pending: 1, Missing: 1}, r.Total)
	require.EqualValues(t, 1, r.Parked)
	require.Equal(t, lost.d.ID, r.Missing[0].ID)
	require.Contains(t, text(t, r), "Parked: 1 message waiting")
	require.EqualValues(t, 1, m.audit(Options{MAC: macAt(3)}).Parked)
}

const historyTable = `CREATE TABLE IF NOT EXISTS measurement_history (
	time timestamptz NOT NULL, device_id int NOT NULL, datapoint_id int NOT NULL, value float8, text_value text,
	received timestamptz NOT NULL, event_id uuid NOT NULL, reason text NOT NULL, recorded timestamptz NOT NULL DEFAULT now())`

// TestConflictIsInHistory: a second value for one moment is accounted for where it is
// kept, and missing where it is not.
func TestConflictIsInHistory(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	_, err := m.db.Exec(t.Context(), historyTable)
	require.NoError(t, err)
	first, second, replaced := newReading(1, 0), newReading(1, 0), newReading(1, 5)
	second.d.Values[1].Number = 51
	m.pass(first, second, replaced)
	// Decoded once more with other metadata, and replaced.
	again := *replaced
	again.d.Values = []event.DataPoint{{DataPointID: 1, Number: 1.25}}
	m.decode(&again)
	m.exec("UPDATE measurement SET value = 1.25 WHERE datapoint_id = 1 AND time = $1", again.d.Time)
	m.acknowledgeAll()

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, Rows{Expected: 10, Found: 8, Differing: 2}, r.Rows, "the control: nobody kept the other values")

	keep := func(r *reading, i int, reason string) {
		v := r.d.Values[i]
		m.exec("INSERT INTO measurement_history (time, device_id, datapoint_id, value, received, event_id, reason) VALUES ($1, $2, $3, $4, $5, $6::text::uuid, $7)",
			r.d.Time, r.d.DeviceID, v.DataPointID, v.Number, r.d.Received, r.d.ID.String(), reason)
	}
	keep(second, 1, "conflict")
	keep(replaced, 0, "redecoded")
	r = m.audit(Options{})
	require.True(t, r.Balanced(), text(t, r))
	require.Equal(t, Rows{Expected: 10, Found: 8, History: 2}, r.Rows)
	require.Equal(t, Counts{Received: 3, Decoded: 3, Written: 3}, r.Total)
}

// TestRedecodedEvent: what an event was before it was decoded once more is no fault.
func TestRedecodedEvent(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	door, other := newEvent(1, 0), newEvent(1, 1)
	m.pass(door, other)
	again := *door
	again.d.State = []byte(`{"door-sensor-2":2}`)
	for _, r := range []*reading{door, other} {
		m.exec(`UPDATE device_event SET state = '{"door-sensor-2":2}' WHERE event_id = $1::text::uuid`, r.d.ID.String())
	}
	replacing := again.decoded()
	replacing.Header.Set(event.HeaderReplace, "1")
	m.store(stream.Decoded, replacing)
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.Equal(t, Rows{Expected: 3, Found: 1, History: 1, Differing: 1}, r.Rows)
	require.Equal(t, other.d.ID, r.Missing[0].ID)
}

func TestValueChangedIsReported(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	named := newReading(1, 30)
	word := "A-17\x00"
	named.d.Values[2].Text = &word
	m.receive(named)
	m.decode(named)
	m.refuse(stream.StageWriter, "refused_by_database", named) // PostgreSQL has no NUL
	m.acknowledgeAll()
	m.exec("UPDATE measurement SET value = value + 1e-9 WHERE device_id = 1001 AND datapoint_id = 1 AND time = $1", all[2].d.Time)

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.EqualValues(t, 1, r.Rows.Differing)
	require.Equal(t, []RowFault{{ID: all[2].d.ID, DeviceID: 1001, DataPointID: 1, Time: all[2].d.Time, Differs: true}}, r.Faults)
	require.Equal(t, "writer", r.Missing[0].Stage)
}

// TestAcknowledgedButNeverReceived: claims are a multiset.
func TestAcknowledgedButNeverReceived(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	twice, repeated := newEvent(1, 50), newEvent(1, 50)
	m.pass(twice, repeated)
	bridged := newReading(1, 8)
	m.refuse(stream.StageBridge, "payload_too_large", bridged)
	m.acknowledgeAll()
	between := time.Now()
	later := newReading(1, 9)
	m.pass(later)
	m.acknowledgeAll()
	lost := newReading(1, 99)

	audit := func(readings ...*reading) *Report {
		var claims strings.Builder
		for _, r := range readings {
			claims.WriteString(r.digest() + "\n")
		}
		return m.audit(Options{Until: between, Acknowledged: strings.NewReader(claims.String())})
	}
	r := audit(all[0], all[1], twice, bridged, later, lost)
	require.False(t, r.Balanced())
	require.Equal(t, Acknowledged{Claimed: 6, Received: 4, Elsewhere: 1, NeverReceived: 1, More: 1, Digests: r.Acknowledged.Digests}, r.Acknowledged)
	require.Equal(t, lost.digest(), r.Acknowledged.Digests[0].String())
	require.Zero(t, r.Total.Missing)
	require.Contains(t, text(t, r), "1 message vanished before RAW")
	require.Contains(t, text(t, r), "Received more often than acknowledged: 1 message")
	require.Contains(t, text(t, r), "acknowledged but not found: "+lost.digest())

	r = audit(twice, twice)
	require.True(t, r.Balanced(), "both were received")
	r = audit(twice, twice, twice)
	require.False(t, r.Balanced(), "one message settles one claim")
	require.EqualValues(t, 1, r.Acknowledged.NeverReceived)

	_, err := Audit(t.Context(), m.js, m.db, Options{Acknowledged: strings.NewReader(lost.digest() + "\nnot a digest\n")})
	require.ErrorContains(t, err, "line 2")
}

func TestUnacknowledgedIsPending(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	waiting := newReading(1, 50)
	m.receive(waiting)
	// Its letters come before its DECODED message, and settle nothing yet.
	m.refuse(stream.StageDecoder, "out_of_range", waiting, point(3, 2))
	m.acknowledge(m.decoder, len(all))
	m.acknowledge(m.writer, 6)
	m.exec("DELETE FROM measurement WHERE device_id = 1001 AND datapoint_id = 1 AND time = $1", all[8].d.Time)

	r := m.audit(Options{})
	require.True(t, r.Balanced())
	require.Equal(t, Counts{Received: 11, Decoded: 10, Written: 9, Pending: 2}, r.Total)
	require.EqualValues(t, 1, r.Stages[1].Pending)
	require.EqualValues(t, 1, r.Stages[2].Pending)
	require.EqualValues(t, 1, r.Rows.Pending)
	require.Equal(t, StagePosition{Stream: "DECODED", Consumer: "writer", Exists: true, AckFloor: 6, Delivered: 6, Undelivered: 4}, r.Positions[1])

	// The same, once both have acknowledged.
	m.acknowledgeAll()
	r = m.audit(Options{})
	require.Equal(t, Counts{Received: 11, Decoded: 10, Written: 9, Missing: 2}, r.Total)
}

func TestConsumerThatDoesNotExistHasEverythingPending(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.receive(newReading(1, 0))
	require.NoError(t, m.js.DeleteConsumer(t.Context(), stream.Raw, stream.StageDecoder))
	r := m.audit(Options{})
	require.EqualValues(t, 1, r.Total.Pending)
	require.False(t, r.Positions[0].Exists)
}

func TestOutcomeWithoutMessage(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.fill()
	invented, refused, foreign, earlier := newReading(1, 70), newReading(1, 71), newReading(2, 72), newReading(1, 73)
	invented.d.ID = event.PlaceID(m.incarnation, 100) // after RAW's end
	foreign.d.ID = event.PlaceID(m.incarnation, 1)    // another controller's
	earlier.d.ID, earlier.d.Received = event.PlaceID(1, 1), time.Now().Add(-time.Hour)
	m.decode(invented, foreign, earlier)
	m.refuse(stream.StageDecoder, "unknown_pin", refused) // of no place
	m.write(invented, foreign, earlier)
	broken := invented.decoded()
	broken.Data = []byte(`{"id":`)
	m.store(stream.Decoded, broken)
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Zero(t, r.Total.Missing)
	require.EqualValues(t, 4, r.Unexplained.Total, "that of an earlier RAW is none")
	require.Equal(t, Successor{Stream: "DEAD_LETTER", Sequence: 1}, r.Unexplained.Listed[0])
	require.Contains(t, text(t, r), "4 outcomes on DECODED or DEAD_LETTER without a message on RAW")
}

func TestInterval(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.pass(newReading(1, 0), newReading(1, 1))
	m.refuse(stream.StageBridge, "bad_levels", newReading(1, 0))
	since := time.Now()
	late := newReading(1, 2)
	m.receive(late)
	until := time.Now()
	m.pass(newReading(1, 3))
	m.decode(late) // after the interval's end
	m.write(late)
	m.acknowledgeAll()

	for _, mac := range []topic.MAC{"", macAt(1)} {
		r := m.audit(Options{Since: since, Until: until, MAC: mac})
		require.True(t, r.Balanced(), text(t, r))
		require.Empty(t, r.Limits)
		require.Equal(t, Counts{Received: 1, Decoded: 1, Written: 1}, r.Total)
	}
	for _, o := range []Options{{Since: until, MAC: macAt(2)}, {Since: time.Now()}} {
		r := m.audit(o)
		require.True(t, r.Balanced(), text(t, r))
		require.Zero(t, r.Total)
	}
}

func TestLimitedAuditSaysSo(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	decoded, err := m.js.Stream(t.Context(), stream.Decoded)
	require.NoError(t, err)
	require.NoError(t, decoded.Purge(t.Context(), jetstream.WithPurgeSequence(4))) // as the keeper does

	r := m.audit(Options{})
	require.True(t, r.Balanced(), "what DECODED no longer holds is not claimed to be missing")
	require.Len(t, r.Limits, 1)
	require.Equal(t, "DECODED", r.Limits[0].Stream)
	require.Equal(t, r.Limits[0].From, r.Since)
	require.EqualValues(t, len(all)-4, r.Total.Received)
	require.Contains(t, text(t, r), "The audit is limited: DECODED")

	require.NoError(t, decoded.Purge(t.Context()))
	r = m.audit(Options{})
	require.True(t, r.Balanced())
	require.Zero(t, r.Total, "everything up to the last message that was there is gone")
	m.pass(newReading(1, 40), newReading(1, 41))
	m.acknowledgeAll()
	r = m.audit(Options{})
	require.True(t, r.Balanced())
	require.EqualValues(t, 1, r.Total.Received, "the first was on RAW before DECODED held anything")
}

// A subject's token, and so a reason or a MAC, may hold what a terminal obeys.
func TestReportIsHarmless(t *testing.T) {
	t.Parallel()
	r := &Report{Letters: []LetterCounts{{Stage: "bridge", Reason: "\x1b[2Jred", Messages: 1}}}
	require.NotContains(t, text(t, r), "\x1b")
	require.Contains(t, text(t, r), `"\x1b[2Jred"`)
}

func TestReportAsTextAndJSON(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	m.exec("DELETE FROM measurement WHERE device_id = 1002 AND datapoint_id = 2 AND time = $1", all[5].d.Time)
	r := m.audit(Options{Acknowledged: strings.NewReader(newReading(9, 9).digest())})

	told := text(t, r)
	t.Log("\n" + told)
	first, _, _ := strings.Cut(told, "\n")
	require.Equal(t, "NOT BALANCED: received 10 = written 9 + dead-lettered 0 + copies dropped 0 + retained 0 + pending 0 + missing 1", first)
	require.Contains(t, told, all[5].d.ID.String())

	data, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(data), `"missing":[{"id":"`+all[5].d.ID.String()+`"`)
	var back Report
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, r.Total, back.Total)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.fill()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Audit(ctx, m.js, m.db, Options{})
	require.Error(t, err)
}
