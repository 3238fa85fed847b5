package ledger

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
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
	r := newMesh(t).audit(Options{})
	require.True(t, r.Balanced())
	require.Zero(t, r.Total)
}

func TestBalanced(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	door := newEvent(1, 7)
	m.pass(door)

	// One data point refused, the others written.
	half := newReading(1, 20)
	half.d.Values = half.d.Values[:2]
	m.pass(half)
	m.store(deadletter.Stream, half.letter(decoderStage, "out_of_range", 3))
	// All data points refused, each by a letter of its own.
	truncated := newReading(2, 21)
	m.store(rawStream, truncated.msg)
	m.store(deadletter.Stream, truncated.letter(decoderStage, "out_of_range", 1), truncated.letter(decoderStage, "out_of_range", 2))
	// Refused as a whole by the decoder, and by the writer.
	strange := newReading(2, 22)
	m.store(rawStream, strange.msg)
	m.store(deadletter.Stream, strange.letter(decoderStage, "unknown_pin", 0))
	refused := newReading(2, 23)
	m.store(rawStream, refused.msg)
	m.store(decodedStream, refused.decoded())
	m.store(deadletter.Stream, refused.letter(writerStage, "refused_by_database", 0))
	// Another value at the same moment: one row loses.
	second := newReading(1, 0)
	second.id[3]++
	second.d.ID, second.d.Values[1].Number = second.id, 51
	second.msg.Header[jetstream.MsgIDHeader] = []string{second.id.String()}
	m.pass(second)
	m.store(deadletter.Stream, second.letter(writerStage, "conflicting_value", 2))
	// Decoded twice.
	m.store(decodedStream, all[0].decoded())
	// Refused by the bridge, with and without a MAC.
	wild := newReading(3, 0)
	m.store(deadletter.Stream, wild.letter(bridgeStage, "payload_too_large", 0))
	nobody := newReading(4, 0)
	nobody.mac = ""
	m.store(deadletter.Stream, nobody.letter(bridgeStage, "bad_levels", 0))
	m.acknowledgeAll()

	var seen, of uint64
	r := m.audit(Options{Progress: func(done, total uint64) { seen, of = done, total }})
	require.True(t, r.Balanced())
	require.Equal(t, Counts{Received: 18, Decoded: 14, Written: 13, DeadLettered: 5}, r.Total)
	require.Equal(t, []Stage{
		{Name: "bridge", Received: 18, Passed: 16, DeadLettered: 2},
		{Name: "decoder", Received: 16, Passed: 14, DeadLettered: 2},
		{Name: "writer", Received: 15, Passed: 13, DeadLettered: 1, Duplicates: 1},
	}, r.Stages)
	require.Equal(t, Rows{Expected: 42, Found: 38, Refused: 4}, r.Rows)
	require.Equal(t, []Letters{
		{Stage: "bridge", Reason: "bad_levels", Messages: 1},
		{Stage: "bridge", Reason: "payload_too_large", Messages: 1},
		{Stage: "decoder", Reason: "out_of_range", Messages: 1, Parts: 3, InParts: 1},
		{Stage: "decoder", Reason: "unknown_pin", Messages: 1},
		{Stage: "writer", Reason: "conflicting_value", Parts: 1},
		{Stage: "writer", Reason: "refused_by_database", Messages: 1},
	}, r.Letters)
	require.Equal(t, []Device{
		{MAC: macOf(1), Counts: Counts{Received: 8, Decoded: 8, Written: 8}},
		{MAC: macOf(2), Counts: Counts{Received: 8, Decoded: 6, Written: 5, DeadLettered: 3}},
		{MAC: macOf(3), Counts: Counts{Received: 1, DeadLettered: 1}},
		{MAC: "unknown", Counts: Counts{Received: 1, DeadLettered: 1}},
	}, r.Devices)
	require.Equal(t, of, seen)
	require.EqualValues(t, 16+15+8, seen)

	one := m.audit(Options{MAC: macOf(2)})
	require.True(t, one.Balanced())
	require.Equal(t, r.Devices[1].Counts, one.Total)
}

func TestRowRemovedIsMissing(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	m.exec("DELETE FROM measurement WHERE device_id = 1002 AND datapoint_id = 2 AND time = $1", all[5].d.Time)

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []Missing{{ID: all[5].id, MAC: macOf(2), Stage: "writer", Stream: "DECODED", Sequence: 6}}, r.Missing)
	require.Len(t, r.Faults, 1)
	require.Equal(t, RowFault{ID: all[5].id, DeviceID: 1002, DataPointID: 2, Time: all[5].d.Time}, r.Faults[0])
	require.Equal(t, Rows{Expected: 30, Found: 29, Absent: 1}, r.Rows)
	require.Equal(t, Counts{Received: 5, Decoded: 5, Written: 4, Missing: 1}, r.Devices[1].Counts)
	require.Zero(t, r.Devices[0].Missing)
}

func TestEventRemovedOrChangedIsMissing(t *testing.T) {
	m := newMesh(t)
	gone, changed, kept := newEvent(1, 0), newEvent(1, 1), newEvent(2, 2)
	m.pass(gone, changed, kept)
	m.acknowledgeAll()
	m.exec("DELETE FROM device_event WHERE event_id = $1::text::uuid", gone.id.String())
	m.exec(`UPDATE device_event SET state = '{"door-sensor-2":1.5}' WHERE event_id = $1::text::uuid`, changed.id.String())

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, Rows{Expected: 3, Found: 1, Absent: 1, Differing: 1}, r.Rows)
	require.Equal(t, Counts{Received: 3, Decoded: 3, Written: 1, Missing: 2}, r.Total)
}

func TestDecodedRemovedIsMissingAtDecoder(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	decoded, err := m.js.Stream(t.Context(), decodedStream)
	require.NoError(t, err)
	require.NoError(t, decoded.DeleteMsg(t.Context(), 4))

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Equal(t, []Missing{{ID: all[3].id, MAC: macOf(2), Stage: "decoder", Stream: "RAW", Sequence: 4}}, r.Missing)
	require.EqualValues(t, 1, r.Stages[1].Missing)
}

func TestPartialLetterDoesNotHideLostDecoded(t *testing.T) {
	m := newMesh(t)
	lost, whole := newReading(1, 0), newReading(1, 1)
	m.store(rawStream, lost.msg, whole.msg)
	for r, decoded := range map[*reading]string{lost: "2", whole: "0"} {
		l := r.letter(decoderStage, "out_of_range", 3)
		l.Header[deadletter.HeaderDecoded] = []string{decoded}
		m.store(deadletter.Stream, l)
	}
	m.acknowledgeAll()

	r := m.audit(Options{})
	require.Equal(t, Counts{Received: 2, DeadLettered: 1, Missing: 1}, r.Total)
	require.Equal(t, lost.id, r.Missing[0].ID)
	require.Equal(t, []Letters{{Stage: "decoder", Reason: "out_of_range", Messages: 1, Parts: 2}}, r.Letters)
}

func TestValueChangedIsReported(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	text := newReading(1, 30)
	word := "A-17\x00"
	text.d.Values[2].Text = &word
	m.store(rawStream, text.msg)
	m.store(decodedStream, text.decoded())
	m.store(deadletter.Stream, text.letter(writerStage, "refused_by_database", 0)) // PostgreSQL has no NUL
	m.acknowledgeAll()
	m.exec("UPDATE measurement SET value = value + 1e-9 WHERE device_id = 1001 AND datapoint_id = 1 AND time = $1", all[2].d.Time)

	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.EqualValues(t, 1, r.Rows.Differing)
	require.Equal(t, []RowFault{{ID: all[2].id, DeviceID: 1001, DataPointID: 1, Time: all[2].d.Time, Differs: true}}, r.Faults)
	require.Equal(t, "writer", r.Missing[0].Stage)
}

func TestAcknowledgedButNeverReceived(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	bridged := newReading(1, 8)
	m.store(deadletter.Stream, bridged.letter(bridgeStage, "payload_too_large", 0))
	m.acknowledgeAll()
	between := time.Now()
	later := newReading(1, 9)
	m.pass(later)
	m.acknowledgeAll()
	lost := newReading(1, 99)

	var claims strings.Builder
	for _, id := range []event.ID{all[0].id, all[1].id, all[0].id, bridged.id, later.id, lost.id} {
		claims.WriteString(id.String() + "\n")
	}
	r := m.audit(Options{Until: between, Acknowledged: strings.NewReader(claims.String())})
	require.False(t, r.Balanced())
	require.Equal(t, Acknowledged{Claimed: 5, Received: 3, Elsewhere: 1, NeverReceived: 1, IDs: []event.ID{lost.id}}, r.Acknowledged)
	require.Zero(t, r.Total.Missing)

	_, err := Audit(t.Context(), m.js, m.db, Options{Acknowledged: strings.NewReader(all[0].id.String() + "\nnot an id\n")})
	require.ErrorContains(t, err, "line 2")
}

func TestUnacknowledgedIsPending(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	waiting := newReading(1, 50)
	m.store(rawStream, waiting.msg)
	// Its letters come before its DECODED message, and settle nothing yet.
	m.store(deadletter.Stream, waiting.letter(decoderStage, "out_of_range", 3))
	m.acknowledge(m.decoder, len(all))
	m.acknowledge(m.writer, 6)
	m.exec("DELETE FROM measurement WHERE device_id = 1001 AND datapoint_id = 1 AND time = $1", all[8].d.Time)

	r := m.audit(Options{})
	require.True(t, r.Balanced())
	require.Equal(t, Counts{Received: 11, Decoded: 10, Written: 9, Pending: 2}, r.Total)
	require.EqualValues(t, 1, r.Stages[1].Pending)
	require.EqualValues(t, 1, r.Stages[2].Pending)
	require.EqualValues(t, 1, r.Rows.Pending)
	require.Equal(t, Position{Stream: "DECODED", Consumer: "writer", Exists: true, AckFloor: 6, Delivered: 6, Undelivered: 4}, r.Positions[1])

	// The same, once both have acknowledged.
	m.acknowledgeAll()
	r = m.audit(Options{})
	require.Equal(t, Counts{Received: 11, Decoded: 10, Written: 9, DeadLettered: 1, Missing: 1}, r.Total)
}

func TestConsumerThatDoesNotExistHasEverythingPending(t *testing.T) {
	m := newMesh(t)
	m.store(rawStream, newReading(1, 0).msg)
	require.NoError(t, m.js.DeleteConsumer(t.Context(), rawStream, decoderStage))
	r := m.audit(Options{})
	require.EqualValues(t, 1, r.Total.Pending)
	require.False(t, r.Positions[0].Exists)
}

func TestReceivedTwiceIsDuplicate(t *testing.T) {
	m := newMesh(t)
	r1 := newReading(1, 0)
	m.pass(r1)
	raw, err := m.js.Stream(t.Context(), rawStream)
	require.NoError(t, err)
	short := raw.CachedInfo().Config
	short.Duplicates = 100 * time.Millisecond // as if the window had passed
	_, err = m.js.UpdateStream(t.Context(), short)
	require.NoError(t, err)
	// The server forgets ids when a timer of its own says so, some time after the window.
	state, err := raw.Info(t.Context())
	require.NoError(t, err)
	stored := state.State.LastSeq
	require.Eventually(t, func() bool {
		m.store(rawStream, r1.msg)
		state, err := raw.Info(t.Context())
		return err == nil && state.State.LastSeq > stored
	}, time.Minute, 50*time.Millisecond)
	m.store(decodedStream, r1.decoded())
	m.acknowledgeAll()

	r := m.audit(Options{})
	require.True(t, r.Balanced())
	require.Equal(t, Counts{Received: 2, Decoded: 1, Written: 1, Duplicates: 1}, r.Total)
	require.Equal(t, Stage{Name: "writer", Received: 2, Passed: 1, Duplicates: 1}, r.Stages[2])
}

func TestMessageByHandHasTheDecodersID(t *testing.T) {
	m := newMesh(t)
	r1 := newReading(1, 0)
	delete(r1.msg.Header, jetstream.MsgIDHeader)
	m.pass(r1)
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.True(t, r.Balanced())
	require.EqualValues(t, 1, r.Total.Written)
}

func TestOutcomeWithoutMessage(t *testing.T) {
	m := newMesh(t)
	m.fill()
	invented, refused := newReading(1, 70), newReading(1, 71)
	m.store(decodedStream, invented.decoded())
	m.store(deadletter.Stream, refused.letter(decoderStage, "unknown_pin", 0))
	m.write(invented)
	broken := invented.decoded()
	broken.Data = []byte(`{"id":`)
	m.store(decodedStream, broken)
	m.acknowledgeAll()
	r := m.audit(Options{})
	require.False(t, r.Balanced())
	require.Zero(t, r.Total.Missing)
	require.EqualValues(t, 3, r.Unexplained.Total)
	require.Equal(t, Outcome{ID: refused.id, Stream: "DEAD_LETTER", Sequence: 1}, r.Unexplained.Listed[0])
}

func TestInterval(t *testing.T) {
	m := newMesh(t)
	m.pass(newReading(1, 0), newReading(1, 1))
	time.Sleep(10 * time.Millisecond)
	since := time.Now()
	late := newReading(1, 2)
	m.store(rawStream, late.msg)
	time.Sleep(10 * time.Millisecond)
	until := time.Now()
	m.pass(newReading(1, 3))
	m.store(decodedStream, late.decoded()) // after the interval's end
	m.write(late)
	m.acknowledgeAll()

	r := m.audit(Options{Since: since, Until: until})
	require.True(t, r.Balanced())
	require.Empty(t, r.Limits)
	require.Equal(t, Counts{Received: 1, Decoded: 1, Written: 1}, r.Total)
}

func TestLimitedProofSaysSo(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	decoded, err := m.js.Stream(t.Context(), decodedStream)
	require.NoError(t, err)
	require.NoError(t, decoded.Purge(t.Context(), jetstream.WithPurgeSequence(4))) // as age does

	r := m.audit(Options{})
	require.True(t, r.Balanced(), "what DECODED no longer holds is not claimed to be missing")
	require.Len(t, r.Limits, 1)
	require.Equal(t, "DECODED", r.Limits[0].Stream)
	require.Equal(t, r.Limits[0].From, r.Since)
	require.EqualValues(t, len(all)-4, r.Total.Received)

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
	r := &Report{Letters: []Letters{{Stage: "bridge", Reason: "\x1b[2Jred", Messages: 1}}}
	var text strings.Builder
	_, err := r.WriteTo(&text)
	require.NoError(t, err)
	require.NotContains(t, text.String(), "\x1b")
	require.Contains(t, text.String(), `"\x1b[2Jred"`)
}

func TestReportAsTextAndJSON(t *testing.T) {
	m := newMesh(t)
	all := m.fill()
	m.acknowledgeAll()
	m.exec("DELETE FROM measurement WHERE device_id = 1002 AND datapoint_id = 2 AND time = $1", all[5].d.Time)
	lost := newReading(9, 9)
	r := m.audit(Options{Acknowledged: strings.NewReader(lost.id.String())})

	var text strings.Builder
	n, err := r.WriteTo(&text)
	require.NoError(t, err)
	require.EqualValues(t, text.Len(), n)
	t.Log("\n" + text.String())
	first, _, _ := strings.Cut(text.String(), "\n")
	require.Equal(t, "NOT BALANCED: received 10 = written 9 + dead-lettered 0 + duplicates 0 + pending 0 + missing 1", first)
	require.Contains(t, text.String(), all[5].id.String())
	require.Contains(t, text.String(), "never received: "+lost.id.String())

	data, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(data), `"missing":[{"id":"`+all[5].id.String()+`"`)
	var back Report
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, r.Total, back.Total)
}

func TestCancelled(t *testing.T) {
	m := newMesh(t)
	m.fill()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Audit(ctx, m.js, m.db, Options{})
	require.Error(t, err)
}
